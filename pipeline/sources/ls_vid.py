"""LS-VID (Li et al., ICCV 2019): lists of tracklets, and the rows of the test list that are queries, an HDF5 file."""

from __future__ import annotations

import io
import json
import re
import resource
import subprocess
import sys
from bisect import bisect_left
from dataclasses import replace
from pathlib import Path

from ..errors import SourceError, SurroundingsError
from ..index import Reading, SourceTracklet
from .reading import DAMAGE, first_line, list_folder, open_source, read_at_most, require_root

LISTS = {"train": "list_sequence/list_seq_train.txt", "gallery": "list_sequence/list_seq_test.txt"}
QUERY_FILE = "test/data/info_test.mat"
LIST_LINE = re.compile(r"((?:[\w-][\w.-]*/)+[\w-][\w.-]*)[ \t]+(\d{1,9})", re.ASCII)  # never out of the root
FRAME_NAME = re.compile(r"[^_]+_[^_]+_(\d{1,9})_[^_]+\.(?:jpg|png)", re.IGNORECASE)
MAX_BYTES = 64 << 20  # of a list, and of QUERY_FILE, which has less than 1 MB
MAX_QUERIES = 1_000_000
SECONDS, MEMORY = 10, 1 << 30  # of CPU time, and bytes beyond what the child begins with
REFUSED = 3  # exit code of a child that found the file broken


def read(root: Path) -> Reading:
    """Read the lists of training and test tracklets, and find their frames.

    A line of a list is the start of the path of a tracklet's frames, and its identity; its frames are the images whose
    names go on with "_", in the order of their names. The third of a name's four fields is the camera. The queries are
    the rows of the test list that info_test.mat names, the other test tracklets are the gallery. There are no
    distractors: where the lists count identities from 0, all numbers are one higher here. Validation tracklets
    (list_seq_val.txt) are not read.
    """
    require_root(root, [*LISTS.values(), QUERY_FILE], "LS-VID")
    rows = {split: _read_list(root / name) for split, name in LISTS.items()}
    queries = _read_queries(root / QUERY_FILE, len(rows["gallery"]))
    shift = int(any(identity == 0 for split in rows.values() for _, identity in split))
    tracklets, missing = [], []
    folders: dict[str, list[str]] = {}
    for split, pairs in rows.items():
        for row, (prefix, identity) in enumerate(pairs, start=1):
            paths = _frames(root, prefix, folders)
            if not paths:
                missing.append(f"{prefix}_* (no frames)")
                continue
            tracklet = SourceTracklet(
                split, identity + shift, _camera(paths), paths, name=prefix, identity_name=str(identity)
            )
            is_query = split == "gallery" and row in queries
            tracklets.append(replace(tracklet, split="query") if is_query else tracklet)
    return Reading("ls-vid", root, tuple(tracklets), tuple(missing))


def _read_list(path: Path) -> list[tuple[str, int]]:
    """Start of the paths, and identity, of each tracklet."""
    with open_source(path, "UTF-8 text with the start of the frames' paths and an identity in each line") as file:
        lines = read_at_most(file, MAX_BYTES).decode().splitlines()
    rows: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        match = LIST_LINE.fullmatch(line.strip())
        if match is None or len(line) > 200 or match[1] in rows:
            raise SourceError(
                f"line {number} of {path} is {line[:80]!r}",
                'such as "tracklet_train/0017/0017_000001_05 17", each tracklet once',
                "copy the file again",
            )
        rows[match[1]] = int(match[2])
    return list(rows.items())


def _frames(root: Path, prefix: str, folders: dict[str, list[str]]) -> tuple[str, ...]:
    """Paths of a tracklet's images; `folders` keeps the sorted names of each folder."""
    folder, _, start = prefix.rpartition("/")
    if folder not in folders:
        folders[folder] = sorted(list_folder(root / folder)[1]) if (root / folder).is_dir() else []
    names = folders[folder]
    first, last = bisect_left(names, f"{start}_"), bisect_left(names, f"{start}`")  # "`" is next to "_"
    return tuple(f"{folder}/{name}" for name in names[first:last] if name.lower().endswith((".jpg", ".png")))


def _camera(paths: tuple[str, ...]) -> int:
    cameras = set()
    for path in paths:
        match = FRAME_NAME.fullmatch(path.rpartition("/")[2])
        if match is None:
            raise SourceError(f"a frame {path}", "a name of four fields, identity_track_camera_frame.jpg", "remove it")
        cameras.add(int(match[1]))
    if len(cameras) > 1:
        found = f"the frames from {paths[0]} to {paths[-1]} are of cameras {sorted(cameras)[:5]}"
        raise SourceError(found, "one camera, the third field of the names", "copy list_sequence again")
    return cameras.pop()


def _read_queries(path: Path, num_tests: int) -> set[int]:
    """1-based rows of the test list."""
    with open_source(path, "a file of MATLAB 7.3 (HDF5), query in it a table of whole numbers") as file:
        numbers = _read_hdf5(path, read_at_most(file, MAX_BYTES))
    for number in numbers:
        if not 1 <= number <= num_tests or number != int(number):
            raise SourceError(
                f"{path} names test tracklet {number:g}",
                f"1 to {num_tests}",
                "it belongs to another copy: copy it again",
            )
    if len(set(numbers)) < len(numbers):
        raise SourceError(f"{path} names a test tracklet twice", "each query once", "copy it again")
    return set(map(int, numbers))


def _read_hdf5(path: Path, content: bytes) -> list[float]:
    """The numbers of `query`, read in a child process: the library may crash, or never end, at a broken file."""
    if b"\x89HDF\r\n\x1a\n" not in (content[:8], content[512:520]):  # MATLAB puts 512 bytes of its own before
        raise ValueError("it does not begin as such a file")
    done = subprocess.run([sys.executable, "-m", __name__], input=content, capture_output=True, check=False)
    last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    if done.returncode == REFUSED:
        raise ValueError(last)
    if done.returncode in (-4, -6, -7, -8, -11, -24):  # SIGILL, ABRT, BUS, FPE, SEGV; XCPU, the limit of time
        raise ValueError(f"its reader ended with signal {-done.returncode}")
    if done.returncode:
        found = f"the process that reads {path} ended with code {done.returncode} ({last[:200]})"
        raise SurroundingsError(found, "", "try again with more memory")
    return json.loads(done.stdout)


def _child() -> None:
    """Standard input: the file; standard output: the numbers, as JSON."""
    import h5py

    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with h5py.File(io.BytesIO(sys.stdin.buffer.read()), "r") as file:
            link = file.get("query", getlink=True)
            if not isinstance(link, h5py.HardLink) or not isinstance(file["query"], h5py.Dataset):
                raise ValueError("it holds no variable query")
            table = file["query"]
            kind, elsewhere = table.dtype.kind, table.external or table.is_virtual
            if kind not in "iuf" or elsewhere or len(table.shape) != 2 or not 1 <= table.size <= MAX_QUERIES:
                raise ValueError(f"query is {table.dtype} of shape {table.shape}")
            numbers = table[()].ravel().astype(float).tolist()
    except (*DAMAGE, RuntimeError) as error:
        sys.stderr.write(first_line(error))
        sys.exit(REFUSED)
    json.dump(numbers, sys.stdout)


if __name__ == "__main__":
    _child()

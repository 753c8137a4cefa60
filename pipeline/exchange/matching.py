"""Foreign people matched with the frames of a dataset, and laid out shard by shard in a folder of temporary files."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ..commit import read_json, write_json
from ..environment import progress_bar
from ..errors import FormatError, SourceError
from ..images import UnreadableImage
from ..manifest import read_shard_frames, shard_sizes
from ..pose.selection import Person
from ..skeleton import JOINTS, NUM_JOINTS
from .formats import SourceEntry

RECORD = np.dtype([("row", "<i4"), ("score", "<f4"), ("keypoints", "<f4", (NUM_JOINTS, 3))])  # row: frame in its shard
BUFFERED_PEOPLE = 32_768  # 7 MB of records
SAMPLED_PEOPLE = 1024  # whose units are checked before anything is written

FAR_OUTSIDE = 0.10  # of the frame's width or height; networks do place joints a little outside
TOLERATED = 0.03  # share of the joints that may be farther
NORMALISED = 2.0  # pixels; a person is larger
ABSOLUTE, COMPLETE, ENDING = range(3)  # kinds of names: a path with its root, a path, the last parts of one
EXPECTED = "pixels of the frame, origin at its top left, x before y"


class FrameNames:
    """Frames by path. A name fits a frame where one is the end of the other, folder by folder.

    Kept are 64-bit hashes of all names that a frame may have: 16 bytes for each.

    Args:
        prepared: the dataset; the row of a frame is its position among all frames, shard by shard. A path may occur
            twice, in two tracklets.
        with_suffix: whether names come with the suffix of the image, such as ".jpg".
    """

    def __init__(self, prepared: Path, *, with_suffix: bool = True) -> None:
        self._prepared, sizes = prepared, shard_sizes(prepared)
        self.shards = np.array(sorted(sizes), np.int64)
        self.starts = np.cumsum([0, *(sizes[shard] for shard in self.shards.tolist())])  # (S + 1,), first rows
        self._depth = 0  # folders and file name of the longest path
        files, hashes, counts = array("q"), array("q"), array("q")
        for shard in self.shards.tolist():
            frames = read_shard_frames(prepared, shard)
            root = frames.root.as_posix().strip("/")
            for path in frames.paths:
                name = path if with_suffix else str(PurePosixPath(path).with_suffix(""))
                parts = name.split("/")
                names = [(ABSOLUTE, f"{root}/{name}"), (COMPLETE, name)]
                names += [(ENDING, "/".join(parts[start:])) for start in range(1, len(parts))]
                files.append(hash((root, path)))
                hashes.extend(map(hash, names))
                counts.append(len(names))
                self._depth = max(self._depth, len(parts))
        self._files = np.array(files, np.int64)  # equal where rows are the same file
        keys = np.array(hashes, np.int64)
        order = np.argsort(keys, kind="stable")
        self._hashes = keys[order]
        self._rows = np.repeat(np.arange(len(files)), np.array(counts, np.int64))[order]

    def rows(self, name: str) -> np.ndarray:
        """Rows of the frame that `name` means; none where nothing fits.

        Raises:
            SourceError: several frames fit.
        """
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        full = "/".join(parts)
        ends = ["/".join(parts[start:]) for start in range(max(0, len(parts) - self._depth), len(parts))]
        for key in (*((COMPLETE, end) for end in ends), (ENDING, full)):  # the longest end that is a path
            found = self._look_up(*key)
            if len(found):
                break
        others = found[self._files[found] != self._files[found[:1]]]
        if not len(others):
            return found
        exact = self._look_up(ABSOLUTE, full)  # generations with different roots may have paths in common
        if not len(exact):
            raise SourceError(
                f"{name} fits several frames, such as {self.path(found[0])} and {self.path(others[0])}",
                "a name that fits one frame",
                "give paths relative to the frames' folder, in a format that has the frames' suffixes",
            )
        return exact

    def _look_up(self, kind: int, name: str) -> np.ndarray:
        start, end = (np.searchsorted(self._hashes, hash((kind, name)), side=side) for side in ("left", "right"))
        return self._rows[start:end]

    def path(self, row: int) -> str:
        """Path of a frame."""
        return self.frames(np.array([row]))[int(row)][1]

    def frames(self, rows: np.ndarray) -> dict[int, tuple[int, str]]:
        """Generation and path of some frames; each shard's table is read once."""
        found = {}
        positions = np.searchsorted(self.starts, rows, side="right") - 1
        for at in np.unique(positions).tolist():
            frames = read_shard_frames(self._prepared, int(self.shards[at]))
            paths = frames.paths
            for row in rows[positions == at].tolist():
                found[row] = frames.generation, paths[row - self.starts[at]]
        return found


@dataclass(frozen=True)
class Match:
    """What matching found out.

    Attributes:
        num_without_entry: frames of which the source does not speak.
        num_several: frames with several people.
        unmatched: names of entries that match no frame, each once, in order.
        rows, keypoints, claimed: a sample of the people: int64 (N,) their frames, float32 (N, 17, 3), and int32 (N, 2)
            sizes of the frames as the source says, 0 where it is silent.
    """

    num_without_entry: int
    num_several: int
    unmatched: tuple[str, ...]
    rows: np.ndarray
    keypoints: np.ndarray
    claimed: np.ndarray


def spool_people(names: FrameNames, entries: Iterable[SourceEntry], folder: Path) -> Match:
    """Read a source once and lay its people out in one file per shard; memory holds some bytes per frame.

    A person without any joint does not count; one who is named twice with the same numbers counts once.

    Raises:
        SourceError: an entry fits several frames, two names fit one frame, or no entry fits any.
    """
    named = np.zeros(int(names.starts[-1]), np.int64)  # hash of the name that spoke of a frame; 0 where none did
    sizes = np.zeros((len(named), 2), np.int32)
    unmatched: dict[str, None] = {}
    buffer: list[tuple[int, Person]] = []
    with progress_bar(None, "read", "entries") as bar:
        for entry in entries:
            bar.update()
            rows = names.rows(entry.name)
            if not len(rows):
                unmatched[entry.name] = None
                continue
            if entry.size:
                sizes[rows] = entry.size
            if entry.people is None:
                continue
            name = hash(entry.name) or 1
            if named[rows[0]] not in (0, name):
                found = f"{entry.name} and an earlier name of the source both mean frame {names.path(rows[0])}"
                raise SourceError(found, "one name per frame", "leave one of them out")
            named[rows] = name
            buffer += [(row, person) for person in entry.people if person.keypoints.any() for row in rows.tolist()]
            if len(buffer) >= BUFFERED_PEOPLE:
                _append(folder, names, buffer)
                buffer.clear()
    if not named.any():
        raise SourceError(
            f"no entry matches a frame: the source has {next(iter(unmatched), 'no entries')}",
            f"paths such as {names.path(0)}, or their last parts",
            "check that SOURCE belongs to this dataset; docs/keypoints.md says how names are matched",
        )
    _append(folder, names, buffer)
    people, sample, several = {}, [], 0
    per_shard = -(-SAMPLED_PEOPLE // len(names.shards))
    for start, shard in zip(names.starts.tolist(), names.shards.tolist(), strict=False):
        path = _spool_path(folder, shard)
        if path.exists():
            records = np.unique(np.fromfile(path, f"V{RECORD.itemsize}")).view(RECORD)
            records.tofile(path)
            people[shard] = len(records)
            several += int((np.unique(records["row"], return_counts=True)[1] > 1).sum())
            picked = records[np.linspace(0, len(records) - 1, min(per_shard, len(records))).astype(int)]
            sample += [(start + record["row"], record["keypoints"]) for record in picked]
    write_json(folder / "people.json", {"people": people, "num_several": several})
    sampled = np.array([row for row, _ in sample], np.int64)
    keypoints = np.array([points for _, points in sample], np.float32).reshape(-1, NUM_JOINTS, 3)
    return Match(int((named == 0).sum()), several, tuple(unmatched), sampled, keypoints, sizes[sampled])


def _append(folder: Path, names: FrameNames, people: Sequence[tuple[int, Person]]) -> None:
    """Append people to the files of their frames' shards."""
    rows = np.array([row for row, _ in people], np.int64)
    shards = np.searchsorted(names.starts, rows, side="right") - 1
    records = np.zeros(len(people), RECORD)
    records["row"] = rows - names.starts[shards]
    records["score"] = [person.score for _, person in people]
    records["keypoints"] = np.array([person.keypoints for _, person in people]).reshape(-1, NUM_JOINTS, 3)
    for at in np.unique(shards):
        with open(_spool_path(folder, names.shards[at]), "ab") as file:
            file.write(records[shards == at].tobytes())


def _spool_path(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05d}.people"


def read_spool(folder: Path, shard: int) -> tuple[dict[int, list[Person]], int]:
    """The people of each frame of a shard that has any, and the number of frames in the source with several people.

    Raises:
        FormatError: not as spool_people left it.
    """
    facts = read_json(folder / "people.json")
    count, path = facts["people"].get(str(shard), 0), _spool_path(folder, shard)
    records = np.fromfile(path, RECORD) if count else np.zeros(0, RECORD)
    if len(records) != count:
        raise FormatError(f"{path} has {len(records):,} people", f"{count:,}", "run import-keypoints again")
    people: dict[int, list[Person]] = {}
    for record in records:
        people.setdefault(int(record["row"]), []).append(Person(float(record["score"]), record["keypoints"]))
    return people, facts["num_several"]


def check_units(match: Match, names: FrameNames, frame_size: Callable[[int, str], tuple[int, int]]) -> None:
    """Refuse coordinates that cannot be pixels of their frames. A wrong unit would not fail anywhere: it would train
    on nonsense.

    Args:
        match: its sample is looked at; joints of confidence 0 do not count.
        names: of the frames.
        frame_size: generation and path of a frame -> its width and height.
    """
    frames, known = names.frames(np.unique(match.rows)), {}
    for row, (generation, path) in frames.items():
        with suppress(UnreadableImage, SourceError, OSError):  # the worker of its shard says why
            known[row] = frame_size(generation, path)
    kept = np.isin(match.rows, list(known))
    if not kept.any():
        return
    rows, keypoints, claimed = match.rows[kept].tolist(), match.keypoints[kept], match.claimed[kept]
    sizes = np.array([known[row] for row in rows])
    named = [f"{frames[row][1]}, which is {known[row][0]}x{known[row][1]}" for row in rows]
    other = (claimed != sizes).any(1) & claimed.any(1)
    if other.any():
        at = int(other.argmax())
        found = f"the source has {claimed[at][0]}x{claimed[at][1]} pixels for {named[at]}"
        raise SourceError(found, "the frame's size", "scale coordinates and sizes to the frames")
    used, positions = keypoints[..., 2] > 0, keypoints[..., :2]
    if used.sum() >= NUM_JOINTS and np.abs(positions[used]).max() <= NORMALISED < sizes.min() / 4:
        found = f"all coordinates lie between {positions[used].min():.3g} and {positions[used].max():.3g}"
        remedy = "they are probably normalised to 0..1: multiply x by the frame's width and y by its height"
        raise SourceError(found, EXPECTED, remedy)
    relative = positions / sizes[:, None]
    far = used & ((relative < -FAR_OUTSIDE) | (relative > 1 + FAR_OUTSIDE)).any(-1)
    if far.sum() > TOLERATED * used.sum():
        at, joint = np.argwhere(far)[0]
        x, y = positions[at, joint]
        found = f"{far.sum():,} of {used.sum():,} joints lie far outside their frames, such as {JOINTS[joint]} at "
        remedy = "shift or scale them: they may be of the complete picture, of a frame of another size, or y before x"
        raise SourceError(f"{found}({x:.1f}, {y:.1f}) of {named[at]}", EXPECTED, remedy)

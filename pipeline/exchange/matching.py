"""Foreign people matched with the frames of a dataset, and laid out shard by shard in a folder of temporary files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ..commit import read_json, write_json
from ..environment import progress_bar
from ..errors import FormatError, SourceError
from ..manifest import read_shard_frames, shard_sizes
from ..skeleton import JOINTS, NUM_JOINTS
from .formats import SourceEntry, SourcePerson

RECORD = np.dtype([("row", "<i4"), ("score", "<f4"), ("keypoints", "<f4", (NUM_JOINTS, 3))])  # row: frame in its shard
BUFFERED_PEOPLE = 32_768  # 7 MB of records
SAMPLED_PEOPLE = 1024  # whose units are checked before anything is written

FAR_OUTSIDE = 0.10  # of the frame's width or height; networks do place joints a little outside
TOLERATED = 0.03  # share of the joints that may be farther
NORMALISED = 2.0  # pixels; a person is larger
ABSOLUTE = -1  # in place of a number of parts: the path with its root
EXPECTED = "pixels of the frame, origin at its top left, x before y"


class FrameNames:
    """Frames by path. A name fits a frame where one is the end of the other, folder by folder.

    Paths are kept as 64-bit hashes, 16 bytes a frame and as much for each number of folders that shorter names have.

    Args:
        prepared: the dataset; the row of a frame is its position among all frames, shard by shard. A path may occur
            twice, in two tracklets.
        with_suffix: whether names come with the suffix of the image, such as ".jpg".
    """

    def __init__(self, prepared: Path, *, with_suffix: bool = True) -> None:
        self._prepared, self._with_suffix = prepared, with_suffix
        sizes = shard_sizes(prepared)
        self.shards = np.array(sorted(sizes), np.int64)
        self.starts = np.cumsum([0, *(sizes[shard] for shard in self.shards.tolist())])  # (S + 1,), first rows
        self._frames = np.zeros(self.starts[-1], np.int64)  # equal where rows are the same file
        self._depth = 0  # folders and file name of the longest path
        self._endings: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # number of parts -> sorted hashes, their rows
        self._index(0)

    def rows(self, name: str) -> np.ndarray:
        """Rows of the frame that `name` means; none where nothing fits.

        Raises:
            SourceError: several frames fit.
        """
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        found = np.zeros(0, np.int64)
        for start in range(max(0, len(parts) - self._depth), len(parts)):  # the longest end that is a path
            found = self._look_up(0, parts[start:])
            if len(found):
                break
        if not len(found) and len(parts) < self._depth:
            found = self._look_up(len(parts), parts)
        others = found[self._frames[found] != self._frames[found[:1]]]
        if not len(others):
            return found
        exact = self._look_up(ABSOLUTE, parts)  # generations with different roots may have paths in common
        if not len(exact):
            raise SourceError(
                f"{name} fits {len(np.unique(self._frames[found])):,} frames, such as {self.path(found[0])} and "
                f"{self.path(others[0])}",
                "a name that fits one frame",
                "give paths relative to the frames' folder, in a format that has the frames' suffixes",
            )
        return exact

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

    def _look_up(self, num_parts: int, parts: list[str]) -> np.ndarray:
        if num_parts not in self._endings:
            self._index(num_parts)
        hashes, rows = self._endings[num_parts]
        key = hash("/".join(parts))
        return rows[np.searchsorted(hashes, key) : np.searchsorted(hashes, key, side="right")]

    def _index(self, num_parts: int) -> None:
        """Hash the last parts of all longer paths; 0: the complete paths; ABSOLUTE: those with their root."""
        hashes = np.zeros(len(self._frames), np.int64)
        usable = np.zeros(len(self._frames), bool)
        row = 0
        for shard in self.shards.tolist():
            frames = read_shard_frames(self._prepared, shard)
            for path in frames.paths:
                self._depth = max(self._depth, 1 + path.count("/"))
                parts = (path if self._with_suffix else str(PurePosixPath(path).with_suffix(""))).split("/")
                self._frames[row] = hash((frames.root, path))
                if num_parts == ABSOLUTE:
                    parts = [*frames.root.parts[1:], *path.split("/")]
                usable[row] = num_parts <= 0 or len(parts) > num_parts
                hashes[row] = hash("/".join(parts[-num_parts:] if num_parts > 0 else parts))
                row += 1
        rows = np.flatnonzero(usable)
        rows = rows[np.argsort(hashes[rows], kind="stable")]
        self._endings[num_parts] = hashes[rows], rows


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

    A person without any joint is nobody. A person who is named twice with the same numbers counts once.

    Raises:
        SourceError: an entry fits several frames, two names fit one frame, or no entry fits any.
    """
    count = int(names.starts[-1])
    named = np.zeros(count, np.int64)  # hash of the name that spoke of a frame; 0 where none did
    first = np.zeros(count, np.int64)  # hash of the first person in a frame; 0 where there is none
    several = np.zeros(count, bool)
    sizes = np.zeros((count, 2), np.int32)
    unmatched: dict[str, None] = {}
    written: Counter[str] = Counter()  # people by shard
    buffer: list[tuple[int, SourcePerson]] = []
    sample: list[tuple[int, np.ndarray]] = []
    step, seen = 1, 0
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
                raise SourceError(
                    f"{entry.name} and an earlier name of the source both mean frame {names.path(rows[0])}",
                    "one name per frame",
                    "leave one of them out",
                )
            named[rows] = name
            for person in entry.people:
                key = hash((person.score, person.keypoints.tobytes())) or 1
                if not person.keypoints.any() or first[rows[0]] == key:
                    continue
                several[rows] |= first[rows] != 0
                first[rows] = np.where(first[rows], first[rows], key)
                buffer += [(row, person) for row in rows.tolist()]
                if len(buffer) >= BUFFERED_PEOPLE:
                    written += _append(folder, names, buffer)
                    buffer.clear()
                if seen % step == 0:
                    sample.append((int(rows[0]), person.keypoints))
                    if len(sample) > SAMPLED_PEOPLE:  # keep every other one, and from now on half as many
                        sample, step = sample[::2], 2 * step
                seen += 1
    if not named.any():
        raise SourceError(
            f"no entry matches a frame: the source has {next(iter(unmatched), 'no entries')}",
            f"paths such as {names.path(0)}, or their last parts",
            "check that SOURCE belongs to this dataset; docs/keypoints.md says how names are matched",
        )
    written += _append(folder, names, buffer)
    write_json(folder / "people.json", {"people": written, "num_several": int(several.sum())})
    sampled = np.array([row for row, _ in sample], np.int64)
    keypoints = np.array([points for _, points in sample], np.float32).reshape(-1, NUM_JOINTS, 3)
    return Match(int((named == 0).sum()), int(several.sum()), tuple(unmatched), sampled, keypoints, sizes[sampled])


def _append(folder: Path, names: FrameNames, people: Sequence[tuple[int, SourcePerson]]) -> Counter[str]:
    """Append people to the files of their frames' shards; returns how many went to which."""
    rows = np.array([row for row, _ in people], np.int64)
    shards = np.searchsorted(names.starts, rows, side="right") - 1
    records = np.zeros(len(people), RECORD)
    records["row"] = rows - names.starts[shards]
    records["score"] = [person.score for _, person in people]
    records["keypoints"] = np.array([person.keypoints for _, person in people]).reshape(-1, NUM_JOINTS, 3)
    for at in np.unique(shards):
        with open(_spool_path(folder, names.shards[at]), "ab") as file:
            file.write(records[shards == at].tobytes())
    return Counter(str(shard) for shard in names.shards[shards])


def _spool_path(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05d}.people"


def read_spool(folder: Path, shard: int) -> tuple[dict[int, list[SourcePerson]], int]:
    """The people of each frame of a shard that has any, and the number of frames in the source with several people.

    Raises:
        FormatError: not as spool_people left it.
    """
    facts = read_json(folder / "people.json")
    count, path = facts["people"].get(str(shard), 0), _spool_path(folder, shard)
    records = np.fromfile(path, RECORD) if count else np.zeros(0, RECORD)
    if len(records) != count:
        raise FormatError(f"{path} has {len(records):,} people", f"{count:,}", "run import-keypoints again")
    people: dict[int, list[SourcePerson]] = {}
    for record in records:
        people.setdefault(int(record["row"]), []).append(SourcePerson(float(record["score"]), record["keypoints"]))
    return people, facts["num_several"]


def check_units(match: Match, paths: Mapping[int, str], frame_sizes: Mapping[int, tuple[int, int]]) -> None:
    """Refuse coordinates that cannot be pixels of their frames. A wrong unit would not fail anywhere: it would train
    on nonsense.

    Args:
        match: its sample is looked at; joints of confidence 0 do not count.
        paths, frame_sizes: of the frames in the sample by row; no width and height where one cannot be read.
    """
    kept = [at for at, row in enumerate(match.rows.tolist()) if row in frame_sizes]
    if not kept:
        return
    rows, keypoints, claimed = match.rows[kept], match.keypoints[kept], match.claimed[kept]
    sizes = np.array([frame_sizes[row] for row in rows.tolist()])
    other = (claimed != sizes).any(1) & claimed.any(1)
    if other.any():
        at = int(other.argmax())
        raise SourceError(
            f"the source says that {paths[int(rows[at])]} is {_text(claimed[at])}",
            f"{_text(sizes[at])}, the frame's size",
            "scale the coordinates and the sizes next to them to the frames",
        )
    used, positions = keypoints[..., 2] > 0, keypoints[..., :2]
    if used.sum() >= NUM_JOINTS and np.abs(positions[used]).max() <= NORMALISED < sizes.min() / 4:
        raise SourceError(
            f"all coordinates lie between {positions[used].min():.3g} and {positions[used].max():.3g}",
            EXPECTED,
            "they are probably normalised to 0..1: multiply x by the frame's width and y by its height",
        )
    relative = positions / sizes[:, None]
    far = used & ((relative < -FAR_OUTSIDE) | (relative > 1 + FAR_OUTSIDE)).any(-1)
    if far.sum() > TOLERATED * used.sum():
        at, joint = np.argwhere(far)[0]
        x, y = positions[at, joint]
        raise SourceError(
            f"{far.sum():,} of {used.sum():,} joints lie far outside their frames, such as {JOINTS[joint]} at "
            f"({x:.1f}, {y:.1f}) of {paths[int(rows[at])]}, which is {_text(sizes[at])}",
            EXPECTED,
            "shift or scale them: they may be pixels of the complete picture that the frame was cut from, of a frame "
            "of another size, or y before x",
        )


def _text(size: np.ndarray) -> str:
    return f"{size[0]}x{size[1]}"

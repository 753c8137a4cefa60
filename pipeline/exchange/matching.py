"""Foreign people matched with the frames of a dataset, and laid out shard by shard in a folder of temporary files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
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
        self._last: tuple[int, int, list[str]] = -1, 0, []  # the shard read last: position, generation, paths
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
        frames = self._frames[found]
        if len(found) and (frames != frames[0]).any():
            exact = self._look_up(ABSOLUTE, parts)  # generations with different roots may have paths in common
            if len(exact):
                return exact
            other = found[(frames != frames[0]).argmax()]
            raise SourceError(
                f"{name} fits {len(np.unique(frames)):,} frames, such as {self.path(found[0])} and {self.path(other)}",
                "a name that fits one frame",
                "give paths relative to the frames' folder, in a format that has the frames' suffixes",
            )
        return found

    def path(self, row: int) -> str:
        """Path of a frame."""
        return self.frame(row)[1]

    def frame(self, row: int) -> tuple[int, str]:
        """Generation and path of a frame, read from its shard's table."""
        at = int(np.searchsorted(self.starts, row, side="right")) - 1
        if at != self._last[0]:
            frames = read_shard_frames(self._prepared, int(self.shards[at]))
            self._last = at, frames.generation, [path for tracklet in frames.tracklets for path in tracklet.paths]
        return self._last[1], self._last[2][row - self.starts[at]]

    def _look_up(self, num_parts: int, parts: list[str]) -> np.ndarray:
        if num_parts not in self._endings:
            self._index(num_parts)
        hashes, rows = self._endings[num_parts]
        key = hash("/".join(parts))
        start = end = int(np.searchsorted(hashes, key))
        while end < len(hashes) and hashes[end] == key:
            end += 1
        return rows[start:end]

    def _index(self, num_parts: int) -> None:
        """Hash the last parts of all longer paths; 0: the complete paths; ABSOLUTE: those with their root."""
        hashes = np.zeros(len(self._frames), np.int64)
        usable = np.zeros(len(self._frames), bool)
        row = 0
        for shard in self.shards.tolist():
            frames = read_shard_frames(self._prepared, shard)
            for path in (path for tracklet in frames.tracklets for path in tracklet.paths):
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


@dataclass
class Match:
    """What matching found out.

    Attributes:
        num_without_entry: frames of which the source does not speak.
        num_several: frames with several people.
        unmatched: names of entries that match no frame, each once, in order.
        rows, keypoints, claimed: a sample of the people: their frames, float32 (N, 17, 3), and int32 (N, 2) sizes of
            the frames as the source says, 0 where it is silent.
    """

    num_without_entry: int = 0
    num_several: int = 0
    unmatched: dict[str, None] = field(default_factory=dict)
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    keypoints: np.ndarray = field(default_factory=lambda: np.zeros((0, NUM_JOINTS, 3), np.float32))
    claimed: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int32))


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
    sample: list[tuple[int, np.ndarray]] = []
    step = seen = 0
    match = Match()
    spool = _Spool(names, folder)
    with progress_bar(None, "read", "entries") as bar:
        for entry in entries:
            bar.update()
            rows = names.rows(entry.name)
            if not len(rows):
                match.unmatched[entry.name] = None
                continue
            if entry.size:
                sizes[rows] = entry.size
            if entry.people is None:
                continue
            name = hash(entry.name) or 1
            if named[rows[0]] not in (0, name):
                raise SourceError(
                    f"{entry.name} and an earlier name of the source both mean frame {names.path(int(rows[0]))}",
                    "one name per frame",
                    "leave one of them out",
                )
            named[rows] = name
            for person in entry.people:
                key = hash((person.score, person.keypoints.tobytes())) or 1
                if not person.keypoints.any() or first[rows[0]] == key:
                    continue
                if first[rows[0]]:
                    several[rows] = True
                else:
                    first[rows] = key
                for row in rows.tolist():
                    spool.add(row, person)
                if seen % max(step, 1) == 0:
                    sample.append((int(rows[0]), person.keypoints))
                    if len(sample) > SAMPLED_PEOPLE:  # keep every other one, and from now on half as many
                        sample, step = sample[::2], 2 * max(step, 1)
                seen += 1
    if not named.any():
        raise SourceError(
            f"no entry matches a frame: the source has {next(iter(match.unmatched), 'no entries')}",
            f"paths such as {names.path(0)}, or their last parts",
            "check that SOURCE belongs to this dataset; docs/keypoints.md says how names are matched",
        )
    match.num_without_entry, match.num_several = int((named == 0).sum()), int(several.sum())
    spool.close(match.num_several)
    if sample:
        match.rows, match.keypoints = np.array([row for row, _ in sample]), np.stack([points for _, points in sample])
        match.claimed = sizes[match.rows]
    return match


class _Spool:
    """Appends people to their shards' files, many at once."""

    def __init__(self, names: FrameNames, folder: Path) -> None:
        self._names, self._folder = names, folder
        self._rows = np.zeros(BUFFERED_PEOPLE, np.int64)
        self._records = np.zeros(BUFFERED_PEOPLE, RECORD)
        self._filled = 0
        self._written = np.zeros(len(names.shards), np.int64)

    def add(self, row: int, person: SourcePerson) -> None:
        self._rows[self._filled] = row
        self._records["score"][self._filled] = person.score
        self._records["keypoints"][self._filled] = person.keypoints
        self._filled += 1
        if self._filled == BUFFERED_PEOPLE:
            self._flush()

    def close(self, num_several: int) -> None:
        """Write what is left, and what each file must hold."""
        self._flush()
        people = {str(shard): int(n) for shard, n in zip(self._names.shards, self._written, strict=True) if n}
        write_json(self._folder / "people.json", {"people": people, "num_several": num_several})

    def _flush(self) -> None:
        rows, records = self._rows[: self._filled], self._records[: self._filled]
        shards = np.searchsorted(self._names.starts, rows, side="right") - 1
        records["row"] = rows - self._names.starts[shards]
        for at in np.unique(shards):
            with open(_spool_path(self._folder, int(self._names.shards[at])), "ab") as file:
                file.write(records[shards == at].tobytes())
        self._written += np.bincount(shards, minlength=len(self._written))
        self._filled = 0


def _spool_path(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05d}.people"


def read_spool(folder: Path, shard: int) -> tuple[dict[int, list[SourcePerson]], int]:
    """The people of each frame of a shard that has any, and the number of frames in the source with several people.

    Raises:
        FormatError: not as spool_people left it.
    """
    facts = read_json(folder / "people.json")
    count, path = facts["people"].get(str(shard), 0), _spool_path(folder, shard)
    data = path.read_bytes() if count else b""
    if len(data) != count * RECORD.itemsize:
        raise FormatError(f"{path} has {len(data):,} bytes", f"{count:,} people", "run import-keypoints again")
    people: dict[int, list[SourcePerson]] = {}
    for record in np.frombuffer(data, RECORD):
        people.setdefault(int(record["row"]), []).append(SourcePerson(float(record["score"]), record["keypoints"]))
    return people, facts["num_several"]


def check_units(match: Match, frame_size: Callable[[int], tuple[int, int] | None], path: Callable[[int], str]) -> None:
    """Refuse coordinates that cannot be pixels of their frames. A wrong unit would not fail anywhere: it would train
    on nonsense.

    Args:
        match: its sample is looked at; joints of confidence 0 do not count.
        frame_size: width and height in pixels of the frame of a row, None where it cannot be read.
        path: of the frame of a row, for errors.

    Raises:
        SourceError: the source names another size; the joints of all frames together lie within two pixels of the
            corner; or more than 3 % of them lie farther outside than a tenth of the frame's size.
    """
    read = {int(row): frame_size(int(row)) for row in np.unique(match.rows)}
    kept = np.array([read[row] is not None for row in match.rows.tolist()], bool)
    rows, keypoints, claimed = match.rows[kept], match.keypoints[kept], match.claimed[kept]
    if not len(rows):
        return
    sizes = np.array([read[row] for row in rows.tolist()])
    other = (claimed != sizes).any(1) & claimed.any(1)
    if other.any():
        at = int(other.argmax())
        raise SourceError(
            f"the source says that {path(int(rows[at]))} is {_text(claimed[at])}",
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
            f"({x:.1f}, {y:.1f}) of {path(int(rows[at]))}, which is {_text(sizes[at])}",
            EXPECTED,
            "shift or scale them: they may be pixels of the complete picture that the frame was cut from, of a frame "
            "of another size, or y before x",
        )


def _text(size: np.ndarray) -> str:
    return f"{size[0]}x{size[1]}"

"""MARS (Zheng et al., ECCV 2016): bbox_train, bbox_test and the tables in info/."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SourceError
from ..manifest import SourceTracklet
from .folders import require_root, split_missing
from .matlab import load_integers
from .reading import Reading, without_junk

INFO_FILES = (
    "info/train_name.txt",
    "info/test_name.txt",
    "info/tracks_train_info.mat",
    "info/tracks_test_info.mat",
    "info/query_IDX.mat",
)
JUNK_FOLDER = "00-1"
FILE_NAME = re.compile(r"(?P<identity>\d{4}|00-1)C(?P<camera>\d)T(?P<track>\d+)F(?P<frame>\d+)\.jpg", re.IGNORECASE)


def read(root: Path) -> Reading:
    """Read the dataset's five tables and check them against the file names and the files.

    The query tracklets are those of query_IDX.mat, the other test tracklets are the gallery. Junk (identity -1) is
    left out and counted in the notes, distractors (identity 0) stay. Cameras are 1 to 6.

    Raises:
        SourceError: a table is missing, points outside the name list, or contradicts a file name.
    """
    require_root(root, INFO_FILES, "MARS")
    train = _read_tracklets(root, "train")
    test = _read_tracklets(root, "test")
    test = _mark_queries(root / "info/query_IDX.mat", test)
    notes: dict[str, Any] = {}
    # Junk is never opened: a copy without the 00-1 folder is as good.
    tracklets = without_junk([*train, *test], notes)
    paths = [path for tracklet in tracklets for path in tracklet.frame_paths]
    lost, missing = split_missing(root, paths, "MARS folders")
    if lost:
        tracklets = tuple(_without(tracklet, lost) for tracklet in tracklets)
        tracklets = tuple(tracklet for tracklet in tracklets if tracklet.frame_paths)
        notes["missing_frames"] = len(lost)
    return Reading("mars", root, tracklets, tuple(missing), notes=notes)


def _read_tracklets(root: Path, half: str) -> list[SourceTracklet]:
    names_path = root / f"info/{half}_name.txt"
    table_path = root / f"info/tracks_{half}_info.mat"
    names = names_path.read_text(encoding="utf-8").split()
    table = load_integers(table_path, f"track_{half}_info")
    if table.shape[1] != 4:
        raise SourceError(
            f"{table_path} has {table.shape[1]} columns",
            "4: first frame, last frame, identity, camera",
            "copy it again",
        )
    split = "train" if half == "train" else "gallery"
    tracklets = []
    for row, (start, end, identity, camera) in enumerate(table.tolist(), start=1):
        if not 1 <= start <= end <= len(names):
            raise SourceError(
                f"row {row} of {table_path} names lines {start} to {end} of {names_path.name}",
                f"lines within 1 to {len(names)}",
                "the two files do not belong together or one was cut short: copy both again",
            )
        chosen = names[start - 1 : end]
        paths = _frame_paths(chosen, half, identity, camera, f"row {row} of {table_path}")
        tracklets.append(SourceTracklet(split, identity, camera, paths))
    return tracklets


def _frame_paths(names: Sequence[str], half: str, identity: int, camera: int, row: str) -> tuple[str, ...]:
    """Paths of a tracklet's frames in time order, each name checked against the table's identity and camera."""
    ordered = []
    for name in names:
        match = FILE_NAME.fullmatch(name)
        if match is None:
            raise SourceError(
                f"{name!r} in info/{half}_name.txt", "a name like 0001C1T0001F001.jpg", "copy the file again"
            )
        named_identity = -1 if match["identity"] == JUNK_FOLDER else int(match["identity"])
        if (named_identity, int(match["camera"])) != (identity, camera):
            raise SourceError(
                f"{row} says identity {identity}, camera {camera}, but its frame is called {name}",
                "tables and file names that agree",
                "the tables and name lists are of different versions: copy the info folder again",
            )
        ordered.append((int(match["track"]), int(match["frame"]), f"bbox_{half}/{match['identity']}/{name}"))
    return tuple(path for _, _, path in sorted(ordered))


def _mark_queries(path: Path, test: list[SourceTracklet]) -> list[SourceTracklet]:
    indices = load_integers(path, "query_IDX").ravel()
    wrong = indices[(indices < 1) | (indices > len(test))]
    if wrong.size:
        raise SourceError(
            f"{path} names test tracklet {wrong[0]}", f"1 to {len(test)}", "it belongs to another copy: copy info again"
        )
    values, occurrences = np.unique(indices, return_counts=True)
    if (occurrences > 1).any():
        raise SourceError(
            f"{path} names test tracklet {values[occurrences > 1][0]} twice", "each once", "copy it again"
        )
    marked = list(test)
    for index in values.tolist():
        tracklet = test[index - 1]
        if tracklet.identity < 1:
            kind = "junk" if tracklet.identity < 0 else "a distractor"
            raise SourceError(f"{path} names test tracklet {index}, which is {kind}", "a person", "copy info again")
        marked[index - 1] = SourceTracklet("query", tracklet.identity, tracklet.camera, tracklet.frame_paths)
    return marked


def _without(tracklet: SourceTracklet, lost: set[str]) -> SourceTracklet:
    paths = tuple(path for path in tracklet.frame_paths if path not in lost)
    return SourceTracklet(tracklet.split, tracklet.identity, tracklet.camera, paths)

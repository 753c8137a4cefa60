"""MARS (Zheng et al., ECCV 2016): bbox_train, bbox_test and the tables in info/."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import compress, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SourceError
from ..index import Reading, SourceTracklet, is_junk
from .halves import load_integers
from .reading import require_root, split_missing

INFO_FILES = (
    "info/train_name.txt",
    "info/test_name.txt",
    "info/tracks_train_info.mat",
    "info/tracks_test_info.mat",
    "info/query_IDX.mat",
)
JUNK_FOLDER = "00-1"
FILE_NAME = re.compile(
    r"(?P<identity>\d{4}|00-1)C(?P<camera>\d)T(?P<track>\d{1,18})F(?P<frame>\d{1,18})\.jpg", re.IGNORECASE
)


def read(root: Path) -> Reading:
    """Read the dataset's five tables and check them against the file names and the files.

    The query tracklets are those of query_IDX.mat, the other test tracklets are the gallery. Junk has identity -1,
    distractors have identity 0. Cameras are 1 to 6. Tracklets are called what their file names begin with, such as
    0001C1T0001.

    Raises:
        SourceError: a table is missing, points outside the name list, or contradicts a file name.
    """
    require_root(root, INFO_FILES, "MARS")
    train = _read_tracklets(root, "train")
    test = _read_tracklets(root, "test")
    test = _mark_queries(root / "info/query_IDX.mat", test)
    notes: dict[str, Any] = {}
    tracklets = [*train, *test]
    # Junk is never opened: a copy without the 00-1 folder is as good.
    paths = [path for tracklet in tracklets if not is_junk(tracklet.identity) for path in tracklet.frame_paths]
    lost, missing = split_missing(root, paths, "MARS folders")
    if lost:
        tracklets = [_without(tracklet, lost) for tracklet in tracklets]
        tracklets = [tracklet for tracklet in tracklets if tracklet.frame_paths]
        notes["missing_frames"] = len(lost)
    return Reading("mars", root, tuple(tracklets), tuple(missing), notes=notes)


def _read_tracklets(root: Path, half: str) -> list[SourceTracklet]:
    names_path = root / f"info/{half}_name.txt"
    table_path = root / f"info/tracks_{half}_info.mat"
    try:
        names = names_path.read_text(encoding="utf-8").split()
    except ValueError as error:
        raise SourceError(f"{names_path} is not UTF-8 ({error})", "one file name a line", "copy it again") from error
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
        tracklets.append(_tracklet(chosen, half, split, identity, camera, f"row {row} of {table_path}"))
    return tracklets


def _tracklet(names: Sequence[str], half: str, split: str, identity: int, camera: int, row: str) -> SourceTracklet:
    """A tracklet's frames in time order, each name checked against the table's identity and camera."""
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
    ordered.sort()
    _, numbers, paths = zip(*ordered, strict=True)
    first = paths[0].rpartition("/")[2]
    return SourceTracklet(
        split,
        identity,
        camera,
        paths,
        numbers if all(before < after for before, after in pairwise(numbers)) else None,  # several tracks in a row
        name=first[: first.upper().rindex("F")],
        identity_name=JUNK_FOLDER if identity < 0 else f"{identity:04d}",
    )


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
        marked[index - 1] = replace(tracklet, split="query")
    return marked


def _without(tracklet: SourceTracklet, lost: set[str]) -> SourceTracklet:
    kept = [path not in lost for path in tracklet.frame_paths]
    numbers = tracklet.frame_numbers
    return replace(
        tracklet,
        frame_paths=tuple(compress(tracklet.frame_paths, kept)),
        frame_numbers=None if numbers is None else tuple(compress(numbers, kept)),
    )

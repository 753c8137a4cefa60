"""MARS (Zheng et al., ECCV 2016): bbox_train, bbox_test and the tables in info/."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any

from ..errors import SourceError
from ..index import Reading, SourceTracklet, is_junk
from .halves import load_integers
from .reading import open_source, require_root, rising, split_missing

INFO_FILES = (
    "info/train_name.txt",
    "info/test_name.txt",
    "info/tracks_train_info.mat",
    "info/tracks_test_info.mat",
    "info/query_IDX.mat",
)
JUNK_FOLDER = "00-1"
FILE_NAME = re.compile(r"((\d{4}|00-1)C(\d)T(\d{1,18}))F(\d{1,18})\.jpg", re.IGNORECASE)


def read(root: Path) -> Reading:
    """Read the dataset's five tables and check them against the file names and the files.

    The query tracklets are those of query_IDX.mat, the other test tracklets are the gallery. Junk has identity -1,
    distractors have identity 0. Cameras are 1 to 6. Tracklets are called what their file names begin with, such as
    0001C1T0001.
    """
    require_root(root, INFO_FILES, "MARS")
    tracklets = _read_tracklets(root, "train", "train")
    tracklets += _mark_queries(root / "info/query_IDX.mat", _read_tracklets(root, "test", "gallery"))
    # Junk is never opened: a copy without the 00-1 folder is as good.
    paths = [path for tracklet in tracklets if not is_junk(tracklet.identity) for path in tracklet.frame_paths]
    lost, missing = split_missing(root, paths, "MARS folders")
    notes: dict[str, Any] = {}
    if lost:
        tracklets = [_without(tracklet, lost) for tracklet in tracklets]
        tracklets = [tracklet for tracklet in tracklets if tracklet.frame_paths]
        notes["missing_frames"] = len(lost)
    return Reading("mars", root, tuple(tracklets), tuple(missing), notes=notes)


def _read_tracklets(root: Path, half: str, split: str) -> list[SourceTracklet]:
    """Tracklets of a half, frames in time order; each name is compared with the table's identity and camera."""
    names_path, table_path = root / f"info/{half}_name.txt", root / f"info/tracks_{half}_info.mat"
    with open_source(names_path, "UTF-8 text with one file name per line") as file:
        names = file.read().decode().split()
    table = load_integers(table_path, f"track_{half}_info")
    if table.shape[1] != 4:
        raise SourceError(f"{table_path} has {table.shape[1]} columns", "4: first frame, last frame, identity, camera")
    tracklets = []
    for row, (start, end, identity, camera) in enumerate(table.tolist(), start=1):
        if not 1 <= start <= end <= len(names):
            raise SourceError(
                f"row {row} of {table_path} names lines {start} to {end} of {names_path.name}",
                f"lines within 1 to {len(names)}",
                "copy both again",
            )
        ordered = []
        for name in names[start - 1 : end]:
            match = FILE_NAME.fullmatch(name)
            if match is None:
                raise SourceError(f"{name!r} in {names_path}", "a name like 0001C1T0001F001.jpg", "copy the file again")
            stem, person, named_camera, track, number = match.groups()
            if (-1 if person == JUNK_FOLDER else int(person), int(named_camera)) != (identity, camera):
                raise SourceError(
                    f"row {row} of {table_path} says identity {identity}, camera {camera} of {name}",
                    "tables and file names that agree",
                    "they are of different versions: copy the info folder again",
                )
            ordered.append((int(track), int(number), f"bbox_{half}/{person}/{name}", stem))
        ordered.sort()
        _, numbers, paths, stems = zip(*ordered, strict=True)
        identity_name = JUNK_FOLDER if identity < 0 else f"{identity:04d}"
        known = numbers if rising(numbers) else None  # several tracks in a row
        tracklets.append(SourceTracklet(split, identity, camera, paths, known, None, stems[0], identity_name))
    return tracklets


def _mark_queries(path: Path, test: list[SourceTracklet]) -> list[SourceTracklet]:
    marked = list(test)
    for index in load_integers(path, "query_IDX").ravel().tolist():
        found = f"{path} names test tracklet {index}"
        if not 1 <= index <= len(test):
            raise SourceError(found, f"1 to {len(test)}", "it belongs to another copy: copy info again")
        identity = int(test[index - 1].identity)
        if identity < 1 or marked[index - 1].split == "query":
            kind = "junk" if identity < 0 else "a distractor" if identity == 0 else "in it twice"
            raise SourceError(f"{found}, which is {kind}", "each query once, a person", "copy info again")
        marked[index - 1] = replace(test[index - 1], split="query")
    return marked


def _without(tracklet: SourceTracklet, lost: set[str]) -> SourceTracklet:
    kept = [path not in lost for path in tracklet.frame_paths]
    numbers = tracklet.frame_numbers
    return replace(
        tracklet,
        frame_paths=tuple(compress(tracklet.frame_paths, kept)),
        frame_numbers=None if numbers is None else tuple(compress(numbers, kept)),
    )

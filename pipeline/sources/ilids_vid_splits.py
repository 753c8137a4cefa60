"""The divisions of iLIDS-VID's persons, from the dataset's .mat file or from a splits.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import SourceError
from ..manifest import IdentitySplit
from .halves import check_halves, identity_splits, names_in, read_json, read_mat

MAT_PATH = "train-test people splits/train_test_splits_ilidsvid.mat"
JSON_PATHS = ("splits.json", "train-test people splits/splits.json")


@dataclass(frozen=True)
class FoundSplits:
    """The divisions, the file they come from, and persons they name that have no folder."""

    splits: tuple[IdentitySplit, ...]
    path: str
    unknown_persons: tuple[str, ...]


def read_splits(root: Path, persons: Sequence[str], numbers: Mapping[str, int], query_camera: int) -> FoundSplits:
    """All divisions, in the file's order; the .mat file, the dataset's own, goes before a splits.json.

    Args:
        root: the dataset's folder.
        persons: all person folders, sorted, including those seen by one camera alone: positions count them.
        numbers: identity of each person that is kept.
        query_camera: see IdentitySplit.

    Raises:
        SourceError: no file with splits, or one that does not divide the persons.
    """
    path = next((name for name in (MAT_PATH, *JSON_PATHS) if (root / name).is_file()), None)
    if path is None:
        raise SourceError(
            f"{root} has no splits", f"{MAT_PATH} (it comes with the dataset) or {JSON_PATHS[0]}", "copy it again"
        )
    halves = read_mat(root / path, persons) if path == MAT_PATH else read_json(root / path)
    check_halves(root / path, halves, persons)
    unknown = sorted(names_in(halves) - set(persons))
    return FoundSplits(identity_splits(halves, numbers, query_camera), path, tuple(unknown))

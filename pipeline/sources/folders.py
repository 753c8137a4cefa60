"""Listing folders: in sorted order, each one once, and what is missing from them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import SourceError
from ..environment import progress_bar

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sort key under which "frame2" comes before "frame10"; the name itself settles ties such as 1 and 01."""
    pieces = re.split(r"(\d+)", name)
    return [int(piece) if index % 2 else piece for index, piece in enumerate(pieces)], name


def is_image(name: str) -> bool:
    """Whether a file name is that of a frame."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def list_folder(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in `folder`, each in natural order, without hidden ones."""
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith((".", "__MACOSX")):
                (folders if entry.is_dir() else files).append(entry.name)
    return sorted(folders, key=natural_key), sorted(files, key=natural_key)


def split_missing(root: Path, paths: Sequence[str], label: str) -> tuple[set[str], list[str]]:
    """Which of the files exist under root, looking at each folder once instead of at each of a million files.

    Args:
        root: folder that the paths are relative to.
        paths: files, "/" between folders.
        label: for the progress bar, which counts folders.

    Returns:
        The paths that are missing, and the same as a list for people: a folder that is missing altogether stands
        there once, as "folder/ (12 frames)".
    """
    by_folder: dict[str, list[str]] = {}
    for path in paths:
        by_folder.setdefault(path.rpartition("/")[0], []).append(path)
    missing: set[str] = set()
    named: list[str] = []
    absent: Counter[str] = Counter()
    with progress_bar(len(by_folder), label, "folders") as bar:
        for folder, members in by_folder.items():
            names = _file_names(root / folder)
            lost = [path for path in members if names is None or path.rpartition("/")[2] not in names]
            missing.update(lost)
            if names is None:
                absent[_highest_absent(root, folder)] += len(lost)
            else:
                named.extend(lost)
            bar.update()
    return missing, [f"{folder}/ ({count:,} frames)" for folder, count in absent.items()] + named


def require_root(root: Path, entries: Iterable[str], dataset: str) -> None:
    """Refuse a folder without the files and folders that make it this dataset.

    Raises:
        SourceError: `root` is no folder, or lacks some of `entries`; a folder nearby that has them is named.
    """
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder", f"the root folder of {dataset}", "check the path")
    entries = list(entries)
    lacking = [entry for entry in entries if not (root / entry).exists()]
    if not lacking:
        return
    near = [root.resolve().parent, *(root / name for name in list_folder(root)[0])]
    better = next((folder for folder in near if all((folder / entry).exists() for entry in entries)), None)
    raise SourceError(
        f"{root} lacks {', '.join(lacking)}",
        f"the root folder of {dataset}",
        f"did you mean {better}?" if better else "docs/datasets.md shows the layout",
    )


def _file_names(folder: Path) -> set[str] | None:
    if not folder.is_dir():
        return None
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if not entry.is_dir()}


def _highest_absent(root: Path, folder: str) -> str:
    while "/" in folder and not (root / folder).parent.is_dir():
        folder = folder.rpartition("/")[0]
    return folder

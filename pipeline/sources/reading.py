"""Listing folders: in sorted order, each one once, and what is missing from them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from ..environment import progress_bar
from ..errors import SourceError, SurroundingsError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def natural_key(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """Sort key under which "frame2" comes before "frame10"; the name itself settles ties such as 1 and 01."""
    pieces: list[str | tuple[int, str]] = [*re.split(r"([0-9]+)", name)]
    for place in range(1, len(pieces), 2):
        digits = str(pieces[place]).lstrip("0")
        pieces[place] = len(digits), digits  # int() refuses thousands of them
    return pieces, name


def rising(numbers: Sequence[int]) -> bool:
    """Whether each number is larger than the one before."""
    return all(before < after for before, after in pairwise(numbers))


def is_image(name: str) -> bool:
    """Whether a file name is that of a frame."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def list_folder(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders and of the files in `folder`, each in natural order, without hidden ones.

    Raises:
        SourceError: an image is no file: a broken link, a pipe.
        SurroundingsError: the folder cannot be listed.
    """
    folders: list[str] = []
    files: list[str] = []
    for entry in _entries(folder):
        if entry.name.startswith((".", "__MACOSX")):
            continue
        kind = _kind(entry)
        if kind == "folder":
            folders.append(entry.name)
        elif kind == "file":
            files.append(entry.name)
        elif is_image(entry.name):
            raise SourceError(f"{entry.path} is {kind}", "an image file", "replace or remove it")
    return sorted(folders, key=natural_key), sorted(files, key=natural_key)


def split_missing(root: Path, paths: Sequence[str], label: str) -> tuple[set[str], list[str]]:
    """Which of the files under root do not exist, looking at each folder once instead of at each of a million files.

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
            there = _is_folder(root / folder)
            names = {entry.name for entry in _entries(root / folder) if _kind(entry) == "file"} if there else set()
            lost = [path for path in members if path.rpartition("/")[2] not in names]
            missing.update(lost)
            if there:
                named.extend(lost)
            else:
                while "/" in folder and not _is_folder((root / folder).parent):
                    folder = folder.rpartition("/")[0]
                absent[folder] += len(lost)
            bar.update()
    return missing, [f"{folder}/ ({count:,} frames)" for folder, count in absent.items()] + named


def require_root(root: Path, entries: Sequence[str], dataset: str) -> None:
    """Refuse a folder without the files and folders ("folder/") that make it this dataset.

    Raises:
        SourceError: `root` is no folder, or lacks some of `entries`; a folder nearby that has them is named.
    """
    if not _is_folder(root):
        raise SourceError(f"{root} is not a folder", f"the root folder of {dataset}", "check the path")

    def lacking(folder: Path) -> list[str]:
        return [name for name in entries if not (_is_folder if name.endswith("/") else os.path.isfile)(folder / name)]

    if not lacking(root):
        return
    near = [root.resolve().parent, *(root / name for name in list_folder(root)[0])]
    better = next((folder for folder in near if not lacking(folder)), None)
    raise SourceError(
        f"{root} lacks {', '.join(lacking(root))}",
        f"the root folder of {dataset}",
        f"did you mean {better}?" if better else "docs/datasets.md shows the layout",
    )


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112  # unlike Path.is_dir it is False for names that are too long


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise SurroundingsError(
            f"{folder} cannot be listed ({error.strerror})",
            "a folder that can be read",
            "check the disk and the rights",
        ) from error


def _kind(entry: os.DirEntry[str]) -> str:
    """What a name stands for, behind a link too."""
    try:
        for kind, fits in (("folder", entry.is_dir), ("file", entry.is_file)):
            if fits():
                return kind
    except OSError:  # a link to itself
        pass
    return "a link that leads nowhere" if entry.is_symlink() else "a pipe or a device"

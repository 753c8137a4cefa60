"""Listing folders: in sorted order, each one once, and what is missing from them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..environment import progress_bar
from ..errors import SourceError, SurroundingsError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def natural_key(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """Sort key under which "frame2" comes before "frame10"; the name itself settles ties such as 1 and 01."""
    pieces = re.split(r"([0-9]+)", name)
    return [_number_key(piece) if index % 2 else piece for index, piece in enumerate(pieces)], name


def _number_key(digits: str) -> tuple[int, str]:
    """Orders digits by value; int() refuses thousands of them."""
    digits = digits.lstrip("0")
    return len(digits), digits


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
            there = _is_folder(root / folder)
            names = {entry.name for entry in _entries(root / folder) if _kind(entry) == "file"} if there else set()
            lost = [path for path in members if path.rpartition("/")[2] not in names]
            missing.update(lost)
            if there:
                named.extend(lost)
            else:
                absent[_highest_absent(root, folder)] += len(lost)
            bar.update()
    return missing, [f"{folder}/ ({count:,} frames)" for folder, count in absent.items()] + named


def require_root(root: Path, entries: Iterable[str], dataset: str) -> None:
    """Refuse a folder without the files and folders that make it this dataset.

    Args:
        root: the folder.
        entries: relative to it; folders end with "/".
        dataset: its name, for the message.

    Raises:
        SourceError: `root` is no folder, or lacks some of `entries`; a folder nearby that has them is named.
    """
    if not _is_folder(root):
        raise SourceError(f"{root} is not a folder", f"the root folder of {dataset}", "check the path")
    entries = list(entries)
    lacking = _lacking(root, entries)
    if not lacking:
        return
    near = [root.resolve().parent, *(root / name for name in list_folder(root)[0])]
    better = next((folder for folder in near if not _lacking(folder, entries)), None)
    raise SourceError(
        f"{root} lacks {', '.join(lacking)}",
        f"the root folder of {dataset}",
        f"did you mean {better}?" if better else "docs/datasets.md shows the layout",
    )


def _lacking(root: Path, entries: Iterable[str]) -> list[str]:
    return [entry for entry in entries if not (_is_folder if entry.endswith("/") else os.path.isfile)(root / entry)]


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
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError:
        return "a link that leads nowhere"
    return "a link that leads nowhere" if entry.is_symlink() else "a pipe or a device"


def _highest_absent(root: Path, folder: str) -> str:
    while "/" in folder and not _is_folder((root / folder).parent):
        folder = folder.rpartition("/")[0]
    return folder

"""Reading what others wrote: regular files alone, folders in sorted order, each once, and what is missing from them."""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import IO

from ..environment import progress_bar
from ..errors import SourceError, SurroundingsError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MAX_WHOLE = 2**53  # beyond it not every whole number is a double
# What parsers raise on broken content; OSErrors of pyarrow's have no number, those of the system have one.
DAMAGE = (
    OSError, MemoryError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError, NotImplementedError,
    struct.error, zlib.error,
)  # fmt: skip


@contextmanager
def open_source(path: Path, kind: str) -> Iterator[IO[bytes]]:
    """Open a regular file, and nothing that would block or never end; errors within become errors that name it, and
    `kind`, what it should be.

    Raises:
        SourceError: it is missing, a folder, FIFO or device, or what a parser found wrong.
        SurroundingsError: the system cannot read it, or memory is short.
    """
    try:
        if not os.path.isfile(path):  # noqa: PTH113  # unlike Path.is_file it is False for names that are too long
            found = "is not a regular file" if os.path.lexists(path) else "is not there"
            raise SourceError(f"{path} {found}", kind, "check the path")
        with open(path, "rb") as file:
            yield file
    except DAMAGE as error:
        found = f"{path} cannot be read ({first_line(error)})"
        if isinstance(error, MemoryError) or getattr(error, "errno", None):
            raise SurroundingsError(found, "", "repair that, and try again") from error
        raise SourceError(found, kind, "copy or write it again") from error


def first_line(error: Exception) -> str:
    """The start of an error's message, or its kind where it has none."""
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__


def read_at_most(file: IO[bytes], limit: int) -> bytes:
    """The file's content; a ValueError where it has more than `limit` bytes."""
    content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"more than {limit:,} bytes")
    return content


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
    folders, files, others = (
        sorted((name for name in names if not name.startswith((".", "__MACOSX"))), key=natural_key)
        for names in _entries(folder)
    )
    for name in filter(is_image, others):
        raise SourceError(f"{folder / name} is a pipe, a device or a broken link", "an image", "replace or remove it")
    return folders, files


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
            bar.update()
            if not _is_folder(root / folder):
                while "/" in folder and not _is_folder((root / folder).parent):
                    folder = folder.rpartition("/")[0]
                absent[folder] += len(members)
                missing.update(members)
                continue
            names = set(_entries(root / folder)[1])
            lost = [path for path in members if path.rpartition("/")[2] not in names]
            missing.update(lost)
            named += lost
    return missing, [f"{folder}/ ({count:,} frames)" for folder, count in absent.items()] + named


def require_root(root: Path, entries: Sequence[str], dataset: str) -> None:
    """Refuse a folder without the files and folders ("folder/") that make it this dataset.

    Raises:
        SourceError: `root` is no folder, or lacks some of `entries`; a folder nearby that has them is named.
    """

    def lacking(folder: Path) -> list[str]:
        return [name for name in entries if not (_is_folder if name.endswith("/") else os.path.isfile)(folder / name)]

    expected = f"the root folder of {dataset}"
    if not _is_folder(root):
        raise SourceError(f"{root} is not a folder", expected, "check the path")
    if lacking(root):
        near = [root.resolve().parent, *(root / name for name in list_folder(root)[0])]
        better = next((folder for folder in near if not lacking(folder)), None)
        remedy = f"did you mean {better}?" if better else "docs/datasets.md shows the layout"
        raise SourceError(f"{root} lacks {', '.join(lacking(root))}", expected, remedy)


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112  # unlike Path.is_dir it is False for names that are too long


def _entries(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Names of the folders and files there, behind links too, and of all else."""
    folders: list[str] = []
    files: list[str] = []
    others: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                (folders if _is(entry.is_dir) else files if _is(entry.is_file) else others).append(entry.name)
    except OSError as error:
        found = f"{folder} cannot be listed ({error.strerror})"
        raise SurroundingsError(found, "a folder that can be read", "check the disk and the rights") from error
    return folders, files, others


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link to itself
        return False

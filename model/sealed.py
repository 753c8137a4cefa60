"""Files that carry a hash of themselves, compared before the library that parses them sees a byte.

A flipped bit can make HDF5 spin for minutes, and in tensors nobody would notice it. The writer puts UNSEALED where the
format has room for a text, within REACH of either end of the file; `seal` replaces its zeros by the SHA-256 of the file
as it is with them.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from keyreid.pipeline.errors import FormatError, KeyReIDError

MARK = b"keyreid-sha256:"
ZEROS = b"0" * 64
UNSEALED = (MARK + ZEROS).decode()
REACH = 1 << 16  # bytes
BLOCK = 1 << 20  # bytes read at once


def seal(path: Path) -> None:
    """Put the hash into a file that is written and holds UNSEALED."""
    with open(path, "rb+") as file:
        place = _place(file)
        if place is None:
            raise ValueError(f"{path} has no room for its hash")
        digest = _hash(file, place)
        file.seek(place)
        file.write(digest)


def require_sealed(path: Path, remedy: str, error: type[KeyReIDError] = FormatError) -> None:
    """Read a file in full and compare it with the hash in it.

    Args:
        path: the file.
        remedy: what to do where it was changed.
        error: what to raise then.

    Raises:
        FormatError: it has no hash, or another content; or `error` in its place.
    """
    with open(path, "rb") as file:
        place = _place(file)
        if place is None:
            raise error(
                f"{path} holds no hash of itself", "a complete file, as this version of keyreid writes it", remedy
            )
        file.seek(place)
        written, found = file.read(len(ZEROS)), _hash(file, place)
    if written != found:
        raise error(
            f"{path} was changed after it was written: it has SHA-256 {found.decode()[:16]}...",
            f"{written.decode(errors='replace')[:16]}..., which it holds",
            remedy,
        )


def _place(file: BinaryIO) -> int | None:
    """Where the digits of the hash begin."""
    size = os.fstat(file.fileno()).st_size
    for start in (0, max(0, size - REACH)):
        file.seek(start)
        place = start + file.read(REACH).find(MARK) + len(MARK)
        if place >= start + len(MARK) and place + len(ZEROS) <= size:
            return place
    return None


def _hash(file: BinaryIO, place: int) -> bytes:
    """SHA-256 of the file with zeros in the place of its hash, as hexadecimal digits."""
    digest = hashlib.sha256()
    file.seek(0)
    digest.update(file.read(place))
    digest.update(ZEROS)
    file.seek(place + len(ZEROS))
    while block := file.read(BLOCK):
        digest.update(block)
    return digest.hexdigest().encode()

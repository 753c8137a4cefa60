"""Numbers for identities and cameras that people wrote as text."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..errors import SourceError

INTEGER = re.compile(r"-?\d{1,9}")  # longer ones, such as ticket numbers, are text: the manifest's cameras are int32


def number_names(names: Iterable[str], noun: str) -> tuple[dict[str, int], dict[str, int]]:
    """A number for each name: its own value where all names are whole numbers, else its place in sorted order.

    Args:
        names: as written, repeats allowed.
        noun: "identity" or "camera", for the message.

    Returns:
        Name -> number, and the same again where numbers were given (from 1, since identity 0 means distractors), to
        be kept in the notes; empty where the names are the numbers.

    Raises:
        SourceError: two names are the same number, such as 1 and 01.
    """
    ordered = sorted(set(names))
    if not all(INTEGER.fullmatch(name) for name in ordered):
        given = {name: number for number, name in enumerate(ordered, start=1)}
        return given, given
    numbers: dict[int, str] = {}
    for name in ordered:
        other = numbers.setdefault(int(name), name)
        if other != name:
            raise SourceError(
                f"{noun} {other!r} and {noun} {name!r} are the same number", "one way of writing it", "rename one"
            )
    return {name: int(name) for name in ordered}, {}

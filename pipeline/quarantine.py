"""Frames that kill the process that works on them: found by bisection, remembered beside the shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .commit import read_json, write_json
from .trial import Trial

Tried = Callable[[Sequence[str]], str | None]


def quarantine_path(prepared: Path, shard: int) -> Path:
    return prepared / "quarantine" / f"{shard:05d}.json"


def read_quarantine(prepared: Path, shard: int) -> dict[str, str]:
    """Frame path -> what happened, of the frames of a shard that are not to be opened again; mostly none."""
    path = quarantine_path(prepared, shard)
    return dict(read_json(path)) if path.exists() else {}


def write_quarantine(prepared: Path, shard: int, frames: dict[str, str]) -> None:
    write_json(quarantine_path(prepared, shard), frames)


def find_fatal(work: Callable[[Sequence[str]], None], names: Sequence[str]) -> dict[str, str]:
    """The frames of which a process dies, or fails, when it does `work` with them alone.

    Args:
        work: picklable; what a worker does with some frames. It is done in child processes.
        names: of frames.

    Returns:
        Frame -> what happened; empty where all of them do no harm one by one or in halves.
    """
    with Trial(work) as tried:
        return bisect(tried, names)


def bisect(tried: Tried, names: Sequence[str]) -> dict[str, str]:
    """Halve what fails until single frames are left; a single one must fail twice, since anything can be killed once.

    Args:
        tried: frames -> None, or what went wrong.
        names: of frames.
    """
    if not names or tried(names) is None:
        return {}
    if len(names) == 1:
        reason = tried(names)
        return {names[0]: reason} if reason is not None else {}
    middle = len(names) // 2
    return bisect(tried, names[:middle]) | bisect(tried, names[middle:])

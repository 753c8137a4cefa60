"""Progress bars on standard error, with rate and time left, and times in words."""

from __future__ import annotations

import sys

from tqdm import tqdm


def progress_bar(total: int | None, label: str, unit: str, done: int = 0, hidden: bool = False) -> tqdm:
    """A bar that redraws often on a terminal and every ten seconds in a log file; `hidden` shows nothing."""
    on_terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=done,
        desc=label,
        unit=f" {unit}",
        file=sys.stderr,
        mininterval=0.2 if on_terminal else 10,
        dynamic_ncols=on_terminal,
        smoothing=0.1,
        disable=hidden,
    )


def duration(seconds: float) -> str:
    """A time in the unit that suits it, such as "1.5 hours"."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"

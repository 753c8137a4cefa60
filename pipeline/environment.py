"""What bytes depend on besides frames and settings, for receipts; and progress bars."""

from __future__ import annotations

import ctypes
import platform
import sys
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

from tqdm import tqdm

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@lru_cache
def package_versions(*packages: str) -> dict[str, str]:
    """Name -> version of this project, Python, and some packages; "not installed" where one is absent."""
    return {name: _version(name) for name in ("keyreid", *packages)} | {"python": platform.python_version()}


def device_kind(device: str) -> str:
    """The processor behind "cpu", "cuda" or "cuda:1", in words: its kernels may round in their own way."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def keep_freed_memory() -> None:
    """Let malloc keep what a network's forward pass or a training step frees, for the next one, up to 256 MiB.

    By default every large array is asked from the system and given back, page by page; under Dask, which starts workers
    with MALLOC_TRIM_THRESHOLD_ at 64 KiB, every array is: that makes the demo's network several times slower. Where the
    C library has no mallopt nothing is done.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, 256 << 20)
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def progress_bar(total: int | None, label: str, unit: str, done: int = 0, hidden: bool = False) -> tqdm:
    """A bar on standard error that redraws every ten seconds in a log file, often on a terminal; `hidden`: none."""
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

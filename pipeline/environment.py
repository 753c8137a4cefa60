"""What bytes depend on besides frames and settings: for receipts."""

from __future__ import annotations

import ctypes
import platform
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

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

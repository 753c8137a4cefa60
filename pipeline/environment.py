"""What bytes depend on besides frames and settings: for receipts."""

from __future__ import annotations

import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version


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


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"

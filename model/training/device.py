"""Where to compute, and in which precision."""

from __future__ import annotations

import torch

from keyreid.pipeline.errors import SettingsError


def choose_device(name: str) -> torch.device:
    """The device of "auto" (CUDA where there is one), "cpu" or "cuda".

    Raises:
        SettingsError: CUDA was asked for and there is none.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise SettingsError("device cuda, and torch sees none", "a CUDA device", "use --device auto or --device cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def autocast(device: torch.device, mixed_precision: bool) -> torch.autocast:
    """bfloat16 on CUDA devices that have it; everywhere else float32, which on a CPU is also the faster of the two."""
    enabled = mixed_precision and device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)

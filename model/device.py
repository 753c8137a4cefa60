"""Where to compute, and in which precision."""

from __future__ import annotations

import torch
from torch.amp import GradScaler

from keyreid.pipeline.errors import SettingsError


def choose_device(name: str) -> torch.device:
    """The device of "auto" (CUDA where there is one), "cpu" or "cuda".

    Raises:
        SettingsError: CUDA was asked for and there is none.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise SettingsError(
            "CUDA is not available", "a CUDA device that torch sees", "use --device auto or --device cpu"
        )
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def compute_dtype(device: torch.device, mixed_precision: bool) -> torch.dtype:
    """bfloat16 on CUDA devices that have it, float16 on others; float32 on a CPU, where it is the fastest of the three.

    A device counts as having bfloat16 where it computes in it: torch also offers it, slowly, where it is emulated.
    """
    if device.type != "cuda" or not mixed_precision:
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """The context in which the network computes in `dtype`."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def gradient_scaler(device: torch.device, dtype: torch.dtype) -> GradScaler:
    """Keeps small gradients from vanishing in float16, whose smallest number is 6e-8; does nothing for other types."""
    return GradScaler(device.type, enabled=dtype == torch.float16)

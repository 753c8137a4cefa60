"""In which precision the network computes."""

from __future__ import annotations

import torch
from torch.amp import GradScaler


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

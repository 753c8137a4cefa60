"""Where a worker's network runs."""

from __future__ import annotations

import os

import torch

from ..errors import SettingsError
from ..executor import WORKER_VARIABLE


def choose_device(device: str) -> str:
    """The device of this process: CUDA where there is one for "auto", "cpu", or "cuda".

    Where there are several GPUs, each worker has one, in turn.

    Raises:
        SettingsError: there is no CUDA device.
    """
    count = torch.cuda.device_count()
    if device == "cuda" and count == 0:
        raise SettingsError("device cuda, and torch sees none", "a CUDA device", "use --device auto or --device cpu")
    if device == "cpu" or count == 0:
        return "cpu"
    return f"cuda:{int(os.environ.get(WORKER_VARIABLE, 0)) % count}"

"""Where to compute."""

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

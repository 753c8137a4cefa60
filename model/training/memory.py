"""The most memory that a run has held so far."""

from __future__ import annotations

import resource
import sys

import torch

_MIB = 1 << 20


def peak_memory(device: torch.device) -> dict[str, int]:
    """MiB of this process's host memory, without its worker processes, and of the CUDA device's, where there is one."""
    unit = 1 if sys.platform == "darwin" else 1024
    peaks = {"host_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // _MIB}
    if device.type == "cuda":
        peaks["device_peak_mib"] = torch.cuda.max_memory_allocated(device) // _MIB
    return peaks

"""One measurement in a process of its own: what it returns, and how far its memory rose."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def resident() -> float:
    """GB of this process that are in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e9


def peak() -> float:
    """GB of this process that were in memory at most; getrusage would count the parent's before the fork, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e9


def run_alone(function: Callable[..., Any], *arguments: Any, threads: int = 1) -> Any:
    """Call `function` in a fresh process with so many threads; its result must be picklable."""
    with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (threads,)) as pool:
        return pool.apply(function, arguments)

"""--profile: what torch's profiler sees in a few steps."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from keyreid.pipeline.commit import commit_file

from .config import RunConfig
from .inputs import TrainingInputs
from .rehearsal import Rehearsal

WARMUP, STEPS = 3, 3
ROWS = 12  # of the table


def profile_steps(inputs: TrainingInputs, config: RunConfig, device: torch.device, run: Path) -> tuple[Path, list[str]]:
    """Train for a few steps; RUN/profile/trace.json is for chrome://tracing or ui.perfetto.dev.

    Returns:
        The path of the trace, and a table for a terminal: phases of a step, then the operators that take most.
    """
    rehearsal = Rehearsal(inputs, config, device)
    rehearsal.steps(WARMUP)
    phases = rehearsal.phases(STEPS)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities, acc_events=True) as profiler:
        rehearsal.steps(STEPS)
    path = run / "profile" / "trace.json"
    commit_file(path, lambda partial: profiler.export_chrome_trace(str(partial)))
    return path, [*_phase_lines(phases), "", *_operator_lines(profiler, on_device=device.type == "cuda")]


def _phase_lines(phases: dict[str, float]) -> list[str]:
    whole = sum(phases.values())
    head = f"{'ms a step':>10}  share  phase"
    return [head, *(f"{1000 * s:10.1f}  {100 * s / whole:4.1f} %  {name}" for name, s in phases.items())]


def _operator_lines(profiler: profile, *, on_device: bool) -> list[str]:
    """Operators by the time of their own kernels, or on a CPU by their own time."""
    own = "self_device_time_total" if on_device else "self_cpu_time_total"
    # A kernel is listed once more as an event of the device: its operator has the time already.
    operators = [event for event in profiler.key_averages() if event.device_type == DeviceType.CPU]
    events = sorted(operators, key=lambda event: getattr(event, own), reverse=True)
    whole = sum(getattr(event, own) for event in events) or 1
    head = f"{'ms a step':>10}  share  calls  operator, by its own time on the {'device' if on_device else 'CPU'}"
    return [
        head,
        *(
            f"{getattr(event, own) / 1000 / STEPS:10.1f}  {100 * getattr(event, own) / whole:4.1f} %  "
            f"{event.count / STEPS:5.0f}  {event.key[:60]}"
            for event in events[:ROWS]
        ),
    ]

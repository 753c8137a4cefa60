"""The state of a run in one file, so that a run which stopped goes on as if it had not.

One safetensors file holds the tensors, and in its header the rest as JSON: it is replaced in one rename, so the two
never belong to different steps. No random state is in it, because every draw is a function of (seed, epoch, step).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from keyreid.pipeline.commit import commit_file
from keyreid.pipeline.errors import CheckpointError

from .state import TrainingState

FORMAT_VERSION = 1


def checkpoint_path(run: Path) -> Path:
    return run / "checkpoints" / "last.safetensors"


def save_checkpoint(path: Path, state: TrainingState, *, epochs_done: int, steps_done: int) -> None:
    """Write the state as it is after `epochs_done` epochs and `steps_done` steps; whole or not at all."""
    tensors = {
        f"{part}/{name}": tensor
        for part, module in state.modules().items()
        for name, tensor in module.state_dict().items()
    }
    groups = {}
    for part, optimizer in state.optimizers().items():
        content = optimizer.state_dict()
        groups[part] = content["param_groups"]
        for index, entries in content["state"].items():
            tensors.update({f"{part}/{index}/{name}": value for name, value in entries.items() if value is not None})
    info = {
        "format_version": FORMAT_VERSION, "epochs_done": epochs_done, "steps_done": steps_done, "groups": groups,
    }  # fmt: skip
    on_host = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    commit_file(path, lambda partial: save_file(on_host, partial, metadata={"training": json.dumps(info)}))


def load_checkpoint(path: Path, state: TrainingState) -> tuple[int, int]:
    """Fill `state` from a checkpoint of the same configuration; returns epochs and steps done.

    Raises:
        CheckpointError: the file is broken, of another version, or does not fit the state.
    """
    info, tensors = _read(path)
    try:
        for part, module in state.modules().items():
            module.load_state_dict({name: tensors[f"{part}/{name}"] for name in module.state_dict()})
        for part, optimizer in state.optimizers().items():
            entries = _optimizer_entries(tensors, f"{part}/")
            optimizer.load_state_dict({"state": entries, "param_groups": info["groups"][part]})
    except (KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} does not fit this run ({error})", "a checkpoint of the same network", "start a new run"
        ) from error
    return int(info["epochs_done"]), int(info["steps_done"])


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            info = json.loads((file.metadata() or {})["training"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path} is not a training checkpoint ({type(error).__name__}: {error})",
            "",
            "delete it to start this run from its beginning",
        ) from error
    if info.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has checkpoint version {info.get('format_version')}",
            f"version {FORMAT_VERSION}",
            "start a new run",
        )
    return info, tensors


def _optimizer_entries(tensors: dict[str, Tensor], prefix: str) -> dict[int, dict[str, torch.Tensor]]:
    entries: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            index, key = name.removeprefix(prefix).split("/")
            entries.setdefault(int(index), {})[key] = tensor
    return entries

"""The state of a run in one file, so that a run which stopped resumes as if it had not.

One safetensors file holds the tensors, and in its header the rest as JSON: it is replaced in one rename, so the two
never belong to different steps. No random state is in it, because every draw is a function of (seed, epoch, step), and
no sampler, because the order is a function of (seed, epoch).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from keyreid.model.network.state_dict import save_tensors
from keyreid.model.sealed import require_sealed
from keyreid.pipeline.errors import CheckpointError, KeyReIDError

from .state import TrainingState

FORMAT_VERSION = 3
DELETE_IT = "delete it to start this run from its beginning"


@dataclass(kw_only=True)
class Progress:
    """Where a run stands.

    Attributes:
        epoch: the one being trained, from 0; the number of epochs where all are done.
        step: batches of it that are done.
        steps: batches that are done in all.
        seconds: spent in this epoch.
        records: lines of metrics.jsonl that belong to what is done.
        log: what StepLog has to remember, see StepLog.state.
        best: name of a measure -> its highest value so far and the epoch that reached it.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    records: int = 0
    log: dict[str, Any] = field(default_factory=dict)
    best: dict[str, dict[str, float]] = field(default_factory=dict)


def checkpoint_path(run: Path) -> Path:
    return run / "checkpoints" / "last.safetensors"


def save_checkpoint(path: Path, state: TrainingState, progress: Progress) -> None:
    """Write the state, or nothing.

    Raises:
        KeyReIDError: a weight is not finite (such a state is worth nothing), or the disk is full; in both cases the
            checkpoint before stays.
    """
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
    on_host = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    broken = [name for name, tensor in on_host.items() if not tensor.isfinite().all()]
    if broken:
        kept = f"the last checkpoint before it is {path}" if path.exists() else "there is no checkpoint from before it"
        raise KeyReIDError(
            f"{len(broken)} tensors of the training state are not finite after step {progress.steps} "
            f"(first: {broken[0]}); {kept}",
            "finite weights",
            "lower training.learning_rate or set training.clip_gradient",
        )
    info = {
        "format_version": FORMAT_VERSION, "progress": asdict(progress), "groups": groups,
        "scaler": state.scaler.state_dict(),
    }  # fmt: skip
    save_tensors(path, on_host, **info)


def load_checkpoint(path: Path, state: TrainingState) -> Progress:
    """Fill `state` from a checkpoint of the same configuration; returns where the run stood.

    Raises:
        CheckpointError: the file was changed, is of another version, or does not fit the state.
    """
    info, tensors = _read(path)
    try:
        for part, module in state.modules().items():
            module.load_state_dict({name: tensors[f"{part}/{name}"] for name in module.state_dict()})
        for part, optimizer in state.optimizers().items():
            ways = [{key: group[key] for key in ("foreach", "fused")} for group in optimizer.param_groups]
            groups = [saved | way for saved, way in zip(info["groups"][part], ways, strict=True)]  # of this device
            entries = _optimizer_entries(tensors, f"{part}/")
            optimizer.load_state_dict({"state": entries, "param_groups": groups})
        if state.scaler.is_enabled() and info["scaler"]:
            state.scaler.load_state_dict(info["scaler"])
        return Progress(**info["progress"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} does not fit this run ({error})", "a checkpoint of the same network", "start a new run"
        ) from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    require_sealed(path, DELETE_IT, CheckpointError)
    try:
        with safe_open(path, framework="pt") as file:
            info = json.loads((file.metadata() or {})["keyreid"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path} is not a training checkpoint ({type(error).__name__}: {error})",
            "",
            DELETE_IT,
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

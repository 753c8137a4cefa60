"""State dicts to and from files, and the one comparison that says what does not fit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from keyreid.pipeline.commit import commit_file
from keyreid.pipeline.errors import CheckpointError

from ..sealed import UNSEALED, seal

LISTED = 12  # names of tensors in a message before "and n more"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], **facts: Any) -> None:
    """Commit a safetensors file that carries its hash (sealed.py) and, in its metadata, some JSON values."""
    on_host = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One entry: several would come in another order in each file.
    metadata = {"keyreid": json.dumps({"seal": UNSEALED, **facts})}

    def write(partial: Path) -> None:
        save_file(on_host, partial, metadata=metadata)
        seal(partial)

    commit_file(path, write)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors file, or of a state dict saved by torch (never unpickled beyond tensors), on the CPU.

    Raises:
        CheckpointError: no such file, or not tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}", "a .safetensors file or a state dict saved by torch")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file raises whatever its first bytes happen to mean
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read ({reason})",
            "a .safetensors file or a state dict saved by torch, tensors only",
            "if it is whole, save its state dict again with torch.save(model.state_dict(), path)",
        ) from error
    return unwrap(content, str(path))


def unwrap(content: Any, source: str) -> dict[str, Tensor]:
    """The state dict within what training scripts save: under "model" or "state_dict", names led by "module.".

    Raises:
        CheckpointError: there is none.
    """
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content or not all(torch.is_tensor(v) for v in content.values()):
        raise CheckpointError(f"{source} holds a {type(content).__name__}", "a state dict: names and tensors")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], source: str, remedy: str = "") -> None:
    """Copy `tensors` into `module`, every one of them into every place.

    Raises:
        CheckpointError: names are missing, unexpected or of another shape, each listed; nothing was copied.
    """
    problems = misfits(tensors, {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()})
    if problems:
        raise CheckpointError(f"{source} does not fit the network; {problems}", "", remedy)
    module.load_state_dict(dict(tensors))


def misfits(tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]]) -> str:
    """Names that are missing, unexpected or of another shape than `wanted` says; "" if there are none."""
    both = wanted.keys() & tensors.keys()
    reshaped = [
        f"{name} {tuple(tensors[name].shape)} instead of {wanted[name]}"
        for name in sorted(both)
        if tuple(tensors[name].shape) != wanted[name]
    ]
    kinds = {
        "missing": sorted(wanted.keys() - both),
        "unexpected": sorted(tensors.keys() - both),
        "of another shape": reshaped,
    }
    return "; ".join(f"{kind}: {listed(names)}" for kind, names in kinds.items() if names)


def listed(names: Iterable[str]) -> str:
    """Names for a message, the first dozen of them."""
    names = list(names)
    rest = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + rest

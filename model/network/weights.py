"""A trained network on disk: model.safetensors and, beside it, config.json that rebuilds it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from keyreid.pipeline.commit import commit_file, read_json, write_json
from keyreid.pipeline.errors import CheckpointError, KeyReIDError

from .build import build_model
from .config import ModelConfig
from .keyreid import KeyReID
from .state_dict import load_exactly, read_state_dict

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
FORMAT_VERSION = 1


def save_model(model: KeyReID, folder: Path, extra: dict[str, Any] | None = None) -> None:
    """Write a network so that `load_model` gives it back bit for bit; each of the two files is whole or the old one.

    Args:
        model: what to save, of any device.
        folder: made where it is missing.
        extra: JSON values kept with the config, such as the dataset and the step; `read_config` returns them.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    commit_file(folder / WEIGHTS_FILE, lambda partial: save_file(tensors, partial, metadata={"format": "pt"}))
    write_json(
        folder / CONFIG_FILE, {"format_version": FORMAT_VERSION, "model": model.config.to_dict(), "extra": extra or {}}
    )


def load_model(path: Path | str) -> KeyReID:
    """The network in a folder of `save_model` (or its model.safetensors), in eval mode, on the CPU.

    Raises:
        CheckpointError: a file is missing or broken, the config is unknown, or tensors do not fit it, each listed.
    """
    folder = _folder(Path(path))
    config, _ = read_config(folder)
    model = build_model(config, load_backbone=False)
    weights_path = folder / WEIGHTS_FILE
    load_exactly(model, read_state_dict(weights_path), str(weights_path), f"is {CONFIG_FILE} beside it from it?")
    return model.eval()


def read_config(path: Path | str) -> tuple[ModelConfig, dict[str, Any]]:
    """The config in a folder of `save_model`, and the `extra` that was saved with it.

    Raises:
        CheckpointError: the file is missing, broken, or of another version, or a field is unknown or out of range.
    """
    config_path = _folder(Path(path)) / CONFIG_FILE
    if not config_path.is_file():
        raise CheckpointError(
            f"there is no {config_path}", f"{CONFIG_FILE} beside {WEIGHTS_FILE}", "keyreid-train writes both"
        )
    try:
        content = read_json(config_path)
    except KeyReIDError as error:
        raise CheckpointError(error.found, "the config of a network", "copy it again from where it was made") from error
    if not isinstance(content, dict) or content.get("format_version") != FORMAT_VERSION:
        version = content.get("format_version") if isinstance(content, dict) else None
        raise CheckpointError(
            f"{config_path} has format version {version}", str(FORMAT_VERSION), "another version of keyreid wrote it"
        )
    try:
        return ModelConfig.from_dict(content.get("model", {})), dict(content.get("extra", {}))
    except KeyReIDError as error:
        raise CheckpointError(f"{config_path}: {error.found}", error.expected, error.remedy) from error


def _folder(path: Path) -> Path:
    return path.parent if path.suffix == ".safetensors" else path

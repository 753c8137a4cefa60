"""A trained network on disk: model.safetensors, and config.json that rebuilds it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from keyreid.pipeline.commit import read_json, write_json
from keyreid.pipeline.errors import CheckpointError, KeyReIDError

from ..sealed import require_sealed
from .build import build_model
from .config import ModelConfig
from .keyreid import KeyReID
from .state_dict import load_exactly, read_state_dict, save_tensors

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
FORMAT_VERSION = 2


def save_model(model: KeyReID, folder: Path, extra: dict[str, Any] | None = None) -> None:
    """Write a network so that `load_model` gives it back bit for bit; each of the two files is complete or the old one.

    Args:
        model: what to save, of any device.
        folder: made where it is missing.
        extra: JSON values kept with the config, such as the dataset and the step; `read_config` returns them.
    """
    save_tensors(folder / WEIGHTS_FILE, model.state_dict())
    write_json(
        folder / CONFIG_FILE, {"format_version": FORMAT_VERSION, "model": model.config.to_dict(), "extra": extra or {}}
    )


def load_model(path: Path | str) -> KeyReID:
    """The network in a folder of `save_model` (or its model.safetensors), in eval mode, on the CPU.

    Raises:
        CheckpointError: a file is missing or was changed, the config is unknown, or tensors do not fit it, each listed.
    """
    folder = _folder(Path(path))
    config, _ = read_config(folder)
    model = build_model(config, load_backbone=False)
    weights_path = folder / WEIGHTS_FILE
    if weights_path.is_file():  # where it is not, read_state_dict says so
        require_sealed(weights_path, "copy it again from where it was made", CheckpointError)
    load_exactly(
        model, read_state_dict(weights_path), str(weights_path), f"does {CONFIG_FILE} next to it belong to it?"
    )
    return model.eval()


def read_config(path: Path | str) -> tuple[ModelConfig, dict[str, Any]]:
    """The config in a folder of `save_model`, and the `extra` that was saved with it.

    Raises:
        CheckpointError: the file is missing, broken, or of another version, or a field is unknown or out of range.
    """
    config_path = _folder(Path(path)) / CONFIG_FILE
    if not config_path.is_file():
        raise CheckpointError(
            f"there is no {config_path}", f"{CONFIG_FILE} next to {WEIGHTS_FILE}", "keyreid-train writes both"
        )
    try:
        content = read_json(config_path)
    except KeyReIDError as error:
        raise CheckpointError(
            error.found,
            "the config of a network",
            "copy it again from where it was made; a network of an older keyreid has to be trained again",
        ) from error
    if content.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{config_path} has format version {content.get('format_version')}",
            str(FORMAT_VERSION),
            "another version of keyreid wrote it",
        )
    try:
        return ModelConfig.from_dict(content.get("model", {})), dict(content.get("extra", {}))
    except KeyReIDError as error:
        raise CheckpointError(f"{config_path}: {error.found}", error.expected, error.remedy) from error


def _folder(path: Path) -> Path:
    return path.parent if path.suffix == ".safetensors" else path

"""A trained network as evaluation takes it: found, loaded, on its device, with the identity split it belongs to."""

from __future__ import annotations

import logging
from pathlib import Path

from keyreid.pipeline.errors import CheckpointError, SettingsError

from ..device import choose_device
from ..network.keyreid import KeyReID
from ..network.weights import WEIGHTS_FILE, load_model, read_config

logger = logging.getLogger(__name__)


def weights_folder(checkpoint: Path) -> Path:
    """The folder that holds model.safetensors: a training run's weights/, or the folder or file that was named.

    Raises:
        CheckpointError: there is none.
    """
    if not checkpoint.exists():
        raise CheckpointError(
            f"{checkpoint} does not exist", f"a run of keyreid-train, or a folder with {WEIGHTS_FILE} and config.json"
        )
    if checkpoint.is_file():
        return checkpoint.parent
    for folder in (checkpoint / "weights", checkpoint):
        if (folder / WEIGHTS_FILE).is_file():
            return folder
    raise CheckpointError(
        f"{checkpoint} holds no {WEIGHTS_FILE}, nor does {checkpoint / 'weights'}",
        "a run of keyreid-train, or a folder of exported weights",
        "if it is a run, let it finish: keyreid-train --resume",
    )


def load_network(checkpoint: Path, device: str) -> KeyReID:
    """The network of a checkpoint in eval mode; device is "auto", "cpu" or "cuda".

    Raises:
        CheckpointError: see weights_folder and load_model.
        SettingsError: there is no CUDA device.
    """
    chosen = choose_device(device)
    return load_model(weights_folder(checkpoint)).to(chosen)


def choose_identity_split(checkpoint: Path, dataset: str, asked: int | None) -> int:
    """The split to measure on: the one the network was trained on, unless it comes from another dataset.

    A checkpoint that does not say what it was trained on, such as one of the authors', takes what is asked for.

    Args:
        checkpoint: as for weights_folder.
        dataset: name of the prepared dataset.
        asked: what the user asks for, if anything.

    Raises:
        SettingsError: another split of the training dataset, in which test identities were training identities.
    """
    made_from = read_config(weights_folder(checkpoint))[1].get("dataset", {})
    trained = made_from.get("identity_split") if made_from.get("name") == dataset else None
    if trained is None or asked == trained:
        return asked or 0
    if asked is not None:
        raise SettingsError(
            f"identity split {asked} for a network trained on split {trained} of {dataset}",
            f"split {trained}: it has seen test people of the others",
            "leave --identity-split out, or train on that split",
        )
    return int(trained)


def warn_of_foreign_cameras(checkpoint: Path, dataset: str) -> None:
    """Log that camera numbers of one dataset are about to be taken for another's, which nothing else would show."""
    config, extra = read_config(weights_folder(checkpoint))
    trained = extra.get("dataset", {}).get("name", dataset)
    if config.camera_scale and trained != dataset:
        logger.warning(
            "the network was trained on %s: camera numbers of %s are taken for the cameras there; "
            "--cameras mean if they are others",
            trained,
            dataset,
        )

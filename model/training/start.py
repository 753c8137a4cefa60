"""A run that starts from a trained network of ours instead of from its backbone's weights: `keyreid-train --from`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from keyreid.model.distributed import is_first_process
from keyreid.model.evaluation.checkpoint import weights_folder
from keyreid.model.network.config import ModelConfig, NetworkSettings
from keyreid.model.network.keyreid import KeyReID
from keyreid.model.network.state_dict import load_exactly
from keyreid.model.network.weights import WEIGHTS_FILE, load_model, read_config
from keyreid.pipeline.commit import sha256_of
from keyreid.pipeline.errors import SettingsError

CLASSIFIERS = ("global_head.classifier.weight", "part_heads.classifiers")
CAMERAS = "backbone.camera_embedding.weight"

logger = logging.getLogger(__name__)


class Start(NamedTuple):
    """A trained network that a run starts from.

    Attributes:
        folder: of its weights.
        model: the network, on the CPU.
        dataset: what it was trained on, see run_folder.dataset_settings; {} if it does not say.
        origin: what the new run keeps of it: the hash of its weights, its dataset, and its own origin.
    """

    folder: Path
    model: KeyReID
    dataset: dict[str, Any]
    origin: dict[str, Any]


def start_values(checkpoint: Path) -> tuple[dict[str, Any], Path | None]:
    """The model section of a trained network's config, and the config.yaml of its run where there is one.

    Raises:
        CheckpointError: there is no network.
    """
    folder = weights_folder(checkpoint)
    values = read_config(folder)[0].to_dict()
    recipe = folder.parent / "config.yaml"
    return {key: values[key] for key in NetworkSettings.model_fields}, recipe if recipe.is_file() else None


def read_start(checkpoint: Path) -> Start:
    """Load the network.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    folder = weights_folder(checkpoint)
    extra = read_config(folder)[1]
    origin = {key: extra[key] for key in ("dataset", "origin") if extra.get(key)}
    origin["weights"] = sha256_of(folder / WEIGHTS_FILE)
    return Start(folder, load_model(folder), extra.get("dataset", {}), origin)


def refuse_seen_test_people(start: Start, dataset: Mapping[str, Any]) -> None:
    """Refuse a network that was trained on another division of the same identities: it has seen the test people.

    Args:
        start: the network.
        dataset: what is to be trained on, see run_folder.dataset_settings.

    Raises:
        SettingsError: it was.
    """
    before: dict[str, Any] | None = start.origin
    while before:
        trained = before.get("dataset", {})
        split = trained.get("identity_split")
        if trained.get("name") == dataset["name"] and split != dataset["identity_split"]:
            raise SettingsError(
                f"{start.folder} was trained on identity split {split} of {dataset['name']}, and some of its training "
                f"people are test people of split {dataset['identity_split']}",
                f"--identity-split {split}, or a network that was trained on other people",
            )
        before = before.get("origin")


def start_from(model: KeyReID, start: Start, *, same_cameras: bool) -> None:
    """Give a new network all that another has learnt, but its classifiers: the identities are others.

    A camera's embedding is that of the camera of the same name, or else the mean over all. Numbers are names only
    within one dataset.

    Args:
        model: as it was built; keeps its random classifiers.
        start: where the values come from.
        same_cameras: whether equal numbers are equal cameras.

    Raises:
        CheckpointError: the networks have different shapes.
    """
    tensors, own = dict(start.model.state_dict()), model.state_dict()
    tensors.update({name: own[name] for name in CLASSIFIERS})
    if CAMERAS not in own:
        tensors.pop(CAMERAS, None)
    elif CAMERAS not in tensors:
        tensors[CAMERAS] = own[CAMERAS]
    else:
        tensors[CAMERAS] = _camera_rows(tensors[CAMERAS], start.model.config, model.config, same_cameras)
    remedy = "leave out what changes the network's shape in --config and --set, or train without --from"
    load_exactly(model, tensors, str(start.folder / WEIGHTS_FILE), remedy)


def _camera_rows(table: Tensor, before: ModelConfig, now: ModelConfig, same_cameras: bool) -> Tensor:
    """float (cameras of `now`, C) of float (cameras of `before`, C)."""
    known = {name: row for row, name in enumerate(before.camera_labels) if same_cameras or not name.isdecimal()}
    new = [name for name in now.camera_labels if name not in known]
    if new and is_first_process():
        numbers = any(map(str.isdecimal, new)) and not same_cameras
        logger.warning(
            "cameras %s start from the mean embedding of those that the network was trained with (%s)%s",
            ", ".join(new),
            ", ".join(before.camera_labels),
            ": numbers of another dataset are other cameras; --same-cameras if they are not" if numbers else "",
        )
    rows = table.mean(0).repeat(len(now.camera_labels), 1)
    for row, name in enumerate(now.camera_labels):
        if name in known:
            rows[row] = table[known[name]]
    return rows

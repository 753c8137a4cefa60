"""What training reads, opened."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from keyreid.model.data.labels import LabelTables
from keyreid.model.data.loader import TrainingLoader, training_loader
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.store import TrackletStore

from .config import RunConfig


class TrainingInputs(NamedTuple):
    """The training split of a prepared dataset.

    Attributes:
        store: the prepared dataset.
        tracklets: of the training split, those with a readable frame.
        labels: rows of the identity and camera tables.
        loader: the batches.
    """

    store: TrackletStore
    tracklets: tuple[Tracklet, ...]
    labels: LabelTables
    loader: TrainingLoader


def open_inputs(
    prepared: Path, config: RunConfig, *, device: torch.device, num_workers: int, identity_split: int
) -> TrainingInputs:
    """Open a prepared dataset for training.

    Raises:
        FormatError: no prepared dataset, or its shards are missing.
        SettingsError: too few identities.
    """
    store = TrackletStore(prepared, identity_split)
    tracklets = store.tracklets("train")
    labels = LabelTables.of(tracklets)
    loader = training_loader(
        store,
        labels,
        clip_length=config.model["clip_length"],
        frame_size=tuple(config.model["frame_size"]),
        identities_per_batch=config.training.identities_per_batch,
        clips_per_identity=config.training.clips_per_identity,
        seed=config.training.seed,
        num_workers=num_workers,
        device=device,
    )
    return TrainingInputs(store, tracklets, labels, loader)

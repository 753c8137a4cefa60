"""What training reads, opened."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import torch

from keyreid.model.data.labels import LabelTables
from keyreid.model.data.loader import TrainingLoader
from keyreid.model.distributed import Ranks
from keyreid.pipeline.environment import keep_freed_memory
from keyreid.pipeline.errors import FormatError
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.stages import SHARDS, stage_receipts
from keyreid.pipeline.store import TrackletStore

from .config import RunConfig
from .validation import Validation, open_validation, trained_tracklets

ALONE = Ranks()


class TrainingInputs(NamedTuple):
    """The training split of a prepared dataset.

    Attributes:
        store: the prepared dataset.
        tracklets: that are trained on: of the training split, those with a readable frame, without a holdout.
        labels: rows of the identity and camera tables.
        loader: this rank's share of the batches.
        validation: what is measured on the way, if anything.
        num_workers: processes that read and decode for the loader.
    """

    store: TrackletStore
    tracklets: tuple[Tracklet, ...]
    labels: LabelTables
    loader: TrainingLoader
    validation: Validation | None
    num_workers: int


def open_inputs(
    prepared: Path,
    config: RunConfig,
    *,
    device: torch.device,
    num_workers: int,
    identity_split: int,
    ranks: Ranks = ALONE,
) -> TrainingInputs:
    """Open a prepared dataset for training.

    Raises:
        FormatError: no prepared dataset, or its shards are missing.
        SettingsError: too few identities, or nothing to validate on where that was asked for.
    """
    if device.type == "cpu":
        keep_freed_memory()  # a batch's tensors are as large as the last one's
    store = TrackletStore(prepared, identity_split)
    tracklets = trained_tracklets(store, config.training)
    labels = LabelTables.of(tracklets)
    validation = open_validation(store, labels, config.training, config.model.camera_scale, num_workers)
    loader = TrainingLoader(
        store,
        labels,
        clip_length=config.model.clip_length,
        frame_size=config.model.frame_size,
        identities_per_batch=config.training.scaled_identities,
        clips_per_identity=config.training.clips_per_identity,
        seed=config.training.seed,
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
        rank=ranks.rank,
        world_size=ranks.size,
    )
    return TrainingInputs(store, tracklets, labels, loader, validation, num_workers)


def compare_shards(inputs: TrainingInputs, ranks: Ranks = ALONE) -> None:
    """This rank's share of the shards that training and validation read, against the hashes in their receipts.

    Raises:
        FormatError: one is missing or was changed.
    """
    measured = inputs.validation.selection.tracklets if inputs.validation else ()
    shards = inputs.store.shards_of((*inputs.tracklets, *measured))
    inputs.store.require_intact(shards[ranks.rank :: ranks.size], hidden=not ranks.is_first)


def require_same_shards(store: TrackletStore) -> None:
    """Look whether the dataset still has the shards that the store was opened with, by their receipts.

    Raises:
        FormatError: it has others, or keypoints that they were not made from.
    """
    remedy = "start a new run with the shards that are there now, or restore the old ones and add --resume"
    try:
        now = stage_receipts(store.path, SHARDS).values()
    except FormatError as error:
        raise FormatError(f"the shards changed during this run: {error.found}", error.expected, remedy) from error
    changed = [old.shard for old, new in zip(store.receipts, now, strict=False) if old.sha256 != new.sha256]
    if changed:
        raise FormatError(
            f"{len(changed)} shards of {store.path} were rebuilt during this run (first: {changed[0]:05d})",
            "the bytes that the run started with",
            remedy,
        )


def remarks(inputs: TrainingInputs) -> list[str]:
    """What a person should know of the data before waiting for hours."""
    tracklets = Counter(tracklet.identity for tracklet in inputs.tracklets)
    cameras: dict[int, set[int]] = defaultdict(set)
    for tracklet in inputs.tracklets:
        cameras[tracklet.identity].add(tracklet.camera)
    single = sum(count == 1 for count in tracklets.values())
    one_camera = sum(len(seen) == 1 for seen in cameras.values())
    found = []
    if single:
        found.append(f"{single} of {len(tracklets)} training identities have one tracklet, whose clips a batch repeats")
    if one_camera:
        found.append(
            f"{one_camera} of {len(tracklets)} training identities were seen by one camera only: they teach nothing "
            "about how a person changes from camera to camera"
        )
    if inputs.validation is not None and inputs.validation.name == "test":
        found.append("the best epoch is chosen on the test set, so that its numbers measure nothing: see --validate-on")
    return found

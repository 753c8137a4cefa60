"""What training reads, opened: the training split, and what is measured during training."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from keyreid.model.data.labels import LabelTables, camera_indices
from keyreid.model.data.loader import TrainingLoader
from keyreid.model.data.sampler import numpy_generator
from keyreid.model.distributed import Ranks
from keyreid.model.embedding.tracklets import embed_tracklets
from keyreid.model.evaluation.measurement import measure
from keyreid.model.evaluation.protocols import Selection, find_protocol, own_cameras
from keyreid.model.network.keyreid import KeyReID
from keyreid.pipeline.environment import keep_freed_memory
from keyreid.pipeline.errors import FormatError, SettingsError
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.stages import SHARDS, stage_receipts
from keyreid.pipeline.store import TrackletStore

from .config import RunConfig, TrainingConfig

ALONE = Ranks()


class TrainingInputs(NamedTuple):
    """The training split of a prepared dataset.

    Attributes:
        store: the prepared dataset.
        tracklets: that are trained on: of the training split, those with a readable frame, without a holdout.
        labels: rows of the identity and camera tables.
        loader: this rank's share of the batches.
        validation: what is measured during training, if anything.
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


PROTOCOL = "standard"
HOLDOUT = "holdout"


@dataclass(frozen=True)
class Validation:
    """Queries and gallery that are measured every so often.

    Attributes:
        name: "holdout" or "test".
        store: where the tracklets are.
        selection: queries and gallery.
        batch_size: clips that go through the network at once.
        num_workers: processes that read and decode.
    """

    name: str
    store: TrackletStore
    selection: Selection
    batch_size: int
    num_workers: int

    def measure(self, model: KeyReID) -> dict[str, float | int | str]:
        """The numbers of a network in eval mode, as shares from 0 to 1, and what they were measured on."""
        label = f"measure ({self.name})"
        tracklets = self.selection.tracklets
        described = embed_tracklets(
            model,
            self.store,
            tracklets,
            batch_size=self.batch_size,
            fingerprint="",
            label=label,
            num_workers=self.num_workers,
        )
        metrics = measure(self.name, described, find_protocol(PROTOCOL), self.selection).metrics
        return {
            "on": self.name, "protocol": PROTOCOL, "mAP": metrics.mAP, "rank1": metrics.rank(1),
            "rank5": metrics.rank(5), "mINP": metrics.mINP, "num_valid_queries": metrics.num_valid_queries,
        }  # fmt: skip


def choose_holdout(tracklets: Sequence[Tracklet], share: float, seed: int) -> tuple[int, ...]:
    """Identities to measure on, a pure function of the arguments.

    One can be taken only if at least two cameras saw it, or its queries would have no match, and if training keeps
    tracklets of all its cameras, or the network would not know them.

    Args:
        tracklets: of the training split.
        share: of its identities; at least two are taken.
        seed: of the run.

    Raises:
        SettingsError: there are not as many.
    """
    cameras: dict[int, Counter[int]] = {}
    for tracklet in tracklets:
        cameras.setdefault(tracklet.identity, Counter())[tracklet.camera] += 1
    wanted = max(2, round(share * len(cameras)))
    left = Counter(tracklet.camera for tracklet in tracklets)
    chosen: list[int] = []
    for identity in numpy_generator("holdout", seed).permutation(sorted(cameras)).tolist():
        own = cameras[identity]
        if len(chosen) < wanted and len(own) > 1 and all(left[camera] > count for camera, count in own.items()):
            chosen.append(identity)
            left.subtract(own)
    if len(chosen) < wanted:
        raise SettingsError(
            f"{len(chosen)} of {len(cameras)} training identities can be held out",
            f"{wanted}, each seen by two cameras or more that also see identities which stay in training",
            "lower training.holdout_share, or measure on nothing with --validate-on none",
        )
    return tuple(sorted(chosen))


def trained_tracklets(store: TrackletStore, config: TrainingConfig) -> tuple[Tracklet, ...]:
    """The training split, under validate_on = "holdout" without the identities that are held out.

    Raises:
        SettingsError: too few identities can be.
    """
    tracklets = store.tracklets("train")
    if config.validate_on != HOLDOUT:
        return tracklets
    chosen = set(choose_holdout(tracklets, config.holdout_share, config.seed))
    return tuple(tracklet for tracklet in tracklets if tracklet.identity not in chosen)


def open_validation(
    store: TrackletStore, labels: LabelTables, config: TrainingConfig, camera_scale: float, num_workers: int = 0
) -> Validation | None:
    """What to measure on; None for validate_on = "none".

    Every tracklet that is held out is query and gallery entry at once: a ranking leaves out those of the query's own
    identity and camera, and so the query itself.

    Args:
        store: the prepared dataset.
        labels: of the tracklets that are trained on.
        config: says on what.
        camera_scale: of the network; 0 where it does not care for cameras.
        num_workers: processes that read and decode while measuring.

    Raises:
        SourceError: "test", and the dataset has no queries or no gallery.
        SettingsError: "test", and it has cameras that training does not see.
    """
    if config.validate_on == "none":
        return None
    if config.validate_on == HOLDOUT:
        held_out = tuple(t for t in store.tracklets("train") if t.identity not in labels.identities)
        cameras = own_cameras(held_out)
        return Validation(
            HOLDOUT, store, Selection(held_out, held_out, cameras, cameras), config.clips_per_batch, num_workers
        )
    selection = find_protocol(PROTOCOL).select(store.tracklets("query", "gallery"))
    if camera_scale:
        camera_indices([tracklet.camera for tracklet in selection.tracklets], labels.cameras)
    return Validation("test", store, selection, config.clips_per_batch, num_workers)

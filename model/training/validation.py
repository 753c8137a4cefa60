"""Measuring the network while it trains, on identities taken out of the training split or on the test set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from keyreid.model.data.labels import LabelTables, camera_indices
from keyreid.model.data.sampler import numpy_generator
from keyreid.model.embedding.tracklets import embed_tracklets
from keyreid.model.evaluation.measurement import measure
from keyreid.model.evaluation.protocols import Selection, find_protocol, own_cameras
from keyreid.model.network.keyreid import KeyReID
from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.store import TrackletStore

from .config import TrainingConfig

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

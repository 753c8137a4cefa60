"""One descriptor a tracklet: every clip through the network, in batches that span tracklets.

Letters: n clips, K tracklets, T frames, N patches, P parts, D descriptor length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from keyreid.pipeline.environment import progress_bar
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.store import TrackletStore

from ..network.config import ModelConfig
from ..network.keyreid import KeyReID
from .clip_batches import clip_batches
from .clip_network import Compute, device_of, through_network
from .clip_pool import ClipPool
from .settings import PLAIN, DescriptionSettings, camera_rows


@dataclass(frozen=True)
class Origin:
    """What descriptors were made by, from and how.

    Attributes:
        model: fingerprint of the network's weights and configuration: only descriptors of one model can be compared.
        data: fingerprint of the prepared dataset.
        dataset: its name.
        settings: DescriptionSettings as JSON values.
        precision: in which the network computed: "float32", "bfloat16" or "float16".
    """

    model: str = ""
    data: str = ""
    dataset: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    precision: str = "float32"


@dataclass(frozen=True)
class TrackletDescriptors:
    """Descriptors of K tracklets, one row each.

    Attributes:
        values: float32 or float16 (K, D): the global feature and then the parts, each times the root of its weight.
        visibility: float32 (K, P), in [0, 1]: how much of each part the tracklet's clips show; (K, 0) where the
            method does not say: a colour histogram, the `reference` variant.
        tracklet_ids, identities, cameras: int64 (K,), as in the manifest.
        widths: int64 (1 + P,), columns of `values` that are the global feature's and each part's; (D,) in one where
            there are no parts.
        weights: float64, as long as `widths`: the factor of each feature in the squared distance.
        fingerprint: what made them from which data; equal fingerprints and tracklets mean equal values, up to rounding.
        origin: the same in detail, as far as it is known.
    """

    values: np.ndarray
    visibility: np.ndarray
    tracklet_ids: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray
    widths: np.ndarray
    weights: np.ndarray
    fingerprint: str
    origin: Origin = field(default_factory=Origin)

    @classmethod
    def of(
        cls,
        tracklets: Sequence[Tracklet],
        values: np.ndarray,
        fingerprint: str,
        *,
        visibility: np.ndarray | None = None,
        widths: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> TrackletDescriptors:
        """Rows in the order of `tracklets`; without the last three, one feature of weight 1 and no parts."""
        tracklet_ids, identities, cameras = (
            np.array([getattr(tracklet, name) for tracklet in tracklets], np.int64)
            for name in ("tracklet_id", "identity", "camera")
        )
        return cls(
            values,
            np.zeros((len(values), 0), np.float32) if visibility is None else visibility,
            tracklet_ids,
            identities,
            cameras,
            np.array([values.shape[1]], np.int64) if widths is None else widths,
            np.ones(1) if weights is None else weights,
            fingerprint,
        )

    def rows(self, tracklets: Sequence[Tracklet]) -> np.ndarray:
        """Row of each tracklet, int64 (len(tracklets),); KeyError for one that was not described."""
        place = {int(tracklet_id): row for row, tracklet_id in enumerate(self.tracklet_ids)}
        return np.array([place[tracklet.tracklet_id] for tracklet in tracklets], np.int64)


def describe_tracklets(
    model: KeyReID,
    store: TrackletStore,
    tracklets: Sequence[Tracklet],
    *,
    batch_size: int,
    fingerprint: str,
    label: str = "describe",
    settings: DescriptionSettings = PLAIN,
    num_workers: int = 0,
    mixed_precision: bool = True,
) -> TrackletDescriptors:
    """Describe tracklets as one part; see describe_parts. `fingerprint` is kept in the result."""
    compute = Compute(batch_size, num_workers, mixed_precision)
    with progress_bar(len(tracklets), label, "tracklets") as bar:
        (found,) = describe_parts(model, store, [tracklets], settings, compute, fingerprint, bar.update)
    return found


def describe_parts(
    model: KeyReID,
    store: TrackletStore,
    parts: Sequence[Sequence[Tracklet]],
    settings: DescriptionSettings,
    compute: Compute,
    fingerprint: str,
    report: Callable[[int], object],
) -> Iterator[TrackletDescriptors]:
    """Describe the clips of each tracklet and pool them (paper, section 3.4; method M8, M12), part by part.

    Memory holds two batches of frames, those that workers have ahead, the clips of the tracklets that a batch touches,
    and one part. A part's values do not depend on the other parts.

    Args:
        model: in eval mode, on the device to use.
        store: where the frames and heatmaps are.
        parts: tracklets with at least one readable frame each.
        settings, compute: how.
        fingerprint: kept in the result.
        report: is told of numbers of tracklets done.

    Raises:
        SettingsError: a camera that the network does not know, too many shifts, or a batch size below 1.
        FormatError: a frame that cannot be read.
    """
    if not parts:
        return
    settings.check(model.config)
    cameras = [camera_rows(part, model.config, settings.cameras) for part in parts]
    batches = clip_batches(
        store, parts, model.config, settings,
        batch_size=compute.batch_size, num_workers=compute.num_workers, pin=device_of(model).type == "cuda",
    )  # fmt: skip
    pool, current, done = ClipPool(len(parts[0]), model.config), 0, 0
    for plan, clips in through_network(model, batches, cameras, settings, compute):
        if plan.part != current:
            yield _finished(pool, parts[current], model.config, fingerprint)
            report(len(parts[current]) - done)
            pool, current, done = ClipPool(len(parts[plan.part]), model.config), plan.part, 0
        pool.add(torch.tensor(plan.rows).repeat(1 + settings.flip), clips)
        report(plan.rows[-1] - done)
        done = plan.rows[-1]
    yield _finished(pool, parts[current], model.config, fingerprint)
    report(len(parts[current]) - done)


def _finished(
    pool: ClipPool, tracklets: Sequence[Tracklet], config: ModelConfig, fingerprint: str
) -> TrackletDescriptors:
    pool.finish()
    weights = _feature_weights(config, len(pool.widths))
    return TrackletDescriptors.of(
        tracklets, pool.values, fingerprint, visibility=pool.visibility, widths=pool.widths, weights=weights
    )


def _feature_weights(config: ModelConfig, num_features: int) -> np.ndarray:
    """Factor of the global and of each part's squared distance; the `reference` variant divides parts by P."""
    num_parts = num_features - 1
    if config.variant == "reference":
        return np.array([1.0] + [1.0 / num_parts**2] * num_parts)
    return np.array([config.global_weight] + [config.part_weight] * num_parts)

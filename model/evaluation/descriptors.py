"""One descriptor a tracklet: every clip through the network, in batches that span tracklets.

Letters: n clips, K tracklets, T frames, N patches, P parts, D descriptor length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.progress import progress_bar
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.store import TrackletStore

from ..data.clips import Clip, evaluation_clips
from ..data.decode import decode_clip
from ..data.labels import camera_indices
from ..data.prepare import normalise_frames, part_weights_from_heatmaps
from ..network.config import ModelConfig
from ..network.keyreid import KeyReID
from .clip_pool import ClipPool


@dataclass(frozen=True)
class TrackletDescriptors:
    """Descriptors of K tracklets, one row each.

    Attributes:
        values: float32 (K, D): the global feature and then the parts, each times the root of its weight.
        visibility: float32 (K, P), in [0, 1]: how much of each part the tracklet's clips show; (K, 0) where the
            method does not say: a colour histogram, the `reference` variant.
        tracklet_ids, identities, cameras: int64 (K,), as in the manifest.
        widths: int64 (1 + P,), columns of `values` that are the global feature's and each part's; (D,) in one where
            there are no parts.
        weights: float64, as long as `widths`: the factor of each feature in the squared distance.
        fingerprint: what made them from which data; equal fingerprints and tracklets mean equal values.
    """

    values: np.ndarray
    visibility: np.ndarray
    tracklet_ids: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray
    widths: np.ndarray
    weights: np.ndarray
    fingerprint: str

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
) -> TrackletDescriptors:
    """Describe all clips of each tracklet and pool them (paper, section 3.4; method M8, M12).

    Memory holds one batch of frames, the clips of the tracklets it touches, and the result.

    Args:
        model: in eval mode, on the device to use.
        store: where the frames and heatmaps are.
        tracklets: with at least one readable frame each.
        batch_size: clips that go through the network at once; the result does not depend on it.
        fingerprint: kept in the result.
        label: of the progress bar.

    Raises:
        SettingsError: a camera that the network does not know, or a batch size below 1.
    """
    if batch_size < 1:
        raise SettingsError(f"a batch of {batch_size} clips", "at least 1")
    device = next(model.parameters()).device
    cameras = _camera_rows(tracklets, model.config)
    clips = _all_clips(store, tracklets, model.config)
    pool = ClipPool(len(tracklets), model.config)
    with progress_bar(len(tracklets), label, "tracklets") as bar, torch.inference_mode():
        while batch := list(islice(clips, batch_size)):
            rows = torch.tensor([row for row, _ in batch])
            frames, weights = _read_batch(store, [(tracklets[row], clip) for row, clip in batch], model, device)
            pool.add(rows, model.describe(frames, weights, cameras[rows].to(device)))
            bar.update(int(rows[-1]) - bar.n)
        pool.finish()
        bar.update(len(tracklets) - bar.n)
    return TrackletDescriptors.of(
        tracklets,
        pool.values,
        fingerprint,
        visibility=pool.visibility,
        widths=pool.widths,
        weights=_feature_weights(model.config, len(pool.widths)),
    )


def _feature_weights(config: ModelConfig, num_features: int) -> np.ndarray:
    """Factor of the global and of each part's squared distance; the `reference` variant divides parts by P."""
    num_parts = num_features - 1
    if config.variant == "reference":
        return np.array([1.0] + [1.0 / num_parts**2] * num_parts)
    return np.array([config.global_weight] + [config.part_weight] * num_parts)


def _all_clips(store: TrackletStore, tracklets: Sequence[Tracklet], config: ModelConfig) -> Iterator[tuple[int, Clip]]:
    for row, tracklet in enumerate(tracklets):
        for clip in evaluation_clips(store.num_frames(tracklet.tracklet_id), config.clip_length, config.variant):
            yield row, clip


def _read_batch(
    store: TrackletStore, clips: Sequence[tuple[Tracklet, Clip]], model: KeyReID, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Frames float32 (n, T, 3, H, W) and part weights float32 (n, T, N, P), on the device."""
    config = model.config
    read = [store.read(tracklet.tracklet_id, clip.frames) for tracklet, clip in clips]
    frames = torch.stack([decode_clip(encoded, config.frame_size) for encoded, _ in read]).to(device)
    heatmaps = torch.from_numpy(np.stack([heatmaps for _, heatmaps in read])).to(device)
    weights = part_weights_from_heatmaps(heatmaps, model.patch_grid, config.variant)
    if config.variant == "reference":  # finding M8: repeated frames carry the weight 0, which is mid-range
        for place, (_, clip) in enumerate(clips):
            weights[place, config.clip_length - clip.padding :] = 0
    return normalise_frames(frames), weights


def _camera_rows(tracklets: Sequence[Tracklet], config: ModelConfig) -> Tensor:
    """Row of the camera table for each tracklet, int64 (K,); all 0 where the network ignores cameras."""
    if not config.camera_scale:
        return torch.zeros(len(tracklets), dtype=torch.int64)
    return camera_indices([tracklet.camera for tracklet in tracklets], config.camera_table)

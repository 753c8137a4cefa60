"""Tracklets to descriptors: every clip through the network, in batches that span tracklets, pooled as they come.

Letters: n clips, K tracklets, T frames, P parts, D descriptor length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from keyreid.pipeline.environment import progress_bar
from keyreid.pipeline.errors import NotEnoughMemoryError, SettingsError
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.skeleton import PART_FLIP
from keyreid.pipeline.store import TrackletStore

from ..data.reading import ClipLoader, ClipPlan, HostClips
from ..data.sampler import Clip, evaluation_clips
from ..data.transform import normalise_frames, part_weights_from_heatmaps
from ..device import autocast, compute_dtype
from ..network.config import ModelConfig
from ..network.keyreid import ClipDescriptors, KeyReID, concatenate, pool_clips
from .descriptors import TrackletDescriptors
from .settings import PLAIN, EmbeddingSettings, camera_rows, mean_camera


@dataclass(frozen=True)
class Compute:
    """How descriptors are computed; their values depend on it by rounding alone.

    Attributes:
        batch_size: clips per forward pass.
        num_workers: processes that read and decode; 0 does it in this one. Rounding does not depend on it either.
        mixed_precision: as in training: bfloat16 or float16 on CUDA; a CPU always computes in float32.
    """

    batch_size: int = 16
    num_workers: int = 0
    mixed_precision: bool = True

    def precision(self, model: KeyReID) -> str:
        """What the network computes in where it is: "float32", "bfloat16" or "float16"."""
        return str(compute_dtype(model.device, self.mixed_precision)).removeprefix("torch.")


@dataclass(frozen=True)
class PartPlan(ClipPlan):
    """Up to a batch of clips, all of one part.

    Attributes:
        part: number of the part.
        rows: place of each clip's tracklet in its part, n numbers, never falling.
        padding: of each clip, n numbers; see Clip.
    """

    part: int
    rows: list[int]
    padding: list[int]


def embed_tracklets(
    model: KeyReID,
    store: TrackletStore,
    tracklets: Sequence[Tracklet],
    *,
    batch_size: int,
    fingerprint: str,
    label: str = "embed",
    settings: EmbeddingSettings = PLAIN,
    num_workers: int = 0,
    mixed_precision: bool = True,
) -> TrackletDescriptors:
    """Embed tracklets as one part; see embed_parts."""
    compute = Compute(batch_size, num_workers, mixed_precision)
    with progress_bar(len(tracklets), label, "tracklets") as bar:
        (found,) = embed_parts(model, store, [tracklets], settings, compute, fingerprint, bar.update)
    return found


def embed_parts(
    model: KeyReID,
    store: TrackletStore,
    parts: Sequence[Sequence[Tracklet]],
    settings: EmbeddingSettings,
    compute: Compute,
    fingerprint: str,
    report: Callable[[int], object],
) -> Iterator[TrackletDescriptors]:
    """Embed the clips of each tracklet and pool them (paper, section 3.4; method M8, M12), part by part.

    Memory holds two batches of frames, those that workers have ahead, the clips of the tracklets that a batch touches,
    and one part. A batch spans tracklets and no parts, so that a part's values do not depend on the other parts.

    Args:
        model: in eval mode, on the device to use.
        store: where the frames and heatmaps are.
        parts: tracklets with at least one readable frame each.
        settings, compute: how.
        fingerprint: kept in the result.
        report: is told of numbers of tracklets done.

    Raises:
        SettingsError: a camera that the network does not know, too many shifts, or a batch size below 1.
        NotEnoughMemoryError: a batch does not fit on the device.
        FormatError: a frame that cannot be read.
        KeyReIDError: a worker process died.
    """
    if not parts:
        return
    settings.check(model.config)
    if compute.batch_size < 1:
        raise SettingsError(f"a batch of {compute.batch_size} clips", "at least 1")
    cameras = [camera_rows(part, model.config, settings.cameras) for part in parts]
    clips = ClipLoader(
        store,
        plan_clips(store, parts, model.config, settings, compute.batch_size),
        model.config.frame_size,
        num_workers=compute.num_workers,
        pin_memory=model.device.type == "cuda",
    )
    embedded = _through_network(model, clips, cameras, settings, compute)
    for part, batches in groupby(embedded, key=lambda batch: batch[0].part):
        tracklets, pool, done = parts[part], ClipPool(len(parts[part]), model), 0
        for plan, descriptors in batches:
            pool.add(torch.tensor(plan.rows).repeat(1 + settings.flip), descriptors)
            report(plan.rows[-1] - done)
            done = plan.rows[-1]
        pool.finish()
        yield TrackletDescriptors.of(
            tracklets,
            pool.values,
            fingerprint,
            visibility=pool.visibility,
            widths=pool.widths,
            weights=_feature_weights(model.config, len(pool.widths) - 1),
        )
        report(len(tracklets) - done)


def clips_of(store: TrackletStore, tracklet: Tracklet, config: ModelConfig, settings: EmbeddingSettings) -> list[Clip]:
    """The clips that a tracklet is embedded by."""
    num_frames = store.num_frames(tracklet.tracklet_id)
    return evaluation_clips(num_frames, config.clip_length, config.variant, settings.max_clips, settings.shifts)


def plan_clips(
    store: TrackletStore,
    parts: Sequence[Sequence[Tracklet]],
    config: ModelConfig,
    settings: EmbeddingSettings,
    batch_size: int,
) -> Iterator[PartPlan]:
    """All clips of the parts in order, `batch_size` at a time but for the last ones of a part."""
    for part, tracklets in enumerate(parts):
        flat: list[tuple[int, Clip]] = []
        for row, tracklet in enumerate(tracklets):
            flat += [(row, clip) for clip in clips_of(store, tracklet, config, settings)]
        for start in range(0, len(flat), batch_size):
            chosen = flat[start : start + batch_size]
            yield PartPlan(
                [tracklets[row].tracklet_id for row, _ in chosen],
                np.array([clip.frames for _, clip in chosen]),
                part,
                [row for row, _ in chosen],
                [clip.padding for _, clip in chosen],
            )


class ClipPool:
    """Takes clips in the order of their tracklets and pools a tracklet when the next one's come, so that it holds few.

    Attributes:
        values: float32 (K, D), the descriptors; rows of tracklets that are not pooled yet are 0.
        visibility: float32 (K, P); (K, 0) in the `reference` variant, which knows none.
        widths: int64 (1 + P,), columns of `values` that are the global feature's and each part's.
    """

    def __init__(self, num_tracklets: int, model: KeyReID) -> None:
        self.widths: np.ndarray = np.array(model.feature_widths, np.int64)
        seen = len(self.widths) - 1 if model.config.variant == "aligned" else 0
        self.values = np.zeros((num_tracklets, self.widths.sum()), np.float32)
        self.visibility = np.zeros((num_tracklets, seen), np.float32)
        self._config, self._num_pooled = model.config, 0
        self._rows = torch.zeros(0, dtype=torch.int64)
        self._clips: ClipDescriptors | None = None

    @property
    def num_waiting(self) -> int:
        """Clips in memory whose tracklet may get more."""
        return len(self._rows)

    def add(self, rows: Tensor, clips: ClipDescriptors) -> None:
        """Take n clips.

        Args:
            rows: int64 (n,), the tracklet of each clip; none smaller than the largest that was added before, and none
                left out.
            clips: float32, on the host.
        """
        waiting = self._clips
        self._clips = clips if waiting is None else _each_tensor(lambda *values: torch.cat(values), waiting, clips)
        self._rows = torch.cat([self._rows, rows])
        self._pool(int(rows.max()))

    def finish(self) -> None:
        """Say that no clip follows."""
        self._pool(len(self.values))

    def _pool(self, end: int) -> None:
        """The tracklets before row `end`."""
        if self._clips is None or end == self._num_pooled:
            return
        complete, rows = self._rows < end, slice(self._num_pooled, end)
        clips = _each_tensor(lambda values: values[complete], self._clips)
        pooled = pool_clips(clips, self._rows[complete] - self._num_pooled, end - self._num_pooled)
        self.values[rows] = concatenate(pooled, self._config).numpy()
        self.visibility[rows] = pooled.visibility.numpy()[:, : self.visibility.shape[1]]
        self._clips = _each_tensor(lambda values: values[~complete], self._clips)
        self._rows = self._rows[~complete]
        self._num_pooled = end


def _through_network(
    model: KeyReID,
    batches: Iterable[HostClips[PartPlan]],
    cameras: Sequence[Tensor],
    settings: EmbeddingSettings,
    compute: Compute,
) -> Iterator[tuple[PartPlan, ClipDescriptors]]:
    """What the network says of each batch, on the host; float32.

    The next batch is on its way through a CUDA device before this one's result is waited for.
    """
    waiting: tuple[PartPlan, ClipDescriptors, torch.cuda.Event | None] | None = None
    with mean_camera(model, settings.cameras):
        for batch in batches:
            rows = cameras[batch.plan.part][batch.plan.rows]
            try:
                launched = (batch.plan, *_launch(model, batch, rows, settings.flip, compute.mixed_precision))
            except torch.OutOfMemoryError as error:
                raise NotEnoughMemoryError(
                    f"a batch of {len(rows)} clips does not fit on {model.device}", "", "lower --batch-size"
                ) from error
            if waiting is not None:
                yield _arrived(*waiting)
            waiting = launched
        if waiting is not None:
            yield _arrived(*waiting)


@torch.inference_mode()
def _launch(
    model: KeyReID, batch: HostClips[PartPlan], cameras: Tensor, flip: bool, mixed_precision: bool
) -> tuple[ClipDescriptors, torch.cuda.Event | None]:
    """Descriptors of the clips, with `flip` of their mirror images after them; on the host once the event is over."""
    device = model.device
    frames, heatmaps, cameras = (
        tensor.to(device, non_blocking=True) for tensor in (batch.frames, batch.heatmaps, cameras)
    )
    embedded = []
    for mirrored in (False, True)[: 1 + flip]:
        if mirrored:
            frames, heatmaps = frames.flip(-1), heatmaps.flip(-1)
            heatmaps = heatmaps[:, :, list(PART_FLIP)] if model.config.variant == "aligned" else heatmaps
        inputs = network_inputs(model, frames, heatmaps, batch.plan.padding)
        with autocast(device, compute_dtype(device, mixed_precision)):
            embedded.append(model.describe(*inputs, cameras))
    clips = _each_tensor(lambda *values: torch.cat(values).float().to("cpu", non_blocking=True), *embedded)
    event = None
    if device.type == "cuda":
        event = torch.cuda.Event()
        event.record()
    return clips, event


def network_inputs(model: KeyReID, frames: Tensor, heatmaps: Tensor, padding: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Frames and part weights as KeyReID.describe takes them.

    Args:
        model: says which; on the device of the clips.
        frames: uint8 (n, T, 3, H, W).
        heatmaps: uint8 (n, T, P, 64, 32).
        padding: of each clip, n numbers; see Clip.
    """
    config = model.config
    weights = part_weights_from_heatmaps(heatmaps, model.patch_grid, config.variant)
    if config.variant == "reference":  # finding M8: repeated frames carry the weight 0, which is mid-range
        is_original = torch.arange(config.clip_length) < config.clip_length - torch.tensor(padding)[:, None]
        weights *= is_original.to(weights.device)[:, :, None, None]
    return normalise_frames(frames), weights


def _arrived(
    plan: PartPlan, clips: ClipDescriptors, event: torch.cuda.Event | None
) -> tuple[PartPlan, ClipDescriptors]:
    if event is not None:
        event.synchronize()
    return plan, clips


def _each_tensor(change: Callable[..., Tensor], *clips: ClipDescriptors) -> ClipDescriptors:
    """Change each of the tensors, or bring those of several together."""
    return ClipDescriptors(
        change(*(one.global_feature for one in clips)),
        change(*(one.part_features for one in clips)),
        change(*(one.visibility for one in clips)),
    )


def _feature_weights(config: ModelConfig, num_parts: int) -> np.ndarray:
    """Factor of the global and of each part's squared distance; the `reference` variant divides parts by P."""
    if config.variant == "reference":
        return np.array([1.0] + [1.0 / num_parts**2] * num_parts)
    return np.array([config.global_weight] + [config.part_weight] * num_parts)

"""Clips of many tracklets in full batches: planned here, read and decoded by workers as uint8.

Letters: n clips, T frames, P parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from keyreid.pipeline.errors import KeyReIDError, SettingsError
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.store import TrackletStore

from ..data.clips import Clip, evaluation_clips
from ..data.decode import decode_clip
from ..data.workers import DEATHS, ignore_stop_signals, worker_death
from ..network.config import ModelConfig
from .settings import DescriptionSettings


@dataclass(frozen=True)
class BatchPlan:
    """Up to a batch of clips, all of one part.

    Attributes:
        part: number of the part.
        rows: place of each clip's tracklet in its part, n numbers, never falling.
        tracklet_ids: of each clip.
        clips: n.
    """

    part: int
    rows: list[int]
    tracklet_ids: list[int]
    clips: list[Clip]


@dataclass(frozen=True)
class HostClips:
    """A batch in host memory.

    Attributes:
        plan: what was asked for.
        frames: uint8 (n, T, 3, H, W), RGB.
        heatmaps: uint8 (n, T, P, 64, 32).
    """

    plan: BatchPlan
    frames: Tensor
    heatmaps: Tensor

    def pin_memory(self) -> HostClips:  # DataLoader calls it where asked to
        return replace(self, frames=self.frames.pin_memory(), heatmaps=self.heatmaps.pin_memory())


def clips_of(
    store: TrackletStore, tracklet: Tracklet, config: ModelConfig, settings: DescriptionSettings
) -> list[Clip]:
    """The clips that describe a tracklet."""
    num_frames = store.num_frames(tracklet.tracklet_id)
    return evaluation_clips(num_frames, config.clip_length, config.variant, settings.max_clips, settings.shifts)


def clip_batches(
    store: TrackletStore,
    parts: Sequence[Sequence[Tracklet]],
    config: ModelConfig,
    settings: DescriptionSettings,
    *,
    batch_size: int,
    num_workers: int,
    pin: bool,
) -> Iterator[HostClips]:
    """All clips of some parts in order; a batch spans tracklets and no parts, so that a part never depends on another.

    Args:
        store: where frames and heatmaps are.
        parts: the tracklets, those of a part together.
        config, settings: say which clips.
        batch_size: n of all batches but the last of a part.
        num_workers: processes that read and decode; 0 does it in this one. It changes nothing else.
        pin: whether batches come in pinned memory, from which copies to a CUDA device run beside the host.

    Raises:
        SettingsError: a batch size below 1.
        FormatError: a frame that cannot be read or decoded.
        KeyReIDError: a reading process died.
    """
    if batch_size < 1:
        raise SettingsError(f"a batch of {batch_size} clips", "at least 1")
    plans = [
        plan
        for number, part in enumerate(parts)
        for plan in _plans(number, [clips_of(store, tracklet, config, settings) for tracklet in part], part, batch_size)
    ]
    reader = _Reader(store, plans, config.frame_size)
    loader: DataLoader = DataLoader(
        reader, batch_size=None, num_workers=num_workers, pin_memory=pin, worker_init_fn=ignore_stop_signals
    )
    try:
        for batch in loader:
            if isinstance(batch, KeyReIDError):
                raise batch
            yield batch
    except DEATHS as error:
        death = worker_death(error)
        if death is None:
            raise
        raise death from error


def _plans(part: int, clips: list[list[Clip]], tracklets: Sequence[Tracklet], batch_size: int) -> Iterator[BatchPlan]:
    flat = [(row, clip) for row, of_tracklet in enumerate(clips) for clip in of_tracklet]
    for start in range(0, len(flat), batch_size):
        rows, chosen = zip(*flat[start : start + batch_size], strict=True)
        yield BatchPlan(part, list(rows), [tracklets[row].tracklet_id for row in rows], list(chosen))


class _Reader(Dataset):
    """Place of a plan -> its clips. An error comes back as a value: DataLoader would bury it in a traceback."""

    def __init__(self, store: TrackletStore, plans: list[BatchPlan], frame_size: tuple[int, int]) -> None:
        self._store, self._plans, self._frame_size = store, plans, frame_size

    def __len__(self) -> int:
        return len(self._plans)

    def __getitem__(self, place: int) -> HostClips | KeyReIDError:
        plan = self._plans[place]
        try:
            read = [
                self._store.read(number, clip.frames)
                for number, clip in zip(plan.tracklet_ids, plan.clips, strict=True)
            ]
            frames = torch.stack([decode_clip(images, self._frame_size) for images, _ in read])
        except KeyReIDError as error:
            return error
        return HostClips(plan, frames, torch.from_numpy(np.stack([heatmaps for _, heatmaps in read])))

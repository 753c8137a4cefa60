"""Clips of many tracklets in full batches.

Letters: n clips.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.store import TrackletStore

from ..data.reading import ClipLoader, ClipPlan
from ..data.sampler import Clip, evaluation_clips
from ..network.config import ModelConfig
from .settings import DescriptionSettings


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
) -> ClipLoader[PartPlan]:
    """All clips of some parts in order; a batch spans tracklets and no parts, so that a part never depends on another.

    Args:
        store: where frames and heatmaps are.
        parts: the tracklets, those of a part together.
        config, settings: say which clips.
        batch_size: n of all batches but the last of a part.
        num_workers, pin: see ClipLoader; they change no batch.

    Raises:
        SettingsError: a batch size below 1.
    """
    if batch_size < 1:
        raise SettingsError(f"a batch of {batch_size} clips", "at least 1")
    plans = _plans(store, parts, config, settings, batch_size)
    return ClipLoader(store, plans, config.frame_size, num_workers=num_workers, pin_memory=pin)


def _plans(
    store: TrackletStore,
    parts: Sequence[Sequence[Tracklet]],
    config: ModelConfig,
    settings: DescriptionSettings,
    batch_size: int,
) -> Iterator[PartPlan]:
    for part, tracklets in enumerate(parts):
        flat = [
            (row, clip)
            for row, tracklet in enumerate(tracklets)
            for clip in clips_of(store, tracklet, config, settings)
        ]
        for start in range(0, len(flat), batch_size):
            chosen = flat[start : start + batch_size]
            yield PartPlan(
                [tracklets[row].tracklet_id for row, _ in chosen],
                np.array([clip.frames for _, clip in chosen]),
                part,
                [row for row, _ in chosen],
                [clip.padding for _, clip in chosen],
            )

"""Which frames of a tracklet make a clip."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MAX_CLIPS = 41  # the authors' limit of 40 lets 41 through (finding M12)


class Clip(NamedTuple):
    """Frames of one evaluation clip.

    Attributes:
        frames: indices of the tracklet's frames, one for each of the clip's T places.
        padding: how many of the last places repeat earlier frames of this clip. The authors' code gives those the
            weight 0 (finding M8), which the reference variant keeps.
    """

    frames: tuple[int, ...]
    padding: int


def training_clip(num_frames: int, clip_length: int, generator: np.random.Generator) -> tuple[int, ...]:
    """One random frame from each of `clip_length` equal chunks of the tracklet, in time order.

    A tracklet shorter than the clip repeats frames, still in time order.
    """
    edges = np.arange(clip_length + 1) * num_frames // clip_length
    ends = np.maximum(edges[1:], edges[:-1] + 1)  # a chunk of a short tracklet may be empty: take its first frame
    return tuple(int(frame) for frame in generator.integers(edges[:-1], ends))


def evaluation_clips(
    num_frames: int, clip_length: int, variant: str, max_clips: int | None = MAX_CLIPS, shifts: int = 1
) -> list[Clip]:
    """Consecutive groups of frames that cover the tracklet; the last one is padded by cycling through its own frames.

    With `shifts` S, whole groups that begin clip_length / S, 2 clip_length / S, ... frames later come between them, so
    that each frame is in up to S clips. Of more than `max_clips` groups, "aligned" takes groups spread evenly over the
    whole tracklet and "reference" the first ones (finding M12); None takes all.
    """
    starts = sorted({
        start
        for shift in range(shifts)
        for start in range(shift * clip_length // shifts, num_frames, clip_length)
        if shift == 0 or start + clip_length <= num_frames
    })  # fmt: skip
    chosen: np.ndarray = np.arange(len(starts))
    if max_clips is not None and len(starts) > max_clips:
        spread: np.ndarray = np.linspace(0, len(starts) - 1, max_clips).round().astype(int)
        chosen = chosen[:max_clips] if variant == "reference" else spread
    return [_group(starts[group], num_frames, clip_length) for group in chosen]


def _group(start: int, num_frames: int, clip_length: int) -> Clip:
    present = min(clip_length, num_frames - start)
    return Clip(tuple(start + place % present for place in range(clip_length)), clip_length - present)

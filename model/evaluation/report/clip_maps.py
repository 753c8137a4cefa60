"""What the network was shown of a tracklet's clip, and what it looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.store import TrackletStore

from ...data.reading import ClipPlan, read_clips
from ...data.sampler import evaluation_clips
from ...embedding.settings import camera_rows, mean_camera
from ...embedding.tracklets import network_inputs
from ...network.attention_maps import attention_maps
from ...network.keyreid import KeyReID
from ..pictures import laid_over, side_by_side, small_frame

LEAST_PEAK = 4


@dataclass(frozen=True)
class ClipMaps:
    """Pictures and numbers of one clip.

    Attributes:
        clip: its number from 1, of `num_clips`.
        num_clips: clips of the tracklet that are embedded.
        frames: number of each frame in the tracklet, from 1.
        frame_shares: float (T,), the temporal attention; sums to 1.
        heatmap_strips: T strips: the frame, then each part's heatmap over it.
        attention_strips: the frame, then each part's attention over its patches; one where a part reads a position
            in all frames at once, otherwise T. Each part's colours go up to its largest share, or to LEAST_PEAK times
            an even share where that is more, so that even attention does not look like much of it.
        largest_shares: float (P,), that share: of a patch, or of a position in all frames.
        class_shares: float (P,), the attention that is left to class tokens.
    """

    clip: int
    num_clips: int
    frames: tuple[int, ...]
    frame_shares: np.ndarray
    heatmap_strips: tuple[Image.Image, ...]
    attention_strips: tuple[Image.Image, ...]
    largest_shares: np.ndarray
    class_shares: np.ndarray

    @property
    def most_attended(self) -> int:
        """Place of the frame with the largest share."""
        return int(self.frame_shares.argmax())

    @property
    def most_attended_map(self) -> Image.Image:
        """The attention strip that is over that frame."""
        return self.attention_strips[self.most_attended if len(self.attention_strips) > 1 else 0]


def clip_maps(model: KeyReID, store: TrackletStore, tracklet: Tracklet, cameras: str) -> ClipMaps:
    """Embed the clip of a tracklet that shows the most of the parts, and draw what decided.

    Args:
        model: in eval mode.
        store: where frames and heatmaps are.
        tracklet: which.
        cameras: as in EmbeddingSettings.
    """
    config = model.config
    clips = evaluation_clips(store.num_frames(tracklet.tracklet_id), config.clip_length, config.variant)
    seen = [float(store.heatmaps(tracklet.tracklet_id, clip.frames).mean()) for clip in clips]
    number = int(np.argmax(seen))
    plan = ClipPlan([tracklet.tracklet_id], np.array([clips[number].frames]))
    read = read_clips(store, plan, config.frame_size)
    frames, weights = network_inputs(
        model, read.frames.to(model.device), read.heatmaps.to(model.device), [clips[number].padding]
    )
    with mean_camera(model, cameras):
        maps = attention_maps(model, frames, weights, camera_rows([tracklet], config, cameras).to(model.device))
    cells = [small_frame(image) for image in store.images(tracklet.tracklet_id, clips[number].frames)]
    shares = maps.patches[0].cpu().unflatten(-1, model.patch_grid).numpy()  # (P, T, rows, columns)
    largest = shares.max(axis=(1, 2, 3))
    even = (1 - maps.class_tokens[0].cpu().numpy()) / shares[0].size
    scaled = shares / np.maximum(largest, LEAST_PEAK * even)[:, None, None, None]
    shown = [int(maps.frames[0].argmax())] if maps.one_map else range(len(cells))
    return ClipMaps(
        number + 1,
        len(clips),
        tuple(frame + 1 for frame in clips[number].frames),
        maps.frames[0].cpu().numpy(),
        tuple(_strip(cell, heat / 255, True) for cell, heat in zip(cells, read.heatmaps[0].numpy(), strict=True)),
        tuple(_strip(cells[frame], scaled[:, frame], False) for frame in shown),
        largest * (len(cells) if maps.one_map else 1),
        maps.class_tokens[0].cpu().numpy(),
    )


def _strip(frame: np.ndarray, values: np.ndarray, smooth: bool) -> Image.Image:
    """The frame, then each part's values (P, rows, columns) over it."""
    return side_by_side([frame, *(laid_over(frame, part, smooth) for part in values)])

"""Random flip, shift and erasing, one draw for frames and heatmaps, in batch on the frames' device.

Letters: B clips, T frames of a clip, P parts, H x W a frame, N patches. Nothing here is a loop over frames: the frames
are gathered by index, and each part weight is the exact mean over the patch's pixels of the flipped, shifted and
erased heatmap, computed from the overlaps of patches and heatmap cells without ever drawing it at the frame's size.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from keyreid.model.typed_settings import Settings
from keyreid.pipeline.errors import SettingsError

from .transform import Draw, transform_frames, transform_heatmaps

_ATTEMPTS = 20  # rectangles drawn for a frame until one fits; one in ten or so does not


class AugmentSettings(Settings):
    """The paper's augmentation (method, section 3)."""

    section: ClassVar[str] = "augment"

    flip: float = Field(0.5, ge=0, le=1)  # probability of a horizontal flip
    pad: int = Field(
        10, ge=0
    )  # border in pixels of a 256x128 frame that the crop moves over; scaled with the frame size
    # draw flip and shift once for a clip instead of once for a frame. The paper's recipe draws for each frame; with
    # aligned rows (position i of all frames in one token) that mixes places
    whole_clip: bool = False
    # probability that a frame gets a random rectangle erased; drawn for each frame, as the attention loss needs clips
    # with some frames erased
    erase: float = Field(0.5, ge=0, le=1)
    erase_area: tuple[float, float] = (0.02, 0.4)  # smallest and largest share of the frame that is erased
    erase_aspect: tuple[float, float] = (0.3, 3.3)  # smallest and largest height / width of the rectangle
    erase_fill: tuple[float, float, float] = (0.485, 0.456, 0.406)  # erased red, green, blue, after normalisation

    @model_validator(mode="after")
    def _low_first(self) -> AugmentSettings:
        if not 0 < self.erase_area[0] <= self.erase_area[1] <= 1:
            raise SettingsError(f"augment.erase_area is {self.erase_area}", "two shares, low first")
        if not 0 < self.erase_aspect[0] <= self.erase_aspect[1]:
            raise SettingsError(f"augment.erase_aspect is {self.erase_aspect}", "two, low first")
        return self


def augment_batch(
    frames: Tensor,
    heatmaps: Tensor,
    settings: AugmentSettings,
    generator: torch.Generator,
    frame_size: tuple[int, int],
    patch_grid: tuple[int, int],
    variant: str,
    *,
    first_clip: int = 0,
    all_clips: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Augment one batch of clips.

    A flip swaps the left and right parts' heatmaps for "aligned"; for "reference" it does not (finding M4). What the
    shift brings in is black in the frames and weight 0 in the heatmaps; erased pixels have weight 0.

    Args:
        frames: uint8 (B, T, 3, H, W).
        heatmaps: uint8 (B, T, P, 64, 32), 255 for 1.0.
        settings: probabilities and sizes.
        generator: a CPU generator; the only source of randomness, so that every device draws the same.
        frame_size: H, W.
        patch_grid: rows and columns of patches; N = rows * columns, row-major.
        variant: "aligned" or "reference".
        first_clip, all_clips: where these B clips stand in the batch of all ranks. The draw is made for all of it, so
            that a clip is augmented alike however many share it; all_clips None: there are no others.

    Returns:
        frames float32 (B, T, 3, H, W) in [-1, 1]; part weights float32 (B, T, N, P), see part_weights_from_heatmaps;
        erased float32 (B, T), 1 where a rectangle was erased.
    """
    clips, length = frames.shape[:2]
    drawn = draw_augmentation(all_clips or clips, length, settings, generator, frame_size)
    share = slice(first_clip * length, (first_clip + clips) * length)
    on_device = Draw(*(tensor[share].to(frames.device, non_blocking=True) for tensor in drawn))
    fill = torch.tensor(settings.erase_fill, dtype=torch.float32).to(frames.device, non_blocking=True)
    moved = transform_frames(frames.flatten(0, 1), on_device, fill)
    weights = transform_heatmaps(heatmaps.flatten(0, 1), on_device, frame_size, patch_grid, variant)
    erased = (on_device.boxes[:, 1] > on_device.boxes[:, 0]).float()
    return moved.unflatten(0, (clips, length)), weights.unflatten(0, (clips, length)), erased.view(clips, length)


def draw_augmentation(
    clips: int, length: int, settings: AugmentSettings, generator: torch.Generator, frame_size: tuple[int, int]
) -> Draw:
    """Draw what happens to each frame of `clips` clips of `length` frames."""
    height, width = frame_size
    pad_y, pad_x = round(settings.pad * height / 256), round(settings.pad * width / 128)
    drawn = (clips, 1) if settings.whole_clip else (clips, length)
    flipped = torch.rand(drawn, generator=generator) < settings.flip
    down = torch.randint(-pad_y, pad_y + 1, drawn, generator=generator)
    right = torch.randint(-pad_x, pad_x + 1, drawn, generator=generator)
    boxes = _draw_boxes(clips * length, settings, generator, frame_size)
    flat = [tensor.expand(clips, length).reshape(-1) for tensor in (flipped, down, right)]
    return Draw(flat[0], flat[1], flat[2], boxes)


def _draw_boxes(
    count: int, settings: AugmentSettings, generator: torch.Generator, frame_size: tuple[int, int]
) -> Tensor:
    height, width = frame_size
    chance, *uniform = torch.rand(5, count, _ATTEMPTS, generator=generator, dtype=torch.float64)
    area = _between(uniform[0], *settings.erase_area) * height * width
    aspect = _between(uniform[1], *settings.erase_aspect)
    tall, wide = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (tall < height) & (wide < width)
    top = (uniform[2] * (height - tall + 1)).floor()
    left = (uniform[3] * (width - wide + 1)).floor()
    boxes = torch.stack([top, top + tall, left, left + wide], dim=-1).long()
    first = fits.int().argmax(dim=1)  # the first rectangle that fits
    chosen = boxes[torch.arange(count), first]
    wanted = (chance[:, 0] < settings.erase) & fits.any(dim=1)
    return torch.where(wanted[:, None], chosen, torch.zeros_like(chosen))


def _between(uniform: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * uniform

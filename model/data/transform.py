"""uint8 frames and heatmaps -> what KeyReID.forward takes, as they are or flipped, shifted and erased.

Letters: B clips, T frames of a clip, n frames, P parts, H x W a frame, N patches.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from keyreid.pipeline.skeleton import PART_FLIP

FRAME_MEAN = FRAME_STD = 0.5


def normalise_frames(frames: Tensor, out: Tensor | None = None) -> Tensor:
    """Normalise with mean 0.5 and standard deviation 0.5 (method, section 1).

    Args:
        frames: uint8 (..., 3, H, W).
        out: where to write it; None: into new memory.

    Returns:
        float32 of the same shape, in [-1, 1].
    """
    values = frames.float() if out is None else out.copy_(frames)
    return values.div_(255 * FRAME_STD).sub_(FRAME_MEAN / FRAME_STD)


def part_weights_from_heatmaps(heatmaps: Tensor, patch_grid: tuple[int, int], variant: str) -> Tensor:
    """Mean heatmap of each patch.

    Args:
        heatmaps: uint8 (B, T, P, 64, 32), 255 for 1.0.
        patch_grid: rows and columns of patches of a frame; N = rows * columns, row-major.
        variant: "aligned" or "reference".

    Returns:
        float32 (B, T, N, P): in [0, 1] for "aligned", in [-1, 1] for "reference".
    """
    scaled = scale_heatmaps(heatmaps, variant)
    pooled = adaptive_avg_pool2d(scaled.flatten(0, 1), patch_grid)
    return pooled.flatten(2).transpose(1, 2).unflatten(0, heatmaps.shape[:2])


def scale_heatmaps(heatmaps: Tensor, variant: str) -> Tensor:
    """uint8 heatmaps to the variant's range: [0, 1] for "aligned", [-1, 1] for "reference"; float32."""
    if variant == "reference":
        return heatmaps.to(torch.float32).div_(127.5).sub_(1)
    return heatmaps.to(torch.float32).div_(255)


class Draw(NamedTuple):
    """What happens to each of n frames; output pixel (y, x) shows input pixel (y + down, x + right).

    Attributes:
        flipped: bool (n,); the flip comes before the shift.
        down, right: int64 (n,), shift in pixels.
        boxes: int64 (n, 4): top, bottom, left, right of the erased rectangle in the output; empty where none.
    """

    flipped: Tensor
    down: Tensor
    right: Tensor
    boxes: Tensor


def transform_frames(frames: Tensor, draw: Draw, fill: Tensor) -> Tensor:
    """uint8 (n, 3, H, W) -> float32 (n, 3, H, W) in [-1, 1]; `fill` is float32 (3,).

    On a CPU each frame is copied in rows, many times faster than pixel by pixel; a device takes all of them at once.
    """
    if frames.device.type == "cpu":
        return _transform_one_by_one(frames, draw, fill)
    return transform_all_at_once(frames, draw, fill)


def _transform_one_by_one(frames: Tensor, draw: Draw, fill: Tensor) -> Tensor:
    height, width = frames.shape[2:]
    # Channels last in memory, as decoders leave them: reordering is the larger part of the work. Always so, since a
    # convolution may round differently with another order.
    values = torch.empty((len(frames), height, width, 3)).permute(0, 3, 1, 2)
    filled = torch.empty_like(values[0]).copy_(fill[:, None, None])
    fates = zip(*(tensor.tolist() for tensor in draw), strict=True)
    for target, frame, fate in zip(values, frames, fates, strict=True):
        flipped, down, right, (top, bottom, start, end) = fate
        shown = frame[:, max(0, down) : height + min(0, down)]
        shown = shown.flip(2) if flipped else shown
        moved = torch.zeros_like(target, dtype=torch.uint8)
        moved[:, max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)] = shown[
            :, :, max(0, right) : width + min(0, right)
        ]
        normalise_frames(moved, out=target)  # frame by frame: all of it stays in a core's cache
        target[:, top:bottom, start:end] = filled[:, top:bottom, start:end]
    return values


def transform_all_at_once(frames: Tensor, draw: Draw, fill: Tensor) -> Tensor:
    """transform_frames by one gather, without a loop and without waiting for the device."""
    height, width = frames.shape[2:]
    rows = torch.arange(height, device=frames.device) + draw.down[:, None]
    columns = torch.arange(width, device=frames.device) + draw.right[:, None]
    outside = ((rows < 0) | (rows >= height))[:, :, None] | ((columns < 0) | (columns >= width))[:, None, :]
    columns = torch.where(draw.flipped[:, None], width - 1 - columns, columns).clamp(0, width - 1)
    pixels = rows.clamp(0, height - 1)[:, :, None] * width + columns[:, None, :]
    gathered = frames.flatten(2).gather(2, pixels.flatten(1)[:, None].expand(-1, 3, -1)).view(frames.shape)
    moved = normalise_frames(gathered.masked_fill_(outside[:, None], 0))
    return torch.where(_inside(draw.boxes, height, width)[:, None], fill[:, None, None], moved)


def _inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Which pixels lie in each frame's rectangle; bool (n, H, W)."""
    y, x = torch.arange(height, device=boxes.device), torch.arange(width, device=boxes.device)
    top, bottom, left, right = boxes[:, :, None].unbind(1)
    return ((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None, :]


def transform_heatmaps(
    heatmaps: Tensor, draw: Draw, frame_size: tuple[int, int], patch_grid: tuple[int, int], variant: str
) -> Tensor:
    """uint8 (n, P, 64, 32) -> part weights float32 (n, N, P) of the flipped, shifted and erased heatmaps.

    The mean over a patch is rows @ heatmap @ columns^T, where row r holds the share of patch r's height that lies in
    each heatmap cell; erasing subtracts the same product restricted to the rectangle.
    """
    scaled = scale_heatmaps(heatmaps, variant)
    top, bottom, left, right = draw.boxes.unbind(1)
    tall, wide = heatmaps.shape[2:]
    nothing = torch.zeros_like(draw.flipped)
    rows = _overlaps(patch_grid[0], frame_size[0], tall, draw.down, nothing, None)
    columns = _overlaps(patch_grid[1], frame_size[1], wide, draw.right, draw.flipped, None)
    erased_rows = _overlaps(patch_grid[0], frame_size[0], tall, draw.down, nothing, (top, bottom))
    erased_columns = _overlaps(patch_grid[1], frame_size[1], wide, draw.right, draw.flipped, (left, right))
    narrow = scaled.flatten(1, 2) @ torch.cat([columns, erased_columns], dim=1).transpose(1, 2)  # (n, P * 64, 2 * C)
    both = narrow.unflatten(1, (-1, tall)).transpose(1, 2).unflatten(3, (2, -1))  # (n, 64, P, 2, C)
    kept, erased = (part.flatten(2) for part in both.unbind(3))
    weights = (rows @ kept - erased_rows @ erased).unflatten(2, (-1, patch_grid[1]))  # (n, R, P, C)
    if variant == "aligned":
        mirrored = torch.stack([weights[:, :, part] for part in PART_FLIP], dim=2)  # a list as index would make us wait
        weights = torch.where(draw.flipped[:, None, None, None], mirrored, weights)
    return weights.transpose(2, 3).flatten(1, 2)


def _overlaps(
    patches: int, pixels: int, cells: int, shift: Tensor, flipped: Tensor, box: tuple[Tensor, Tensor] | None
) -> Tensor:
    """Share of each patch that shows each heatmap cell along one axis; float32 (n, patches, cells).

    Args:
        patches, pixels, cells: how many there are along the axis.
        shift: int64 (n,): output pixel x shows input pixel x + shift.
        flipped: bool (n,).
        box: start and end (n,) of the output pixels to count; None for all.
    """
    edges = torch.arange(patches + 1, device=shift.device) * (pixels / patches)
    start, end = edges[None, :-1].expand(len(shift), -1), edges[None, 1:].expand(len(shift), -1)
    if box is not None:
        start, end = start.clamp(box[0][:, None], box[1][:, None]), end.clamp(box[0][:, None], box[1][:, None])
    start, end = start + shift[:, None], end + shift[:, None]
    start, end = (
        torch.where(flipped[:, None], pixels - end, start),
        torch.where(flipped[:, None], pixels - start, end),
    )
    cell = torch.arange(cells + 1, device=shift.device) * (pixels / cells)
    overlap = torch.minimum(end[:, :, None], cell[1:]) - torch.maximum(start[:, :, None], cell[:-1])
    return overlap.clamp_min_(0).mul_(patches / pixels)

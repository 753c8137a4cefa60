"""uint8 frames and heatmaps -> what KeyReID.forward takes, without augmentation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

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

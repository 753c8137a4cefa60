"""ViTs with rotary positions (timm's Eva family: DINOv3, EVA-02, Perception Encoder) as blocks of one argument.

Frames have one size here, so that a block's angles are constants that it can keep.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models.eva import Eva
from torch import Tensor, nn

from keyreid.pipeline.errors import SettingsError


class RotaryBlock(nn.Module):
    """A block with its angles.

    Args:
        block: timm's, called with rows and angles.
        angles: float (N, two for each channel of a head), of the patches alone; None where positions are absolute.
    """

    angles: Tensor | None

    def __init__(self, block: nn.Module, angles: Tensor | None) -> None:
        super().__init__()
        self.block = block
        self.register_buffer("angles", angles, persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """float (B, M, C) -> (B, M, C); the last N of the M rows are patches."""
        attended: Tensor = self.block(rows, rope=self.angles)
        return attended


def keep_angles(vit: Eva) -> None:
    """Give each block its angles, in place; the last one will see one class token and patches, no registers.

    Raises:
        SettingsError: the angles are learned for each block and head ("mixed").
    """
    if getattr(vit, "rope_mixed", False):
        raise SettingsError(
            "a backbone whose rotary positions are learned for each block", "fixed ones, or absolute positions"
        )
    rope: Any = vit.rope  # one of several classes; each has get_embed
    with torch.no_grad():
        angles = None if rope is None else rope.eval().get_embed(shape=list(vit.patch_embed.grid_size))
    vit.rope = None  # type: ignore[assignment]
    blocks = [RotaryBlock(block, angles) for block in vit.blocks]
    vit.blocks[-1].get_submodule("attn").num_prefix_tokens = 1  # type: ignore[assignment]
    vit.blocks = nn.ModuleList(blocks)

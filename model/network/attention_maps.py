"""What a network looks at: the shares that frames and patches have in its features, read off while it describes clips.

Letters: B clips, T frames, N patches, P parts, H heads, M rows (the class-token row and N others), D channels of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from .keyreid import KeyReID
from .local_branch import AverageBranch, ReferenceBranch
from .part_attention import PartAttention


@dataclass(frozen=True)
class AttentionMaps:
    """Shares of B clips; every clip's sum to 1.

    Attributes:
        frames: float (B, T), share of each frame in the global feature.
        patches: float (B, P, T, N), share of each patch in a part's feature, mean over heads.
        class_tokens: float (B, P), what is left to the frames' class tokens.
        one_map: whether a part reads a position in all frames at once, so that its map is the same in every frame.
    """

    frames: Tensor
    patches: Tensor
    class_tokens: Tensor
    one_map: bool


@torch.inference_mode()
def attention_maps(model: KeyReID, frames: Tensor, part_weights: Tensor, cameras: Tensor) -> AttentionMaps:
    """Describe clips and keep what decided; arguments and errors as KeyReID.describe has them."""
    branch = model.local_branch
    watched = branch if isinstance(branch, AverageBranch) else cast(nn.Module, branch.attention)
    with _kept(model.global_branch, lambda _, output: output[1]) as scores, _kept(watched, lambda i, _: i) as inputs:
        model.describe(frames, part_weights, cameras)
    frame_shares = scores[0].softmax(dim=1)
    num_frames, num_patches = part_weights.shape[1:3]
    if isinstance(branch, AverageBranch):
        patches = branch.shares(part_weights).unflatten(1, (num_frames, num_patches)).permute(0, 3, 1, 2)
        return AttentionMaps(frame_shares, patches, 1 - patches.sum(dim=(2, 3)), False)
    rows = cast(PartAttention, watched).shares(*inputs[0]).mean(dim=2)
    if isinstance(branch, ReferenceBranch):
        patches = _reference_patches(rows, branch.order, num_frames)
        return AttentionMaps(frame_shares, patches, 1 - patches.sum(dim=(2, 3)), False)
    patches = rows[:, :, None, 1:].expand(-1, -1, num_frames, -1) / num_frames
    return AttentionMaps(frame_shares, patches, rows[:, :, 0], True)


def _reference_patches(rows: Tensor, order: Tensor, num_frames: int) -> Tensor:
    """Shares of rows (B, P, M) as shares of patches (B, P, T, N).

    Row i of the raw reshape holds tokens T * i to T * i + T - 1 of all frames' tokens in a line (method.md, M2), class
    tokens among them; each is given the same part of the row's share.
    """
    unshuffled = torch.zeros_like(rows)
    unshuffled[..., 0] = rows[..., 0]
    unshuffled[..., order] = rows[..., 1:]
    tokens = unshuffled.repeat_interleave(num_frames, dim=-1) / num_frames
    return tokens.unflatten(-1, (num_frames, rows.shape[-1]))[..., 1:]


@contextmanager
def _kept(module: nn.Module, keep: Callable[[Any, Any], Any]) -> Iterator[list[Any]]:
    """A list that takes `keep(inputs, output)` of each call of the module."""
    found: list[Any] = []
    handle = module.register_forward_hook(lambda _, inputs, output: found.append(keep(inputs, output)))
    try:
        yield found
    finally:
        handle.remove()

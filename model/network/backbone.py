"""A timm ViT without its last block: the tokens that both branches start from (paper, section 3.1).

Letters: F frames (clips times frames of a clip), N patches, C channels.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, cast

import timm
import torch
from timm.layers import HybridEmbed, LayerNorm
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import ConvStem
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from keyreid.pipeline.errors import SettingsError

from .config import ModelConfig

logger = logging.getLogger(__name__)

ViT = VisionTransformer | Eva


class Backbone(nn.Module):
    """Patch, position and camera embedding and the shared blocks.

    Args:
        vit: a timm ViT whose last block was taken off by `split_last_block`.
        num_cameras: rows of the camera table.
        camera_scale: factor of the camera embedding; 0 leaves the table out.

    Attributes:
        checkpoint_blocks: of how many blocks, from the first, training computes the inner values again in the backward
            pass, under the same random draws, instead of keeping them.
    """

    def __init__(self, *, vit: ViT, num_cameras: int, camera_scale: float) -> None:
        super().__init__()
        self.vit = vit
        self.camera_scale = camera_scale
        self.checkpoint_blocks = 0
        self.camera_embedding = nn.Embedding(num_cameras, vit.embed_dim) if camera_scale else None
        if self.camera_embedding is not None:
            nn.init.trunc_normal_(self.camera_embedding.weight, std=0.02)

    @property
    def patch_grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        rows, columns = self.vit.patch_embed.grid_size
        return int(rows), int(columns)

    def forward(self, frames: Tensor, cameras: Tensor) -> Tensor:
        """Tokens of each frame.

        Args:
            frames: float (F, 3, H, W), normalised with mean 0.5 and standard deviation 0.5.
            cameras: int64 (F,), rows of the camera table.

        Returns:
            float (F, 1 + N, C): the class token, then the patches row by row; no final norm. Distillation and
            register tokens took part in the blocks and are left out here.
        """
        embedded = self.vit._pos_embed(self.vit.patch_embed(frames))
        tokens = embedded[0] if isinstance(embedded, tuple) else embedded  # with the angles that RotaryBlock keeps
        if self.camera_embedding is not None:
            # On every token, the class token included (paper, section 3.1).
            tokens = tokens + self.camera_scale * self.camera_embedding(cameras)[:, None]
        tokens = self.vit.norm_pre(tokens)
        for number, block in enumerate(self.vit.blocks):
            recompute = self.training and number < self.checkpoint_blocks
            tokens = checkpoint(block, tokens, use_reentrant=False) if recompute else block(tokens)
        extra = self.vit.num_prefix_tokens
        return tokens if extra == 1 else torch.cat([tokens[:, :1], tokens[:, extra:]], dim=1)


def create_vit(config: ModelConfig) -> ViT:
    """The whole timm ViT for the config's frame size, with random weights; one without a class token is given one.

    Raises:
        SettingsError: timm does not know the name, it is no ViT with two blocks or more, or its patches do not tile
            the frame.
    """
    options: dict[str, Any] = {"num_classes": 0, "img_size": config.frame_size, "drop_path_rate": config.drop_path}
    options |= {
        timm_name: value
        for timm_name, value in (
            ("embed_dim", config.width), ("depth", config.depth), ("num_heads", config.num_heads),
            ("patch_size", config.patch_size),
        )
        if value
    }  # fmt: skip
    if config.stem == "conv":
        options |= _conv_stem(config)
    vit = _create(config.backbone, options)
    if len(vit.blocks) < 2:
        raise SettingsError(f"the backbone has {len(vit.blocks)} block(s)", "2 or more: the branches share all but one")
    rows, columns = vit.patch_embed.grid_size
    height, width = config.frame_size
    if height % rows or width % columns or height // rows != width // columns:
        patch_size = cast(int, vit.patch_embed.feat_ratio())
        raise SettingsError(
            f"frame_size {config.frame_size} with patches of {patch_size}",
            "whole patches: what is left over would have no keypoints",
            f"{height // patch_size * patch_size}x{width // patch_size * patch_size} would do",
        )
    return vit


def has_class_token(name: str) -> bool:
    """Whether timm's ViT of that name was made with one."""
    with torch.device("meta"):
        return getattr(timm.create_model(name), "cls_token", None) is not None


def split_last_block(vit: ViT) -> tuple[nn.Module, nn.Module]:
    """Take the last block and the final norm off `vit`, for the global branch; its classifier goes with them."""
    if isinstance(vit, Eva):
        keep_angles(vit)
    block = vit.blocks[-1]
    norms = [norm for norm in (vit.norm, vit.fc_norm) if not isinstance(norm, nn.Identity)]
    vit.blocks = nn.Sequential(*list(vit.blocks)[:-1])
    for unread in ("norm", "fc_norm", "head", "attn_pool"):
        setattr(vit, unread, nn.Identity())
    return block, norms[0] if norms else LayerNorm(vit.embed_dim)


def _create(name: str, options: dict[str, Any]) -> ViT:
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('_patch')[0]}*")[:5])
        raise SettingsError(
            f"timm {timm.__version__} has no model {name!r}", "the name of a ViT", near and f"near: {near}"
        )
    if name in timm.list_models(module="eva"):
        options = options | {"dynamic_img_size": False}
    kind, vit = "no ViT" + (" that takes a conv stem" if "embed_layer" in options else ""), None
    try:
        vit = timm.create_model(name, **options)
        kind = f"a {type(vit).__name__}"
    except TypeError as error:  # other networks know no img_size
        logger.debug("timm refuses %s for %s: %s", options, name, error)
    except (AssertionError, ValueError) as error:
        raise SettingsError(f"timm cannot make {name} of these sizes ({error})", "sizes that fit it") from error
    if not isinstance(vit, ViT):
        raise SettingsError(f"{name} is {kind}", "a timm VisionTransformer or Eva, such as vit_base_patch16_224")
    if vit.cls_token is None:
        # The branches read one; without a position of its own it leaves the others' as they were trained.
        logger.info("%s has no class token: a new one is learned", name)
        return cast(ViT, timm.create_model(name, **options, class_token=True, no_embed_class=True))
    return vit


def _conv_stem(config: ModelConfig) -> dict[str, Any]:
    """3x3 convolutions of stride 2, as many as halve a patch to a pixel, widths doubling up to the backbone's."""
    stages = config.patch_size.bit_length() - 1
    if config.patch_size < 4 or config.patch_size != 1 << stages or not config.width:
        raise SettingsError(
            f"stem 'conv' with patch_size {config.patch_size} and width {config.width}",
            "a patch_size of 4, 8, 16 or 32 and a width",
        )
    channels = [max(config.width >> (stages - 1 - stage), 16) for stage in range(stages)]
    stem = ConvStem(depth=stages, channels=tuple(channels), stride=(2,) * stages)
    return {"embed_layer": partial(HybridEmbed, backbone=stem, proj=False), "patch_size": 1}


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

"""The one place that turns a config into parts and parts into a network."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import timm
from timm.models import eva
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from keyreid.pipeline.errors import CheckpointError, SettingsError
from keyreid.pipeline.skeleton import NUM_PARTS

from .backbone import Backbone, ViT, create_vit, has_class_token, split_last_block
from .config import ModelConfig
from .heads import GlobalBranch, GlobalHead, PartHeads
from .keyreid import KeyReID
from .local_branch import AlignedBranch, AverageBranch, ClipShift, ReferenceBranch
from .part_attention import PartAttention
from .state_dict import listed, load_exactly, read_state_dict

logger = logging.getLogger(__name__)

# Classifiers of the task they were trained for; a backbone has none.
CLASSIFIERS = ("head.", "head_dist.", "pre_logits.")
CLASS_TOKEN = "cls_token"
PRETRAINING = ("mask_token", "lm_head.", "rope")  # timm knows files by them, and leaves them out itself


def build_model(config: ModelConfig, *, load_backbone: bool = True) -> KeyReID:
    """A network in training mode, on the CPU, its random weights drawn from torch's global generator.

    Args:
        config: what to build.
        load_backbone: False leaves `config.pretrained` unread, for weights that follow at once.

    Raises:
        SettingsError: the backbone and the config do not fit.
        CheckpointError: the pretrained weights cannot be read or do not fit.
    """
    vit = load_pretrained(config) if config.pretrained and load_backbone else create_vit(config)
    block, norm = split_last_block(vit)
    backbone = Backbone(vit=vit, num_cameras=config.num_cameras, camera_scale=config.camera_scale)
    local_branch, part_width = _local_branch(config, backbone, block)
    return KeyReID(
        config=config,
        backbone=backbone,
        global_branch=GlobalBranch(block=block, norm=norm, width=vit.embed_dim, score_width=config.score_width),
        local_branch=local_branch,
        global_head=GlobalHead(width=vit.embed_dim, num_identities=config.num_identities),
        part_heads=PartHeads(num_parts=NUM_PARTS, width=part_width, num_identities=config.num_identities),
    )


def _local_branch(config: ModelConfig, backbone: Backbone, block: nn.Module) -> tuple[nn.Module, int]:
    """The local branch of the config's variant, and the width of a part feature."""
    width = backbone.vit.embed_dim
    if config.part_pooling == "average":
        return AverageBranch(width=width, weight_floor=config.weight_floor), width
    reference = config.variant == "reference"
    num_heads = config.local_heads or _num_heads(block)
    part_width = config.clip_length * width
    if part_width % num_heads:
        raise SettingsError(f"a part block of width {part_width} with {num_heads} heads", "a multiple of the heads")
    attention = PartAttention(
        width=part_width,
        num_heads=num_heads,
        guidance="multiply" if reference else config.guidance,
        weight_floor=config.weight_floor,
    )
    if not reference:
        shift = ClipShift(shift_share=config.shift_share, shuffle_share=config.shuffle_share)
        return AlignedBranch(shift=shift, attention=attention), part_width
    rows, columns = backbone.patch_grid
    num_patches = rows * columns
    if num_patches % 2 or num_patches <= 4 or backbone.vit.num_prefix_tokens != 1:
        raise SettingsError(
            f"variant 'reference' with {num_patches} patches and {backbone.vit.num_prefix_tokens} prefix tokens",
            "an even number of patches over 4 and the class token alone: the authors' code knows no other",
        )
    return ReferenceBranch(attention=attention, num_patches=num_patches), part_width


def _num_heads(block: nn.Module) -> int:
    """Of the block's attention, which parallel blocks have several of or are themselves."""
    heads = (getattr(module, "num_heads", None) for module in block.modules())
    return next(number for number in heads if isinstance(number, int))


def load_pretrained(config: ModelConfig) -> ViT:
    """The whole ViT with the weights that `config.pretrained` names; positions and patches resized to the config's.

    Raises:
        CheckpointError: the weights cannot be had, or tensors are missing, unexpected or of another shape.
    """
    vit, path = create_vit(config), Path(config.pretrained)
    if config.pretrained == "hub":
        _load_tensors(vit, _fetch(config.backbone), "timm's hub", config.backbone)
    elif path.suffix == ".npz":
        num_arrays, left_out = _load_npz(vit, path)
        logger.info("loaded %d arrays from %s; left out: %s", num_arrays, path, listed(left_out) or "none")
    else:
        _load_tensors(vit, read_state_dict(path), str(path), config.backbone)
    return vit


def _load_tensors(vit: ViT, found: Mapping[str, Tensor], source: str, backbone: str) -> None:
    """Every tensor but those of classifiers, in timm's names or those that timm translates (DINO, CLIP, DeiT-III)."""
    left_out = sorted(name for name in found if name.startswith(CLASSIFIERS))
    named = {name: found[name] for name in found if name not in left_out}
    if isinstance(vit, eva.Eva):
        kept = eva.checkpoint_filter_fn(named, vit)
    else:
        kept = checkpoint_filter_fn(named, vit, adapt_layer_scale=True)
    new = [CLASS_TOKEN] if CLASS_TOKEN not in kept and not has_class_token(backbone) else []
    kept |= {name: vit.get_parameter(name) for name in new}
    load_exactly(vit, kept, source, f"weights of {backbone} are needed; see `pretrained` in the config")
    resized = [
        f"{name} {tuple(found[name].shape)} to {tuple(tensor.shape)}"
        for name, tensor in kept.items()
        if name in found and found[name].shape != tensor.shape
    ]
    left_out += sorted(name for name in found if name.startswith(PRETRAINING) and name not in kept)
    logger.info(
        "loaded %d tensors from %s; resized: %s; left out: %s; new and random: %s",
        len(kept) - len(new), source, *(listed(names) or "none" for names in (resized, left_out, new)),
    )  # fmt: skip


def _fetch(backbone: str) -> dict[str, Tensor]:
    """The published network's state dict, of its own sizes: timm compares nothing where it changes a network's size."""
    try:
        return timm.create_model(backbone, pretrained=True).state_dict()
    except Exception as error:  # the hub's clients raise errors of many families, offline ones among them
        raise CheckpointError(
            f"timm could not load weights for {backbone} ({type(error).__name__}: {error})",
            "a connection to the hub, or a copy of the weights on disk",
            "set pretrained to the path of a .safetensors, .pth or .npz file, or to '' for random weights",
        ) from error


def _load_npz(vit: ViT, path: Path) -> tuple[int, list[str]]:
    """Google's format, which timm reads; returns how many arrays were used and which a backbone has no place for."""
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}", "an .npz file of Google's ViT weights")
    try:
        with np.load(path) as arrays:
            names = list(arrays)
        cast(VisionTransformer, vit).load_pretrained(str(path))
    except Exception as error:  # a missing name, another shape, a broken archive: each its own family in timm
        raise CheckpointError(
            f"{path} does not fit the backbone ({type(error).__name__}: {error})", "Google's weights of the same ViT"
        ) from error
    # timm fills the blocks that there are and leaves further ones in the file unread.
    num_blocks = len({match.group() for name in names if (match := re.search(r"encoderblock_\d+", name))})
    if num_blocks not in (0, len(vit.blocks)):  # 0: a newer format with all blocks in one array
        raise CheckpointError(f"{path} has {num_blocks} blocks", f"{len(vit.blocks)}, as the backbone has")
    left_out = sorted(name for name in names if re.search(r"(^|/)(head|pre_logits)/", name))
    return len(names) - len(left_out), left_out

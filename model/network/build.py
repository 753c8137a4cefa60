"""The one place that turns a config into parts and parts into a network."""

from __future__ import annotations

from torch import nn

from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.skeleton import NUM_PARTS

from .backbone import Backbone, create_vit, split_last_block
from .clip_shift import ClipShift
from .config import ModelConfig
from .global_branch import GlobalBranch
from .heads import GlobalHead, PartHeads
from .keyreid import KeyReID
from .local_branch import AlignedBranch, AverageBranch, ReferenceBranch
from .part_attention import PartAttention
from .pretrained import load_pretrained


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

"""Weights of the backbone that others trained: from timm's hub or from a file."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

from keyreid.pipeline.errors import CheckpointError

from .backbone import create_vit
from .config import ModelConfig
from .state_dict import listed, load_exactly, read_state_dict

logger = logging.getLogger(__name__)

# Classifiers of the task they were trained for; a backbone has none.
CLASSIFIERS = ("head.", "head_dist.", "pre_logits.")


def load_pretrained(config: ModelConfig) -> VisionTransformer:
    """The whole ViT with the weights that `config.pretrained` names; positions and patches resized to the config's.

    Raises:
        CheckpointError: the weights cannot be had, or tensors are missing, unexpected or of another shape.
    """
    if config.pretrained == "hub":
        return _from_hub(config)
    vit, path = create_vit(config), Path(config.pretrained)
    if path.suffix == ".npz":
        left_out = _load_npz(vit, path)
        logger.info("loaded %s from %s; left out: %s", config.backbone, path, listed(left_out) or "none")
        return vit
    found = read_state_dict(path)
    left_out = sorted(name for name in found if name.startswith(CLASSIFIERS))
    kept = checkpoint_filter_fn({name: found[name] for name in found if name not in left_out}, vit)
    load_exactly(vit, kept, str(path), f"weights of {config.backbone} are needed; see `pretrained` in the config")
    logger.info("loaded %d tensors from %s; left out: %s", len(kept), path, listed(left_out) or "none")
    return vit


def _from_hub(config: ModelConfig) -> VisionTransformer:
    try:
        vit = create_vit(config, hub_weights=True)
    except CheckpointError:
        raise
    except Exception as error:  # the hub's clients raise errors of many families, offline ones among them
        raise CheckpointError(
            f"timm could not load weights for {config.backbone} ({type(error).__name__}: {error})",
            "a connection to the hub, or a copy of the weights on disk",
            "set pretrained to the path of a .safetensors, .pth or .npz file, or to '' for random weights",
        ) from error
    logger.info("loaded %s from timm's hub, all but its classifier", config.backbone)
    return vit


def _load_npz(vit: VisionTransformer, path: Path) -> list[str]:
    """Google's format, which timm reads; returns the names of arrays that a backbone has no place for."""
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}", "an .npz file of Google's ViT weights")
    try:
        with np.load(path) as arrays:
            names = list(arrays)
        vit.load_pretrained(str(path))
    except Exception as error:  # a missing name, another shape, a broken archive: each its own family in timm
        raise CheckpointError(
            f"{path} does not fit the backbone ({type(error).__name__}: {error})", "Google's weights of the same ViT"
        ) from error
    # timm fills the blocks that there are and leaves further ones in the file unread.
    num_blocks = len({match.group() for name in names if (match := re.search(r"encoderblock_\d+", name))})
    if num_blocks not in (0, len(vit.blocks)):  # 0: a newer format with all blocks in one array
        raise CheckpointError(f"{path} has {num_blocks} blocks", f"{len(vit.blocks)}, as the backbone has")
    return sorted(name for name in names if re.search(r"(^|/)(head|pre_logits)/", name))

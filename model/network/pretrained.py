"""Weights of the backbone that others trained: from timm's hub or from a file."""

from __future__ import annotations

import logging
from pathlib import Path

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
        _load_npz(vit, path)
        logger.info("loaded %s from %s", config.backbone, path)
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


def _load_npz(vit: VisionTransformer, path: Path) -> None:
    """Google's format; timm reads it."""
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}", "an .npz file of Google's ViT weights")
    try:
        vit.load_pretrained(str(path))
    except Exception as error:  # a missing name, another shape, a broken archive: each its own family in timm
        raise CheckpointError(
            f"{path} does not fit the backbone ({type(error).__name__}: {error})", "Google's weights of the same ViT"
        ) from error

"""Checkpoints of the authors' code, by its names, into the `reference` variant."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from keyreid.pipeline.errors import CheckpointError, SettingsError
from keyreid.pipeline.skeleton import NUM_PARTS

from .build import build_model
from .config import ModelConfig
from .keyreid import KeyReID
from .state_dict import listed, load_exactly, misfits, read_state_dict, unwrap

logger = logging.getLogger(__name__)

CAMERAS = "base.Cam"
CLASSIFIER = "classifier.weight"

# Our names -> theirs; the first that fits. {part} runs from 1 to 6.
NAMES = (
    ("backbone.camera_embedding.weight", CAMERAS),
    ("backbone.vit.", "base."),
    ("global_branch.block.", "b1.0."),
    ("global_branch.norm.", "b1.1."),
    ("global_branch.score_hidden.", "attention_conv."),
    ("global_branch.score.", "attention_tconv."),
    ("local_branch.attention.block.", "b2.0."),
    ("local_branch.attention.norm.", "b2.1."),
    ("global_head.neck.", "bottleneck."),
    ("global_head.classifier.", "classifier."),
    ("part_heads.neck.", "bottleneck_{part}."),
    ("part_heads.classifiers", "classifier_{part}.weight"),
)


def load_authors_checkpoint(source: Path | str | Mapping[str, Tensor], config: ModelConfig | None = None) -> KeyReID:
    """The authors' network, in eval mode, on the CPU.

    Args:
        source: a state dict or the path of one (saved by torch, tensors only; nothing else is unpickled).
        config: a `reference` config; by default the paper's sizes with as many identities and cameras as the
            checkpoint has, cameras numbered from 1 as in MARS and iLIDS-VID. Give one with `camera_scale=0` to leave
            the camera embedding out, where cameras are unknown.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of another shape, or the camera table has another size.
        SettingsError: the config is of another variant.
    """
    name = str(source) if isinstance(source, (str, Path)) else "the state dict"
    found = read_state_dict(Path(source)) if isinstance(source, (str, Path)) else unwrap(source, name)
    config = config or _paper_config(found, name)
    if config.variant != "reference":
        raise SettingsError(
            f"variant is {config.variant!r}", "'reference', which alone computes what the authors' does"
        )
    model = build_model(config, load_backbone=False)
    _check_camera_table(found, config, name)
    wanted = {ours: _their_names(ours) for ours in model.state_dict()}
    shapes = {
        theirs: _their_shape(ours, tensor) for ours, tensor in model.state_dict().items() for theirs in wanted[ours]
    }
    unused = _unused(found, model)
    _check_tensors(found, shapes, unused, name)
    load_exactly(model, {ours: _collect(found, names, ours) for ours, names in wanted.items()}, name)
    logger.info("loaded %d tensors of %s; known and not used: %s", len(found) - len(unused), name, listed(unused))
    return model.eval()


def _paper_config(found: Mapping[str, Tensor], name: str) -> ModelConfig:
    missing = [key for key in (CAMERAS, CLASSIFIER) if key not in found]
    if missing:
        raise CheckpointError(f"{name} lacks {listed(missing)}", "a state dict of the authors' KeyRe-ID network")
    num_cameras = found[CAMERAS].shape[0]
    return ModelConfig(
        variant="reference",
        num_identities=found[CLASSIFIER].shape[0],
        num_cameras=num_cameras,
        camera_numbers=tuple(range(1, num_cameras + 1)),
    )


def _check_camera_table(found: Mapping[str, Tensor], config: ModelConfig, name: str) -> None:
    if config.camera_scale and CAMERAS in found and found[CAMERAS].shape[0] != config.num_cameras:
        raise CheckpointError(
            f"the camera table of {name} has {found[CAMERAS].shape[0]} cameras",
            f"{config.num_cameras}, as in the config",
            "set num_cameras to the table's, or camera_scale to 0 to leave the camera embedding out",
        )


def _their_names(ours: str) -> list[str]:
    for prefix, theirs in NAMES:
        if ours.startswith(prefix):
            name = theirs + ours.removeprefix(prefix)
            parts = range(1, NUM_PARTS + 1) if "{part}" in name else (0,)
            return [name.format(part=part) for part in parts]
    raise KeyError(ours)


def _their_shape(ours: str, tensor: Tensor) -> tuple[int, ...]:
    """Of each of their tensors that become `ours`; what `_collect` undoes."""
    shape = tuple(tensor.shape)
    if ours == "part_heads.classifiers":
        return shape[1:]
    if ours.startswith("part_heads.neck.") and shape:
        return (shape[0] // NUM_PARTS,)
    if ours == "backbone.camera_embedding.weight":
        return (shape[0], 1, shape[1])
    return (*shape, 1, 1) if ours == "global_branch.score_hidden.weight" else shape


def _unused(found: Mapping[str, Tensor], model: KeyReID) -> list[str]:
    """What their state dict holds and their forward pass never reads, or holds twice."""
    prefixes = [
        f"base.blocks.{len(model.backbone.vit.blocks)}.",  # the pretrained last block; b1.0 is its trained copy
        "base.norm.",  # likewise, b1.1
        "base.fc.",  # ImageNet's classifier
        "block1.",  # b2.0 under a second name
    ]
    if model.backbone.camera_embedding is None:
        prefixes.append(CAMERAS)
    return sorted(name for name in found if name.startswith(tuple(prefixes)))


def _check_tensors(
    found: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], unused: list[str], name: str
) -> None:
    problems = misfits({key: found[key] for key in found.keys() - set(unused)}, shapes)
    if problems:
        raise CheckpointError(f"{name} is not what the authors' code saves; {problems}")
    for alias in unused:
        twin = "b2.0." + alias.removeprefix("block1.")
        if alias.startswith("block1.") and (twin not in found or not torch.equal(found[alias], found[twin])):
            raise CheckpointError(f"{alias} and {twin} of {name} differ", "one tensor under two names")


def _collect(found: Mapping[str, Tensor], names: list[str], ours: str) -> Tensor:
    """Their tensors as ours: the parts' necks end to end, their classifiers stacked, 1x1 convolutions as matrices."""
    first = found[names[0]]
    if ours == "part_heads.classifiers":
        return torch.stack([found[name] for name in names])
    if len(names) > 1 and first.ndim:
        return torch.cat([found[name] for name in names])
    if ours == "backbone.camera_embedding.weight":
        return first.squeeze(1)
    return first.flatten(1) if ours == "global_branch.score_hidden.weight" else first

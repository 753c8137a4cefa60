"""Every number of the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any

from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.skeleton import NUM_PARTS

VARIANTS = ("aligned", "reference")
STEMS = ("patch", "conv")
POOLINGS = ("attention", "average")
GUIDANCES = ("bias", "multiply", "none")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What rebuilds a network; fields marked "aligned" are not read by the `reference` variant.

    Attributes:
        variant: "aligned" (what the paper describes) or "reference" (what the authors' code computes); docs/method.md.
        backbone: name of a ViT in timm; one without a class token learns a new one.
        pretrained: "" (random weights), "hub" (timm's) or the path of a .pth, .safetensors or .npz file.
        frame_size: (height, width) of a frame in pixels.
        clip_length: T, frames in a clip (paper: 4).
        num_identities: identities of the training split, the classes of the classifiers.
        num_cameras: rows of the camera table.
        camera_numbers: the source's camera number of each row; empty means 0, 1, ..., num_cameras - 1.
        camera_names: the source's name of each, where it has names; see camera_labels.
        camera_scale: factor of the camera embedding (paper: 3); 0 leaves it out, for cameras unknown at use.
        drop_path: stochastic depth of the last block, rising linearly from 0 (paper: 0.1).
        stem: "patch" (one strided convolution, as pretrained weights need) or "conv" (3x3 convolutions of stride 2:
            learns from scratch in minutes).
        patch_size, width, depth, num_heads: of the backbone; 0 keeps what its name says.
        local_heads: attention heads of the part block; 0 takes the backbone's (paper: 12).
        score_width: hidden width of the frame scores (paper: 256).
        part_pooling: aligned: "average" (no block: the weighted average of each part's patch tokens over the clip,
            which was the better one by far, docs/ablation.md) or "attention" (the paper's part block). "" takes the
            variant's own: average in aligned, attention in reference.
        guidance: aligned: how weights reach the part block: "bias" (added to the attention logits as a logarithm),
            "multiply" (rows scaled before the norm, as the authors' code does: nearly without effect) or "none".
        weight_floor: aligned: added to a patch weight before the logarithm, so that a patch of weight 0 keeps this
            share of one of weight 1; 1e-3 is what was measured (docs/method.md).
        shift_share, shuffle_share: aligned, training: shares of the positions whose frames are rolled and shuffled;
            the paper gives none, a quarter each leaves half of the clip in order.
        visible_mass: aligned: mean patch weight of a frame from which a part counts as seen. One joint whole in the
            frame gives 0.006 at any frame and patch size; 0.003 asks for half of one.
        normalise_descriptor: aligned: L2-normalise the global and each part feature after the neck, so that no branch
            rules by its length.
        global_weight, part_weight: aligned: factors of the global and of each part's squared distance; 1 and 1/6 make
            it global + mean over parts. Without pretrained weights an eighth for the global branch was best
            (docs/ablation.md).
    """

    variant: str = "aligned"
    backbone: str = "vit_base_patch16_224"
    pretrained: str = ""
    frame_size: tuple[int, int] = (256, 128)
    clip_length: int = 4
    num_identities: int
    num_cameras: int
    camera_numbers: tuple[int, ...] = ()
    camera_names: tuple[str, ...] = ()
    camera_scale: float = 3.0
    drop_path: float = 0.1
    stem: str = "patch"
    patch_size: int = 0
    width: int = 0
    depth: int = 0
    num_heads: int = 0
    local_heads: int = 0
    score_width: int = 256
    part_pooling: str = ""
    guidance: str = "bias"
    weight_floor: float = 1e-3
    shift_share: float = 0.25
    shuffle_share: float = 0.25
    visible_mass: float = 0.003
    normalise_descriptor: bool = True
    global_weight: float = 0.125
    part_weight: float = 1.0 / NUM_PARTS

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame_size", tuple(self.frame_size))  # JSON has lists only
        object.__setattr__(self, "camera_numbers", tuple(self.camera_numbers))
        object.__setattr__(self, "camera_names", tuple(self.camera_names))
        if not self.part_pooling:
            object.__setattr__(self, "part_pooling", "attention" if self.variant == "reference" else "average")
        for name, choices in (
            ("variant", VARIANTS), ("stem", STEMS), ("part_pooling", POOLINGS), ("guidance", GUIDANCES),
        ):  # fmt: skip
            _check_choice(name, getattr(self, name), choices)
        for name in ("clip_length", "num_identities", "num_cameras", "score_width"):
            _check(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}", "1 or more")
        for name in ("patch_size", "width", "depth", "num_heads", "local_heads", "global_weight", "part_weight"):
            _check(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}", "0 or more")
        for name in ("weight_floor", "visible_mass"):
            _check(getattr(self, name) > 0, f"{name} is {getattr(self, name)}", "more than 0")
        for name in ("shift_share", "shuffle_share"):
            _check(0 <= getattr(self, name) <= 1, f"{name} is {getattr(self, name)}", "a share from 0 to 1")
        _check(0 <= self.drop_path < 1, f"drop_path is {self.drop_path}", "0 or more and less than 1")
        _check(
            self.shift_share + self.shuffle_share <= 1,
            f"shift_share + shuffle_share is {self.shift_share + self.shuffle_share}",
            "at most 1: they are shares of the same positions",
        )
        _check(
            len(self.frame_size) == 2 and min(self.frame_size) > 0,
            f"frame_size is {self.frame_size}",
            "height and width in pixels",
        )
        for name in ("camera_numbers", "camera_names"):
            _check(
                len(getattr(self, name)) in (0, self.num_cameras),
                f"{name} has {len(getattr(self, name))} entries and num_cameras is {self.num_cameras}",
                "one for each camera, or none",
            )
        _check(
            self.variant == "aligned" or self.part_pooling == "attention",
            f"part_pooling is {self.part_pooling!r} with variant 'reference'",
            "'attention': the authors' code has no other",
        )

    @property
    def camera_table(self) -> tuple[int, ...]:
        """Camera number of each row of the camera table."""
        return self.camera_numbers or tuple(range(self.num_cameras))

    @property
    def camera_labels(self) -> tuple[str, ...]:
        """Name of each row of the camera table; its number where the source has no name."""
        return self.camera_names or tuple(map(str, self.camera_table))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """The config of `to_dict`'s result.

        Raises:
            SettingsError: an unknown field (with the nearest known one), a missing one, or a value out of range or
                of another type.
        """
        known = {field.name: field for field in fields(cls)}
        for name in values:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                remedy = f"did you mean {near[0]}?" if near else ""
                raise SettingsError(f"unknown model field {name!r}", f"one of {', '.join(known)}", remedy)
        for name, value in values.items():
            _check_type(name, value, str(known[name].type))
        missing = [name for name in ("num_identities", "num_cameras") if name not in values]
        _check(not missing, f"the model config lacks {', '.join(missing)}", "the counts of the training split")
        return cls(**values)


def _check(holds: bool, found: str, expected: str) -> None:
    if not holds:
        raise SettingsError(found, expected)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    _check(value in choices, f"{name} is {value!r}", f"one of {', '.join(choices)}")


def _check_type(name: str, value: Any, annotation: str) -> None:
    accepted: dict[str, tuple[type, ...]] = {
        "str": (str,), "int": (int,), "float": (int, float), "bool": (bool,),
    }  # fmt: skip
    types = accepted.get(annotation, (tuple, list))
    holds = isinstance(value, types) and (annotation == "bool" or not isinstance(value, bool))
    if annotation.startswith("tuple") and holds:
        kind = str if "str" in annotation else int
        holds = all(isinstance(item, kind) and not isinstance(item, bool) for item in value)
    _check(holds, f"{name} is {value!r}", f"a value of type {annotation.replace('tuple', 'list')}")

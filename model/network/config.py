"""Every number of the network: what a recipe sets, and what is counted in the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from keyreid.model.typed_settings import Settings
from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.skeleton import NUM_PARTS


class NetworkSettings(Settings):
    """What a recipe says of the network; fields marked "aligned" are not read by the `reference` variant."""

    section: ClassVar[str] = "model"

    # "aligned" (what the paper describes) or "reference" (what the authors' code computes); docs/method.md
    variant: Literal["aligned", "reference"] = "aligned"
    backbone: str = "vit_base_patch16_224"  # a ViT in timm; one without a class token learns a new one
    pretrained: str = ""  # "" (random weights), "hub" (timm's) or the path of a .pth, .safetensors or .npz file
    frame_size: tuple[int, int] = Field((256, 128), description="height and width in pixels")
    clip_length: int = Field(4, ge=1)  # T, frames in a clip (paper: 4)
    camera_scale: float = 3.0  # factor of the camera embedding (paper: 3); 0 leaves it out, for cameras unknown at use
    drop_path: float = Field(0.1, ge=0, lt=1)  # stochastic depth of the last block, rising linearly from 0 (paper: 0.1)
    # "patch": one strided convolution, as pretrained weights need; "conv": 3x3 convolutions of stride 2, which learn
    # from scratch in minutes
    stem: Literal["patch", "conv"] = "patch"
    patch_size: int = Field(
        0, ge=0
    )  # of the backbone, in pixels; 0 keeps what its name says, here and in the next three
    width: int = Field(0, ge=0)  # channels of a token
    depth: int = Field(0, ge=0)  # blocks
    num_heads: int = Field(0, ge=0)  # attention heads of a block
    local_heads: int = Field(0, ge=0)  # attention heads of the part block; 0 takes the backbone's (paper: 12)
    score_width: int = Field(256, ge=1)  # hidden width of the frame scores (paper: 256)
    # aligned: "average" (no block: the weighted average of each part's patch tokens over the clip, the better one by
    # far, docs/ablation.md) or "attention" (the paper's part block); "" is average in aligned, attention in reference
    part_pooling: Literal["", "attention", "average"] = ""
    # aligned: weights reach the part block by "bias" (added to the attention logits as a logarithm), "multiply" (rows
    # scaled before the norm, as the authors' code does: nearly without effect) or "none"
    guidance: Literal["bias", "multiply", "none"] = "bias"
    # aligned: added to a patch weight before the logarithm, so that a patch of weight 0 keeps this share of one of
    # weight 1; 1e-3 is what was measured (docs/method.md)
    weight_floor: float = Field(1e-3, gt=0)
    # aligned, training: shares of the positions whose frames are rolled and shuffled; the paper gives none, a quarter
    # each leaves half of the clip in order
    shift_share: float = Field(0.25, ge=0, le=1)
    shuffle_share: float = Field(0.25, ge=0, le=1)
    # aligned: mean patch weight of a frame from which a part counts as seen. One joint whole in the frame gives 0.006
    # at any frame and patch size; 0.003 asks for half of one
    visible_mass: float = Field(0.003, gt=0)
    normalise_descriptor: bool = (
        True  # aligned: L2-normalise each feature after the neck, so that no branch rules by length
    )
    # aligned: factors of the global and of each part's squared distance; 1 and 1/6 make it global + mean over parts.
    # Without pretrained weights an eighth for the global branch was best (docs/ablation.md)
    global_weight: float = Field(0.125, ge=0)
    part_weight: float = Field(1.0 / NUM_PARTS, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _own_pooling(cls, values: Any) -> Any:
        own = "attention" if values.get("variant") == "reference" else "average"
        return values if values.get("part_pooling") else {**values, "part_pooling": own}

    @model_validator(mode="after")
    def _fit_together(self) -> NetworkSettings:
        shares = self.shift_share + self.shuffle_share
        if shares > 1:
            raise SettingsError(
                f"model.shift_share + shuffle_share is {shares}", "at most 1: they are shares of the same positions"
            )
        if min(self.frame_size) < 1:
            raise SettingsError(f"model.frame_size is {self.frame_size}", "height and width in pixels")
        if self.variant == "reference" and self.part_pooling != "attention":
            raise SettingsError(
                f"model.part_pooling is {self.part_pooling!r} with variant 'reference'",
                "'attention': the authors' code has no other",
            )
        return self


class ModelConfig(NetworkSettings):
    """What rebuilds a network: the settings, and the tables of the data that it was trained on."""

    num_identities: int = Field(ge=1)  # of the training split, the classes of the classifiers
    num_cameras: int = Field(ge=1)  # rows of the camera table
    camera_numbers: tuple[int, ...] = ()  # the source's number of each row; empty means 0, 1, ..., num_cameras - 1
    camera_names: tuple[str, ...] = ()  # the source's name of each, where it has names; see camera_labels

    @model_validator(mode="after")
    def _name_every_camera(self) -> ModelConfig:
        for name in ("camera_numbers", "camera_names"):
            number = len(getattr(self, name))
            if number not in (0, self.num_cameras):
                raise SettingsError(
                    f"model.{name} has {number} entries and num_cameras is {self.num_cameras}",
                    "one for each camera, or none",
                )
        return self

    @property
    def camera_table(self) -> tuple[int, ...]:
        """Camera number of each row of the camera table."""
        return self.camera_numbers or tuple(range(self.num_cameras))

    @property
    def camera_labels(self) -> tuple[str, ...]:
        """Name of each row of the camera table; its number where the source has no name."""
        return self.camera_names or tuple(map(str, self.camera_table))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """The config of `to_dict`'s result.

        Raises:
            SettingsError: see Settings; or it is nothing of the kind.
        """
        if not isinstance(values, Mapping):
            raise SettingsError("the model section holds no keys", "keys and values")
        return cls(**values)


COUNTED = tuple(sorted(ModelConfig.model_fields.keys() - NetworkSettings.model_fields.keys()))  # in the data

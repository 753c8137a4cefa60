"""What PifPaf is asked to do; part of the fingerprint of keypoints, and importable without openpifpaf."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..errors import SettingsError

MAX_SCALE = 3.0


@dataclass(frozen=True)
class DecoderSettings:
    """openpifpaf's own thresholds, 0 to 1, and defaults; the authors' 0.005 and 0.1 come after (method, part 2).

    Attributes:
        cif: evidence for a joint that is added up at all.
        seed: confidence of a joint from which a person may be grown.
        keypoint: confidence of a joint that is kept.
        instance: score of a person that is kept.
        force_complete: find every joint of a person whatever its confidence; `keypoint` then counts as 0.
    """

    cif: float = 0.3
    seed: float = 0.2
    keypoint: float = 0.15
    instance: float = 0.15
    force_complete: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 <= getattr(self, field.name) <= 1:
                raise SettingsError(f"decoder threshold {field.name} is {getattr(self, field.name)}", "0 to 1")


@dataclass(frozen=True)
class PoseSettings:
    """How frames reach the network and people come out of it.

    Attributes:
        input_height: pixels that every frame's height is resized to; None where `scale` is given.
        scale: 1 to 3, pixels of the network's picture for a pixel of the frame; None where `input_height` is given.
        batch_size: frames in one forward pass; None: as many as suit the device. Kernels may round differently for
            other sizes.
        decoder: thresholds.
    """

    input_height: int | None
    scale: float | None = None
    batch_size: int | None = None
    decoder: DecoderSettings = DecoderSettings()

    def __post_init__(self) -> None:
        if (self.input_height is None) == (self.scale is None):
            raise SettingsError(f"input height {self.input_height} and scale {self.scale}", "one of them")
        if self.scale is not None and not 1 <= self.scale <= MAX_SCALE:
            raise SettingsError(f"scale is {self.scale}", f"1 to {MAX_SCALE:g}")
        if self.batch_size is not None and self.batch_size < 1:
            raise SettingsError(f"batch size is {self.batch_size}", "1 or more")

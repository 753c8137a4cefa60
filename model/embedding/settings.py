"""What decides the values of descriptors in addition to the network and the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.records import Tracklet

from ..data.labels import camera_indices
from ..data.sampler import MAX_CLIPS
from ..network.config import ModelConfig
from ..network.keyreid import KeyReID

CAMERAS = ("known", "mean")


@dataclass(frozen=True)
class EmbeddingSettings:
    """How a tracklet becomes clips, and clips a descriptor; the defaults are what the protocols are measured with.

    Attributes:
        max_clips: of a tracklet; None takes all. See evaluation_clips.
        shifts: how often a tracklet is cut into clips, each time starting later; 1 to the clip length.
        flip: whether every clip is embedded a second time in the mirror, and counts twice in the mean. Left and right
            parts change places there, so that a tracklet and its mirror image have one descriptor. The `reference`
            variant mirrors heatmaps and swaps no parts, as its training does.
        cameras: "known": each tracklet's camera is in the network's camera table; "mean": the mean of that table
            stands for every camera, for cameras that training never saw. No matter to a network without a table.

    Raises:
        SettingsError: a value out of range.
    """

    max_clips: int | None = MAX_CLIPS
    shifts: int = 1
    flip: bool = False
    cameras: str = "known"

    def __post_init__(self) -> None:
        if self.max_clips is not None and self.max_clips < 1:
            raise SettingsError(f"at most {self.max_clips} clips of a tracklet", "1 or more, or all")
        if self.shifts < 1:
            raise SettingsError(f"{self.shifts} shifts", "1 or more")
        if self.cameras not in CAMERAS:
            raise SettingsError(f"cameras are {self.cameras!r}", " or ".join(CAMERAS))

    def check(self, config: ModelConfig) -> None:
        """Refuse what the network's clips are too short for.

        Raises:
            SettingsError: more shifts than the clip has frames.
        """
        if self.shifts > config.clip_length:
            raise SettingsError(
                f"{self.shifts} shifts of clips of {config.clip_length} frames",
                f"1 to {config.clip_length}: then a clip begins at every frame",
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


PLAIN = EmbeddingSettings()


def camera_rows(tracklets: Sequence[Tracklet], config: ModelConfig, cameras: str) -> Tensor:
    """Row of the camera table for each tracklet, int64 (K,): num_cameras is the row that `mean_camera` adds.

    Raises:
        SettingsError: cameras are to be known, and one is not in the table.
    """
    if not config.camera_scale:
        return torch.zeros(len(tracklets), dtype=torch.int64)
    if cameras == "mean":
        return torch.full((len(tracklets),), config.num_cameras)
    try:
        return camera_indices([tracklet.camera for tracklet in tracklets], config.camera_table)
    except SettingsError as error:
        remedy = f"use the mean of the known cameras (--cameras mean), or {error.remedy}"
        raise SettingsError(error.found, error.expected, remedy) from error


@contextmanager
def mean_camera(model: KeyReID, cameras: str) -> Iterator[None]:
    """Within, and where cameras is "mean", the camera table has one more row: the mean of the others."""
    table = model.backbone.camera_embedding
    if cameras != "mean" or table is None:
        yield
        return
    weight = table.weight.detach()
    model.backbone.camera_embedding = nn.Embedding.from_pretrained(torch.cat([weight, weight.mean(0, keepdim=True)]))
    try:
        yield
    finally:
        model.backbone.camera_embedding = table

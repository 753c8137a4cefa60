"""Numbers of identities and cameras -> rows of the network's tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.records import Tracklet


@dataclass(frozen=True)
class LabelTables:
    """Identities and cameras of the training split, sorted; the place of a number is its row in the network.

    Attributes:
        identities: numbers of the training identities, as in the source.
        cameras: numbers of the training cameras; a checkpoint keeps them as ModelConfig.camera_numbers.
        camera_names: their names in the source; () if it is not known.
    """

    identities: tuple[int, ...]
    cameras: tuple[int, ...]
    camera_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, tracklets: Iterable[Tracklet]) -> LabelTables:
        tracklets = list(tracklets)
        names = {tracklet.camera: tracklet.camera_name or str(tracklet.camera) for tracklet in tracklets}
        cameras = tuple(sorted(names))
        identities = tuple(sorted({tracklet.identity for tracklet in tracklets}))
        return cls(identities, cameras, tuple(names[camera] for camera in cameras))


def camera_indices(cameras: Sequence[int], camera_numbers: Sequence[int]) -> Tensor:
    """Rows of the camera table, int64 (B,).

    Args:
        cameras: camera numbers as in the source.
        camera_numbers: the numbers in table order, ModelConfig.camera_numbers.

    Raises:
        SettingsError: a camera that the network was not trained with.
    """
    row = {number: index for index, number in enumerate(camera_numbers)}
    unknown = sorted({camera for camera in cameras if camera not in row})
    if unknown:
        raise SettingsError(
            f"camera {', '.join(map(str, unknown))} is not in the network's camera table",
            f"one of {', '.join(map(str, camera_numbers))}, the cameras of the training split",
            "train with tracklets of that camera, or without camera embedding (--set model.camera_scale=0)",
        )
    return torch.tensor([row[camera] for camera in cameras], dtype=torch.int64)

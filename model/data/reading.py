"""A worker's half of a training batch: bytes read by offset, decoded where the device does not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from keyreid.pipeline.errors import KeyReIDError
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.store import TrackletStore

from .batch import FrameGroup, HostBatch, JpegGroup
from .decode import as_tensor, decode_image_bytes, is_plain_jpeg
from .labels import LabelTables
from .plan import BatchPlan


class BatchReader(Dataset):
    """Map-style dataset from a plan to what has to be read for it.

    An error comes back as a value, since DataLoader would bury its message in a worker's traceback.

    Args:
        store: where the frames are.
        tracklets: that are trained on.
        labels: rows of identities and cameras.
        decode_on_device: whether plain JPEG files are handed over as they are.
        render: whether keypoints are handed over instead of heatmaps.
    """

    def __init__(
        self,
        store: TrackletStore,
        tracklets: Iterable[Tracklet],
        labels: LabelTables,
        *,
        decode_on_device: bool,
        render: bool,
    ) -> None:
        self._store, self._decode_on_device, self._render = store, decode_on_device, render
        identity_row = {identity: row for row, identity in enumerate(labels.identities)}
        camera_row = {camera: row for row, camera in enumerate(labels.cameras)}
        self._rows = {t.tracklet_id: (identity_row[t.identity], camera_row[t.camera]) for t in tracklets}

    def __getitem__(self, plan: BatchPlan) -> HostBatch | KeyReIDError:
        try:
            return self._read(plan)
        except KeyReIDError as error:
            return error

    def _read(self, plan: BatchPlan) -> HostBatch:
        clips, places = np.divmod(plan.missing, plan.frames.shape[1])
        wanted: dict[int, list[int]] = defaultdict(list)  # clip -> frames, in the order of plan.missing
        for clip, place in zip(clips.tolist(), places.tolist(), strict=True):
            wanted[clip].append(int(plan.frames[clip, place]))
        images: list[bytes] = []
        owners: list[int] = []
        heatmaps: list[np.ndarray] = []
        keypoints: list[np.ndarray] = []
        sizes = [np.zeros((0, 2), np.int32)]
        for clip, frames in wanted.items():
            tracklet_id = plan.tracklet_ids[clip]
            images += self._store.images(tracklet_id, frames)
            owners += [tracklet_id] * len(frames)
            if self._render:
                joints, size = self._store.poses(tracklet_id, frames)
                keypoints.append(joints)
                sizes.append(size)
            else:
                heatmaps.append(self._store.heatmaps(tracklet_id, frames))
        for_device = [self._decode_on_device and is_plain_jpeg(image) for image in images]
        labels = torch.tensor([self._rows[tracklet_id] for tracklet_id in plan.tracklet_ids])
        return HostBatch(
            plan,
            _groups(
                {
                    place: self._decode(image, owners[place])
                    for place, image in enumerate(images)
                    if not for_device[place]
                }
            ),
            _jpegs({place: image for place, image in enumerate(images) if for_device[place]}),
            _joined(heatmaps),
            _joined(keypoints),
            np.concatenate(sizes),
            labels[:, 0].clone(),
            labels[:, 1].clone(),
        )

    def _decode(self, image: bytes, tracklet_id: int) -> Tensor:
        with self._store.reading(tracklet_id):
            frame = decode_image_bytes(image)
        return frame


def _groups(frames: dict[int, Tensor]) -> list[FrameGroup]:
    by_size: dict[torch.Size, list[int]] = defaultdict(list)
    for place, frame in frames.items():
        by_size[frame.shape].append(place)
    # Decoders leave the channels last in memory; a copy that keeps them there is several times faster.
    return [
        FrameGroup(places, torch.stack([frames[place].permute(1, 2, 0) for place in places]).permute(0, 3, 1, 2))
        for places in by_size.values()
    ]


def _jpegs(images: dict[int, bytes]) -> JpegGroup | None:
    if not images:
        return None
    return JpegGroup(list(images), [len(image) for image in images.values()], as_tensor(b"".join(images.values())))


def _joined(arrays: Sequence[np.ndarray]) -> Tensor | None:
    return torch.from_numpy(np.concatenate(arrays)) if arrays else None

"""Descriptors of tracklets, and what they were made from.

Letters: K tracklets, P parts, D descriptor length.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from keyreid.pipeline.commit import fingerprint
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.store import TrackletStore

from ..network.keyreid import KeyReID

ROW_ARRAYS = ("values", "visibility", "tracklet_ids", "identities", "cameras", "splits")  # one row per tracklet


@dataclass(frozen=True)
class Origin:
    """What descriptors were made by, from and how.

    Attributes:
        model: fingerprint of the network's weights and configuration: only descriptors of one model can be compared.
        data: fingerprint of the prepared dataset.
        dataset: its name.
        settings: EmbeddingSettings as JSON values.
        precision: in which the network computed: "float32", "bfloat16" or "float16".
    """

    model: str = ""
    data: str = ""
    dataset: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    precision: str = "float32"


@dataclass(frozen=True)
class TrackletDescriptors:
    """Descriptors of K tracklets, one row each.

    Attributes:
        values: float32 or float16 (K, D): the global feature and then the parts, each times the root of its weight.
        visibility: float32 (K, P), in [0, 1]: how much of each part the tracklet's clips show; (K, 0) where the
            method does not say: a colour histogram, the `reference` variant.
        tracklet_ids, identities, cameras: int64 (K,), as in the manifest.
        splits: str (K,), each tracklet's: "train", "query" or "gallery".
        widths: int64 (1 + P,), columns of `values` that are the global feature's and each part's; (D,) in one where
            there are no parts.
        weights: float64, as long as `widths`: the factor of each feature in the squared distance.
        fingerprint: what made them from which data; equal fingerprints and tracklets mean equal values, up to rounding.
        origin: the same in detail, as far as it is known.
    """

    values: np.ndarray
    visibility: np.ndarray
    tracklet_ids: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray
    splits: np.ndarray
    widths: np.ndarray
    weights: np.ndarray
    fingerprint: str
    origin: Origin = field(default_factory=Origin)

    @classmethod
    def of(
        cls,
        tracklets: Sequence[Tracklet],
        values: np.ndarray,
        fingerprint: str,
        *,
        visibility: np.ndarray | None = None,
        widths: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> TrackletDescriptors:
        """Rows in the order of `tracklets`; without the last three, one feature of weight 1 and no parts."""
        return cls(
            values,
            np.zeros((len(values), 0), np.float32) if visibility is None else visibility,
            np.array([tracklet.tracklet_id for tracklet in tracklets], np.int64),
            np.array([tracklet.identity for tracklet in tracklets], np.int64),
            np.array([tracklet.camera for tracklet in tracklets], np.int64),
            np.array([tracklet.split for tracklet in tracklets], np.str_),
            np.array([values.shape[1]], np.int64) if widths is None else widths,
            np.ones(1) if weights is None else weights,
            fingerprint,
        )

    def take(self, rows: np.ndarray) -> TrackletDescriptors:
        """Only these rows, in this order."""
        return replace(self, **{name: getattr(self, name)[rows] for name in ROW_ARRAYS})

    def rows(self, tracklets: Sequence[Tracklet]) -> np.ndarray:
        """Row of each tracklet, int64 (len(tracklets),); KeyError for one that is not there."""
        place = {int(tracklet_id): row for row, tracklet_id in enumerate(self.tracklet_ids)}
        return np.array([place[tracklet.tracklet_id] for tracklet in tracklets], np.int64)


def model_fingerprint(model: KeyReID) -> str:
    """A hash of the network's weights and configuration."""
    digest = hashlib.sha256()
    for name, values in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(values.detach().cpu().numpy()).data)
    return fingerprint([model.config.to_dict(), digest.hexdigest()])


def data_fingerprint(store: TrackletStore) -> str:
    """A hash of the manifest and of the shards."""
    return fingerprint([store.manifest.fingerprint, [receipt.sha256 for receipt in store.receipts]])

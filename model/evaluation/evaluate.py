"""The evaluation stage: weights and a prepared dataset in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.store import TrackletStore

from ..embedding.descriptors import TrackletDescriptors, data_fingerprint, model_fingerprint
from ..embedding.embed import embed, fingerprint_of, origin_of
from ..embedding.file import load_descriptors
from ..embedding.settings import PLAIN as AS_PUBLISHED
from ..embedding.settings import EmbeddingSettings
from ..embedding.tracklets import Compute, embed_tracklets
from ..network.keyreid import KeyReID
from .baselines import describe_colours, untrained_twin
from .comparison import PLAIN, Comparison
from .measure import Measurement, measure, measure_distances
from .protocols import Protocol, Selection
from .report import Evaluation
from .visible_parts import no_visibilities


@dataclass(frozen=True)
class Evaluator:
    """Protocols on one dataset, for as many methods as one likes.

    Attributes:
        store: the prepared dataset.
        selections: each protocol with the queries and gallery that it chose; the report shows the first.
        identity_split: number of the split, 0 where there is only one.
        batch_size: clips that go through a network at once.
        comparison: of networks; a colour histogram has a distance of its own.
        description: how tracklets become clips and descriptors.
        num_workers: processes that read and decode.
    """

    store: TrackletStore
    selections: tuple[tuple[Protocol, Selection], ...]
    identity_split: int
    batch_size: int
    comparison: Comparison = PLAIN
    description: EmbeddingSettings = AS_PUBLISHED
    num_workers: int = 0

    @classmethod
    def on(
        cls,
        prepared: Path,
        identity_split: int,
        protocol: Protocol | Sequence[Protocol],
        batch_size: int = 16,
        comparison: Comparison = PLAIN,
        description: EmbeddingSettings = AS_PUBLISHED,
        num_workers: int = 0,
    ) -> Evaluator:
        """Open a prepared dataset.

        Raises:
            FormatError: not a prepared dataset, or shards are missing.
            SettingsError: an identity split that the dataset does not have.
            SourceError: no query, or no gallery.
        """
        store = TrackletStore(prepared, identity_split)
        tracklets = store.tracklets("query", "gallery")
        protocols = (protocol,) if isinstance(protocol, Protocol) else protocol
        selections = tuple((one, one.select(tracklets)) for one in protocols)
        return cls(store, selections, identity_split, batch_size, comparison, description, num_workers)

    @property
    def protocol(self) -> Protocol:
        """The first one."""
        return self.selections[0][0]

    @property
    def selection(self) -> Selection:
        """Of the first protocol."""
        return self.selections[0][1]

    @property
    def tracklets(self) -> tuple[Tracklet, ...]:
        """All that any of the protocols needs embedded, in order of tracklet_id."""
        unique = {tracklet.tracklet_id: tracklet for _, chosen in self.selections for tracklet in chosen.tracklets}
        return tuple(unique[tracklet_id] for tracklet_id in sorted(unique))

    def network(self, method: str, model: KeyReID, cache: Path | None = None) -> Measurement:
        """Embed with a network and measure under the first protocol; see `networks`."""
        return self.networks(method, model, cache)[0]

    def networks(self, method: str, model: KeyReID, cache: Path | None = None) -> tuple[Measurement, ...]:
        """Embed with a network and measure under each protocol.

        Descriptors in `cache` are used if they were produced with the same settings; if there are none, they are
        written there, and the next run resumes what one that stopped left.

        Raises:
            SettingsError: the distance needs visibilities and the network gives none, or `cache` was produced with
                different settings.
            FormatError: a shard was changed since it was built.
        """
        if self.comparison.distance == "visible-parts" and model.config.variant == "reference":
            raise no_visibilities("the network, of variant 'reference', says")  # before hours of embedding
        compute = Compute(self.batch_size, self.num_workers)
        made_by = fingerprint_of(origin_of(model, self.store, self.description, compute))
        if cache is None:
            self.store.require_intact(self.store.shards_of(self.tracklets))
            descriptors = embed_tracklets(
                model,
                self.store,
                self.tracklets,
                batch_size=self.batch_size,
                fingerprint=made_by,
                label=f"embed ({method})",
                settings=self.description,
                num_workers=self.num_workers,
            )
        else:
            if not cache.exists():
                embed(model, self.store, self.tracklets, cache, self.description, compute)
            descriptors = load_descriptors(cache)
            self._check_cache(cache, descriptors, made_by)
        return self.measure(method, descriptors, self.comparison, model.device)

    def colours(self) -> tuple[Measurement, ...]:
        """Measure the colour histogram under each protocol."""
        return self.measure("colour histogram", describe_colours(self.store, self.tracklets), PLAIN, "cpu")

    def measure(
        self, method: str, descriptors: TrackletDescriptors, comparison: Comparison, device: torch.device | str
    ) -> tuple[Measurement, ...]:
        """Measure descriptors under each protocol; those that rank the same tracklets share the distances."""
        found: list[Measurement] = []
        for protocol, selection in self.selections:
            for earlier, (_, seen) in zip(found, self.selections, strict=False):
                if (seen.queries, seen.gallery) == (selection.queries, selection.gallery):
                    again = measure_distances(
                        method, earlier.distances, protocol, selection, comparison, split=self.identity_split
                    )
                    found.append(again)
                    break
            else:
                split = self.identity_split
                found.append(measure(method, descriptors, protocol, selection, comparison, split=split, device=device))
        return tuple(found)

    def _check_cache(self, path: Path, descriptors: TrackletDescriptors, made_by: str) -> None:
        wanted = {tracklet.tracklet_id for tracklet in self.tracklets}
        if descriptors.fingerprint != made_by or not wanted <= set(descriptors.tracklet_ids.tolist()):
            raise SettingsError(
                f"{path} holds descriptors of other weights, another dataset, another protocol or other clips",
                f"fingerprint {made_by} and the {len(wanted)} tracklets of protocol {self.protocol.name}",
                "name another file, or delete this one",
            )


def evaluate(
    evaluator: Evaluator, checkpoint: Path, model: KeyReID, *, baselines: bool = False, cache: Path | None = None
) -> Evaluation:
    """Measure the network, and with `baselines` its untrained twin and the colour histogram beside it.

    Each is measured under all protocols of the evaluator, the trained network first.
    """
    measurements = [*evaluator.networks("trained", model, cache)]
    if baselines:
        device = model.device
        measurements.extend(evaluator.networks("untrained", untrained_twin(model.config).to(device)))
        measurements.extend(evaluator.colours())
    return Evaluation(
        _describe_dataset(evaluator),
        evaluator.protocol,
        str(checkpoint),
        model_fingerprint(model),
        model.config.to_dict(),
        tuple(measurements),
        evaluator.description.to_dict() if evaluator.description != AS_PUBLISHED else {},
    )


def _describe_dataset(evaluator: Evaluator) -> dict[str, Any]:
    manifest = evaluator.store.manifest
    count = len(manifest.identity_splits)
    return {
        "name": manifest.name,
        "identity_split": f"{evaluator.identity_split} of {count}" if count else "the only one",
        "counts": manifest.counts(),
        "dropped_tracklets": len(evaluator.store.dropped),
        "fingerprint": data_fingerprint(evaluator.store),
    }

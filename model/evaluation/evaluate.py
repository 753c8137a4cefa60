"""keyreid-eval: checkpoints and a prepared dataset in; tables, reports and what was found for each query out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from keyreid.pipeline.commit import write_json
from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.manifest import read_manifest
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.store import TrackletStore

from ..data.reading import default_workers
from ..embedding.descriptors import TrackletDescriptors, data_fingerprint, model_fingerprint
from ..embedding.embed import embed, fingerprint_of, origin_of
from ..embedding.file import load_descriptors
from ..embedding.settings import PLAIN as AS_PUBLISHED
from ..embedding.settings import EmbeddingSettings
from ..embedding.tracklets import Compute, embed_tracklets
from ..network.keyreid import KeyReID
from .baselines import describe_colours, describe_part_colours, untrained_twin
from .checkpoint import choose_identity_split, load_network
from .distances import no_visibilities
from .measurement import Measurement, RunScores, measure
from .per_query import PER_QUERY_FILE, per_query_table, write_per_query
from .protocols import Protocol, Selection, find_protocols
from .report.write import write_report
from .reranking import PLAIN, Comparison
from .results import FORMAT_VERSION, RunResults, Summary, summarise
from .tables import rank_table, threshold_table


@dataclass(frozen=True)
class EvaluationSettings:
    """What the user asks for.

    Attributes:
        protocol: a name of protocols.PROTOCOLS, or "all".
        identity_split: None: the one that each network was trained on.
        comparison: distance and re-ranking of the networks.
        baselines: also measure the untrained network and two colour histograms.
        device: "auto", "cpu" or "cuda".
        batch_size: clips per forward pass.
        report: folder for the report, a folder in it for each of several runs, with what was found for each query.
        per_query: Parquet file for what was found for each query.
        descriptors: file to keep the descriptors of the one run in, or to take them from.
        description: how tracklets become clips and descriptors.
        num_workers: processes that read and decode; None: default_workers.
        table: "text", "markdown" or "latex".
    """

    protocol: str = "standard"
    identity_split: int | None = None
    comparison: Comparison = PLAIN
    baselines: bool = False
    device: str = "auto"
    batch_size: int = 16
    report: Path | None = None
    per_query: Path | None = None
    descriptors: Path | None = None
    description: EmbeddingSettings = AS_PUBLISHED
    num_workers: int | None = None
    table: str = "text"


@dataclass(frozen=True)
class Outcome:
    """What was found.

    Attributes:
        runs: the content of each run's metrics.json.
        summary: of several runs; empty for one.
        text: tables and pages, for a terminal.
    """

    runs: tuple[dict[str, Any], ...]
    summary: tuple[Summary, ...]
    text: str

    def to_dict(self) -> dict[str, Any]:
        """metrics.json: of one run, its own; of several, all of them and the summary."""
        if len(self.runs) == 1:
            return self.runs[0]
        summary = [one.to_dict() for one in self.summary]
        return {"format_version": FORMAT_VERSION, "runs": list(self.runs), "summary": summary}


def evaluate_runs(checkpoints: Sequence[Path], prepared: Path, settings: EvaluationSettings) -> Outcome:
    """Evaluate every checkpoint on the identity split that it was trained on, under the protocols asked for.

    Raises:
        SettingsError: the same weights twice, descriptors for several runs, or what protocols, comparison and
            identity splits refuse.
        CheckpointError, FormatError, SourceError: see load_network and Evaluator.on.
    """
    if settings.descriptors and len(checkpoints) > 1:
        raise SettingsError(
            f"--descriptors with {len(checkpoints)} checkpoints", "one checkpoint: the file holds one network's"
        )
    manifest = read_manifest(prepared)
    protocols = find_protocols(settings.protocol, manifest)
    splits = [choose_identity_split(one, manifest.name, settings.identity_split) for one in checkpoints]
    runs, texts, tables, pages = [], [], [], []
    scores: list[list[RunScores]] = []  # all that a mean needs: distances of many runs would not fit into memory
    seen: dict[tuple[str, int], Path] = {}
    for number, (checkpoint, split) in enumerate(zip(checkpoints, splits, strict=True)):
        model = load_network(checkpoint, settings.device)
        evaluator = Evaluator.on(
            prepared,
            split,
            protocols,
            settings.batch_size,
            settings.comparison,
            settings.description,
            default_workers(model.device) if settings.num_workers is None else settings.num_workers,
        )
        run = evaluate(evaluator, checkpoint, model, baselines=settings.baselines, cache=settings.descriptors)
        same = seen.get((run.fingerprint, split))
        if same:  # the same network twice would make a deviation of nothing
            raise SettingsError(
                f"{same} and {checkpoint} hold the same weights", "each network once", "leave one of them out"
            )
        seen[run.fingerprint, split] = checkpoint
        if settings.per_query or settings.report:
            tables += [per_query_table(run, one, evaluator.store.manifest) for one in run.measurements]
        if settings.report:
            folder = settings.report if len(checkpoints) == 1 else settings.report / f"run-{number}"
            pages.append(write_report(folder, run, evaluator.store, model, settings.description))
        runs.append(run.to_dict())
        scores.append([one.scores() for one in run.measurements])
        texts.append(run.headline() if len(checkpoints) == 1 else f"{checkpoint}: {run.headline()}")
        texts += [make(run.measurements).render(settings.table) for make in (rank_table, threshold_table)]
    summary = summarise(scores) if len(runs) > 1 else []
    if summary:
        texts.append(f"mean ± standard deviation of {len(runs)} runs; over identity splits where a row says so")
        texts.append(rank_table(summary).render(settings.table))
    texts += [f"report: {page}" for page in pages]
    outcome = Outcome(tuple(runs), tuple(summary), ("\n" if settings.table == "text" else "\n\n").join(texts))
    if settings.report and len(runs) > 1:
        write_json(settings.report / "metrics.json", outcome.to_dict())
    for path in (settings.per_query, settings.report and settings.report / PER_QUERY_FILE):
        if path:
            write_per_query(path, tables)
    return outcome


@dataclass(frozen=True)
class Evaluator:
    """Protocols on one dataset, for as many methods as one likes.

    Attributes:
        store: the prepared dataset.
        selections: each protocol with the queries and gallery that it chose; the report shows the first.
        identity_split: number of the split, 0 where there is only one.
        batch_size: clips per forward pass.
        comparison: of networks; colour histograms have distances of their own.
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
    def tracklets(self) -> tuple[Tracklet, ...]:
        """All that any of the protocols needs embedded, in order of tracklet_id."""
        unique = {tracklet.tracklet_id: tracklet for _, chosen in self.selections for tracklet in chosen.tracklets}
        return tuple(unique[tracklet_id] for tracklet_id in sorted(unique))

    def network(self, method: str, model: KeyReID, cache: Path | None = None) -> Measurement:
        """Embed with a network and measure under the first protocol; see `networks`."""
        return self.networks(method, model, cache)[0]

    def networks(self, method: str, model: KeyReID, cache: Path | None = None) -> tuple[Measurement, ...]:
        """Embed with a network and measure under each protocol.

        Descriptors in `cache` are used where they were produced with the same settings; a run that was stopped while
        it made them resumes.

        Raises:
            SettingsError: the distance needs visibilities and the network gives none, or `cache` holds others.
            FormatError: a shard was changed since it was built.
        """
        if self.comparison.distance == "visible-parts" and model.config.variant == "reference":
            raise no_visibilities("the network, of variant 'reference', says")  # before hours of embedding
        compute = Compute(self.batch_size, self.num_workers)
        origin = origin_of(model, self.store, self.description, compute)
        made_by = fingerprint_of(origin)
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
        return self.measure(method, descriptors, self.comparison, origin.model, model.device)

    def colours(self) -> tuple[Measurement, ...]:
        """Measure the colour histogram and the part histogram under each protocol."""
        stripes, parts = (make(self.store, self.tracklets) for make in (describe_colours, describe_part_colours))
        return (
            *self.measure("colour histogram", stripes, PLAIN, "", "cpu"),
            *self.measure("part histogram", parts, Comparison("visible-parts"), "", "cpu"),
        )

    def measure(
        self,
        method: str,
        descriptors: TrackletDescriptors,
        comparison: Comparison,
        weights: str,
        device: torch.device | str,
    ) -> tuple[Measurement, ...]:
        """Measure descriptors under each protocol; those that rank the same tracklets share the distances."""
        shared: dict[tuple[tuple[Tracklet, ...], ...], np.ndarray] = {}
        found = []
        for protocol, selection in self.selections:
            sides = selection.queries, selection.gallery
            if sides not in shared:
                one = measure(method, descriptors, protocol, selection, comparison, device=device)
                shared[sides] = one.distances
            split = self.identity_split
            found.append(Measurement(method, protocol, selection, shared[sides], comparison, split, weights))
        return tuple(found)

    def _check_cache(self, path: Path, descriptors: TrackletDescriptors, made_by: str) -> None:
        wanted = {tracklet.tracklet_id for tracklet in self.tracklets}
        if descriptors.fingerprint != made_by or not wanted <= set(descriptors.tracklet_ids.tolist()):
            raise SettingsError(
                f"{path} holds descriptors of other weights, another dataset, another protocol or other clips",
                f"fingerprint {made_by} and the {len(wanted)} tracklets of protocol {self.selections[0][0].name}",
                "name another file",
            )


def evaluate(
    evaluator: Evaluator, checkpoint: Path, model: KeyReID, *, baselines: bool = False, cache: Path | None = None
) -> RunResults:
    """Measure the network, and with `baselines` its untrained twin and two colour histograms.

    Each is measured under all protocols of the evaluator, the trained network first.
    """
    measurements = [*evaluator.networks("trained", model, cache)]
    if baselines:
        measurements.extend(evaluator.networks("untrained", untrained_twin(model.config).to(model.device)))
        measurements.extend(evaluator.colours())
    manifest = evaluator.store.manifest
    count = len(manifest.identity_splits)
    dataset = {
        "name": manifest.name,
        "identity_split": f"{evaluator.identity_split} of {count}" if count else "the only one",
        "counts": manifest.counts(),
        "dropped_tracklets": len(evaluator.store.dropped),
        "fingerprint": data_fingerprint(evaluator.store),
    }
    return RunResults(
        dataset,
        str(checkpoint),
        model_fingerprint(model),
        model.config.to_dict(),
        tuple(measurements),
        evaluator.description.to_dict() if evaluator.description != AS_PUBLISHED else {},
    )

"""keyreid-eval from checkpoints to what it prints: one run, or several with their mean and deviation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyreid.pipeline.commit import write_json
from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.manifest import read_manifest

from ..data.reading import default_workers
from ..embedding.settings import PLAIN as AS_PUBLISHED
from ..embedding.settings import EmbeddingSettings
from .checkpoint import choose_identity_split, load_network
from .comparison import PLAIN, Comparison
from .evaluate import Evaluator, evaluate
from .per_query import PER_QUERY_FILE, per_query_table, write_per_query
from .protocols import find_protocols
from .report import FORMAT_VERSION, Evaluation
from .report.write import write_report
from .summary import RunResult, summarise
from .tables import result_rows, text_table, threshold_rows


@dataclass(frozen=True)
class EvaluationSettings:
    """What the user asks for.

    Attributes:
        protocol: a name of protocols.PROTOCOLS, or "all".
        identity_split: None: the one that each network was trained on.
        comparison: distance and re-ranking of the networks.
        baselines: also measure the untrained network and a colour histogram.
        device: "auto", "cpu" or "cuda".
        batch_size: clips through the network at once.
        report: folder for the report, a folder in it for each of several runs, with what was found for each query.
        per_query: Parquet file for what was found for each query.
        descriptors: file to keep the descriptors of the one run in, or to take them from.
        description: how tracklets become clips and descriptors.
        num_workers: processes that read and decode; None: default_workers.
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


@dataclass(frozen=True)
class Outcome:
    """What was found.

    Attributes:
        runs: the content of each run's metrics.json.
        headlines: one line a run.
        summary: of several runs, see summarise; empty for one.
        pages: the reports that were written.
    """

    runs: tuple[dict[str, Any], ...]
    headlines: tuple[str, ...]
    summary: tuple[dict[str, Any], ...]
    pages: tuple[Path, ...]

    def to_dict(self) -> dict[str, Any]:
        """metrics.json: of one run, its own; of several, all of them and the summary."""
        if len(self.runs) == 1:
            return self.runs[0]
        return {"format_version": FORMAT_VERSION, "runs": list(self.runs), "summary": list(self.summary)}

    def text(self) -> str:
        """For a terminal."""
        parts = []
        for headline, run in zip(self.headlines, self.runs, strict=True):
            parts += [headline if len(self.runs) == 1 else f"{run['checkpoint']}: {headline}"]
            parts += [text_table(rows) for rows in _tables(run["results"])]
        if self.summary:
            parts.append(
                f"mean ± standard deviation of {len(self.runs)} runs; over identity splits where a row says so"
            )
            parts.append(text_table(result_rows(self.summary)))
        return "\n".join([*parts, *(f"report: {page}" for page in self.pages)])


def evaluate_runs(checkpoints: Sequence[Path], prepared: Path, settings: EvaluationSettings) -> Outcome:
    """Measure every checkpoint on the identity split that it was trained on, under the protocols that were asked for.

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
    runs, headlines, tables, pages = [], [], [], []
    results: list[list[RunResult]] = []
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
        evaluation = evaluate(evaluator, checkpoint, model, baselines=settings.baselines, cache=settings.descriptors)
        _refuse_twice(seen, evaluation, checkpoint, split)
        by_label = {protocol.label([split]): (protocol, chosen) for protocol, chosen in evaluator.selections}
        for one in evaluation.measurements if settings.per_query or settings.report else ():
            chosen = by_label[one.protocol][1]
            tables.append(per_query_table(str(checkpoint), evaluator.store.manifest, split, one, chosen))
        if settings.report:
            folder = settings.report if len(checkpoints) == 1 else settings.report / f"run-{number}"
            pages.append(
                write_report(folder, evaluation, evaluator.store, evaluator.selection, model, settings.description)
            )
        results.append([RunResult(split, by_label[one.protocol][0], one.to_dict()) for one in evaluation.measurements])
        runs.append(evaluation.to_dict())
        headlines.append(evaluation.headline())
    summary = tuple(summarise(results)) if len(runs) > 1 else ()
    outcome = Outcome(tuple(runs), tuple(headlines), summary, tuple(pages))
    if settings.report and len(runs) > 1:
        write_json(settings.report / "metrics.json", outcome.to_dict())
    for path in (settings.per_query, settings.report and settings.report / PER_QUERY_FILE):
        if path:
            write_per_query(path, tables)
    return outcome


def _refuse_twice(seen: dict[tuple[str, int], Path], evaluation: Evaluation, checkpoint: Path, split: int) -> None:
    """The same network twice would make a deviation of nothing."""
    key = (evaluation.fingerprint, split)
    if key in seen:
        raise SettingsError(
            f"{seen[key]} and {checkpoint} hold the same weights", "each network once", "leave one of them out"
        )
    seen[key] = checkpoint


def _tables(results: Sequence[dict[str, Any]]) -> list[list[list[str]]]:
    return [rows for rows in (result_rows(results), threshold_rows(results)) if rows]

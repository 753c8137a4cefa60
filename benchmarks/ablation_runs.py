"""The networks that the ablation trains, and what is measured of each."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from keyreid.model.embedding.descriptors import TrackletDescriptors
from keyreid.model.embedding.tracklets import embed_tracklets
from keyreid.model.evaluation.measurement import measure
from keyreid.model.evaluation.protocols import find_protocol
from keyreid.model.evaluation.reranking import Comparison
from keyreid.model.network.weights import load_model
from keyreid.model.training.config import resolve_config
from keyreid.model.training.trainer import train
from keyreid.pipeline.commit import write_json
from keyreid.pipeline.environment import keep_freed_memory
from keyreid.pipeline.store import TrackletStore

PROTOCOL = "standard"
GLOBAL_WEIGHTS = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0)  # beside a weight of 1/6 for each part
DISTANCES = {"plain": "euclidean", "visible-parts": "visible-parts"}  # name in the tables -> name in evaluation

# Name -> what differs from the preset. `global_share` is what the global branch has of the loss, in the paper 0.75.
HALF = ("training.global_share=0.5",)
BLOCK = ("model.part_pooling=attention", *HALF)
AVERAGE = ("model.part_pooling=average",)
NETWORKS: dict[str, tuple[str, ...]] = {
    "global alone": ("model.part_pooling=attention", "training.global_share=1.0"),
    "reference": ("model.variant=reference", "training.global_share=0.75"),
    "reference, half": ("model.variant=reference", *HALF),
    "unguided": ("model.guidance=none", *BLOCK),
    "multiplied": ("model.guidance=multiply", *BLOCK),
    "aligned": BLOCK,
    "aligned, no TCSS": ("model.shift_share=0.0", "model.shuffle_share=0.0", *BLOCK),
    "average": (*AVERAGE, *HALF),
    "average, loss 0.75": (*AVERAGE, "training.global_share=0.75"),
    "average, loss 0.25": (*AVERAGE, "training.global_share=0.25"),
    "average, loss 0.1": (*AVERAGE, "training.global_share=0.1"),
}
WITH_TRUTH = ("reference", "multiplied", "aligned", "average")  # trained with the true keypoints as well


@dataclass(frozen=True)
class Job:
    """One network to train and measure.

    Attributes:
        folder: what ablation_data.prepare made.
        runs: where runs and results go.
        keypoints: one of ablation_data.KEYPOINTS.
        network: a key of NETWORKS.
        preset: of keyreid-train.
        epochs: of training.
        seed: of everything random.
    """

    folder: Path
    runs: Path
    keypoints: str
    network: str
    preset: str
    epochs: int
    seed: int

    @property
    def result(self) -> Path:
        name = f"{self.network}-{self.keypoints}-{self.preset}-{self.epochs}-{self.seed}"
        return self.runs / f"{name.replace(' ', '_').replace(',', '')}.json"


def run_job(job: Job) -> Path:
    """Train, measure, and write the result, unless it is there."""
    if not job.result.exists():
        torch.set_num_threads(1)
        keep_freed_memory()  # Dask, which prepared the data, leaves MALLOC_TRIM_THRESHOLD_ behind: 2.5 times slower
        assignments = (
            *NETWORKS[job.network],
            f"training.epochs={job.epochs}",
            f"training.seed={job.seed}",
            f"training.checkpoint_every={job.epochs}",
        )
        config = resolve_config(job.preset, assignments=assignments)
        run = job.result.with_suffix("")
        resume = (run / "config.json").exists()
        train(job.folder / job.keypoints, run, config, device=torch.device("cpu"), resume=resume)
        write_json(job.result, results(run, job.folder / job.keypoints))
    return job.result


def results(run: Path, prepared: Path) -> dict[str, Any]:
    """mAP and Rank-1 of a trained network under every distance and weight of the global branch."""
    model = load_model(run / "weights").eval()
    store, protocol = TrackletStore(prepared), find_protocol(PROTOCOL)
    selection = protocol.select(store.tracklets("query", "gallery"))
    descriptors = embed_tracklets(model, store, selection.tracklets, batch_size=16, fingerprint="")
    reference = model.config.variant == "reference"
    ways = {"as it is": (descriptors, "plain"), "global": (features_alone(descriptors, [0]), "plain")}
    ways["parts"] = (features_alone(descriptors, range(1, len(descriptors.widths))), "plain")
    if not reference:
        for distance in DISTANCES:
            for weight in GLOBAL_WEIGHTS:
                ways[f"{distance} {weight}"] = (with_global_weight(descriptors, weight), distance)
    numbers = {}
    for name, (described, distance) in ways.items():
        metrics = measure("", described, protocol, selection, Comparison(DISTANCES[distance])).metrics
        numbers[name] = {"mAP": metrics.mAP, "rank1": metrics.rank(1), "queries": metrics.num_valid_queries}
    return numbers


def with_global_weight(descriptors: TrackletDescriptors, weight: float) -> TrackletDescriptors:
    """The same descriptors, with another factor of the global feature's squared distance."""
    weights = descriptors.weights.copy()
    values = descriptors.values.copy()
    values[:, : descriptors.widths[0]] *= np.float32((weight / weights[0]) ** 0.5)
    weights[0] = weight
    return replace(descriptors, values=values, weights=weights)


def features_alone(descriptors: TrackletDescriptors, kept: Any) -> TrackletDescriptors:
    """The same descriptors, all features but the `kept` ones set to 0."""
    values = np.zeros_like(descriptors.values)
    for feature, (first, last) in enumerate(pairwise(np.cumsum([0, *descriptors.widths]))):
        if feature in kept:
            values[:, first:last] = descriptors.values[:, first:last]
    return replace(descriptors, values=values)


def read_result(job: Job) -> dict[str, Any]:
    return json.loads(job.result.read_text())

"""What each idea of the method brings: networks that differ in one thing, trained alike on drawn people.

    .venv/bin/python benchmarks/ablation.py ablation/ --workers 2

People are drawn at full difficulty (look-alikes in the same clothes, occluders, strangers, colour casts, changing
views), half of them trained on and half measured under the protocol `standard`. Results are kept in the folder, so
that a stopped run goes on, and a finished one prints its tables again. docs/ablation.md tells what they teach.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from ablation_data import KEYPOINTS, prepare
from ablation_runs import DISTANCES, GLOBAL_WEIGHTS, NETWORKS, PROTOCOL, WITH_TRUTH, Job, read_result, run_job

from keyreid.model.network.config import ModelConfig
from keyreid.pipeline.environment import progress_bar
from keyreid.pipeline.synthetic.layouts import SyntheticSettings

Column = tuple[str, str]  # a network and how it is measured


def jobs(options: argparse.Namespace) -> list[Job]:
    """One seed after the other, so that a stopped run has whole rows."""
    return [
        Job(options.folder, options.folder / "runs", keypoints, network, options.preset, options.epochs, seed)
        for seed in range(options.seeds)
        for keypoints in KEYPOINTS
        for network in options.networks
        if keypoints == "pifpaf" or network in WITH_TRUTH
    ]


def cell(done: Sequence[Job], network: str, keypoints: str, way: str) -> str:
    """Mean and deviation over the seeds, "mAP / Rank-1" in percent; "" where there is no such result."""
    found = [read_result(job).get(way) for job in done if (job.network, job.keypoints) == (network, keypoints)]
    values = [entry for entry in found if entry]
    if not values:
        return ""
    return " / ".join(_mean([100 * entry[name] for entry in values]) for name in ("mAP", "rank1"))


def _mean(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def tables(done: Sequence[Job], balance: float) -> str:
    """The comparison of networks, and the balance of the branches, as Markdown."""
    ways = {
        "global": "global",
        "parts": "parts",
        "both": f"plain {balance}",
        "both, visible parts": f"visible-parts {balance}",
        "parts, visible parts": "visible-parts 0.0",
    }
    lines = [
        f"mAP / Rank-1 in percent, protocol {PROTOCOL}, mean and standard deviation over seeds",
        "",
        "| keypoints | network | seeds | " + " | ".join(ways) + " |",
        "| --- |" + " --- |" * (len(ways) + 2),
    ]
    for keypoints in KEYPOINTS:
        for network in NETWORKS:
            shown = {"global": "global"} if network == "global alone" else ways
            if network.startswith("reference"):
                shown = {**ways, "both": "as it is"}
            cells = [cell(done, network, keypoints, shown[name]) if name in shown else "" for name in ways]
            seeds = sum((job.network, job.keypoints) == (network, keypoints) for job in done)
            if seeds:
                lines.append(f"| {keypoints} | {network} | {seeds} | " + " | ".join(cells) + " |")
    for distance in DISTANCES:
        head = " | ".join(str(weight) for weight in GLOBAL_WEIGHTS)
        lines += [
            "",
            f"| {distance}: weight of the global branch | {head} |",
            "| --- |" + " --- |" * len(GLOBAL_WEIGHTS),
        ]
        for network in NETWORKS:
            cells = [cell(done, network, "pifpaf", f"{distance} {weight}") for weight in GLOBAL_WEIGHTS]
            if any(cells) and network != "global alone":
                lines.append(f"| {network} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the drawn people, the runs and their results")
    parser.add_argument("--identities", type=int, default=140, help="half of them to train on")
    parser.add_argument("--difficulty", type=float, default=1.0)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    options = parser.parse_args()
    settings = SyntheticSettings(num_identities=options.identities, difficulty=options.difficulty, seed=1)
    prepare(options.folder, settings, options.workers)
    todo = jobs(options)
    (options.folder / "runs").mkdir(exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(options.workers, context, max_tasks_per_child=1) as pool,
        progress_bar(len(todo), "ablation", "networks") as bar,
    ):
        for future in as_completed([pool.submit(run_job, job) for job in todo]):
            future.result()
            bar.update()
    print(tables(todo, ModelConfig(num_identities=1, num_cameras=1).global_weight))


if __name__ == "__main__":
    main()

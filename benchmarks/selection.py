"""The tracklet's own person: the rule over the whole tracklet beside the authors' best score a frame.

    .venv/bin/python benchmarks/selection.py --tracklets 200 --seed 7

Draws tracklets of every scene in selection_scenes.py, runs the demo's PifPaf network over each of them once, lets each
rule choose, and compares with the drawn truth. Intervals are of 2,000 bootstrap samples of tracklets.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from dataclasses import fields

import numpy as np
import torch
from selection_measures import Tally, Truth, tally
from selection_scenes import SCENES, Scene, draw_tracklets

from keyreid.pipeline.environment import progress_bar
from keyreid.pipeline.pose.checkpoints import load_checkpoint, resolve_checkpoint
from keyreid.pipeline.pose.forward import PoseSettings, make_picture
from keyreid.pipeline.pose.pifpaf import PifPafEstimator
from keyreid.pipeline.pose.selection import GapSettings, Person, best_scores, fill_gaps, select_people

People = list[list[Person]]
NO_GAPS = GapSettings(max_distance=1)
RULES = ("best-score", "best-score + gaps", "tracklet", "tracklet + gaps")
COLUMNS = {  # how each measure follows from counts
    "switches / 100": lambda t: 100 * t.switches / t.frames,
    "wrong %": lambda t: 100 * t.wrong / t.frames,
    "joints right %": lambda t: 100 * t.right / t.joints,
    "no pose %": lambda t: 100 * t.empty / t.frames,
}
BOOTSTRAP = 2000


def people_finder() -> Callable[[list[np.ndarray]], People]:
    """PifPaf with the demo's weights: the frames of a tracklet, uint8 (H, W, 3), to the people in each."""
    checkpoint = resolve_checkpoint("synthetic")
    estimator, settings = PifPafEstimator(load_checkpoint(checkpoint)), PoseSettings(checkpoint.input_height)

    def find(frames: list[np.ndarray]) -> People:
        return [people or [] for people in estimator.estimate((0, make_picture(frame, settings)) for frame in frames)]

    return find


def measure(
    find: Callable[[list[np.ndarray]], People], scene: Scene, seed: int, count: int, done: Callable[[], object] = int
) -> dict[str, list[Tally]]:
    """One tally a tracklet for each rule, in the order of RULES."""
    result: dict[str, list[Tally]] = {rule: [] for rule in RULES}
    for frames in draw_tracklets(scene, seed, count):
        truths = [Truth(frame.image.size, frame.keypoints, frame.stranger) for frame in frames]
        sizes = [truth.size for truth in truths]
        people = find([np.asarray(frame.image) for frame in frames])
        whole = select_people(people, sizes)
        chosen = {
            "best-score": fill_gaps(best_scores(people), sizes, NO_GAPS),
            "best-score + gaps": fill_gaps(best_scores(people), sizes),
            "tracklet": fill_gaps(whole, sizes, NO_GAPS),
            "tracklet + gaps": fill_gaps(whole, sizes),
        }
        for rule, poses in chosen.items():
            result[rule].append(tally([pose and pose.keypoints for pose in poses], truths))
        done()
    return result


def add(tallies: list[Tally]) -> Tally:
    """The sum of some tallies."""
    return Tally(**{field.name: sum(getattr(one, field.name) for one in tallies) for field in fields(Tally)})


def interval(tallies: list[Tally], other: list[Tally], column: str) -> tuple[float, float]:
    """Where 95 % of the bootstrap samples have the difference of the two rules, over the same tracklets."""
    rng, value = np.random.default_rng(0), COLUMNS[column]
    counts = [
        np.array([[getattr(one, field.name) for field in fields(Tally)] for one in rows]) for rows in (tallies, other)
    ]
    samples = rng.multinomial(len(tallies), np.full(len(tallies), 1 / len(tallies)), size=BOOTSTRAP)
    differences = [value(Tally(*(row @ counts[0]))) - value(Tally(*(row @ counts[1]))) for row in samples]
    low, high = np.percentile(differences, [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tracklets", type=int, default=200, help="of each scene")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    if options.tracklets < 1:
        parser.error(f"--tracklets is {options.tracklets}; expected 1 or more")
    torch.set_num_threads(1)
    find = people_finder()
    with progress_bar(options.tracklets * len(SCENES), "tracklets", "tracklets") as bar:
        results = {
            scene.name: measure(find, scene, options.seed, options.tracklets, lambda: bar.update(1)) for scene in SCENES
        }
    print(f"{options.tracklets} tracklets a scene, seed {options.seed}, one thread, {platform.machine()}")
    print("| scene | rule | " + " | ".join(COLUMNS) + " |\n|" + " --- |" * (len(COLUMNS) + 2))
    for name, result in results.items():
        for rule, tallies in result.items():
            cells = [f"{value(add(tallies)):.2f}" for value in COLUMNS.values()]
            print(f"| {name} | {rule} | " + " | ".join(cells) + " |")
    for rule, other in (("tracklet", "best-score"), ("tracklet + gaps", "best-score + gaps")):
        print(f"\n{rule} less {other}, 95 % interval")
        print("| scene | " + " | ".join(COLUMNS) + " |\n|" + " --- |" * (len(COLUMNS) + 1))
        for name, result in results.items():
            bounds = [interval(result[rule], result[other], column) for column in COLUMNS]
            print(f"| {name} | " + " | ".join(f"{low:+.2f} to {high:+.2f}" for low, high in bounds) + " |")


if __name__ == "__main__":
    main()

"""From labelled tracklets to a threshold: below which distance are two tracklets the same person?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from keyreid.pipeline.environment import progress_bar
from keyreid.pipeline.errors import SettingsError

from ..embedding.descriptors import TrackletDescriptors
from ..evaluation.comparison import Comparison
from ..evaluation.verification import check_rates, thresholds_at
from .pairs import PairCounts, Pairs, find_pairs
from .thresholds import Calibration, Threshold

RULE_OF_30 = 30  # errors that a rate should rest on (Doddington): then it is within 30 % of the true one, 9 times in 10
INTERVAL = (2.5, 97.5)  # percentiles


def calibrate(
    descriptors: TrackletDescriptors,
    rates: Sequence[float],
    comparison: Comparison,
    *,
    across_cameras: bool = True,
    resamples: int = 1000,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Calibration:
    """Thresholds for false-match rates, from all pairs of tracklets.

    Tracklets of identity 0, MARS's distractors, make wrong pairs with everybody else and no pairs among themselves. The
    intervals come from drawing people with replacement: a pair of two people counts the product of how often each was
    drawn, a pair of one person as often as that one.

    Args:
        descriptors: of tracklets whose identities are known.
        rates: false-match rates, between 0 and 1.
        comparison: the distance.
        across_cameras: count pairs under two cameras alone; pairs of one camera are easier, or one walk in two pieces.
        resamples: how often people are drawn.
        seed: of the drawing.
        device: where distances are computed.

    Raises:
        SettingsError: a rate out of range, or too few wrong pairs for one: fewer than 30 false matches would decide.
    """
    asked = check_rates(rates)
    if resamples < 100:
        raise SettingsError(f"{resamples} resamples", "100 or more")
    counts = PairCounts.of(descriptors, across_cameras)
    num_wrong = round(counts.wrong(np.ones(counts.num_people)))
    _check_enough(num_wrong, float(asked.min()), across_cameras, descriptors)
    keep = int(asked.max() * num_wrong * (1 + 1e-9)) + 1
    pairs = find_pairs(descriptors, comparison, across_cameras=across_cameras, keep=keep, device=device)
    thresholds = thresholds_at(pairs.wrong, num_wrong, asked)
    false_rates, true_rates = _resampled(pairs, thresholds, resamples, np.random.default_rng(seed))
    found = []
    for number, (rate, threshold) in enumerate(zip(asked.tolist(), thresholds.tolist(), strict=True)):
        accepted = float((pairs.matching < threshold).mean()) if len(pairs.matching) else None
        found.append(
            Threshold(
                rate,
                threshold,
                int((pairs.wrong < threshold).sum()) / num_wrong,
                _interval(false_rates[:, number]),
                accepted,
                None if accepted is None else _interval(true_rates[:, number]),
            )
        )
    origin = descriptors.origin
    return Calibration(
        origin.model, origin.dataset, origin.settings, comparison.distance, across_cameras,
        len(pairs.matching), num_wrong, counts.num_people, tuple(found),
    )  # fmt: skip


def _check_enough(num_wrong: int, rate: float, across_cameras: bool, descriptors: TrackletDescriptors) -> None:
    if num_wrong * rate * (1 + 1e-9) >= RULE_OF_30:
        return
    if across_cameras and len(np.unique(descriptors.cameras)) == 1:
        raise SettingsError(
            f"all {len(descriptors.cameras)} tracklets are of camera {descriptors.cameras[0]}",
            "pairs under two cameras",
            "where cameras are not known, count all pairs with --pairs all",
        )
    raise SettingsError(
        f"{num_wrong:,} pairs of different people for a false-match rate of {rate:g}",
        f"{int(np.ceil(RULE_OF_30 / rate)):,} or more, so that at least {RULE_OF_30} false matches decide",
        "embed more people, or ask for a larger rate",
    )


def _resampled(
    pairs: Pairs, thresholds: np.ndarray, resamples: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """False- and true-match rates at the thresholds, float64 (resamples, rates) each; people are drawn anew."""
    count = pairs.counts.num_people
    accepted = [pairs.wrong_people[: np.searchsorted(pairs.wrong, threshold)] for threshold in thresholds]
    own = np.bincount(pairs.matching_person, minlength=count)
    below = [
        np.bincount(pairs.matching_person[pairs.matching < threshold], minlength=count) for threshold in thresholds
    ]
    false_rates, true_rates = np.empty((2, resamples, len(thresholds)))
    with progress_bar(resamples, "intervals", "draws") as bar:
        for draw in range(resamples):
            times = np.bincount(generator.integers(0, count, count), minlength=count).astype(float)
            total, matching = pairs.counts.wrong(times), times @ own
            false_rates[draw] = [(times[one[:, 0]] * times[one[:, 1]]).sum() / max(total, 1) for one in accepted]
            true_rates[draw] = [times @ one / matching if matching else np.nan for one in below]
            bar.update()
    return false_rates, true_rates


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(values, INTERVAL)
    return float(low), float(high)

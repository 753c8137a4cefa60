"""From labelled tracklets to a threshold: below which distance are two tracklets the same person?

Letters: K tracklets, P persons, n pairs, D resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from keyreid.pipeline.commit import read_json
from keyreid.pipeline.environment import progress_bar
from keyreid.pipeline.errors import FormatError, SettingsError

from ..embedding.descriptors import Origin, TrackletDescriptors
from ..evaluation.distances import distances_between
from ..evaluation.intervals import RULE_OF_30, Interval, Resampling, interval
from ..evaluation.pairs import Lowest, Ranking, check_rates, num_allowed, thresholds_at
from ..evaluation.reranking import Comparison

FORMAT_VERSION = 2
ROWS_AT_ONCE = 512
DISTRACTOR = 0  # MARS's identity for many persons: two of its tracklets may be of one person or not
SPARE = 2.0  # impostor pairs that are kept, of those that the largest rate allows: resamples reach further


@dataclass(frozen=True)
class Threshold:
    """One threshold: a pair counts as one person where its distance is below.

    Attributes:
        asked: the false-match rate that it is for.
        threshold: the largest at which at most that share of the impostor pairs lies below.
        threshold_interval: 95 %, over persons: what others would have set it to.
        false_match_rate: the share that does lie below.
        true_match_rate: the share of the matching pairs that lie below; None without any.
        false_match_interval, true_match_interval: 95 % intervals of these two, for other persons at this threshold.
    """

    asked: float
    threshold: float
    threshold_interval: Interval
    false_match_rate: float
    false_match_interval: Interval
    true_match_rate: float | None
    true_match_interval: Interval


@dataclass(frozen=True)
class Calibration:
    """Thresholds, and for which descriptors they hold.

    Attributes:
        model: fingerprint of the network.
        dataset: name of the dataset that it was measured on.
        splits: of it that were used.
        settings: how clips were taken.
        distance: one of reranking.DISTANCES.
        across_cameras: whether only cross-camera pairs were counted.
        num_matching, num_wrong: pairs of one person, and of two.
        num_people: that they are made of, each distractor one.
        thresholds: in the order asked.
    """

    model: str
    dataset: str
    splits: tuple[str, ...]
    settings: Mapping[str, Any]
    distance: str
    across_cameras: bool
    num_matching: int
    num_wrong: int
    num_people: int
    thresholds: tuple[Threshold, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"format_version": FORMAT_VERSION, **asdict(self)}


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

    Tracklets of identity 0, MARS's distractors, make impostor pairs with everybody else and no pairs among themselves.
    The intervals come from drawing persons with replacement: a pair of two persons counts the product of how often each
    was drawn, a pair of one person as often as that one.

    Args:
        descriptors: of tracklets whose identities are known; see choose_splits.
        rates: false-match rates, between 0 and 1.
        comparison: the distance.
        across_cameras: count cross-camera pairs alone; pairs of one camera are easier, or one walk in two pieces.
        resamples: how often persons are drawn.
        seed: of the drawing.
        device: where distances are computed.

    Raises:
        SettingsError: a rate out of range, or too few impostor pairs for one: fewer than 30 false matches would decide.
        KeyReIDError: distances that are NaN or infinite.
    """
    asked = check_rates(rates)
    if resamples < 100:
        raise SettingsError(f"{resamples} resamples", "100 or more")
    persons = Persons.of(descriptors, across_cameras)
    num_wrong = round(persons.impostor_pairs(np.ones(persons.count)))
    _check_enough(num_wrong, float(asked.min()), across_cameras, descriptors)
    lowest = Lowest(int(SPARE * num_allowed(asked, num_wrong).max()) + 1)
    matching, whose = _find_pairs(descriptors, comparison, persons, lowest, device)
    order = np.argsort(lowest.values, kind="stable")
    wrong, pairs = lowest.values[order], lowest.persons[order]
    thresholds = thresholds_at(wrong, num_wrong, asked)

    times = Resampling.of(np.arange(persons.count), resamples, seed).times
    below = matching[:, None] < thresholds  # (n, rates)
    own = np.bincount(whose, minlength=persons.count)
    own_below = np.stack([np.bincount(whose, one, persons.count) for one in below.T], axis=1)
    totals = times @ own
    true_rates = np.divide(times @ own_below, totals[:, None], out=np.full((resamples, len(asked)), np.nan),
                           where=totals[:, None] > 0)  # fmt: skip
    false_rates, other_thresholds = np.empty((2, resamples, len(asked)))
    ends = np.searchsorted(wrong, thresholds)
    with progress_bar(resamples, "intervals", "draws") as bar:
        for draw, drawn in enumerate(times):
            counted = np.append(0, np.cumsum(drawn[pairs[:, 0]] * drawn[pairs[:, 1]]))
            total = max(persons.impostor_pairs(drawn), 1)
            false_rates[draw] = counted[ends] / total
            places = np.searchsorted(counted, asked * total * (1 + 1e-12), side="right") - 1
            other_thresholds[draw] = wrong[np.minimum(places, len(wrong) - 1)]
            bar.update()
    found = []
    for number, (rate, threshold) in enumerate(zip(asked.tolist(), thresholds.tolist(), strict=True)):
        intervals = (interval(one[:, number], persons.count) for one in (other_thresholds, false_rates, true_rates))
        threshold_interval, false_interval, true_interval = intervals
        accepted = float(below[:, number].mean()) if len(matching) else None
        share = int(ends[number]) / num_wrong
        found.append(Threshold(rate, threshold, threshold_interval, share, false_interval, accepted, true_interval))
    origin = descriptors.origin
    return Calibration(
        origin.model, origin.dataset, tuple(np.unique(descriptors.splits).tolist()), origin.settings,
        comparison.distance, across_cameras, len(matching), num_wrong, persons.count, tuple(found),
    )  # fmt: skip


def choose_splits(descriptors: TrackletDescriptors, splits: Sequence[str], path: Path) -> TrackletDescriptors:
    """The tracklets to calibrate with: of these splits, or with none named those that training never saw.

    Persons who are in the training split too are left out, unless that split is asked for.

    Args:
        descriptors: of any splits.
        splits: of "train", "query" and "gallery".
        path: of the descriptors, for the message.

    Raises:
        SettingsError: there are none.
    """
    wanted = splits or ("query", "gallery")
    chosen = np.isin(descriptors.splits, wanted)
    if "train" not in wanted:
        trained = descriptors.identities[descriptors.splits == "train"]
        chosen &= ~np.isin(descriptors.identities, trained[trained != DISTRACTOR])
    if not chosen.any():
        held = ", ".join(np.unique(descriptors.splits).tolist()) or "no"
        raise SettingsError(
            f"{path} holds tracklets of {held} split alone",
            f"tracklets of split {' or '.join(wanted)}, whose persons the network has not been trained on",
            "embed them with keyreid embed --split; where the network was trained on another dataset, name the split",
        )
    return descriptors.take(np.flatnonzero(chosen))


@dataclass(frozen=True)
class Persons:
    """Whose tracklets are whose; counts impostor pairs where persons count more than once, without walking over them.

    Attributes:
        number: int64 (K,), of each tracklet's person; each distractor tracklet is a person of its own.
        identities: int64 (K,), as labelled.
        cameras: int64 (K,): pairs of one camera do not count. A number for each tracklet makes all pairs count.
    """

    number: np.ndarray
    identities: np.ndarray
    cameras: np.ndarray

    @classmethod
    def of(cls, descriptors: TrackletDescriptors, across_cameras: bool) -> Persons:
        identities, places = descriptors.identities, np.arange(len(descriptors.identities))
        own = np.where(identities == DISTRACTOR, identities.max(initial=0) + 1 + places, identities)
        number = np.unique(own, return_inverse=True)[1].reshape(-1)
        return cls(number, identities, descriptors.cameras if across_cameras else places)

    @property
    def count(self) -> int:
        return int(self.number.max(initial=-1)) + 1

    def impostor_pairs(self, times: np.ndarray) -> float:
        """Pairs of two persons where each person counts `times`, float64 (P,): a pair counts their product.

        The pairs of a group that two cameras see are half of its sum squared less those of its cameras: taken for all
        tracklets together, less for those of each identity.
        """
        weights = times[self.number]
        everybody, cameras, identities, both = (
            float((np.bincount(group, weights) ** 2).sum()) for group in self._groups
        )
        return (everybody - cameras - identities + both) / 2

    @cached_property
    def _groups(self) -> tuple[np.ndarray, ...]:
        """A number for each tracklet: of everybody, of its camera, of its identity, of its identity in its camera."""
        columns = np.zeros_like(self.identities), self.cameras, self.identities
        groups = [np.unique(column, return_inverse=True)[1].reshape(-1) for column in columns]
        return (*groups, np.unique(groups[2] * len(columns[0]) + groups[1], return_inverse=True)[1].reshape(-1))


def _find_pairs(
    descriptors: TrackletDescriptors,
    comparison: Comparison,
    persons: Persons,
    lowest: Lowest,
    device: torch.device | str,
) -> tuple[np.ndarray, np.ndarray]:
    """Distance and person of each matching pair, each pair once; the nearest impostor pairs go to `lowest`."""
    rows = np.arange(len(persons.number))
    matching, whose = [], []
    with progress_bar(len(rows), "pairs", "tracklets") as bar:
        for start in range(0, len(rows), ROWS_AT_ONCE):
            block, others = rows[start : start + ROWS_AT_ONCE], rows[start:]
            distances = distances_between(descriptors, block, others, comparison, device)
            sides = ((field[block], field[others]) for field in (persons.identities, persons.cameras))
            ids, cameras = sides
            for pairs in Ranking(distances, *ids, *cameras).blocks():
                counts = pairs.is_match & (pairs.entry > pairs.query) & (ids[0][pairs.query] != DISTRACTOR)
                matching.append(pairs.distance[counts])
                whose.append(persons.number[block][pairs.query[counts]])
                wrong = pairs.wrong_distances(distances)
                asked = np.arange(pairs.rows.start, pairs.rows.stop)[:, None]
                left_out = (cameras[0][asked] == cameras[1]) | (np.arange(len(others)) <= asked)
                first, second = np.nonzero((wrong < lowest.bound) & ~left_out)
                numbers = persons.number[block][pairs.rows][first], persons.number[others][second]
                lowest.add(wrong[first, second], np.stack(numbers, axis=1))
            bar.update(len(block))
    return np.concatenate(matching), np.concatenate(whose)


def _check_enough(num_wrong: int, rate: float, across_cameras: bool, descriptors: TrackletDescriptors) -> None:
    if num_wrong * rate * (1 + 1e-9) >= RULE_OF_30:
        return
    if across_cameras and len(np.unique(descriptors.cameras)) == 1:
        raise SettingsError(
            f"all {len(descriptors.cameras)} tracklets are of camera {descriptors.cameras[0]}",
            "cross-camera pairs",
            "where cameras are not known, count all pairs with --pairs all",
        )
    raise SettingsError(
        f"{num_wrong:,} pairs of different people for a false-match rate of {rate:g}",
        f"{int(np.ceil(RULE_OF_30 / rate)):,} or more, so that at least {RULE_OF_30} false matches decide",
        "embed more people, or ask for a larger rate",
    )


def read_calibration(path: Path) -> Calibration:
    """Read what keyreid calibrate --out wrote.

    Raises:
        FormatError: no such file, or another kind.
    """
    if not path.is_file():
        raise FormatError(f"there is no file {path}", "thresholds as keyreid calibrate --out writes them")
    content = read_json(path, sealed=False)  # keyreid calibrate --json prints the same
    try:
        if content.pop("format_version") == FORMAT_VERSION:
            thresholds = tuple(Threshold(**one) for one in content.pop("thresholds"))
            return Calibration(**content, thresholds=thresholds)
    except (KeyError, TypeError) as error:
        raise FormatError(f"{path} holds no thresholds of keyreid calibrate", "", "calibrate again") from error
    raise FormatError(f"{path} is of another version", f"version {FORMAT_VERSION}", "calibrate again")


def threshold_for(path: Path, rate: float | None, origin: Origin, distance: str | None) -> tuple[float, str]:
    """A threshold from a file of keyreid calibrate, and the distance that it belongs to.

    Args:
        path: the file.
        rate: false-match rate; None where it holds one.
        origin: of the descriptors that are compared.
        distance: that the user asks for, if any.

    Raises:
        FormatError: see read_calibration.
        SettingsError: it is for another network, other clips or another distance, or has no such rate.
    """
    made = read_calibration(path)
    for what, theirs, ours in (
        ("network", made.model, origin.model),
        ("way to take clips", made.settings, origin.settings),
        ("distance", made.distance, distance or made.distance),
    ):
        if theirs != ours:
            raise SettingsError(f"{path} is for another {what}: {theirs}", f"{ours}", "calibrate again")
    found = [one for one in made.thresholds if rate is None or one.asked == rate]
    if len(found) != 1:
        rates = ", ".join(f"{one.asked:g}" for one in made.thresholds)
        asked = "no false-match rate" if rate is None else f"false-match rate {rate:g}"
        raise SettingsError(f"{asked} for {path}", f"one of {rates} with --false-match-rate")
    return found[0].threshold, made.distance

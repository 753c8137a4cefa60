"""Thresholds on disk (JSON), and for which descriptors they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keyreid.pipeline.commit import read_json
from keyreid.pipeline.errors import FormatError, SettingsError

from ..embedding.descriptors import Origin

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Threshold:
    """One threshold: a pair counts as one person where its distance is below.

    Attributes:
        asked: the false-match rate that it is for.
        threshold: the largest at which at most that share of the wrong pairs lies below.
        false_match_rate: the share that does.
        true_match_rate: the share of the matching pairs that lie below; None without any.
        false_match_interval, true_match_interval: 95 % intervals of these two over other people.
    """

    asked: float
    threshold: float
    false_match_rate: float
    false_match_interval: tuple[float, float]
    true_match_rate: float | None
    true_match_interval: tuple[float, float] | None


@dataclass(frozen=True)
class Calibration:
    """Thresholds, and for which descriptors they hold.

    Attributes:
        model: fingerprint of the network.
        dataset: name of the dataset that it was measured on.
        settings: how clips were taken.
        distance: one of comparison.DISTANCES.
        across_cameras: whether only pairs under two cameras were counted.
        num_matching, num_wrong: pairs of one person, and of two.
        num_people: that they are made of, each distractor one.
        thresholds: in the order asked.
    """

    model: str
    dataset: str
    settings: Mapping[str, Any]
    distance: str
    across_cameras: bool
    num_matching: int
    num_wrong: int
    num_people: int
    thresholds: tuple[Threshold, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"format_version": FORMAT_VERSION, **asdict(self)}


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
        SettingsError: it was made for another network, other clips or another distance, or has no such rate.
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

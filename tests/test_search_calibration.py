"""keyreid calibrate: thresholds that keep their promise, against a loop over all pairs."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from click.testing import CliRunner, Result
from described_people import ORIGIN, people

from keyreid.cli.keyreid import main
from keyreid.model.embedding.file import save_descriptors
from keyreid.model.evaluation.reranking import Comparison
from keyreid.model.search import calibration as module
from keyreid.model.search.calibration import Persons, calibrate, choose_splits, read_calibration, threshold_for
from keyreid.pipeline.commit import read_json
from keyreid.pipeline.errors import FormatError, KeyReIDError, SettingsError

EUCLIDEAN = Comparison()


def every_pair(described, across_cameras: bool = True) -> list[tuple[int, int, float, bool]]:
    """First, second, squared distance and whether one person; identity 0 is nobody in particular."""
    found = []
    values, identities = described.values.astype(float), described.identities
    for one, other in combinations(range(len(values)), 2):
        if across_cameras and described.cameras[one] == described.cameras[other]:
            continue
        if identities[one] == identities[other] == 0:
            continue
        distance = float(((values[one] - values[other]) ** 2).sum())
        found.append((one, other, distance, identities[one] == identities[other]))
    return found


@pytest.mark.parametrize("across_cameras", [True, False])
@pytest.mark.parametrize("rows_at_once", [512, 7], ids=["one block", "many blocks"])
def test_thresholds_are_those_of_all_pairs(across_cameras, rows_at_once, monkeypatch):
    monkeypatch.setattr(module, "ROWS_AT_ONCE", rows_at_once)
    described, rates = people(), (0.05, 0.01)
    found = calibrate(described, rates, EUCLIDEAN, across_cameras=across_cameras, resamples=100)
    pairs = every_pair(described, across_cameras)
    wrong = np.sort([distance for *_, distance, same in pairs if not same])
    matching = np.array([distance for *_, distance, same in pairs if same])
    assert (found.num_wrong, found.num_matching, found.num_people) == (len(wrong), len(matching), 36)
    for one, rate in zip(found.thresholds, rates, strict=True):
        assert one.asked == rate
        assert one.threshold == pytest.approx(wrong[int(rate * len(wrong))], rel=1e-5)
        assert one.false_match_rate == int(rate * len(wrong)) / len(wrong) <= rate
        assert one.true_match_rate == pytest.approx((matching < one.threshold).mean())
        low, high = one.true_match_interval
        assert low < one.true_match_rate < high


def test_wrong_pairs_are_counted_where_people_count_more_than_once():
    described = people(num_people=6)
    counts = Persons.of(described, across_cameras=True)
    times = np.random.default_rng(0).integers(0, 4, counts.count).astype(float)
    weights = times[counts.number]
    expected = sum(weights[one] * weights[other] for one, other, _, same in every_pair(described) if not same)
    assert counts.impostor_pairs(times) == pytest.approx(expected) and expected > 0
    assert len(set(counts.number[described.identities == 0])) == 6  # each distractor is somebody else


def test_intervals_are_those_of_drawing_people_and_walking_over_the_pairs():
    described = people(num_people=40, per_person=3)
    found = calibrate(described, [0.05], EUCLIDEAN, resamples=400).thresholds[0]
    people_of = Persons.of(described, across_cameras=True).number
    first, second, distance, same = (np.array(column) for column in zip(*every_pair(described), strict=True))
    generator, rates, others = np.random.default_rng(5), [], []
    for _ in range(400):
        drawn = generator.integers(0, people_of.max() + 1, people_of.max() + 1)
        times = np.bincount(drawn, minlength=people_of.max() + 1)[people_of]
        below = distance < found.threshold
        wrong, matching = times[first] * times[second] * ~same, times[first] * same
        rates.append((wrong[below].sum() / wrong.sum(), matching[below].sum() / matching.sum()))
        order = np.argsort(distance)
        others.append(distance[order][np.flatnonzero(np.cumsum(wrong[order]) > 0.05 * wrong.sum())[0]])
    expected = np.percentile(rates, (2.2, 97.8), axis=0)  # of 46 persons: t, and the root of 46 / 45
    np.testing.assert_allclose(found.threshold_interval, np.percentile(others, (2.2, 97.8)), rtol=0.05)
    np.testing.assert_allclose(found.false_match_interval, expected[:, 0], rtol=0.15)
    np.testing.assert_allclose(found.true_match_interval, expected[:, 1], rtol=0.05)


def test_equal_distances_are_not_let_through_by_half():
    described = people(noise=0.0, distractors=0)
    one_place = replace(described, values=np.zeros_like(described.values))
    found = calibrate(one_place, [0.05], EUCLIDEAN, resamples=100).thresholds[0]
    assert (found.threshold, found.false_match_rate, found.true_match_rate) == (0, 0, 0)


def test_too_few_pairs_are_refused_with_the_number_that_it_takes():
    num_wrong = sum(not same for *_, same in every_pair(people()))
    with pytest.raises(SettingsError, match=rf"{num_wrong:,} pairs of different people .* 0.001; expected 30,000 or"):
        calibrate(people(), [0.1, 0.001], EUCLIDEAN)
    smallest = 30 / num_wrong
    calibrate(people(), [smallest * 1.001], EUCLIDEAN, resamples=100)
    with pytest.raises(SettingsError, match="at least 30 false matches decide"):
        calibrate(people(), [smallest * 0.999], EUCLIDEAN)


def test_unknown_cameras_need_all_pairs():
    described = people()
    unknown = replace(described, cameras=np.zeros_like(described.cameras))
    with pytest.raises(SettingsError, match=r"all 126 tracklets are of camera 0; .* with --pairs all"):
        calibrate(unknown, [0.01], EUCLIDEAN)
    assert calibrate(unknown, [0.01], EUCLIDEAN, across_cameras=False, resamples=100).num_matching == 30 * 6


@pytest.mark.parametrize("rates", [[], [0.0], [1.0], [-0.1]])
def test_rates_out_of_range_are_refused(rates):
    with pytest.raises(SettingsError, match="numbers between 0 and 1"):
        calibrate(people(), rates, EUCLIDEAN)


def test_nan_is_refused():
    described = people()
    described.values[3] = np.nan
    with pytest.raises(KeyReIDError, match="distances are NaN or infinite"):
        calibrate(described, [0.01], EUCLIDEAN)


def test_people_of_the_training_split_are_never_used_unless_asked_for(tmp_path):
    """The threshold of a file with all splits is that of its test people; one person is in both and is left out."""
    described = people(distractors=0)
    splits = np.where(described.identities <= 10, "train", np.where(described.identities % 2, "query", "gallery"))
    splits[np.flatnonzero(described.identities == 10)[0]] = "gallery"
    mixed = replace(described, splits=splits)
    chosen = choose_splits(mixed, (), tmp_path)
    assert set(chosen.identities) == set(range(11, 31)) and set(chosen.splits) == {"query", "gallery"}
    assert len(choose_splits(mixed, ("train",), tmp_path).identities) == 39
    assert set(choose_splits(mixed, ("query",), tmp_path).identities) == set(range(11, 31, 2))
    save_descriptors(tmp_path / "all.h5", mixed)
    save_descriptors(tmp_path / "test.h5", described.take(np.flatnonzero(described.identities > 10)))
    everything, test = (json.loads(call(tmp_path / f"{name}.h5", "--false-match-rate", "0.05", "--json").stdout)
                        for name in ("all", "test"))  # fmt: skip
    assert everything["thresholds"] == test["thresholds"] and everything["splits"] == ["gallery", "query"]
    save_descriptors(tmp_path / "train.h5", replace(described, splits=np.full(len(splits), "train")))
    refused = call(tmp_path / "train.h5")
    assert (
        refused.exit_code == 1
        and "holds tracklets of train split alone; expected tracklets of split query or gall" in refused.stderr
    )
    assert call(tmp_path / "train.h5", "--split", "train", "--false-match-rate", "0.05").exit_code == 0


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["calibrate", *map(str, arguments), "--device", "cpu", "--resamples", "100"])


def test_the_command_writes_what_it_prints_and_search_reads(tmp_path):
    save_descriptors(tmp_path / "d.h5", people())
    arguments = (tmp_path / "d.h5", "--false-match-rate", "0.05,0.01", "--out", tmp_path / "t.json")
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "across-cameras; 36 people of gallery; euclidean distance" in lines[0]
    assert [line.split()[0] for line in lines[3:5]] == ["5", "1"]
    written = read_json(tmp_path / "t.json")
    assert json.loads(call(*arguments, "--json").stdout) == written
    calibration = read_calibration(tmp_path / "t.json")
    assert calibration.thresholds[1].threshold == written["thresholds"][1]["threshold"]
    assert threshold_for(tmp_path / "t.json", 0.01, ORIGIN, None) == (calibration.thresholds[1].threshold, "euclidean")
    for message, rate, origin, distance in (
        ("no false-match rate for .*; expected one of 0.05, 0.01", None, ORIGIN, None),
        ("false-match rate 0.02 for", 0.02, ORIGIN, None),
        ("for another network: network; expected other", 0.01, replace(ORIGIN, model="other"), None),
        ("for another way to take clips", 0.01, replace(ORIGIN, settings={"flip": True}), None),
        ("for another distance: euclidean; expected cosine", 0.01, ORIGIN, "cosine"),
    ):
        with pytest.raises(SettingsError, match=message):
            threshold_for(tmp_path / "t.json", rate, origin, distance)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FormatError, match="there is no file"):
        read_calibration(tmp_path / "none.json")
    (tmp_path / "other.json").write_text('{"format_version": 2}')
    with pytest.raises(FormatError, match=r"holds no thresholds of keyreid calibrate; calibrate again"):
        read_calibration(tmp_path / "other.json")
    (tmp_path / "old.json").write_text('{"format_version": 0}')
    with pytest.raises(FormatError, match="is of another version"):
        read_calibration(tmp_path / "old.json")
    save_descriptors(tmp_path / "d.h5", people())
    assert "false-match rates 'few'; expected numbers" in call(tmp_path / "d.h5", "--false-match-rate", "few").stderr

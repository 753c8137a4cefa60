"""Measuring on the way: who is held out, what is logged, which weights are kept."""

import logging

import pytest
import torch
from prepared_dataset import make_prepared
from training_fixtures import CPU, TINY, records, tensors

from keyreid.model.evaluation.evaluate import Evaluator
from keyreid.model.evaluation.protocols import find_protocol
from keyreid.model.network.weights import load_model, read_config
from keyreid.model.training.config import resolve_config
from keyreid.model.training.inputs import Validation, choose_holdout, open_inputs
from keyreid.model.training.trainer import train
from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.records import Tracklet


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("tiny"), identities=8, splits=("train", "query", "gallery"))


def config(*assignments):
    return resolve_config("demo", assignments=[*TINY, *assignments])


def tracklets(*cameras_of_each):
    """Training identities 0, 1, ..., each with a tracklet under each of its cameras."""
    pairs = [(identity, camera) for identity, cameras in enumerate(cameras_of_each) for camera in cameras]
    return [Tracklet(i, "train", identity, camera, 0, 1) for i, (identity, camera) in enumerate(pairs)]


def test_the_holdout_is_a_pure_function_of_the_seed():
    people = tracklets(*[(1, 2)] * 40)
    chosen = choose_holdout(people, 0.1, seed=3)
    assert chosen == choose_holdout(people[::-1], 0.1, seed=3) and len(set(chosen)) == 4
    assert chosen != choose_holdout(people, 0.1, seed=4)
    assert len(choose_holdout(people, 0.0, seed=3)) == 2, "a ranking needs two people"


def test_nobody_is_held_out_who_has_no_match_or_a_camera_to_themselves():
    people = tracklets((1, 2), (1, 2), (1,), (1, 1), (1, 2, 9), (1, 2), (1, 2))
    for seed in range(10):
        assert set(choose_holdout(people, 0.4, seed)) <= {0, 1, 5, 6}
    with pytest.raises(SettingsError, match=r"of 7 training identities can be held out; expected 6, .*holdout_share"):
        choose_holdout(people, 0.9, seed=0)


def test_held_out_identities_are_never_trained_on(prepared):
    inputs = open_inputs(
        prepared, config("training.validate_on=holdout", "training.holdout_share=0.3"),
        device=CPU, num_workers=0, identity_split=0,
    )  # fmt: skip
    trained = {
        inputs.store.manifest.tracklets[tracklet_id].identity
        for epoch in range(5) for batch in inputs.loader.epoch(epoch) for tracklet_id in batch.tracklet_ids.tolist()
    }  # fmt: skip
    held_out = {tracklet.identity for tracklet in inputs.validation.selection.tracklets}
    assert len(held_out) == 2 and trained == set(inputs.labels.identities)
    assert trained | held_out == set(range(1, 9)) and not trained & held_out
    assert all(tracklet.split == "train" for tracklet in inputs.validation.selection.tracklets)


def test_what_is_measured_is_what_keyreid_eval_measures(prepared, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        train(
            prepared, tmp_path / "run", config("training.epochs=3", "training.evaluate_every=2",
                                               "training.validate_on=test"), device=CPU,
        )  # fmt: skip
    assert "chosen on the test set" in caplog.text
    found = records(tmp_path / "run", "evaluation")
    assert [record["epoch"] for record in found] == [1, 2], "every second epoch and the last"
    evaluator = Evaluator.on(prepared, 0, find_protocol("standard"))
    metrics = evaluator.network("trained", load_model(tmp_path / "run" / "weights")).metrics
    assert (found[-1]["mAP"], found[-1]["rank1"]) == (metrics.mAP, metrics.rank(1))
    assert found[-1]["on"] == "test" and found[-1]["protocol"] == "standard"


def test_the_best_by_each_measure_is_kept(prepared, tmp_path, monkeypatch):
    course = iter([(0.2, 0.5), (0.4, 0.1), (0.4, 0.5), (0.3, 0.6)])
    states = []

    def measure(self, model):
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        mean, rank = next(course)
        return {"on": self.name, "protocol": "standard", "mAP": mean, "rank1": rank}

    monkeypatch.setattr(Validation, "measure", measure)
    options = ["training.epochs=4", "training.evaluate_every=1", "training.validate_on=holdout",
               "training.holdout_share=0.3"]  # fmt: skip
    summary = train(prepared, tmp_path / "run", config(*options), device=CPU)
    assert summary.best == {"mAP": {"value": 0.4, "epochs": 2}, "rank1": {"value": 0.6, "epochs": 4}}
    for name, epochs in (("best-map", 2), ("best-rank1", 4)):
        saved = tensors(tmp_path / "run" / name / "model.safetensors")
        assert all(torch.equal(saved[key], states[epochs - 1][key]) for key in saved)
        extra = read_config(tmp_path / "run" / name)[1]
        assert extra["epochs"] == epochs and extra["evaluation"]["mAP"] == (0.4 if epochs == 2 else 0.3)
        assert load_model(tmp_path / "run" / name).config.num_identities == 6


def test_nothing_is_measured_unless_asked(prepared, tmp_path):
    summary = train(prepared, tmp_path / "run", config("training.epochs=1"), device=CPU)
    assert summary.best == {} and records(tmp_path / "run", "evaluation") == [] and summary.num_identities == 8
    assert records(tmp_path / "run", "epoch")[0]["host_peak_mib"] > 100 and summary.memory["host_peak_mib"] > 100
    assert not (tmp_path / "run" / "best-map").exists()

"""keyreid search: the nearest of each query, as tables and pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from described_people import ORIGIN, people
from evaluation_dataset import make_prepared, save_tiny_model
from PIL import Image

from keyreid.cli.keyreid import main
from keyreid.model.embedding.file import load_descriptors
from keyreid.model.evaluation.pictures import BLUE, GREEN, GREY
from keyreid.model.evaluation.reranking import Comparison
from keyreid.model.search import nearest
from keyreid.model.search.nearest import search, some
from keyreid.pipeline.errors import SettingsError

EUCLIDEAN = Comparison()


def one_by_one(queries, gallery, top_k: int, other_cameras: bool) -> list[tuple[int, int, int]]:
    """Query, rank and tracklet, from a sort of each query's distances."""
    found = []
    for number, value, camera in zip(queries.tracklet_ids, queries.values, queries.cameras, strict=True):
        distances = ((gallery.values.astype(float) - value) ** 2).sum(1)
        kept = [
            entry for entry in np.argsort(distances, kind="stable")
            if gallery.tracklet_ids[entry] != number and not (other_cameras and gallery.cameras[entry] == camera)
        ]  # fmt: skip
        found += [(number, rank, gallery.tracklet_ids[entry]) for rank, entry in enumerate(kept[:top_k], 1)]
    return found


@pytest.mark.parametrize("other_cameras", [False, True])
@pytest.mark.parametrize("top_k", [3, 1000], ids=["three", "more than there are"])
def test_the_nearest_are_those_of_a_sort(other_cameras, top_k, monkeypatch):
    monkeypatch.setattr(nearest, "QUERIES_AT_ONCE", 5)
    gallery = people(num_people=6)
    queries = some(gallery, [105, 100, 129, 111, 112, 120], Path("d.h5"))
    found = search(queries, gallery, EUCLIDEAN, top_k=top_k, other_cameras=other_cameras)
    expected = one_by_one(queries, gallery, top_k, other_cameras)
    assert list(found[["query", "rank", "tracklet"]].itertuples(index=False, name=None)) == expected
    first = found.to_dict("records")[0]
    assert first["identity"] == gallery.identities[first["tracklet"] - 100]
    assert first["query_camera"] == gallery.cameras[5] and "same_person" not in found


def test_two_files_are_searched_like_one(monkeypatch):
    gallery, queries = people(num_people=6), people(num_people=6, seed=1)
    queries = replace(queries, origin=replace(ORIGIN, data="others"))  # whose numbers mean other tracklets
    found = search(queries, gallery, EUCLIDEAN, top_k=2, threshold=3.0)
    assert len(found) == 2 * 30
    distances = ((queries.values[:, None].astype(float) - gallery.values) ** 2).sum(2)
    np.testing.assert_allclose(found["distance"].to_numpy().reshape(-1, 2)[:, 0], distances.min(1), rtol=1e-5)
    assert (found["same_person"] == (found["distance"] < 3)).all() and found["same_person"].nunique() == 2
    for message, origin in (
        (r"of another network .other. than the gallery's .network.", replace(ORIGIN, model="other")),
        ("of another way to take clips", replace(ORIGIN, settings={"flip": True})),
    ):
        with pytest.raises(SettingsError, match=message):
            search(replace(queries, origin=origin), gallery, EUCLIDEAN)
    with pytest.raises(SettingsError, match="the 0 nearest; expected 1 or more"):
        search(gallery, gallery, EUCLIDEAN, top_k=0)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """Two prepared datasets, a network, and descriptors of both."""
    folder = tmp_path_factory.mktemp("search")
    save_tiny_model(folder / "run")
    make_prepared(folder / "prepared")
    make_prepared(folder / "new", (("query", 5, 2, 4), ("query", 6, 1, 4)), name="new")
    for name in ("prepared", "new"):
        arguments = [str(folder / "run"), str(folder / name), "--out", str(folder / f"{name}.h5"), "--device", "cpu"]
        assert CliRunner().invoke(main, ["embed", *arguments]).exit_code == 0
    return folder


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["search", *map(str, arguments), "--device", "cpu"])


def test_the_command_prints_and_writes_one_table(workplace, tmp_path):
    arguments = (workplace / "new.h5", workplace / "prepared.h5", "--top-k", 3)
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["query", "query_identity", "query_camera", "rank", "tracklet", "identity", "camera",
                                "distance"]  # fmt: skip
    assert len(lines) == 1 + 2 * 3
    records = json.loads(call(*arguments, "--json").stdout)
    for name, read in (("found.csv", pd.read_csv), ("found.parquet", pd.read_parquet)):
        written = call(*arguments, "--out", tmp_path / name)
        assert written.stdout == f"table: {tmp_path / name}\n"
        table = read(tmp_path / name)
        assert table.drop(columns="distance").to_dict("records") == [
            {key: value for key, value in record.items() if key != "distance"} for record in records
        ]
        np.testing.assert_allclose(table["distance"], [record["distance"] for record in records], rtol=1e-5)


def test_pictures_show_the_query_and_what_is_below_the_threshold(workplace, tmp_path):
    gallery = workplace / "prepared.h5"
    table = pd.DataFrame(json.loads(call("4", gallery, "--json", "--top-k", 3).stdout))
    threshold = table["distance"][:2].mean()
    result = call(
        "4", gallery, "--top-k", 3, "--threshold", threshold, "--pictures", tmp_path, "--prepared",
        workplace / "prepared",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (path,) = tmp_path.iterdir()
    assert path.name == "query-00004.png"
    picture = Image.open(path)
    borders = [picture.getpixel((left + 2, 50)) for left in (8, 16 + 98, 16 + 2 * 98, 16 + 3 * 98)]
    assert borders == [BLUE, GREEN, GREY, GREY]
    other = call(workplace / "new.h5", gallery, "--pictures", tmp_path / "two", "--prepared", workplace / "prepared",
                 "--query-prepared", workplace / "new")  # fmt: skip
    assert other.exit_code == 0 and len(list((tmp_path / "two").iterdir())) == 2, other.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("77", "prepared.h5"), "holds no tracklet 77; expected numbers of its 13 tracklets, such as 0"),
        (("none.h5", "prepared.h5"), "there is no file none.h5"),
        (("4", "prepared.h5", "--pictures", "p"), "--pictures without --prepared"),
        (("4", "prepared.h5", "--pictures", "p", "--prepared", "new"), "is not the prepared dataset that the descr"),
        (("4", "prepared.h5", "--out", "found.txt"), "a name that ends in .csv or .parquet"),
        (("4", "prepared.h5", "--threshold", "1", "--calibration", "t.json"), "--threshold and --calibration"),
        (("4", "prepared.h5", "--calibration", "t.json"), "there is no file t.json; expected thresholds"),
    ],
)
def test_mistakes_are_one_line(arguments, message, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    result = call(*arguments)
    assert result.exit_code == 1 and message in result.stderr and "unexpected error" not in result.stderr, result.output
    assert not (workplace / "p").exists()


def test_a_calibration_decides(workplace, tmp_path):
    made_by = load_descriptors(workplace / "prepared.h5").origin
    threshold = {"asked": 0.01, "threshold": 1e9, "threshold_interval": None, "false_match_rate": 0.01,
                 "false_match_interval": [0, 1], "true_match_rate": 1.0, "true_match_interval": [0, 1]}  # fmt: skip
    calibration = {
        "format_version": 2, "splits": ["gallery"], "model": made_by.model, "dataset": "striped",
        "settings": made_by.settings, "distance": "cosine", "across_cameras": True,
        "num_matching": 1, "num_wrong": 1, "num_people": 1, "thresholds": [threshold],
    }  # fmt: skip
    (tmp_path / "t.json").write_text(json.dumps(calibration))
    records = json.loads(call("4", workplace / "prepared.h5", "--calibration", tmp_path / "t.json", "--json").stdout)
    assert all(record["same_person"] for record in records)
    cosine = json.loads(call("4", workplace / "prepared.h5", "--distance", "cosine", "--json").stdout)
    assert [record["tracklet"] for record in records] == [record["tracklet"] for record in cosine]
    assert [record["distance"] for record in records] == [record["distance"] for record in cosine]


def test_embed_leads_to_calibrate_and_that_to_search(tmp_path):
    """The commands of docs/descriptors.md, each with the files that the ones before it wrote."""
    rows = [("train", person, camera, 2) for person in (1, 2) for camera in (1, 2, 3)]
    rows += [("gallery", person, camera, 2) for person in range(5, 13) for camera in (1, 2, 3)]
    prepared, people_file, thresholds = (
        make_prepared(tmp_path / "p", tuple(rows)),
        tmp_path / "p.h5",
        tmp_path / "t.json",
    )
    weights = save_tiny_model(tmp_path / "w")
    for arguments in (
        ("embed", weights, prepared, "--out", people_file),
        ("calibrate", people_file, "--false-match-rate", "0.2", "--out", thresholds),
        ("search", "17", people_file, "--calibration", thresholds, "--out", tmp_path / "found.csv"),
    ):
        result = CliRunner().invoke(main, [*map(str, arguments), "--device", "cpu"])
        assert result.exit_code == 0, result.output
    assert json.loads(thresholds.read_text())["num_people"] == 8  # none of the two that training knows
    assert "same_person" in pd.read_csv(tmp_path / "found.csv")

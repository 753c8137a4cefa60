"""The stage as a whole: numbers of every method, one self-contained page, metrics.json."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluation_dataset import ROWS, make_prepared, tiny_model
from PIL import Image

from keyreid.model.evaluation.evaluate import Evaluator, evaluate
from keyreid.model.evaluation.measurement import Measurement, Share
from keyreid.model.evaluation.pictures import CELL, CELL_GAP
from keyreid.model.evaluation.protocols import Selection, find_protocol
from keyreid.model.evaluation.report.write import write_report
from keyreid.model.evaluation.results import RunResults
from keyreid.model.evaluation.tables import NAMES, Table, few_errors, percent, rank_table, span, threshold_table
from keyreid.pipeline.commit import read_json
from keyreid.pipeline.errors import FormatError, SettingsError, SourceError
from keyreid.pipeline.records import Tracklet

STANDARD = find_protocol("standard")
METHODS = ["trained", "untrained", "colour histogram", "part histogram"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return make_prepared(tmp_path_factory.mktemp("prepared"), name="<striped> & co")


@pytest.fixture(scope="module")
def evaluation(prepared) -> RunResults:
    return evaluate(Evaluator.on(prepared, 0, STANDARD), Path("runs/first"), tiny_model(), baselines=True)


@pytest.fixture(scope="module")
def folder(prepared, evaluation, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "report"
    evaluator = Evaluator.on(prepared, 0, STANDARD)
    page = write_report(folder, evaluation, evaluator.store, tiny_model())
    assert page == folder / "report.html"
    return folder


class References(HTMLParser):
    """Everything that a page would load, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        loading = {"src", "srcset", "data", "action", "poster", "background"} | ({"href"} if tag != "a" else set())
        self.loads += [value or "" for name, value in attributes if name in loading]
        self.links += [value or "" for name, value in attributes if name == "href" and tag == "a"]

    def handle_data(self, data: str) -> None:
        self.text += data


def parse(folder: Path) -> References:
    page = References()
    page.feed((folder / "report.html").read_text(encoding="utf-8"))
    return page


def test_every_method_is_measured_under_the_same_protocol(evaluation):
    assert [one.method for one in evaluation.measurements] == METHODS
    assert {one.protocol.name for one in evaluation.measurements} == {"standard"}
    for one in evaluation.measurements:  # the query of identity 9 is alone under its camera
        assert (one.metrics.num_queries, one.metrics.num_valid_queries) == (4, 3)


def test_the_page_loads_nothing(folder):
    page = parse(folder)
    assert page.loads and all(load.startswith("data:image/webp;base64,") for load in page.loads)
    assert not {"link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert page.links and all(link.startswith("#") for link in page.links)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "@import" not in text and set(re.findall(r"url\((.)", text)) <= {"#"}  # an SVG's own clip paths
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\s\"'<]*", text)) <= namespaces
    assert "default-src 'none'" in text


def test_the_page_shows_every_number_with_its_protocol(folder, evaluation):
    text = parse(folder).text
    for made in (rank_table(evaluation.measurements), threshold_table(evaluation.measurements)):
        for cell in (cell for row in made.rows for cell in row):
            words = (cell,) if isinstance(cell, str) else (percent(cell), span(cell.interval), few_errors(cell))
            assert all(word in text for word in words)
        assert all(note in text for note in made.notes) and made.notes
    assert text.count("standard") >= 2 + len(METHODS)
    for name in ("3 of 4", "mINP", "Rank-20", "TMR", "torch", "camera_scale", "gallery", "the only one"):
        assert name in text


def test_names_are_escaped_in_the_page(folder):
    assert "&lt;striped&gt; &amp; co" in (folder / "report.html").read_text(encoding="utf-8")
    assert "<striped> & co" in parse(folder).text


def test_pictures_in_the_page_are_whole(folder):
    pictures = [Image.open(io.BytesIO(base64.b64decode(load.split(",")[1]))) for load in parse(folder).loads]
    assert {picture.format for picture in pictures} == {"WEBP"}
    for picture in pictures:
        picture.load()
    strip, cell = (7 * (CELL[1] + CELL_GAP) - CELL_GAP, CELL[0]), CELL[::-1]
    sizes = [picture.size for picture in pictures]
    assert set(sizes) == {strip, cell}
    # Three explained queries: four frames and one map, and a frame and a map for a right and a wrong answer.
    assert sizes.count(strip) == 3 * (4 + 1 + 2 + 2)


def test_links_lead_somewhere(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert all(f'id="{link[1:]}"' in text for link in parse(folder).links)


def test_every_figure_stands_beside_dataset_protocol_and_distance(folder, evaluation):
    stamp = "<striped> & co · protocol standard · distance euclidean · re-ranking none"
    assert evaluation.stamp() == stamp
    assert parse(folder).text.count(stamp) == 5 + 3  # head, CMC, histogram, cameras, rankings, explanations


def read_csv(folder: Path, name: str) -> pd.DataFrame:
    table = pd.read_csv(folder / f"{name}.csv")
    assert set(table["dataset"]) == {"<striped> & co"} and set(table["protocol"]) == {"standard"}
    return table


def test_tables_hold_the_numbers_of_the_page(folder, evaluation):
    cmc = read_csv(folder, "cmc")
    for one in evaluation.measurements:
        assert np.allclose(cmc[cmc["method"] == one.method]["share"], one.metrics.cmc)
    histogram, cameras = read_csv(folder, "histogram"), read_csv(folder, "camera_pairs")
    assert histogram["one_person_two_cameras"].sum() == evaluation.measurements[0].metrics.num_matches.sum()
    assert list(zip(cameras["query_camera"], cameras["gallery_camera"], cameras["queries"], strict=True)) == [
        (1, 2, 1), (1, 3, 1), (2, 3, 1),
    ]  # fmt: skip
    shares = read_csv(folder, "frame_attention").groupby("tracklet")["share"].sum()
    assert len(shares) > 3 and np.allclose(shares, 1, atol=1e-4)


def test_contributions_sum_to_the_ranked_distance(folder):
    table = read_csv(folder, "contributions")
    sums = table.groupby(["query_tracklet", "gallery_tracklet"]).agg({"contribution": "sum", "ranked_distance": "max"})
    assert len(sums) == 6 and np.allclose(sums["contribution"], sums["ranked_distance"], rtol=1e-3)


def test_pictures_of_an_earlier_report_do_not_stay(folder, prepared, evaluation):
    old = folder / "explained" / "query-999.png"
    old.write_bytes(b"old")
    evaluator = Evaluator.on(prepared, 0, STANDARD)
    before = (folder / "report.html").read_bytes()
    write_report(folder, evaluation, evaluator.store, tiny_model())
    assert not old.exists() and len(list((folder / "explained").iterdir())) == 3
    assert (folder / "report.html").read_bytes() == before  # the same bytes again


def test_metrics_json_holds_the_same_numbers(folder, evaluation):
    content = read_json(folder / "metrics.json")
    assert content == json.loads(json.dumps(evaluation.to_dict()))
    assert content["protocol"]["name"] == "standard" and content["checkpoint"] == "runs/first"
    assert [result["method"] for result in content["results"]] == METHODS
    first = content["results"][0]
    assert first["mAP"] == evaluation.measurements[0].metrics.mAP
    assert first["rank1"] == first["cmc"][0] and first["num_valid_queries"] == 3
    assert content["dataset"]["counts"]["gallery"]["tracklets"] == 5
    assert set(content["versions"]) == {"python", "keyreid", "torch", "timm", "torchvision", "numpy"}


def test_nothing_but_whole_files_is_left(folder):
    tables = ["camera_pairs", "cmc", "contributions", "frame_attention", "histogram", "part_attention"]
    pictures = ["camera_pairs", "cmc", "histogram", "ranking"]
    expected = [*(f"{name}.csv" for name in tables), *(f"{name}.png" for name in pictures)]
    expected += ["explained", "metrics.json", "report.html"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(expected)
    assert all(Image.open(path).format == "PNG" for path in folder.rglob("*.png"))


def test_another_protocol_gives_other_numbers(prepared, evaluation):
    official = Evaluator.on(prepared, 0, find_protocol("mars-official"))
    measurement = official.network("trained", tiny_model())
    assert measurement.protocol.name == "mars-official" and measurement.distances.shape == (4, 9)
    assert not np.array_equal(measurement.metrics.cmc, evaluation.measurements[0].metrics.cmc)


def test_kept_descriptors_save_the_network_the_work(prepared, tmp_path, monkeypatch):
    evaluator, model = Evaluator.on(prepared, 0, STANDARD), tiny_model()
    first = evaluator.network("trained", model, tmp_path / "d.h5")
    monkeypatch.setattr(type(model), "describe", lambda *_: pytest.fail("the network was asked again"))
    again = evaluator.network("trained", model, tmp_path / "d.h5")
    assert np.array_equal(first.distances, again.distances)
    with pytest.raises(SettingsError, match=r"d.h5 holds descriptors of other weights, another dataset, .*; name ano"):
        evaluator.network("trained", tiny_model(1), tmp_path / "d.h5")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row for row in ROWS if row[0] != "query"], "no query tracklets with readable frames"),
        ([row for row in ROWS if row[0] != "gallery"], "no gallery tracklets with readable frames"),
    ],
)
def test_a_dataset_without_one_side_is_refused(rows, message, tmp_path):
    with pytest.raises(SourceError, match=message):
        Evaluator.on(make_prepared(tmp_path, tuple(rows)), 0, STANDARD)


def test_missing_shards_are_refused(tmp_path):
    with pytest.raises(FormatError, match=r"has no shards yet; run the stages in order"):
        Evaluator.on(make_prepared(tmp_path, shards=False), 0, STANDARD)


def test_a_split_of_a_dataset_with_one_fixed_split_is_refused(prepared):
    with pytest.raises(
        SettingsError, match="identity split 3 of <striped> & co, which has 0; expected no --identity-split"
    ):
        Evaluator.on(prepared, 3, STANDARD)


def one_figure() -> Measurement:
    """One query of one person, whose match is second."""
    people = [Tracklet(n, split, identity, camera, 0, 1) for n, (split, identity, camera) in enumerate(
        (("query", 1, 1), ("gallery", 2, 2), ("gallery", 1, 2)))]  # fmt: skip
    chosen = Selection(tuple(people[:1]), tuple(people[1:]), (1,), (2, 2))
    return Measurement("trained", STANDARD, chosen, np.array([[0.0, 1.0]]))


def test_the_table_stands_in_columns():
    table = rank_table([one_figure()])
    assert table.text().splitlines() == [
        "method   protocol  distance   re-ranking     Rank-1     Rank-5    Rank-10    Rank-20   mAP  mINP  queries",
        "---------------------------------------------------------------------------------------------------------",
        "trained  standard  euclidean  none             †0.0     †100.0     †100.0     †100.0  50.0  50.0   1 of 1",
        "                                          misses: 1  misses: 0  misses: 0  misses: 0",
        "† rests on fewer than 30 errors (misses, false matches or false alarms); how many stands with it.",
    ]


def test_tables_for_papers_have_intervals_protocol_and_escapes():
    names = ("trained", "authors-code (not comparable)", "euclidean", "none")
    table = Table((*NAMES, "TMR @ 1 %"), ((*names, Share(0.5, (0.25, 0.625), 4, "false matches")),), ("4 of 5 %",))
    assert table.markdown().splitlines() == [
        "| method | protocol | distance | re-ranking | TMR @ 1 % |",
        "| --- | --- | --- | --- | ---: |",
        "| trained | authors-code (not comparable) | euclidean | none | †50.0 (25.0–62.5; false matches: 4) |",
        "",
        "4 of 5 %",
    ]
    lines = table.latex().splitlines()
    assert lines[0] == r"\begin{tabular}{llllr}" and lines[2].endswith(r"& TMR @ 1 \% \\")
    assert lines[4].endswith(r"& $^\dagger$50.0 (25.0--62.5; false matches: 4) \\") and lines[-1].endswith(r"4 of 5 \%")

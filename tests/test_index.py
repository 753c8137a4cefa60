"""Completeness, the descriptors in data_manifests/, and the command keyreid-prep index."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from keyreid.cli.index import index
from keyreid.pipeline.errors import FormatError, SourceError
from keyreid.pipeline.index import Reading, SourceTracklet
from keyreid.pipeline.manifest import IdentitySplit, read_manifest
from keyreid.pipeline.sources import check_completeness, count, load_description
from keyreid.pipeline.stages import flatten

TRACKLETS = (
    SourceTracklet("train", 1, 1, ("a.jpg", "b.jpg")),
    SourceTracklet("query", 2, 1, ("c.jpg",)),
    SourceTracklet("gallery", 2, 2, ("d.jpg",)),
    *(SourceTracklet("gallery", -1, 3, ("e.jpg", "f.jpg", "g.jpg")) for _ in range(3)),
)
COUNTS = {"train": {"tracklets": 1, "frames": 2}, "junk": {"tracklets": 3}, "all": {"identities": 2, "cameras": 2}}


def make_folder(root: Path) -> Path:
    for path in ("train/1/1/t/1.jpg", "train/1/1/t/2.jpg", "query/2/1/t/1.jpg", "gallery/2/2/t/1.jpg"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")
    return root


def synthetic(root: Path, counts: object) -> Reading:
    (root / "SYNTHETIC.json").write_text(json.dumps({"counts": counts}))
    return Reading("mars", root, TRACKLETS)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(index, [str(argument) for argument in arguments])


def test_everything_is_counted_once() -> None:
    counts = count(Reading("x", Path(), iter(TRACKLETS)))
    names = ("tracklets", "frames", "identities", "cameras")
    assert [counts[f"train.{name}"] for name in names] == [1, 2, 1, 1]
    assert [counts[f"gallery.{name}"] for name in names] == [1, 1, 1, 1]
    assert [counts[f"all.{name}"] for name in names] == [3, 4, 2, 2], "without junk"
    assert (counts["junk.tracklets"], counts["junk.frames"], counts["identity_splits"]) == (3, 9, 0)
    split = IdentitySplit((2,), (1,), query_camera=1)
    counts = count(Reading("x", Path(), TRACKLETS, identity_splits=(split,)))
    assert [counts[f"{name}.tracklets"] for name in ("train", "query", "gallery")] == [2, 1, 0]


def test_descriptors_can_be_compared_and_those_of_mars_add_up_to_the_published_tables() -> None:
    known = set(count(Reading("x", Path(), TRACKLETS)))
    for name in ("mars", "ilids-vid", "prid2011", "ls-vid"):
        description = load_description(name)
        assert description is not None and description["name"] == name
        assert {"title", "page", "paper", "licence", "layout", "counts"} <= set(description)
        assert set(flatten(description["counts"])) <= known
    description = load_description("mars")
    counts, test = description["counts"] if description else {}, ("query", "gallery", "junk")
    assert sum(counts[part]["tracklets"] for part in test) == 12_180
    assert sum(counts[part]["frames"] for part in test) == 681_089
    assert sum(counts[part]["frames"] for part in ("train", *test)) == 1_191_003


def test_a_synthetic_tree_is_measured_by_its_own_counts(tmp_path: Path) -> None:
    checked = check_completeness(synthetic(tmp_path, COUNTS), "mars")
    assert checked.name == "synthetic-mars"
    assert "incomplete" not in checked.notes


def test_differences_are_listed(tmp_path: Path) -> None:
    reading = synthetic(tmp_path, {**COUNTS, "train": {"tracklets": 1, "frames": 1234}, "identity_splits": 10})
    message = (
        r"is not a complete copy of synthetic-mars\n  train.frames: 2 found, 1,234 expected\n"
        r"  identity_splits: 0 found, 10 expected; make it again .*--allow-incomplete"
    )
    with pytest.raises(SourceError, match=message):
        check_completeness(reading, "mars")
    allowed = check_completeness(reading, "mars", allow_incomplete=True)
    assert allowed.notes["incomplete"][0] == "train.frames: 2 found, 1,234 expected"


def test_more_than_a_complete_copy_is_refused_and_a_real_one_is_measured_by_its_descriptor(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"train.tracklets: 1 found, 8,298 expected[\s\S]*project_mars.html"):
        check_completeness(Reading("mars", tmp_path, TRACKLETS), "mars")
    with pytest.raises(SourceError, match=r"train.tracklets: 1 found, 0 expected"):
        check_completeness(synthetic(tmp_path, {"train": {"tracklets": 0}}), "mars")


def test_counts_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"unknown count train.trackets"):
        check_completeness(synthetic(tmp_path, {"train": {"trackets": 1}}), "mars")
    for counts in (None, {}, {"train": {"tracklets": "many"}}, [1]):
        with pytest.raises(FormatError, match=r"SYNTHETIC.json has no counts"):
            check_completeness(synthetic(tmp_path, counts), "mars")
    (tmp_path / "SYNTHETIC.json").write_text("[" * 100_000)
    with pytest.raises(FormatError, match=r"SYNTHETIC.json is not readable as JSON"):
        check_completeness(Reading("mars", tmp_path, TRACKLETS), "mars")


def test_index_writes_a_manifest_and_one_line_and_again_changes_nothing(tmp_path: Path) -> None:
    arguments = ["folder", make_folder(tmp_path / "shop"), tmp_path / "prepared", "--frames-per-shard", 2]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"shop: 1 train, 1 query, 1 gallery tracklets; 4 frames, 2 shards -> {arguments[2]}\n"
    manifest = read_manifest(tmp_path / "prepared")
    assert (manifest.name, manifest.generations[0].root, manifest.num_shards) == ("shop", str(tmp_path / "shop"), 2)
    facts = json.loads(run(*arguments, "--json").stdout)
    assert facts["counts"]["train"] == {"tracklets": 1, "frames": 2, "identities": 1, "cameras": 1}
    assert facts["fingerprint"] == manifest.fingerprint and read_manifest(tmp_path / "prepared") == manifest


def test_what_does_not_count_is_printed(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "shop")
    for identity in ("-1", "0", "ann"):
        (root / f"gallery/{identity}/2/t").mkdir(parents=True)
        (root / f"gallery/{identity}/2/t/1.jpg").write_bytes(b"")
    result = run("folder", root, tmp_path / "prepared")
    assert (
        "3 gallery tracklets; 6 frames, 1 shards; 1 tracklets are distractors; 1 junk tracklets left" in result.stdout
    )


def test_append_says_what_was_added_and_what_was_there(tmp_path: Path) -> None:
    root, prepared = make_folder(tmp_path / "shop"), tmp_path / "prepared"
    refused = run("folder", root, prepared, "--append")
    assert refused.exit_code == 1 and "holds no index to append to; leave --append out" in refused.stderr
    first = json.loads(run("folder", root, prepared, "--json").stdout)
    (root / "gallery/ann/door/t").mkdir(parents=True)
    (root / "gallery/ann/door/t/1.jpg").write_bytes(b"")
    refused = run("folder", root, prepared)
    assert refused.exit_code == 1 and "add --append if these are further tracklets" in refused.stderr
    grown = run("folder", root, prepared, "--append")
    assert grown.stdout == (
        "added 1 tracklets, 1 frames, 1 shards; 3 tracklets were there already\n"
        f"shop: 1 train, 1 query, 2 gallery tracklets; 5 frames, 2 shards -> {prepared}\n"
    )
    again = json.loads(run("folder", root, prepared, "--append", "--json").stdout)
    assert again["added"] == {"tracklets": 0, "frames": 0, "shards": 0}
    assert again["already_indexed"] == {"tracklets": 4, "frames": 5}
    assert (again["num_generations"], first["num_generations"]) == (2, 1)
    assert again["fingerprint"] == read_manifest(prepared).fingerprint != first["fingerprint"]


def test_index_refuses_an_incomplete_copy(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "shop")
    (root / "gallery/2/2/t/1.jpg").unlink()
    refused = run("folder", root, tmp_path / "prepared")
    assert refused.exit_code == 1
    assert "missing: gallery/2/2/t/ (no frames in it)" in refused.stderr
    assert "--allow-incomplete" in refused.stderr
    assert not (tmp_path / "prepared").exists()
    allowed = run("folder", root, tmp_path / "prepared", "--allow-incomplete")
    assert allowed.exit_code == 0
    assert "NOT COMPLETE" in allowed.stdout


@pytest.mark.parametrize("source", ["mars", "ilids-vid", "prid2011", "ls-vid", "folder"])
def test_index_of_a_folder_that_is_no_dataset(tmp_path: Path, source: str) -> None:
    result = run(source, tmp_path, tmp_path / "prepared")
    assert result.exit_code == 1
    assert re.match(r"Error: .* (lacks|has none of)", result.stderr)
    assert "Traceback" not in result.stderr


def test_index_of_a_table(tmp_path: Path) -> None:
    make_folder(tmp_path / "shop")
    table = tmp_path / "shop.csv"
    table.write_text("frame_path,tracklet,identity,camera\ntrain/1/1/t/1.jpg,a,1,1\n")
    result = run("table", table, tmp_path / "prepared", "--root", tmp_path / "shop")
    assert result.exit_code == 1
    assert "has no column split" in result.stderr
    table.write_text("frame_path,tracklet,identity,camera,split\ntrain/1/1/t/1.jpg,a,1,1,train\n")
    result = run("table", table, tmp_path / "prepared", "--root", tmp_path / "shop")
    assert result.exit_code == 0, result.output
    assert read_manifest(tmp_path / "prepared").generations[0].root == str(tmp_path / "shop")

"""The PRID2011 reader on six persons whose numbers have gaps, a short one, and strangers that share a number."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from keyreid.cli.prep import main as prep
from keyreid.model.evaluation.protocols import find_protocol, find_protocols
from keyreid.pipeline.errors import SettingsError, SourceError
from keyreid.pipeline.index import write_manifest
from keyreid.pipeline.manifest import read_manifest, read_shard_frames
from keyreid.pipeline.sources import read_source
from keyreid.pipeline.sources.prid2011 import SEQUENCES, SPLITS_FILE, own_halves, read
from keyreid.pipeline.synthetic.layouts import SyntheticSettings, synthesize

PERSONS = [f"person_{number:04d}" for number in (1, 2, 4, 7, 60, 200)]
SHORT = "person_0006"  # 27 frames under one camera, 26 under the other
SPLITS = [{"train": [p for p in PERSONS if p not in test], "test": test} for test in (PERSONS[:3], PERSONS[1::2])]


def make_person(root: Path, camera: str, person: str, num_frames: int) -> None:
    folder = root / SEQUENCES / camera / person
    folder.mkdir(parents=True)
    for frame in range(1, 1 + num_frames):
        (folder / f"{frame:04d}.png").write_bytes(b"")


def make_prid(root: Path, splits: Any = None) -> Path:
    for camera, num_frames in (("cam_a", 27), ("cam_b", 29)):
        for person in (*PERSONS, "person_0201"):
            make_person(root, camera, person, num_frames)
    make_person(root, "cam_a", SHORT, 27)
    make_person(root, "cam_b", SHORT, 26)
    make_person(root, "cam_b", "person_0749", 30)
    if splits is not None:
        write_splits(root, splits)
    return root


def write_splits(root: Path, value: Any) -> None:
    (root / SPLITS_FILE).write_text(json.dumps(value))


def test_persons_are_those_that_both_cameras_show_long_enough(tmp_path: Path) -> None:
    reading = read(make_prid(tmp_path))
    found = [(t.identity, t.camera, len(t.frame_paths)) for t in reading.tracklets]
    assert found == [
        (number, camera, frames) for number in (1, 2, 4, 7, 60, 200) for camera, frames in ((1, 27), (2, 29))
    ]
    assert reading.tracklets[1].frame_paths[-1] == f"{SEQUENCES}/cam_b/person_0001/0029.png"
    assert reading.missing == ()
    assert reading.notes["persons_left_out"] == 1, "the short one; the others are not among the 200"


def test_frames_are_in_order_of_their_numbers(tmp_path: Path) -> None:
    make_prid(tmp_path)
    folder = tmp_path / SEQUENCES / "cam_a/person_0001"
    for old, new in (("0002.png", "10000.png"), ("0003.png", "9999.png")):
        (folder / old).rename(folder / new)
    tracklet = read(tmp_path).tracklets[0]
    names = (tracklet.name, tracklet.identity_name, tracklet.camera_name)
    assert names == ("cam_a/person_0001", "person_0001", "cam_a")
    assert tracklet.frame_numbers == (1, *range(4, 28), 9999, 10000)
    files = [path.rsplit("/", 1)[1] for path in tracklet.frame_paths]
    assert [*files[:2], *files[-2:]] == ["0001.png", "0004.png", "9999.png", "10000.png"]


def test_the_split_file_or_own_splits_divide_the_persons(tmp_path: Path) -> None:
    reading = read(make_prid(tmp_path, SPLITS))
    found = [(split.train, split.test, split.query_camera) for split in reading.identity_splits]
    assert found == [((7, 60, 200), (1, 2, 4), 1), ((1, 4, 60), (2, 7, 200), 1)]
    assert reading.notes["splits_from"] == SPLITS_FILE
    (tmp_path / SPLITS_FILE).unlink()
    reading = read(tmp_path)
    assert reading.notes["splits_from"] == "own splits of seed 0, not those of published results"
    assert len(reading.identity_splits) == 10
    for split in reading.identity_splits:
        assert sorted(split.train + split.test) == [1, 2, 4, 7, 60, 200] and len(split.test) == 3


def test_own_splits_stay_what_they_are() -> None:
    """Literal names: other draws would silently be another protocol."""
    halves = own_halves([f"person_{number:04d}" for number in range(1, 8)])
    tests = ["".join(sorted(person[-1] for person in test)) for _, test in halves]
    assert tests == ["347", "347", "135", "467", "147", "345", "247", "126", "256", "367"]
    assert len({tuple(test) for _, test in own_halves([f"person_{number:04d}" for number in range(1, 179)])}) == 10
    assert all(len(train) == 4 and not set(train) & set(test) for train, test in halves)


@pytest.mark.parametrize(("splits", "least"), [(None, 1), (SPLITS, 27)], ids=["own splits", "split file"])
def test_a_person_that_one_camera_lacks_is_missing(tmp_path: Path, splits: Any, least: int) -> None:
    shutil.rmtree(make_prid(tmp_path, splits) / SEQUENCES / "cam_b/person_0004")
    reading = read(tmp_path)
    assert reading.missing == (f"{SEQUENCES}/cam_b/person_0004/ (0 frames, at least {least} expected)",)
    assert {t.identity for t in reading.tracklets} == {1, 2, 7, 60, 200}
    for split in reading.identity_splits:
        assert sorted(split.train + split.test) == [1, 2, 7, 60, 200]


def test_a_person_of_the_split_file_may_not_be_absent_or_short(tmp_path: Path) -> None:
    make_prid(tmp_path, [{"train": [*PERSONS[:3], SHORT], "test": [*PERSONS[3:], "person_0100"]}])
    assert read(tmp_path).missing == (
        f"{SEQUENCES}/cam_b/{SHORT}/ (26 frames, at least 27 expected)",
        f"{SEQUENCES}/cam_a/person_0100/ (0 frames, at least 27 expected)",
        f"{SEQUENCES}/cam_b/person_0100/ (0 frames, at least 27 expected)",
    )


def test_a_copy_is_compared_with_a_complete_one(tmp_path: Path) -> None:
    make_prid(tmp_path, SPLITS)
    with pytest.raises(SourceError, match=r"all.identities: 6 found, 178 expected(.|\n)*identity_splits: 2 found, 10"):
        read_source("prid2011", tmp_path)


def test_protocol_prid2011_asks_camera_a_and_answers_from_camera_b(tmp_path: Path) -> None:
    """Every one of the ten divisions."""
    whole = write_manifest(tmp_path / "p", read_source("prid2011", make_prid(tmp_path), allow_incomplete=True))
    (protocol,) = find_protocols("prid2011", whole)
    for index, split in enumerate(whole.identity_splits):
        manifest = whole.with_identity_split(index)
        chosen = protocol.select(manifest.tracklets)
        assert tuple(t.identity for t in chosen.queries) == tuple(t.identity for t in chosen.gallery) == split.test
        assert chosen.query_cameras == (1, 1, 1) and chosen.gallery_cameras == (2, 2, 2)
        assert {t.identity for t in manifest.split("train")} == set(split.train)
        assert {t.camera for t in manifest.split("train")} == {1, 2}


def test_figures_of_own_splits_say_so(tmp_path: Path) -> None:
    published, own = make_prid(tmp_path / "published", SPLITS), make_prid(tmp_path / "own")
    for root, word in ((published, ""), (own, "own ")):
        manifest = write_manifest(root / "p", read_source("prid2011", root, allow_incomplete=True))
        protocols = [p.on(manifest) for p in (find_protocol("prid2011"), find_protocol("standard"))]
        assert [p.label([3]) for p in protocols] == [f"prid2011 ({word}split 3 alone)", "standard"]
        assert protocols[0].label(range(10)) == f"prid2011 (mean of 10 {word}splits)"
        assert protocols[0].label([1, 2]) == f"prid2011 (2 of 10 {word}splits)"
    (found,) = find_protocols("prid2011", manifest)
    assert found.own_splits and [p.name for p in find_protocols("all", manifest) if p.own_splits] == ["prid2011"]


def test_synthetic_tree_is_indexed_by_the_commands(tmp_path: Path) -> None:
    people, prepared = tmp_path / "people", tmp_path / "prepared"
    size = ["--identities", "4", "--frames", "27", "28", "--workers", "1"]
    for arguments in (
        ["synthesize", str(people), "--layout", "prid2011", *size],
        ["index", "prid2011", str(people), str(prepared)],
    ):
        result = CliRunner().invoke(prep, arguments)
        assert result.exit_code == 0, result.output
    assert "the first of 10 splits (own splits of seed 0, not those of published results)" in result.stdout
    manifest = read_manifest(prepared)
    assert manifest.name == "synthetic-prid2011"
    assert {t.identity for t in manifest.tracklets} == {1, 2, 3, 4}, "the strangers are not among them"
    assert (people / SEQUENCES / "cam_a/person_0201").is_dir() and (people / SEQUENCES / "cam_b/person_0201").is_dir()
    assert "incomplete" not in manifest.notes
    with Image.open(people / read_shard_frames(prepared, 0).tracklets[0].paths[0]) as image:
        assert image.size == (64, 128) and image.format == "PNG"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_cameras": 4}, "expected 2 cameras with 1 tracklet each in the prid2011 layout"),
        ({"min_frames": 26}, "4 identities with 26 frames or more; expected up to 200 with 27"),
        ({"num_identities": 202}, "202 identities with 27 frames or more; expected up to 200 with 27"),
    ],
)
def test_settings_that_the_layout_cannot_hold(tmp_path: Path, settings: dict[str, int], message: str) -> None:
    fine = {"num_identities": 4, "num_cameras": 2, "tracklets_per_camera": 1, "min_frames": 27, "max_frames": 27}
    with pytest.raises(SettingsError, match=message):
        synthesize(tmp_path / "people", "prid2011", SyntheticSettings(**{**fine, **settings}))


def shorten(root: Path) -> None:
    for person in PERSONS[1:]:
        (root / SEQUENCES / "cam_a" / person / "0005.png").unlink()


BAD_INPUTS = [
    (lambda root: shutil.rmtree(root / SEQUENCES / "cam_b"), r"lacks prid_2011/multi_shot/cam_b"),
    (shorten, r"has 1 persons with 27 frames or more under both cameras; expected at least 2"),
    (lambda root: (root / SEQUENCES / "cam_a/group").mkdir(), r"folder 'group' in .*; .* names like person_0001"),
    (lambda root: (root / SEQUENCES / "cam_a/person_0001/mean.png").touch(), r"mean.png contradicts .* 0001.png"),
    (lambda root: write_splits(root, [{"train": PERSONS[1:], "test": []}]), r"split 0 .* person_0001 in neither half"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD_INPUTS, ids=[message[:40] for _, message in BAD_INPUTS])
def test_bad_input(tmp_path: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(make_prid(tmp_path))
    with pytest.raises(SourceError, match=message):
        read(tmp_path)

import json
from pathlib import Path

import pytest

from keyreid.pipeline.errors import FormatError, SettingsError, SourceError
from keyreid.pipeline.manifest import (
    IdentitySplit,
    Manifest,
    SourceTracklet,
    build_manifest,
    dataset_path,
    read_manifest,
    write_manifest,
)  # fmt: skip


def source(identity: int, camera: int, num_frames: int = 2, split: str = "train") -> SourceTracklet:
    return SourceTracklet(split, identity, camera, tuple(f"{identity}/{camera}/{n}.jpg" for n in range(num_frames)))


def manifest(root: Path, **options: object) -> Manifest:
    sources = [source(1, 1), source(1, 2), source(2, 1, split="query"), source(2, 2, split="gallery")]
    return build_manifest("people", root, sources, **options)  # type: ignore[arg-type]


def test_reads_back_what_was_written(tmp_path: Path) -> None:
    made = manifest(tmp_path, notes={"junk": 3})
    write_manifest(tmp_path / "prepared", made)
    assert read_manifest(tmp_path / "prepared") == made


def test_shards_hold_whole_tracklets_and_close_before_they_overflow(tmp_path: Path) -> None:
    lengths = [3, 2, 4, 9, 1, 1]
    sources = [source(number, 1, length) for number, length in enumerate(lengths)]
    made = build_manifest("people", tmp_path, sources, frames_per_shard=6)
    assert [tracklet.shard for tracklet in made.tracklets] == [0, 0, 1, 2, 3, 3]
    assert made.num_shards == 4
    assert [tracklet.tracklet_id for tracklet in made.shard(3)] == [4, 5]


def test_writing_the_same_index_again_is_fine_and_another_one_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, manifest(tmp_path))
    write_manifest(tmp_path, manifest(tmp_path))
    with pytest.raises(FormatError, match=r"already holds another index .*choose another folder"):
        write_manifest(tmp_path, build_manifest("people", tmp_path, [source(1, 1)]))


def test_identity_splits_divide_the_tracklets(tmp_path: Path) -> None:
    splits = (IdentitySplit((1,), (2,), query_camera=1), IdentitySplit((2,), (1,), query_camera=2))
    made = manifest(tmp_path, identity_splits=splits)
    assert [tracklet.split for tracklet in made.tracklets] == ["train", "train", "query", "gallery"]
    write_manifest(tmp_path / "prepared", made)
    other = read_manifest(tmp_path / "prepared").with_identity_split(1)
    assert [tracklet.split for tracklet in other.tracklets] == ["gallery", "query", "train", "train"]
    with pytest.raises(SettingsError, match=r"identity split 2 of people, which has 2; expected 0 to 1"):
        made.with_identity_split(2)


def test_a_folder_that_was_not_indexed(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"is not a prepared dataset .*run keyreid-prep index first"):
        read_manifest(tmp_path)


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, manifest(tmp_path))
    info = json.loads(dataset_path(tmp_path).read_text())
    dataset_path(tmp_path).write_text(json.dumps({**info, "format_version": 7}))
    with pytest.raises(FormatError, match=r"format version 7; expected version 1"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "no tracklets in"),
        ([SourceTracklet("train", 1, 2, ())], "identity 1, camera 2 has no frames"),
        ([source(1, 1, split="test")], "split 'test'; expected one of train, query, gallery"),
    ],
)
def test_sources_that_make_no_sense(tmp_path: Path, sources: list[SourceTracklet], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        build_manifest("people", tmp_path, sources)


def test_counts(tmp_path: Path) -> None:
    assert manifest(tmp_path).counts()["train"] == {"tracklets": 2, "frames": 4, "identities": 1, "cameras": 2}

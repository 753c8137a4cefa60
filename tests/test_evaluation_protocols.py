"""Which tracklets each protocol ranks."""

from __future__ import annotations

import numpy as np
import pytest
from mars_shape import mars_rows
from scipy.io import savemat

from keyreid.model.evaluation.measurement import Measurement
from keyreid.model.evaluation.metrics import rank_metrics
from keyreid.model.evaluation.protocols import PROTOCOLS, authors_cameras, find_protocol, find_protocols
from keyreid.pipeline.errors import SettingsError, SourceError
from keyreid.pipeline.index import write_manifest
from keyreid.pipeline.manifest import IdentitySplit, Manifest
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.sources.mars import read as read_mars


def tracklets(*rows: tuple[str, int, int]) -> tuple[Tracklet, ...]:
    """From (split, identity, camera)."""
    return tuple(Tracklet(i, split, identity, camera, 0, 1) for i, (split, identity, camera) in enumerate(rows))


# Identity 2 has no gallery tracklet under another camera, but two queries of different cameras.
DATASET = tracklets(
    ("train", 9, 1), ("query", 1, 1), ("gallery", 1, 2), ("query", 2, 1), ("query", 2, 2), ("gallery", 0, 3),
)  # fmt: skip


def ids(side: tuple[Tracklet, ...]) -> list[int]:
    return [tracklet.tracklet_id for tracklet in side]


def valid_queries(name: str) -> int:
    selection = find_protocol(name).select(DATASET)
    (query_ids, query_cameras), (gallery_ids, gallery_cameras) = (
        np.array([(t.identity, t.camera) for t in side]).T for side in (selection.queries, selection.gallery)
    )
    distances = np.zeros((len(query_ids), len(gallery_ids)))
    return rank_metrics(distances, query_ids, gallery_ids, query_cameras, gallery_cameras).num_valid_queries


def test_standard_ranks_the_gallery_alone_and_skips_queries_without_a_match():
    selection = find_protocol("standard").select(DATASET)
    assert (ids(selection.queries), ids(selection.gallery)) == ([1, 3, 4], [2, 5])
    assert valid_queries("standard") == 1


def test_mars_official_puts_the_queries_into_the_gallery_so_that_all_count():
    selection = find_protocol("mars-official").select(DATASET)
    assert (ids(selection.queries), ids(selection.gallery)) == ([1, 3, 4], [1, 2, 3, 4, 5])
    assert valid_queries("mars-official") == 3


def test_a_tracklet_on_both_sides_is_described_once():
    assert ids(find_protocol("mars-official").select(DATASET).tracklets) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_order_is_that_of_the_tracklet_ids(name):
    assert find_protocol(name).select(DATASET[::-1]) == find_protocol(name).select(DATASET)


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        ("query", "no query tracklets with readable frames; expected at least one .protocol standard.; give it"),
        ("gallery", "no gallery tracklets with readable frames; expected at least one .protocol standard."),
    ],
)
def test_a_missing_side_is_refused(left_out, message):
    with pytest.raises(SourceError, match=message):
        find_protocol("standard").select([t for t in DATASET if t.split != left_out])


def test_an_unknown_name_is_refused_with_the_nearest():
    message = "unknown protocol 'mars-oficial'; expected one of standard, mars-official, .* did you mean mars-official?"
    with pytest.raises(SettingsError, match=message):
        find_protocol("mars-oficial")


def test_the_counts_of_mars_come_out_of_its_tables(tmp_path, monkeypatch):
    rows = mars_rows()
    names = ["00-1C1T0001F001.jpg" if i < 0 else f"{i:04d}C{c}T{t:05d}F001.jpg" for t, (i, c, _) in enumerate(rows)]
    table = [(row, row, identity, camera) for row, (identity, camera, _) in enumerate(rows, start=1)]
    queries = [row for row, (_, _, is_query) in enumerate(rows, start=1) if is_query]
    (tmp_path / "info").mkdir()
    for half, lines, values in (("train", ["0001C1T0001F001.jpg"], [(1, 1, 1, 1)]), ("test", names, table)):
        (tmp_path / f"info/{half}_name.txt").write_text("\n".join(lines))
        savemat(tmp_path / f"info/tracks_{half}_info.mat", {f"track_{half}_info": np.array(values)})
    savemat(tmp_path / "info/query_IDX.mat", {"query_IDX": np.array(queries)})
    monkeypatch.setattr("keyreid.pipeline.sources.mars.split_missing", lambda *_: (set(), []))  # tables, no frames
    reading = read_mars(tmp_path)
    manifest = write_manifest(tmp_path / "prepared", reading)
    assert len(rows) == 12_180 and manifest.notes["junk"]["tracklets"] == 870

    counts = {}
    for protocol in find_protocols("all", manifest):
        selection = protocol.select(manifest.tracklets)
        distances = np.zeros((len(selection.queries), len(selection.gallery)), np.float32)
        metrics = Measurement("", protocol, selection, distances).metrics
        counts[protocol.name] = (*distances.shape, metrics.num_valid_queries)
    assert counts["standard"] == (1980, 9330, 1840)
    assert counts["mars-official"] == (1980, 11_310, 1980)
    assert counts["mars-matlab"] == counts["mars-official"]
    assert counts["authors-code"][:2] == (1980, 9330) and counts["authors-code"][2] != 1840


def test_authors_code_lists_a_camera_for_each_sampled_frame():
    """Clips of four, the last one filled up, at most 41 clips: 4, 8 and 164 cameras of the first three tracklets."""
    lengths = {1: 3, 2: 5, 3: 500, 4: 4}  # camera -> frames
    made = [Tracklet(c, "query", c, c, 0, frames) for c, frames in lengths.items()]
    assert authors_cameras(made) == (1, 1, 1, 1)
    many = [*made, *(Tracklet(5 + n, "query", 1, 9, 0, 1) for n in range(200))]
    cameras = authors_cameras(many)
    assert len(cameras) == 204
    assert [cameras.count(camera) for camera in (1, 2, 3, 4, 9)] == [4, 8, 164, 4, 24]


def test_authors_code_filters_with_other_tracklets_cameras_and_says_so():
    protocol = find_protocol("authors-code")
    selection = protocol.select(DATASET)
    assert (ids(selection.queries), ids(selection.gallery)) == ([1, 3, 4], [2, 5])
    assert (selection.query_cameras, selection.gallery_cameras) == ((1, 1, 1), (2, 2))  # they are 1, 1, 2 and 2, 3
    assert protocol.label() == "authors-code (not comparable)" and "Not comparable" in protocol.summary
    assert [p.name for p in PROTOCOLS.values() if not p.comparable] == ["authors-code"]


TEN = tuple(IdentitySplit((1,), (2,), 1) for _ in range(10))


@pytest.mark.parametrize(
    ("splits", "label"),
    [
        ([3], "ilids-vid (split 3 alone)"),
        ([3, 3, 0], "ilids-vid (2 of 10 splits)"),
        (range(10), "ilids-vid (mean of 10 splits)"),
    ],
)
def test_a_mean_of_splits_says_of_how_many(splits, label):
    assert find_protocol("ilids-vid").label(list(splits)) == label
    assert find_protocol("standard").label(list(splits)) == "standard"


def test_protocols_of_ten_splits_are_for_their_dataset():
    ilids = Manifest("ilids-vid", tuple(DATASET), identity_splits=TEN)
    assert [p.name for p in find_protocols("ilids-vid", ilids)] == ["ilids-vid"]
    names = ["standard", "mars-official", "mars-matlab", "ilids-vid", "authors-code"]
    assert [p.name for p in find_protocols("all", ilids)] == names
    message = "protocol prid2011 for ilids-vid, which has 10 identity splits; expected the dataset prid2011 with its 10"
    with pytest.raises(SettingsError, match=message):
        find_protocols("prid2011", ilids)
    with pytest.raises(SettingsError, match="protocol ilids-vid for ilids-vid, which has no identity splits"):
        find_protocols("ilids-vid", Manifest("ilids-vid", tuple(DATASET)))

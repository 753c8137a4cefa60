import numpy as np
import pytest
from prepared_dataset import change_a_bit, make_prepared

from keyreid.pipeline import store as store_module
from keyreid.pipeline.errors import FormatError
from keyreid.pipeline.shards import shard_path
from keyreid.pipeline.store import TrackletStore


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("tiny"))


def test_few_shards_stay_open_however_many_there_are(prepared, monkeypatch):
    monkeypatch.setattr(store_module, "MAX_OPEN_SHARDS", 1)
    one, many = TrackletStore(prepared), TrackletStore(prepared)
    assert many.manifest.num_shards > 1
    for tracklet in (*many.tracklets("train"), *many.tracklets("train")[::-1]):
        frames = range(many.num_frames(tracklet.tracklet_id))
        images, heatmaps = many.read(tracklet.tracklet_id, frames)
        assert sum(reader._opened is not None for reader in many._readers) == 1
        monkeypatch.setattr(store_module, "MAX_OPEN_SHARDS", 99)
        assert one.images(tracklet.tracklet_id, frames) == images
        np.testing.assert_array_equal(one.heatmaps(tracklet.tracklet_id, frames), heatmaps)
        monkeypatch.setattr(store_module, "MAX_OPEN_SHARDS", 1)


def test_a_shard_that_was_changed_is_refused_and_the_others_are_not(tmp_path):
    prepared = make_prepared(tmp_path)
    store = TrackletStore(prepared)
    everything = store.shards_of(store.tracklets("train"))
    assert everything == list(range(store.manifest.num_shards)) and len(everything) > 1
    assert store.shards_of(store.tracklets("train")[:1]) == [0]
    change_a_bit(shard_path(prepared, 1))
    store.require_intact([0])
    with pytest.raises(FormatError, match=rf"shards/00001.h5 has SHA-256 .*run keyreid-prep verify {prepared}"):
        store.require_intact(everything)
    with pytest.raises(FormatError, match=r"shards/00001.h5 has SHA-256"):
        read_all(store)
    change_a_bit(shard_path(prepared, 1))
    store.require_intact(everything)
    read_all(store)


def read_all(store):
    for tracklet in store.tracklets("train"):
        store.read(tracklet.tracklet_id, [0])

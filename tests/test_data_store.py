import numpy as np
import pytest
from prepared_dataset import make_prepared

from keyreid.pipeline import store as store_module
from keyreid.pipeline.store import TrackletStore


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("tiny"))


def test_few_shards_stay_open_however_many_there_are(prepared, monkeypatch):
    monkeypatch.setattr(store_module, "MAX_OPEN_SHARDS", 1)
    one, many = TrackletStore(prepared), TrackletStore(prepared)
    assert len({place[0] for place in many._places.values()}) > 1
    for tracklet in (*many.tracklets("train"), *many.tracklets("train")[::-1]):
        frames = range(many.num_frames(tracklet.tracklet_id))
        images, heatmaps = many.read(tracklet.tracklet_id, frames)
        assert sum(reader._opened is not None for reader in many._readers) == 1
        monkeypatch.setattr(store_module, "MAX_OPEN_SHARDS", 99)
        assert one.images(tracklet.tracklet_id, frames) == images
        np.testing.assert_array_equal(one.heatmaps(tracklet.tracklet_id, frames), heatmaps)
        monkeypatch.setattr(store_module, "MAX_OPEN_SHARDS", 1)

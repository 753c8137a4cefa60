import logging

import numpy as np
import pytest
import torch
from loader_fixtures import make_loader, same
from prepared_dataset import make_prepared

from keyreid.model.data.cache import FrameCache
from keyreid.model.data.settings import DataSettings
from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.store import TrackletStore

CPU = torch.device("cpu")
EACH = 3 * 8 * 4 + 6 * 64 * 32


def filled(rows):
    frames = torch.arange(len(rows), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 4)
    return np.array(rows), frames, torch.zeros(len(rows), 6, 64, 32, dtype=torch.uint8)


def test_rows_are_asked_for_once_and_those_without_a_place_always():
    cache = FrameCache(10, (8, 4), 4 * EACH, CPU)
    assert cache.claim(np.array([1, 3, 7])).tolist() == [True, True, True]
    assert cache.claim(np.array([3, 2, 7])).tolist() == [False, True, True]
    cache.put(*filled([7, 3]))
    assert cache.holds(np.array([1, 3, 7])).tolist() == [False, True, False]
    assert cache.get(np.array([3, 3]), CPU)[0].unique().tolist() == [1]
    cache.drop_claims()
    assert cache.claim(np.array([1, 2, 3])).tolist() == [True, True, False]


@pytest.mark.parametrize(("limit", "capacity"), [(0, 0), (EACH - 1, 0), (EACH, 1), (100 * EACH, 10)])
def test_the_limit_holds(limit, capacity):
    cache = FrameCache(10, (8, 4), limit, CPU)
    assert cache.capacity == capacity and cache._frames.nbytes + cache._heatmaps.nbytes <= limit


@pytest.mark.parametrize(("room", "level"), [(1200, logging.WARNING), (1500, logging.INFO)])
def test_what_fits_is_said_in_one_line(caplog, room, level):
    with caplog.at_level(logging.INFO):
        FrameCache(1500, (8, 4), room * EACH, CPU).report()
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (level, f"cache on cpu: {room * EACH / 1e9:.2f} GB for {room} of 1500 training frames")
    ]


def test_a_cache_beyond_the_memory_is_refused():
    with pytest.raises(SettingsError, match=r"GB does not fit on cpu \(this machine has .* GB\); .* --cache-gigabytes"):
        FrameCache(10**8, (256, 128), 10**15, CPU)


@pytest.mark.parametrize("workers", [0, 2])
def test_frames_that_are_kept_are_not_read_again(tmp_path, workers):
    store = TrackletStore(make_prepared(tmp_path, splits=("train",)))
    loader = make_loader(store, num_workers=workers, data=DataSettings(cache="ram", cache_gigabytes=0.01))
    first = [list(loader.epoch(epoch)) for epoch in range(12)]
    assert loader._cache.holds(np.arange(loader._cache.capacity)).all(), "12 epochs show every frame"
    for shard in tmp_path.glob("shards/*.h5"):
        shard.write_bytes(b"")
    assert all(same(loader.epoch(epoch), first[epoch]) for epoch in range(12))

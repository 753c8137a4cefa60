import pytest
import torch
from loader_fixtures import load, make_loader, plain_batches, same
from prepared_dataset import make_mixed, make_prepared
from torch import multiprocessing

from keyreid.model.data import loader as loader_module
from keyreid.model.data.labels import LabelTables
from keyreid.pipeline.errors import FormatError, SettingsError
from keyreid.pipeline.store import TrackletStore


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return TrackletStore(make_prepared(tmp_path_factory.mktemp("tiny"), splits=("query", "train")))


def test_a_batch_carries_what_its_docstring_says(store):
    batch = load(store)[0]
    assert batch.frames.shape == (4, 4, 3, 32, 16) and batch.frames.dtype == torch.uint8
    assert batch.heatmaps.shape == (4, 4, 6, 64, 32) and batch.heatmaps.dtype == torch.uint8
    tracklets = [store.manifest.tracklets[i] for i in batch.tracklet_ids.tolist()]
    assert all(t.split == "train" for t in tracklets)
    assert batch.identities.tolist() == [t.identity - 1 for t in tracklets]  # identities are 1..4, cameras 1..2
    assert batch.cameras.tolist() == [t.camera - 1 for t in tracklets]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_mixed_kinds_and_sizes_are_those_of_the_plain_way(tmp_path, workers):
    mixed = TrackletStore(make_mixed(tmp_path))
    batches = load(mixed, epoch=1, num_workers=workers)
    assert len(batches) > 1
    for batch, (frames, heatmaps) in zip(batches, plain_batches(mixed, 1), strict=True):
        assert torch.equal(batch.frames, frames) and torch.equal(batch.heatmaps, heatmaps)


def test_epochs_differ_and_repeat_exactly(store):
    assert same(load(store, epoch=1), load(store, epoch=1))
    assert not same(load(store, epoch=1), load(store, epoch=2))
    assert not same(load(store), load(store, seed=5))


@pytest.mark.parametrize("start_method", multiprocessing.get_all_start_methods())
def test_workers_started_in_any_way_change_nothing(store, start_method):
    tracklet = store.tracklets("train")[0].tracklet_id
    before = store.read(tracklet, [0])  # files open in the parent must not disturb the workers, nor they it
    workers = 2 if start_method == "fork" else 1  # the others take seconds to start
    assert same(load(store, epoch=1, num_workers=workers, start_method=start_method), load(store, epoch=1))
    assert store.read(tracklet, [0])[0] == before[0]


def test_tracklets_of_other_identities_are_left_out(store):
    some = [t for t in store.tracklets("train") if t.identity in (2, 4)]
    batches = load(store, labels=LabelTables.of(some))
    assert {int(i) for batch in batches for i in batch.tracklet_ids} <= {t.tracklet_id for t in some}


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_ranks_batches_are_together_that_of_one_process(store, world_size):
    settings = {"identities_per_batch": 4, "clips_per_identity": 1}
    whole = load(store, epoch=2, **settings)
    shares = [load(store, epoch=2, rank=rank, world_size=world_size, **settings) for rank in range(world_size)]
    count = 4 // world_size
    for all_of_it, *parts in zip(whole, *shares, strict=True):
        assert [(p.first_clip, p.all_clips) for p in parts] == [(r * count, 4) for r in range(world_size)]
        assert {p.step for p in parts} == {all_of_it.step}
        for name in ("frames", "heatmaps", "identities", "cameras", "tracklet_ids"):
            assert torch.equal(torch.cat([getattr(p, name) for p in parts]), getattr(all_of_it, name))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_begin_at_any_step(store, workers):
    whole = load(store, epoch=3)
    loader = make_loader(store, num_workers=workers)
    assert loader.steps(3) == len(whole) > 1
    assert same(loader.epoch(3, first_step=1), whole[1:])
    assert list(loader.epoch(3, first_step=len(whole))) == []
    next(loader.epoch(2))  # an epoch that is left early must not leak into the next
    assert same(loader.epoch(3), whole)


def test_identities_that_the_ranks_cannot_share_are_refused(store):
    with pytest.raises(SettingsError, match=r"4 identities for 3 processes; expected a multiple of 3.*batch_scale=3"):
        load(store, identities_per_batch=4, world_size=3)


def test_the_global_generator_is_left_alone(store):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    load(store, num_workers=1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_worker_finds_wrong_is_said_in_its_own_words(tmp_path, workers):
    store = TrackletStore(make_prepared(tmp_path))
    for shard in tmp_path.glob("shards/*.h5"):
        shard.write_bytes(b"rotten")
    with pytest.raises(FormatError, match=r"\.h5 has SHA-256 .*: it was damaged, or rebuilt .* what to do about it$"):
        load(store, num_workers=workers)


def test_the_share_of_an_epoch_spent_waiting(store, monkeypatch):
    loader, clock = make_loader(store), [0.0]
    make_batch = loader._batch

    def slowly(clips):
        clock[0] += 1
        return make_batch(clips)

    monkeypatch.setattr(loader, "_batch", slowly)
    monkeypatch.setattr(loader_module.time, "perf_counter", lambda: clock[0])
    for _ in loader.epoch(0):
        clock[0] += 3
    assert loader.waiting_share == 0.25

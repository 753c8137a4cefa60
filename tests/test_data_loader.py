import pickle

import pytest
import torch
from prepared_dataset import make_prepared

from keyreid.model.data.labels import LabelTables
from keyreid.model.data.loader import TrainingClips, _ClipKey, training_loader
from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.store import TrackletStore


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return TrackletStore(make_prepared(tmp_path_factory.mktemp("tiny"), splits=("query", "train")))


def load(store, epoch=0, **options):
    labels = LabelTables.of(store.tracklets("train"))
    settings = {"clip_length": 4, "frame_size": (32, 16), "identities_per_batch": 2, "clips_per_identity": 2, "seed": 0}
    return list(training_loader(store, labels, **{**settings, **options}).epoch(epoch))


def same(first, second):
    pairs = list(zip(first, second, strict=True))
    assert pairs
    return all(torch.equal(a.frames, b.frames) and torch.equal(a.tracklet_ids, b.tracklet_ids) for a, b in pairs)


def test_a_batch_carries_what_its_docstring_says(store):
    batch = load(store)[0]
    assert batch.frames.shape == (4, 4, 3, 32, 16) and batch.frames.dtype == torch.uint8
    assert batch.heatmaps.shape == (4, 4, 6, 64, 32) and batch.heatmaps.dtype == torch.uint8
    tracklets = [store.manifest.tracklets[i] for i in batch.tracklet_ids.tolist()]
    assert all(t.split == "train" for t in tracklets)
    assert batch.identities.tolist() == [t.identity - 1 for t in tracklets]  # identities are 1..4, cameras 1..2
    assert batch.cameras.tolist() == [t.camera - 1 for t in tracklets]


def test_epochs_differ_and_repeat_exactly(store):
    assert same(load(store, epoch=1), load(store, epoch=1))
    assert not same(load(store, epoch=1), load(store, epoch=2))
    assert not same(load(store), load(store, seed=5))


def test_worker_processes_change_nothing(store):
    store.read(store.tracklets("train")[0].tracklet_id, [0])  # a file open in the parent must not disturb the workers
    assert same(load(store, epoch=1), load(store, epoch=1, num_workers=2))


def test_the_dataset_travels_without_open_files(store):
    dataset = TrainingClips(store, LabelTables.of(store.tracklets("train")), 2, (32, 16), seed=0)
    key = _ClipKey(store.tracklets("train")[0].tracklet_id, 0, 0, 0, 4)
    before = dataset[key]
    after = pickle.loads(pickle.dumps(dataset))[key]
    assert torch.equal(before[1], after[1])


def test_clips_of_a_tracklet_change_from_epoch_to_epoch(store):
    dataset = TrainingClips(store, LabelTables.of(store.tracklets("train")), 2, (32, 16), seed=0)
    tracklet_id = store.tracklets("train")[0].tracklet_id
    sums = {int(dataset[_ClipKey(tracklet_id, epoch, 0, 0, 4)][1].long().sum()) for epoch in range(8)}
    assert len(sums) > 1


PLACES = [(0, 1), (0, 2), (1, 2), (0, 4), (3, 4)]


@pytest.mark.parametrize(("rank", "world_size"), PLACES)
def test_ranks_share_the_batch_of_one_process(store, rank, world_size):
    settings = {"identities_per_batch": 4, "clips_per_identity": 1}
    whole = load(store, epoch=2, **settings)
    share = load(store, epoch=2, rank=rank, world_size=world_size, **settings)
    assert len(share) == len(whole) > 0
    for ours, all_of_it in zip(share, whole, strict=True):
        count = 4 // world_size
        places = slice(rank * count, (rank + 1) * count)
        assert (ours.first_clip, ours.all_clips, ours.step) == (rank * count, 4, all_of_it.step)
        for name in ("frames", "heatmaps", "identities", "cameras", "tracklet_ids"):
            assert torch.equal(getattr(ours, name), getattr(all_of_it, name)[places])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_begin_at_any_step(store, workers):
    whole = load(store, epoch=3)
    labels = LabelTables.of(store.tracklets("train"))
    loader = training_loader(
        store, labels, clip_length=4, frame_size=(32, 16), identities_per_batch=2, clips_per_identity=2, seed=0,
        num_workers=workers,
    )  # fmt: skip
    assert loader.steps(3) == len(whole) > 1
    assert same(loader.epoch(3, first_step=1), whole[1:])
    assert list(loader.epoch(3, first_step=len(whole))) == []
    next(iter(loader.epoch(2)))  # an epoch that is left early must not leak into the next
    assert same(loader.epoch(3), whole)


def test_identities_that_the_ranks_cannot_share_are_refused(store):
    with pytest.raises(SettingsError, match=r"4 identities for 3 processes; expected a multiple of 3.*_batch=3"):
        load(store, identities_per_batch=4, world_size=3)

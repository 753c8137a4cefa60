"""Every way of decoding, keeping and rendering against the plain one: a frame at a time."""

import pytest
import torch
from loader_fixtures import load, make_loader, plain_batches
from prepared_dataset import make_mixed

from keyreid.model.data.labels import LabelTables
from keyreid.model.data.reading import BatchReader
from keyreid.model.data.settings import DataSettings
from keyreid.pipeline.errors import FormatError, SettingsError
from keyreid.pipeline.store import TrackletStore


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return TrackletStore(make_mixed(tmp_path_factory.mktemp("mixed") / "prepared"))


def check(batches, store, epoch):
    compared = 0
    for batch, (frames, heatmaps) in zip(batches, plain_batches(store, epoch), strict=True):
        assert torch.equal(batch.frames, frames) and torch.equal(batch.heatmaps, heatmaps)
        compared += 1
    assert compared > 1


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("heatmaps", ["stored", "rendered"])
def test_batches_of_mixed_sizes_are_those_of_the_plain_way(store, workers, heatmaps):
    check(load(store, epoch=1, num_workers=workers, data=DataSettings(heatmaps=heatmaps)), store, 1)


@pytest.mark.parametrize("heatmaps", ["stored", "rendered"])
@pytest.mark.parametrize("frames", [0, 1, 9, 99])
def test_a_cache_of_any_size_changes_nothing(store, frames, heatmaps):
    """32 x 16 frames: everything fits, some frames fit, or none."""
    each = 3 * 32 * 16 + 6 * 64 * 32
    settings = DataSettings(cache="ram", cache_gigabytes=(frames + 0.5) * each / 1e9, heatmaps=heatmaps)
    loader = make_loader(store, data=settings)
    for epoch in (0, 1, 0, 2):
        check(loader.epoch(epoch), store, epoch)
    assert loader._cache.capacity == min(frames, 38)


def test_what_workers_were_asked_for_and_never_came_is_asked_for_again(store):
    loader = make_loader(store, num_workers=2, data=DataSettings(cache="ram", cache_gigabytes=0.01))
    next(loader.epoch(0))  # left early, when the rest was on its way
    check(loader.epoch(0), store, 0)


def test_files_that_the_device_decodes_come_out_the_same(store):
    """On a CPU the decoder is the host's, so that the sorting of files and frames is all that can differ."""
    tracklets = store.tracklets("train")
    loader = make_loader(store)
    reader = BatchReader(store, tracklets, LabelTables.of(tracklets), decode_on_device=True, render=False)
    read = [reader[plan] for plan in loader._plans]
    assert any(host.jpegs is not None and host.groups for host in read), "both kinds in one batch"
    check([loader._assembler(host) for host in read], store, 0)


def test_a_file_that_the_device_cannot_decode_is_named(store):
    tracklets = store.tracklets("train")
    loader = make_loader(store)
    reader = BatchReader(store, tracklets, LabelTables.of(tracklets), decode_on_device=True, render=False)
    host = next(host for host in map(reader.__getitem__, loader._plans) if host.jpegs is not None)
    end = sum(host.jpegs.lengths)
    host.jpegs.blob[end - host.jpegs.lengths[-1] : end] = 7
    clip = host.plan.missing[host.jpegs.places[-1]] // 4
    message = (
        rf"tracklet {host.plan.tracklet_ids[clip]} in .*h5 cannot be read: a frame of \d+ bytes .*keyreid-prep verify"
    )
    with pytest.raises(FormatError, match=message):
        loader._assembler(host)


def test_decoding_on_a_device_wants_one(store):
    with pytest.raises(SettingsError, match=r"decode device, and training runs on cpu; .* use --decode host"):
        load(store, data=DataSettings(decode="device"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decode": "gpu"}, "decode is 'gpu'; expected host or device"),
        ({"cache": "disk"}, "cache is 'disk'; expected none or ram or device"),
        ({"heatmaps": "none"}, "heatmaps is 'none'; expected stored or rendered"),
        ({"cache_gigabytes": 0}, "a cache of 0 gigabytes; expected more than 0; use --cache none"),
    ],
)
def test_unknown_ways_are_refused(options, message):
    with pytest.raises(SettingsError, match=message):
        DataSettings(**options)

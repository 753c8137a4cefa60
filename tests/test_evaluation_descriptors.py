"""Descriptors of tracklets: batches that span tracklets give what one clip at a time gives."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from evaluation_dataset import ROWS, make_prepared, tiny_config, tiny_model

from keyreid.model.data.clips import evaluation_clips
from keyreid.model.data.decode import decode_clip
from keyreid.model.data.prepare import normalise_frames, part_weights_from_heatmaps
from keyreid.model.evaluation.clip_pool import ClipPool
from keyreid.model.evaluation.descriptor_file import (
    data_fingerprint,
    load_descriptors,
    model_fingerprint,
    save_descriptors,
)
from keyreid.model.evaluation.descriptors import describe_tracklets
from keyreid.model.network.descriptor import ClipDescriptors
from keyreid.pipeline.errors import FormatError, SettingsError
from keyreid.pipeline.store import TrackletStore


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> TrackletStore:
    return TrackletStore(make_prepared(tmp_path_factory.mktemp("prepared")))


def describe(model, store, batch_size=4, splits=("query", "gallery")):
    return describe_tracklets(model, store, store.tracklets(*splits), batch_size=batch_size, fingerprint="test")


def one_clip_at_a_time(model, store, tracklet) -> np.ndarray:
    """Mean of the clips' descriptors, as the authors' evaluation computes it."""
    descriptors = []
    for frames, padding in evaluation_clips(store.num_frames(tracklet.tracklet_id), 4, model.config.variant):
        encoded, heatmaps = store.read(tracklet.tracklet_id, frames)
        images = normalise_frames(decode_clip(encoded, model.config.frame_size)[None])
        weights = part_weights_from_heatmaps(torch.from_numpy(heatmaps)[None], model.patch_grid, model.config.variant)
        if model.config.variant == "reference" and padding:
            weights[:, -padding:] = 0
        camera = torch.tensor([model.config.camera_table.index(tracklet.camera)])
        with torch.no_grad():
            descriptors.append(model(images, weights, camera))
    return torch.cat(descriptors).mean(0).numpy()


@pytest.mark.parametrize("batch_size", [1, 3, 100], ids=["one clip", "across tracklets", "all at once"])
def test_reference_is_the_mean_of_the_clips_with_padded_weights_zero(store, batch_size):
    model = tiny_model(variant="reference")
    found = describe(model, store, batch_size)
    expected = np.stack([one_clip_at_a_time(model, store, t) for t in store.tracklets("query", "gallery")])
    assert found.values.dtype == np.float32 and found.values.shape == expected.shape
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-5)
    assert found.visibility.shape == (9, 0)  # the authors' code knows none


@pytest.mark.parametrize("pooling", ["attention", "average"])
def test_aligned_does_not_depend_on_the_batch_size(store, pooling):
    model = tiny_model(part_pooling=pooling)
    one, many = describe(model, store, 1), describe(model, store, 5)
    np.testing.assert_allclose(one.values, many.values, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.visibility, many.visibility)
    assert np.linalg.norm(one.values[0] - one.values[1]) > 1e-3  # and it depends on the tracklet


def test_aligned_of_a_short_tracklet_is_its_one_clip(store):
    model = tiny_model()
    found = describe(model, store)
    tracklet = next(t for t in store.tracklets("query") if t.num_frames == 1)
    row = found.rows([tracklet])[0]
    np.testing.assert_allclose(found.values[row], one_clip_at_a_time(model, store, tracklet), rtol=1e-4, atol=1e-5)


def test_finished_tracklets_leave_the_memory():
    pool = ClipPool(3, tiny_config())
    clips = ClipDescriptors(torch.ones(3, 24), torch.ones(3, 6, 96), torch.ones(3, 6))
    pool.add(torch.tensor([0, 0, 1]), clips)
    assert pool.num_waiting == 1 and pool.values[0].any() and not pool.values[1].any()
    pool.add(torch.tensor([1, 2, 2]), clips)
    assert pool.num_waiting == 2 and pool.values[1].any()
    pool.finish()
    assert pool.num_waiting == 0 and np.allclose(pool.values, pool.values[0])


def test_rows_carry_the_manifest_numbers(store):
    found = describe(tiny_model(), store)
    rows = [(number, *row) for number, row in enumerate(ROWS) if row[0] != "train"]
    assert found.tracklet_ids.tolist() == [row[0] for row in rows]
    assert found.identities.tolist() == [row[2] for row in rows]
    assert found.cameras.tolist() == [row[3] for row in rows]
    gallery = store.tracklets("gallery")
    assert found.tracklet_ids[found.rows(gallery)].tolist() == [t.tracklet_id for t in gallery]


def test_a_camera_the_network_does_not_know_is_refused_before_any_work(store):
    model = tiny_model(num_cameras=2, camera_numbers=(1, 2))
    with pytest.raises(SettingsError, match=r"camera 3 is not in the network's camera table; expected one of 1, 2"):
        describe(model, store)


def test_without_camera_embedding_any_camera_will_do(store):
    describe(tiny_model(num_cameras=2, camera_numbers=(1, 2), camera_scale=0.0), store)


def test_a_batch_of_no_clips_is_refused(store):
    with pytest.raises(SettingsError, match="a batch of 0 clips; expected at least 1"):
        describe(tiny_model(), store, 0)


def test_saved_descriptors_come_back_equal(store, tmp_path):
    found = describe(tiny_model(), store)
    save_descriptors(tmp_path / "d.h5", found)
    loaded = load_descriptors(tmp_path / "d.h5")
    for name, value in vars(found).items():
        assert np.array_equal(getattr(loaded, name), value), name


def test_another_file_or_version_is_refused(store, tmp_path):
    (tmp_path / "text.h5").write_text("no descriptors")
    with pytest.raises(FormatError, match=r"text.h5 is not a readable file of descriptors .*; delete it"):
        load_descriptors(tmp_path / "text.h5")
    save_descriptors(tmp_path / "d.h5", describe(tiny_model(), store))
    with h5py.File(tmp_path / "d.h5", "r+") as file:
        file.attrs["format_version"] = 7
    with pytest.raises(FormatError, match="descriptor format version 7; expected version 2; describe again"):
        load_descriptors(tmp_path / "d.h5")


def test_the_model_fingerprint_tells_weights_and_settings_apart():
    assert model_fingerprint(tiny_model(0)) == model_fingerprint(tiny_model(0))
    assert model_fingerprint(tiny_model(0)) != model_fingerprint(tiny_model(1))
    model = tiny_model(0)
    before = model_fingerprint(model)
    model.config = replace(model.config, part_weight=0.5)
    assert model_fingerprint(model) != before


def test_the_data_fingerprint_tells_datasets_apart(store, tmp_path):
    again = TrackletStore(store.path)
    other = TrackletStore(make_prepared(tmp_path / "other", ROWS[:-1]))
    assert data_fingerprint(store) == data_fingerprint(again)
    assert data_fingerprint(store) != data_fingerprint(other)

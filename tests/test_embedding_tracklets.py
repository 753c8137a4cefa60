"""Descriptors of tracklets: batches that span tracklets give what one clip at a time gives."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from evaluation_dataset import ROWS, make_prepared, tiny_model
from PIL import Image
from prepared_dataset import encode

from keyreid.model.data.decode import decode_frame
from keyreid.model.data.sampler import evaluation_clips
from keyreid.model.data.transform import normalise_frames, part_weights_from_heatmaps
from keyreid.model.embedding.descriptors import data_fingerprint, model_fingerprint
from keyreid.model.embedding.settings import EmbeddingSettings
from keyreid.model.embedding.tracklets import ClipPool, embed_tracklets
from keyreid.model.network.keyreid import ClipDescriptors
from keyreid.pipeline.errors import NotEnoughMemoryError, SettingsError
from keyreid.pipeline.skeleton import PART_FLIP
from keyreid.pipeline.store import TrackletStore


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> TrackletStore:
    return TrackletStore(make_prepared(tmp_path_factory.mktemp("prepared")))


def describe(model, store, batch_size=4, splits=("query", "gallery"), **options):
    tracklets = store.tracklets(*splits)
    return embed_tracklets(model, store, tracklets, batch_size=batch_size, fingerprint="test", **options)


def one_clip(model, store, tracklet, frames, padding=0) -> np.ndarray:
    """The descriptor of some consecutive frames alone, as the authors' evaluation computes it."""
    encoded, heatmaps = store.read(tracklet.tracklet_id, frames)
    images = normalise_frames(torch.stack([decode_frame(image, model.config.frame_size) for image in encoded])[None])
    weights = part_weights_from_heatmaps(torch.from_numpy(heatmaps)[None], model.patch_grid, model.config.variant)
    if model.config.variant == "reference" and padding:
        weights[:, -padding:] = 0
    with torch.no_grad():
        return model(images, weights, torch.tensor([model.config.camera_table.index(tracklet.camera)]))[0].numpy()


def mean_of_clips(model, store, tracklet) -> np.ndarray:
    clips = evaluation_clips(store.num_frames(tracklet.tracklet_id), 4, model.config.variant)
    return np.mean([one_clip(model, store, tracklet, *clip) for clip in clips], axis=0)


@pytest.mark.parametrize("batch_size", [1, 3, 100], ids=["one clip", "across tracklets", "all at once"])
def test_reference_is_the_mean_of_the_clips_with_padded_weights_zero(store, batch_size):
    model = tiny_model(variant="reference")
    found = describe(model, store, batch_size)
    expected = np.stack([mean_of_clips(model, store, t) for t in store.tracklets("query", "gallery")])
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
    np.testing.assert_allclose(found.values[row], mean_of_clips(model, store, tracklet), rtol=1e-4, atol=1e-5)


def test_finished_tracklets_leave_the_memory():
    pool = ClipPool(3, tiny_model())
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


def test_the_mean_camera_stands_for_cameras_that_training_never_saw(store):
    model = tiny_model(num_cameras=2, camera_numbers=(1, 2))
    table = model.backbone.camera_embedding
    found = describe(model, store, settings=EmbeddingSettings(cameras="mean"))
    assert model.backbone.camera_embedding is table  # the network is as it was
    with torch.no_grad():
        table.weight[:] = table.weight.mean(0)
    known = [tracklet for tracklet in store.tracklets("query", "gallery") if tracklet.camera < 3]
    expected = embed_tracklets(model, store, known, batch_size=4, fingerprint="test")
    np.testing.assert_allclose(found.values[found.rows(known)], expected.values, rtol=1e-4, atol=1e-5)
    assert np.abs(describe(tiny_model(), store).values - found.values).max() > 1e-3  # cameras do matter


def test_workers_change_nothing_to_the_last_bit(store):
    model = tiny_model()
    alone, helped = describe(model, store), describe(model, store, num_workers=2)
    assert alone.values.tobytes() == helped.values.tobytes()


class MirroredStore:
    """The same people in the mirror: what `flip` sees beside the frames themselves."""

    def __init__(self, store: TrackletStore) -> None:
        self.num_frames, self.reading, self._store = store.num_frames, store.reading, store

    def read(self, tracklet_id, frames):
        images, heatmaps = self._store.read(tracklet_id, frames)
        mirrored = [encode(np.array(Image.open(io.BytesIO(image)))[:, ::-1]) for image in images]
        return mirrored, heatmaps[:, list(PART_FLIP), :, ::-1]


def test_with_flip_a_tracklet_and_its_mirror_image_have_one_descriptor(store):
    model, tracklets = tiny_model(), store.tracklets("query", "gallery")

    def pair(flip: bool) -> tuple[np.ndarray, np.ndarray]:
        settings = EmbeddingSettings(flip=flip)
        both = (
            embed_tracklets(model, place, tracklets, batch_size=4, fingerprint="", settings=settings)
            for place in (store, MirroredStore(store))
        )
        return tuple(np.hstack([found.values, found.visibility]) for found in both)

    plain, mirrored = pair(flip=False)
    assert np.abs(plain - mirrored).max() > 1e-3
    np.testing.assert_allclose(*pair(flip=True), rtol=1e-4, atol=1e-5)


def test_flip_is_the_mean_of_clips_and_mirrored_clips(store):
    model = tiny_model(variant="reference")  # whose pooling is a plain mean, and whose mirror swaps no parts
    both = describe(model, store, settings=EmbeddingSettings(flip=True))
    mirror = MirroredStore(store)
    mirror.read = lambda number, frames: (MirroredStore.read(mirror, number, frames)[0],
                                          store.read(number, frames)[1][..., ::-1])  # fmt: skip
    tracklets = store.tracklets("query", "gallery")
    mirrored = embed_tracklets(model, mirror, tracklets, batch_size=4, fingerprint="")
    expected = (describe(model, store).values + mirrored.values) / 2
    np.testing.assert_allclose(both.values, expected, rtol=1e-4, atol=1e-5)


def test_shifts_take_more_clips_and_a_limit_fewer(store):
    model = tiny_model(variant="reference")
    tracklet = next(t for t in store.tracklets("gallery") if t.num_frames == 9)

    def values(**settings) -> np.ndarray:
        options = {"batch_size": 2, "fingerprint": "", "settings": EmbeddingSettings(**settings)}
        return embed_tracklets(model, store, [tracklet], **options).values[0]

    first, second = (one_clip(model, store, tracklet, range(start, start + 4)) for start in (0, 2))
    np.testing.assert_allclose(values(max_clips=1), first, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(values(max_clips=2, shifts=2), (first + second) / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_clips": 0}, "at most 0 clips of a tracklet; expected 1 or more, or all"),
        ({"shifts": 0}, "0 shifts; expected 1 or more"),
        ({"shifts": 5}, "5 shifts of clips of 4 frames; expected 1 to 4"),
        ({"cameras": "any"}, "cameras are 'any'; expected known or mean"),
        ({"batch_size": 0}, "a batch of 0 clips; expected at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(store, settings, message):
    with pytest.raises(SettingsError, match=message):
        describe(tiny_model(), store, settings.pop("batch_size", 4), settings=EmbeddingSettings(**settings))


def test_the_model_fingerprint_tells_weights_and_settings_apart():
    assert model_fingerprint(tiny_model(0)) == model_fingerprint(tiny_model(0))
    assert model_fingerprint(tiny_model(0)) != model_fingerprint(tiny_model(1))
    model = tiny_model(0)
    before = model_fingerprint(model)
    model.config = model.config.model_copy(update={"part_weight": 0.5})
    assert model_fingerprint(model) != before


def test_the_data_fingerprint_tells_datasets_apart(store, tmp_path):
    again = TrackletStore(store.path)
    other = TrackletStore(make_prepared(tmp_path / "other", ROWS[:-1]))
    assert data_fingerprint(store) == data_fingerprint(again)
    assert data_fingerprint(store) != data_fingerprint(other)


def test_too_large_a_batch_for_the_device_is_one_error(store, monkeypatch):
    def out_of_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model = tiny_model()
    monkeypatch.setattr(type(model), "describe", out_of_memory)
    with pytest.raises(NotEnoughMemoryError, match=r"a batch of 4 clips does not fit on cpu; lower --batch-size"):
        describe(model, store)

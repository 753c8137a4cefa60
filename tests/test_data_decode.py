import numpy as np
import pytest
import torch
from PIL import Image
from prepared_dataset import encode

from keyreid.model.data.decode import decode_frame
from keyreid.model.data.labels import LabelTables, camera_indices
from keyreid.model.data.transform import normalise_frames, part_weights_from_heatmaps
from keyreid.pipeline.errors import FormatError, SettingsError
from keyreid.pipeline.records import Tracklet

PICTURE = np.random.default_rng(0).integers(0, 256, (12, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (encode(PICTURE), PICTURE),
        (encode(PICTURE, "BMP"), PICTURE),
        (encode(PICTURE[..., 0]), np.repeat(PICTURE[..., :1], 3, axis=2)),
        (encode(np.dstack([PICTURE, np.full((12, 8), 7, np.uint8)])), PICTURE),
        (encode(PICTURE[..., 0].astype(np.uint16) * 257), np.repeat(PICTURE[..., :1], 3, axis=2)),
    ],
    ids=["png", "only Pillow knows", "grey", "alpha is dropped", "16 bits a channel"],
)
def test_every_kind_of_image_becomes_rgb(encoded, expected):
    frame = decode_frame(encoded, (12, 8))
    assert frame.dtype == torch.uint8
    np.testing.assert_array_equal(frame.permute(1, 2, 0).numpy(), expected)


def test_jpeg_is_close_to_the_picture():
    smooth = np.tile(np.linspace(0, 255, 32, dtype=np.uint8)[:, None, None], (1, 16, 3))
    frame = decode_frame(encode(smooth, "JPEG"), (32, 16)).permute(1, 2, 0).numpy()
    assert np.abs(frame.astype(int) - smooth).max() < 12


def test_other_sizes_are_resized_bicubically():
    frame = decode_frame(encode(PICTURE), (24, 16)).permute(1, 2, 0).numpy()
    expected = np.asarray(Image.fromarray(PICTURE).resize((16, 24), Image.Resampling.BICUBIC))
    assert np.abs(frame.astype(int) - expected).max() <= 2


def test_bytes_that_are_no_image():
    with pytest.raises(FormatError, match="frame of 9 bytes is not a readable image"):
        decode_frame(b"not a JPG", (8, 4))


def test_normalised_frames_run_from_minus_one_to_one():
    values = normalise_frames(torch.tensor([0, 51, 255], dtype=torch.uint8))
    torch.testing.assert_close(values, torch.tensor([-1.0, -0.6, 1.0]))


def test_part_weights_are_patch_means_row_by_row():
    heatmaps = torch.zeros(1, 1, 6, 64, 32, dtype=torch.uint8)
    heatmaps[0, 0, 2, 4:8, 8:12] = 255  # patch row 1, column 2 of 16 x 8
    heatmaps[0, 0, 3, 4:6, 8:12] = 255  # its upper half
    weights = part_weights_from_heatmaps(heatmaps, (16, 8), "aligned")
    assert weights.shape == (1, 1, 128, 6) and weights.sum() == 1.5
    assert weights[0, 0, 10, 2] == 1 and weights[0, 0, 10, 3] == 0.5
    torch.testing.assert_close(part_weights_from_heatmaps(heatmaps, (16, 8), "reference"), 2 * weights - 1)


def test_label_tables_are_sorted_and_unknown_cameras_are_named():
    tracklets = [Tracklet(i, "train", identity, camera, 0, 1) for i, (identity, camera) in enumerate([(7, 5), (3, 2)])]
    labels = LabelTables.of(tracklets)
    assert labels == LabelTables((3, 7), (2, 5), ("2", "5"))
    assert camera_indices([5, 2, 5], labels.cameras).tolist() == [1, 0, 1]
    with pytest.raises(SettingsError, match=r"camera 4, 9 is not in .* table; expected one of 2, 5"):
        camera_indices([9, 2, 4], labels.cameras)

"""Image files of every kind, read for pose estimation and stored for training."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keyreid.model.data.decode import decode_frame
from keyreid.pipeline.images import UNREADABLE, encoded_frame, read_frame


def draw(mode: str) -> Image.Image:
    """16 high, 8 wide, another value in each pixel; 16-bit grey spans all its range."""
    ramp = np.linspace(0, 255, 128).reshape(16, 8)
    if mode == "I;16":
        return Image.fromarray((ramp * 257).astype(np.uint16))
    return Image.fromarray(ramp.astype(np.uint8)).convert(mode)


@pytest.mark.parametrize(
    ("mode", "suffix", "unchanged"),
    [
        ("RGB", "jpg", True),
        ("L", "jpg", True),
        ("L", "png", True),
        ("RGB", "png", True),
        ("CMYK", "jpg", False),  # readers of JPEG differ on it
        ("RGBA", "png", False),
        ("P", "gif", False),
        ("1", "png", False),
        ("I;16", "png", False),
        ("I;16", "tif", False),
        ("RGB", "bmp", False),  # neither JPEG nor PNG
    ],
)
def test_what_is_stored_is_what_pose_estimation_saw(tmp_path: Path, mode: str, suffix: str, unchanged: bool) -> None:
    path = tmp_path / f"frame.{suffix}"
    draw(mode).save(path)
    data = encoded_frame(path)
    assert (data == path.read_bytes()) is unchanged
    seen = read_frame(path)
    assert seen.shape == (16, 8, 3) and seen.dtype == np.uint8
    stored = decode_frame(data, (16, 8)).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(stored.astype(int), seen, atol=2 if suffix == "jpg" else 0)


def test_sixteen_bits_of_grey_keep_their_range(tmp_path: Path) -> None:
    draw("I;16").save(tmp_path / "frame.png")
    grey = read_frame(tmp_path / "frame.png")[..., 0].ravel()
    assert grey.min() == 0 and grey.max() == 255 and (np.diff(grey.astype(int)) >= 0).all()
    assert len(np.unique(grey)) > 100


def test_sixteen_bits_a_channel_are_stored_as_eight(tmp_path: Path) -> None:
    """Pillow reads such a PNG as 8-bit RGB; the file's own bytes would be read as 16-bit by others."""
    path = tmp_path / "frame.png"
    path.write_bytes(_png_of_16_bits())
    data = encoded_frame(path)
    assert data != path.read_bytes() and data[24] == 8
    np.testing.assert_array_equal(decode_frame(data, (2, 2)).permute(1, 2, 0).numpy(), read_frame(path))


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0", b"no image at all"])
def test_what_is_no_image_raises_one_of_the_named_errors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "frame.jpg"
    path.write_bytes(content)
    for read in (read_frame, encoded_frame):
        with pytest.raises(UNREADABLE):
            read(path)


def test_a_truncated_image_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "frame.jpg"
    Image.effect_noise((64, 128), 50).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UNREADABLE):
        read_frame(path)


def _png_of_16_bits() -> bytes:
    """2x2 RGB of 16 bits a channel, which Pillow does not write."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + struct.pack(">6H", *range(start, start + 6 * 5000, 5000)) for start in (0, 30000))
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")

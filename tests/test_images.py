"""Image files of every kind, read for pose estimation and stored for training."""

import contextlib
import errno
import io
import os
import socket
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from keyreid.model.data.decode import decode_frame
from keyreid.pipeline import images
from keyreid.pipeline.errors import SourceError, SurroundingsError
from keyreid.pipeline.images import (
    UnreadableImage,
    check_decoders,
    decode_rgb,
    encode_for_shard,
    encoded_frame,
    read_frame,
)


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
        ("P", "png", False),
        ("1", "png", False),
        ("I;16", "png", False),
        ("I;16", "tif", False),
        ("RGB", "bmp", False),  # neither JPEG nor PNG
        ("RGB", "tif", False),
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
    if mode == "I;16":  # keeps its range
        assert (np.diff(seen[..., 0].ravel().astype(int)) >= 0).all() and len(np.unique(seen)) > 100


def test_sixteen_bits_a_channel_are_stored_as_eight(tmp_path: Path) -> None:
    """Pillow reads such a PNG as 8-bit RGB; the file's own bytes would be read as 16-bit by others."""
    path = tmp_path / "frame.png"
    rows = b"".join(b"\0" + struct.pack(">6H", *range(start, start + 6 * 5000, 5000)) for start in (0, 30000))
    path.write_bytes(_png(struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0), rows))  # Pillow does not write such
    data = encoded_frame(path)
    assert data != path.read_bytes() and data[24] == 8
    np.testing.assert_array_equal(decode_frame(data, (2, 2)).permute(1, 2, 0).numpy(), read_frame(path))


def test_what_is_no_image_is_unreadable_and_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))  # ghostscript
    buffer = io.BytesIO()
    Image.effect_noise((64, 128), 50).convert("RGB").save(buffer, "JPEG")
    path = tmp_path / "frame.jpg"
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    for content in (b"", b"\xff\xd8\xff\xe0", b"no image at all", postscript, buffer.getvalue()[:2000]):
        path.write_bytes(content)
        with pytest.raises(UnreadableImage, match=r"not a readable image .*expected a complete image, JPEG,"):
            read_frame(path)


def test_what_cannot_be_read_is_not_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "frame.jpg"
    with pytest.raises(FileNotFoundError):
        read_frame(path)
    draw("RGB").save(path)

    monkeypatch.setattr(images, "open", _raiser(OSError(errno.EIO, "Input/output error")), raising=False)
    with pytest.raises(OSError, match=r"Input/output error: '.*frame\.jpg'"):
        read_frame(path)


@pytest.mark.parametrize("kind", ["FIFO", "folder", "socket", "device"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "frame.jpg"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        {
            "FIFO": lambda: os.mkfifo(path),  # opened in the ordinary way it would wait for ever for a writer
            "folder": path.mkdir,
            "socket": lambda: server.bind(str(path)),
            "device": lambda: path.symlink_to("/dev/zero"),  # it never ends
        }[kind]()
        with pytest.raises(SourceError, match=r"frame\.jpg is a folder, FIFO, .*expected an image file"):
            read_frame(path)
    path = tmp_path / "frame.tif"
    path.touch()
    os.truncate(path, 2 << 30)  # takes no room on the disk
    with pytest.raises(UnreadableImage, match=r"frame\.tif has 2,147,483,648 bytes; expected at most 1,073,741,824"):
        read_frame(path)


def _tiled() -> bytes:
    """1 KB that took 1 GB."""
    tags = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: 1 << 15, 323: 1 << 15, 324: 8, 325: 99}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(1000)


@pytest.mark.parametrize("name", [*images.FORMATS, "tiles", "Pillow's own limit"])
def test_of_a_small_file_of_too_many_pixels_the_header_alone_is_read(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in images.FORMATS:
        buffer, found = io.BytesIO(), "16,000 x 3,200"
        options: dict[str, Any] = {"WEBP": {"method": 0, "quality": 0}, "TIFF": {"compression": "tiff_lzw"}}
        Image.new("L", (16000, 3200)).save(buffer, name, **options.get(name, {}))
        data = buffer.getvalue()
    elif name == "tiles":
        data, found = _tiled(), "tiles of 32,768 x 32,768"
    else:
        data, found = _png(struct.pack(">IIBBBBB", 1 << 30, 1 << 30, 8, 2, 0, 0, 0), bytes(100)), "1152921504606846976"
    monkeypatch.setattr(ImageFile.ImageFile, "load", _raiser(AssertionError("decoded")))
    for read in (decode_rgb, encode_for_shard):
        with pytest.raises(UnreadableImage, match=rf"{found} pixels.*; expected .* of at most 50,000,000 pixels"):
            read(data)


def test_lack_of_memory_says_nothing_about_the_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw("RGB").save(tmp_path / "frame.png")
    for error in (MemoryError(), OSError("out of memory error when reading image file"), OSError("decoder error -9")):
        monkeypatch.setattr(Image.Image, "convert", _raiser(error))
        with pytest.raises(MemoryError):
            read_frame(tmp_path / "frame.png")


def test_a_pillow_without_a_decoder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_decoders()
    monkeypatch.delitem(Image.OPEN, "WEBP")
    monkeypatch.setattr(Image, "_initialized", 2)
    with pytest.raises(SurroundingsError, match=r"Pillow [\d.]+ on \S+ cannot decode WEBP images"):
        check_decoders()


def _raiser(error: Exception) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def _png(header: bytes, pixels: bytes) -> bytes:
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)

"""Image files as 8-bit RGB. Only content that cannot be decoded is unreadable; other failures are the surroundings'."""

from __future__ import annotations

import errno
import io
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from .errors import FormatError, SourceError, SurroundingsError

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")  # Pillow opens others by starting programs, such as ghostscript
MAX_PIXELS = 50_000_000  # of one image: decoding takes about 12 bytes for each
MAX_FILE_BYTES = 1 << 30  # of one image file: 50 megapixels of 16-bit RGB take 300 MB uncompressed
EXPECTED = f"a complete image, {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, of at most {MAX_PIXELS:,} pixels"

_PNG_BIT_DEPTH = 24  # offset of the byte that holds it
_TILE_WIDTH, _TILE_HEIGHT = 322, 323  # tags of a TIFF


class UnreadableImage(FormatError):
    """The content of an image file cannot be decoded, or is larger than the limits."""


def read_frame(path: Path) -> np.ndarray:
    """uint8 (H, W, 3) RGB of an image file; see read_file and decode_rgb."""
    return decode_rgb(read_file(path))


def encoded_frame(path: Path) -> bytes:
    """What shards hold of an image file; see read_file and encode_for_shard."""
    return encode_for_shard(read_file(path))


def read_file(path: Path) -> bytes:
    """The bytes of a regular file.

    Raises:
        OSError: missing, no permission, or the disk fails.
        SourceError: a folder, FIFO, socket or device.
        SurroundingsError: it changed while it was read.
        UnreadableImage: longer than MAX_FILE_BYTES.
    """
    no_file = SourceError(f"{path} is a folder, FIFO, socket or device", "an image file")
    try:  # a FIFO that nobody writes to would block for ever
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise no_file from error
        raise
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise no_file
        if found.st_size > MAX_FILE_BYTES:
            raise UnreadableImage(f"{path} has {found.st_size:,} bytes", f"at most {MAX_FILE_BYTES:,}")
        with open(handle, "rb", closefd=False) as file:
            data = file.read(found.st_size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(handle)
    if len(data) < found.st_size:
        raise SurroundingsError(f"{path} became shorter while it was read", "", "run again when it is complete")
    return data


def decode_rgb(data: bytes) -> np.ndarray:
    """uint8 (H, W, 3) RGB of an image of one of FORMATS, to its last pixel; of several frames the first.

    Grey of 16 bits keeps its upper eight; transparency is dropped.

    Raises:
        UnreadableImage: it cannot be decoded, or has more than MAX_PIXELS.
    """
    with _opened(data) as image:
        return np.asarray(_as_rgb(image))


def encode_for_shard(data: bytes) -> bytes:
    """The bytes themselves where they are an 8-bit grey or RGB JPEG or PNG, else the same picture as RGB PNG.

    Raises:
        UnreadableImage: see decode_rgb; of bytes that stay as they are, the header alone is looked at.
    """
    with _opened(data) as image:
        plain = image.mode in ("RGB", "L")
        if plain and (image.format == "JPEG" or (image.format == "PNG" and data[_PNG_BIT_DEPTH] == 8)):
            return data
        buffer = io.BytesIO()
        _as_rgb(image).save(buffer, "PNG", compress_level=3)
        return buffer.getvalue()


def check_decoders() -> None:
    """Decode a small image of each of FORMATS: a Pillow that lacks one would make every such frame unreadable.

    Raises:
        SurroundingsError: one cannot be decoded.
    """
    for name in FORMATS:
        try:
            buffer = io.BytesIO()
            compression = {"compression": "tiff_lzw"} if name == "TIFF" else {}  # Pillow hands it to libtiff
            Image.new("RGB", (8, 8)).save(buffer, name, **compression)
            decode_rgb(buffer.getvalue())
        except Exception as error:
            found = f"Pillow {PIL.__version__} on {socket.gethostname()} cannot decode {name} images ({error})"
            raise SurroundingsError(found, "", "install one that can: pip install --force-reinstall pillow") from error


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """Within, whatever Pillow raises while it decodes becomes an UnreadableImage; lack of memory stays what it is."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            tags = getattr(image, "tag_v2", {})  # a TIFF's tiles may be larger than the image
            tile = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_HEIGHT, 0)
            for noun, (width, height) in (("an image", image.size), ("an image in tiles", tile)):
                if width * height > MAX_PIXELS:  # the header alone was read
                    raise UnreadableImage(f"{noun} of {width:,} x {height:,} pixels", EXPECTED)
            yield image
    except (UnreadableImage, MemoryError):
        raise
    except Exception as error:
        if "out of memory" in str(error) or "decoder error -9" in str(error):  # the same, from Pillow's C code
            raise MemoryError(str(error)) from error
        reason = str(error).split(" <_io")[0] or type(error).__name__
        raise UnreadableImage(f"not a readable image ({reason})", EXPECTED) from error


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        image = Image.fromarray(np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8))
    return image.convert("RGB")

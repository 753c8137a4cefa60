"""Damage for tests of readers, drawn from a seeded generator."""

from __future__ import annotations

import numpy as np


def mutate(data: bytes, generator: np.random.Generator) -> bytes:
    """One to three kinds of damage, each at a place of its own; never empty, seldom much longer."""
    for kind in generator.choice(_KINDS, size=generator.integers(1, 4)):
        data = kind(data, generator) or data
    return data


def _flip_bits(data: bytes, generator: np.random.Generator) -> bytes:
    damaged = bytearray(data)
    for place in generator.integers(0, len(data), generator.integers(1, 9)):
        damaged[place] ^= 1 << generator.integers(0, 8)
    return bytes(damaged)


def _truncate(data: bytes, generator: np.random.Generator) -> bytes:
    return data[: generator.integers(0, len(data))]


def _splice(data: bytes, generator: np.random.Generator) -> bytes:
    """The beginning of the file, then what follows another place."""
    first, second = generator.integers(0, len(data), 2)
    return data[:first] + data[second:]


def _repeat(data: bytes, generator: np.random.Generator) -> bytes:
    start, length = generator.integers(0, len(data)), generator.integers(1, 257)
    return data[:start] + data[start : start + length] * int(generator.integers(2, 9)) + data[start + length :]


def _zero(data: bytes, generator: np.random.Generator) -> bytes:
    start, length = generator.integers(0, len(data)), generator.integers(1, 65)
    return _overwrite(data, start, bytes(length))


def _lengthen(data: bytes, generator: np.random.Generator) -> bytes:
    """What may be a length field becomes the largest."""
    return _overwrite(data, generator.integers(0, len(data)), b"\xff" * int(generator.choice([2, 4, 8])))


def _overwrite(data: bytes, start: int, block: bytes) -> bytes:
    return (data[:start] + block + data[start + len(block) :])[: len(data)]


_KINDS = (_flip_bits, _truncate, _splice, _repeat, _zero, _lengthen)

"""Random generators that are pure functions of where training stands, so that two runs agree and a run can go on."""

from __future__ import annotations

import zlib

import numpy as np
import torch


def numpy_generator(purpose: str, *place: int) -> np.random.Generator:
    """A generator for one purpose at (seed, epoch, ...); other purposes and places give unrelated draws."""
    return np.random.default_rng(_sequence(purpose, place))


def torch_seed(purpose: str, *place: int) -> int:
    """A 63-bit seed for one purpose at (seed, epoch, ...)."""
    return int(_sequence(purpose, place).generate_state(1, np.uint64)[0] >> 1)


def torch_generator(purpose: str, *place: int) -> torch.Generator:
    """A CPU generator for one purpose at (seed, epoch, ...)."""
    return torch.Generator().manual_seed(torch_seed(purpose, *place))


def _sequence(purpose: str, place: tuple[int, ...]) -> np.random.SeedSequence:
    return np.random.SeedSequence([zlib.crc32(purpose.encode()), len(place), *place])

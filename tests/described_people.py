"""Descriptors of made people, for tests of search and calibration."""

from __future__ import annotations

import numpy as np

from keyreid.model.embedding.descriptors import Origin, TrackletDescriptors

ORIGIN = Origin("network", "data", "people", {"flip": False})


def people(
    num_people: int = 30, per_person: int = 4, noise: float = 0.5, distractors: int = 6, seed: int = 0
) -> TrackletDescriptors:
    """Points about a centre for each person, under cameras 1 to 3; distractors, of identity 0, anywhere."""
    generator = np.random.default_rng(seed)
    identities = np.concatenate([np.repeat(np.arange(1, num_people + 1), per_person), np.zeros(distractors, int)])
    centres = generator.normal(size=(num_people + 1, 8))
    values = centres[identities] + noise * generator.normal(size=(len(identities), 8))
    values[identities == 0] = generator.normal(size=(distractors, 8))
    count = len(identities)
    return TrackletDescriptors(
        values.astype(np.float32),
        np.zeros((count, 0), np.float32),
        100 + np.arange(count),
        identities,
        generator.integers(1, 4, count),
        np.array(["gallery"] * count),
        np.array([8]),
        np.ones(1),
        "made",
        ORIGIN,
    )

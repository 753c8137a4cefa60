"""Which sections and keys a config has; a mistyped one is answered with the nearest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from keyreid.model.data.augment import AugmentSettings
from keyreid.model.network.config import ModelConfig
from keyreid.pipeline.errors import SettingsError

from .config import TrainingConfig

SECTIONS: dict[str, type] = {"model": ModelConfig, "training": TrainingConfig, "augment": AugmentSettings}
FROM_DATA = ("num_identities", "num_cameras", "camera_numbers", "camera_names")


def check_key(section: str, key: str) -> None:
    """Whether a value may be given for section.key.

    Raises:
        SettingsError: an unknown section or key, or one that is counted in the data.
    """
    if section not in SECTIONS:
        raise SettingsError(f"unknown section {section!r}", f"one of {', '.join(SECTIONS)}", nearest(section, SECTIONS))
    if section == "model" and key in FROM_DATA:
        raise SettingsError(f"model.{key} is set by hand", "nothing: it is counted in the dataset")
    known = key_names(SECTIONS[section])
    if key not in known:
        raise SettingsError(f"unknown key {section}.{key}", f"one of {', '.join(known)}", nearest(key, known))


def sections_with(key: str) -> list[str]:
    """The sections that have this key."""
    return [name for name, owner in SECTIONS.items() if key in key_names(owner)]


def key_names(owner: Any) -> list[str]:
    """The keys of a section's dataclass."""
    return [field.name for field in fields(owner)]


def nearest(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """A question that names the nearest known word, or ""."""
    near = get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else ""

"""Presets: named sets of values for the network and its training, one YAML file each.

A file has the sections model, training and augment, holds what differs from the defaults of ModelConfig, TrainingConfig
and AugmentSettings, and says in its first line what it is for.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib.resources import files
from typing import Any

import yaml

from keyreid.pipeline.errors import SettingsError


def preset_summaries() -> dict[str, str]:
    """Name -> first line of each preset, in the order of the names."""
    found = [file for file in files(__name__).iterdir() if file.name.endswith(".yaml")]
    found.sort(key=lambda file: file.name.removesuffix(".yaml"))
    return {
        file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        for file in found
    }


def read_preset(name: str) -> dict[str, dict[str, Any]]:
    """Section -> key -> value.

    Raises:
        SettingsError: no such preset (with the nearest one there is).
    """
    known = list(preset_summaries())
    if name not in known:
        near = get_close_matches(name, known, n=1)
        raise SettingsError(
            f"preset is {name!r}", f"one of {', '.join(known)}", f"did you mean {near[0]}?" if near else ""
        )
    content = yaml.safe_load(files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8"))
    return {section: values or {} for section, values in content.items()}

"""Configs as YAML: what --config reads and --print-config prints."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from keyreid.pipeline.errors import SettingsError

from .config_keys import FROM_DATA, SECTIONS, check_key

_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")  # YAML reads 1e-4 as a word


class ConfigFile(NamedTuple):
    """What a file says.

    Attributes:
        preset: which preset its values are laid over; None where it does not say.
        sections: section -> key -> value.
    """

    preset: str | None
    sections: dict[str, dict[str, Any]]


def read_config(path: Path) -> ConfigFile:
    """Read YAML or JSON with the sections model, training and augment, and perhaps `preset`.

    Raises:
        SettingsError: the file is unreadable, or has an unknown section or key (with the nearest known one).
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} cannot be read as a config ({error})", "a YAML or JSON file") from error
    expected = f"the sections {', '.join(SECTIONS)}, each with keys and values"
    if not isinstance(content, Mapping):
        raise SettingsError(f"{path} is not a valid config", expected)
    preset = content.get("preset")
    if preset is not None and not isinstance(preset, str):
        raise SettingsError(f"{path} has preset {preset!r}", "the name of a preset")
    sections = {str(section): entries for section, entries in content.items() if section != "preset"}
    for section, entries in sections.items():
        if not isinstance(entries, Mapping):
            raise SettingsError(f"{path} is not a valid config", expected)
        for key in entries:
            check_key(section, str(key))
    return ConfigFile(
        preset, {name: {key: exponents(value) for key, value in entries.items()} for name, entries in sections.items()}
    )


def config_text(settings: Mapping[str, Any]) -> str:
    """Every value of a run as YAML that `read_config` reads back.

    Args:
        settings: of RunConfig.to_dict or RUN/config.json; what is counted in the data is left out.
    """
    sections = {
        section: {key: value for key, value in settings[section].items() if section != "model" or key not in FROM_DATA}
        for section in SECTIONS
    }
    text = yaml.dump({"preset": settings["preset"], **sections}, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return "# Every value of the run; keyreid-train reads it with --config.\n" + text


def exponents(value: Any) -> Any:
    """`value` with words such as 1e-4 as numbers."""
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    return [exponents(item) for item in value] if isinstance(value, list) else value


class _Dumper(yaml.SafeDumper):
    """Lists on one line, sections not."""


_Dumper.add_representer(
    list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)

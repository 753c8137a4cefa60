"""From a preset, a file and `--set` to one checked RunConfig; a mistyped key is answered with the nearest one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml

from keyreid.model.data.augment import AugmentSettings
from keyreid.model.data.labels import LabelTables
from keyreid.model.network.config import ModelConfig, preset
from keyreid.pipeline.errors import SettingsError

from .config import PRESETS, RunConfig, TrainingConfig

SECTIONS: dict[str, type] = {"model": ModelConfig, "training": TrainingConfig, "augment": AugmentSettings}
FROM_DATA = ("num_identities", "num_cameras", "camera_numbers")

_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")  # YAML reads 1e-4 as a word
_SCALARS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}

Section = TypeVar("Section", TrainingConfig, AugmentSettings)


def resolve_config(
    name: str, *, file: Path | None = None, assignments: Sequence[str] = (), variant: str | None = None
) -> RunConfig:
    """Merge preset < file < assignments < variant.

    Args:
        name: a preset.
        file: YAML or JSON with the sections model, training and augment.
        assignments: "section.key=value", the value as YAML has it.
        variant: "aligned" or "reference"; None keeps what the others say.

    Raises:
        SettingsError: an unknown preset, section or key (with the nearest known one), a value of another type or out
            of range, or an unreadable file.
    """
    model = preset(name)
    values: dict[str, dict[str, Any]] = {"model": model, "training": {}, "augment": {}}
    for source in (PRESETS.get(name, {}), _read_file(file) if file else {}, *map(_parse_assignment, assignments)):
        for section, entries in source.items():
            values[section].update(entries)
    if variant is not None:
        values["model"]["variant"] = variant
    checked = RunConfig(
        name,
        values["model"],
        _build(TrainingConfig, "training", values["training"]),
        _build(AugmentSettings, "augment", values["augment"]),
    )
    resolved = checked.model_config(LabelTables((0,), (0,))).to_dict()  # every default by name, and checked before data
    return RunConfig(
        name, {key: resolved[key] for key in resolved if key not in FROM_DATA}, checked.training, checked.augment
    )


def _read_file(path: Path) -> dict[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, json.JSONDecodeError) as error:
        raise SettingsError(f"{path} cannot be read as a config ({error})", "a YAML or JSON file") from error
    if not isinstance(content, Mapping) or not all(isinstance(entries, Mapping) for entries in content.values()):
        raise SettingsError(f"{path} is no config", f"the sections {', '.join(SECTIONS)}, each with keys and values")
    for section, entries in content.items():
        for key in entries:
            _check_key(str(section), str(key))
    return {section: {key: _exponents(value) for key, value in entries.items()} for section, entries in content.items()}


def _parse_assignment(assignment: str) -> dict[str, dict[str, Any]]:
    target, equals, text = assignment.partition("=")
    section, dot, key = target.strip().partition(".")
    if not equals:
        raise SettingsError(f"--set {assignment}", "section.key=value, such as training.epochs=60")
    if not dot:
        homes = [f"{name}.{section}" for name, owner in SECTIONS.items() if section in _names(owner)]
        raise SettingsError(
            f"--set {assignment} names no section",
            "section.key=value, such as training.epochs=60",
            f"did you mean {' or '.join(homes)}?" if homes else "",
        )
    _check_key(section, key)
    try:
        return {section: {key: _exponents(yaml.safe_load(text))}}
    except yaml.YAMLError as error:
        raise SettingsError(f"--set {assignment}: the value cannot be read ({error})", "a YAML value") from error


def _check_key(section: str, key: str) -> None:
    if section not in SECTIONS:
        raise SettingsError(
            f"unknown section {section!r}", f"one of {', '.join(SECTIONS)}", _nearest(section, SECTIONS)
        )
    if section == "model" and key in FROM_DATA:
        raise SettingsError(f"model.{key} is set by hand", "nothing: it is counted in the dataset")
    known = _names(SECTIONS[section])
    if key not in known:
        raise SettingsError(f"unknown key {section}.{key}", f"one of {', '.join(known)}", _nearest(key, known))


def _nearest(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    near = get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else ""


def _names(owner: Any) -> list[str]:
    return [field.name for field in fields(owner)]


def _exponents(value: Any) -> Any:
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    return [_exponents(item) for item in value] if isinstance(value, list) else value


def _build(owner: type[Section], section: str, values: Mapping[str, Any]) -> Section:
    """An instance of `owner`, its values checked against the annotations."""
    types = {field.name: str(field.type) for field in fields(owner)}
    return owner(**{key: _typed(f"{section}.{key}", value, types[key]) for key, value in values.items()})


def _typed(name: str, value: Any, annotation: str) -> Any:
    if annotation.startswith("tuple"):
        length = annotation.count(",") + 1
        if not isinstance(value, list | tuple) or len(value) != length:
            raise SettingsError(f"{name} is {value!r}", f"a list of {length} numbers")
        return tuple(_typed(name, item, "float") for item in value)
    is_bool = isinstance(value, bool)
    if not isinstance(value, _SCALARS[annotation]) or is_bool != (annotation == "bool"):
        raise SettingsError(f"{name} is {value!r}", f"a value of type {annotation}")
    return float(value) if annotation == "float" and isinstance(value, int) else value

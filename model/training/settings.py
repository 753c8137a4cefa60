"""From a preset, a file and `--set` to one checked RunConfig."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from keyreid.model.data.augment import AugmentSettings
from keyreid.model.data.labels import LabelTables
from keyreid.model.presets import read_preset
from keyreid.pipeline.errors import SettingsError

from .config import RunConfig, TrainingConfig
from .config_file import ConfigFile, exponents, read_config
from .config_keys import FROM_DATA, check_key, sections_with

DEFAULT_PRESET = "vit-base"

_SCALARS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}

Section = TypeVar("Section", TrainingConfig, AugmentSettings)


def resolve_config(
    name: str | None = None,
    *,
    file: Path | None = None,
    assignments: Sequence[str] = (),
    variant: str | None = None,
    model: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Merge preset < model < file < assignments < variant.

    Args:
        name: a preset; None takes the one that the file names, or else vit-base.
        file: see read_config.
        assignments: "section.key=value", the value as YAML has it.
        variant: "aligned" or "reference"; None keeps what the others say.
        model: the model section of the network that the run starts from, see start.start_values.

    Raises:
        SettingsError: an unknown preset, section or key (with the nearest known one), a value of another type or out
            of range, or an unreadable file.
    """
    given = read_config(file) if file else ConfigFile(None, {})
    name = name or given.preset or DEFAULT_PRESET
    values: dict[str, dict[str, Any]] = {"model": {}, "training": {}, "augment": {}}
    start = {"model": dict(model or {})}
    for source in (read_preset(name), start, given.sections, *map(_parse_assignment, assignments)):
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


def _parse_assignment(assignment: str) -> dict[str, dict[str, Any]]:
    target, equals, text = assignment.partition("=")
    section, dot, key = target.strip().partition(".")
    if not equals:
        raise SettingsError(f"--set {assignment}", "section.key=value, such as training.epochs=60")
    if not dot:
        homes = [f"{home}.{section}" for home in sections_with(section)]
        raise SettingsError(
            f"--set {assignment} names no section",
            "section.key=value, such as training.epochs=60",
            f"did you mean {' or '.join(homes)}?" if homes else "",
        )
    check_key(section, key)
    try:
        return {section: {key: exponents(yaml.safe_load(text))}}
    except yaml.YAMLError as error:
        raise SettingsError(f"--set {assignment}: the value cannot be read ({error})", "a YAML value") from error


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

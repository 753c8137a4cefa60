"""Every number of a run, and where it comes from: a preset, a file, --set."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import yaml
from pydantic import Field

from keyreid.model.data.augment import AugmentSettings
from keyreid.model.data.labels import LabelTables
from keyreid.model.network.config import COUNTED, ModelConfig, NetworkSettings
from keyreid.model.presets import read_preset
from keyreid.model.typed_settings import Settings, nearest
from keyreid.pipeline.errors import SettingsError

DEFAULT_PRESET = "vit-base"
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")  # YAML reads 1e-4 as a word


class TrainingConfig(Settings):
    """The recipe; the defaults are the paper's (docs/training.md)."""

    section: ClassVar[str] = "training"

    epochs: int = Field(120, ge=1)  # passes over the training identities, see IdentitySampler
    identities_per_batch: int = 4  # P; a batch is P * K clips
    clips_per_identity: int = 4  # K
    # multiplies P and with it learning_rate, final_rate and center_rate, for more devices or memory; the warm-up keeps
    # its epochs and its first rate
    batch_scale: int = Field(1, ge=1)
    optimizer: Literal["sgd", "adamw"] = "sgd"  # sgd is the paper's; adamw learns from scratch in a few hundred steps
    learning_rate: float = Field(0.008, ge=0)  # of weights, after the warm-up
    bias_rate_factor: float = Field(2.0, ge=0)  # learning rate of biases over that of weights
    momentum: float = Field(0.9, ge=0, le=1)  # of SGD
    weight_decay: float = Field(1e-4, ge=0)  # of every parameter
    warmup_epochs: int = Field(5, ge=0)  # straight up from warmup_rate, see cosine_schedule
    warmup_rate: float = Field(8e-5, ge=0)  # in the first epoch
    final_rate: float = Field(1.6e-5, ge=0)  # where the cosine ends
    label_smoothing: float = Field(0.1, ge=0, le=1)  # of the identity loss
    # alpha: each loss is alpha * global + (1 - alpha) * mean over parts. The paper has 0.75, which the preset `authors`
    # keeps; 0.25 was best for the aligned variant (docs/ablation.md)
    global_share: float = Field(0.25, ge=0, le=1)
    center_weight: float = Field(0.0005, ge=0)  # factor of the centre loss
    center_rate: float = Field(0.5, ge=0)  # learning rate of the centres themselves
    attention_weight: float = Field(1.0, ge=0)  # factor of the attention loss
    ema_decay: float = Field(
        0.995, ge=0, le=1
    )  # of the averaged weights that are evaluated and exported; 0: no average
    clip_gradient: float = Field(0.0, ge=0)  # largest norm of the gradient; 0 leaves it as it is
    mixed_precision: bool = True  # bfloat16 on CUDA devices that have it, float16 on others; a CPU always has float32
    # torch.compile for network and losses: "default", "reduce-overhead" (CUDA graphs as well), "none", or "auto":
    # default on CUDA, none on a CPU. It takes minutes at the start, rounds differently and has other random numbers
    compile: Literal["auto", "none", "default", "reduce-overhead"] = "auto"
    # of how many of the backbone's blocks, from the first, the inner values are computed again in the backward pass
    # instead of kept, to fit into memory; true: of all. The result is the same
    checkpoint_blocks: bool | int = Field(False, ge=0, description="true, false or a number of blocks")
    # with several processes, mine hard examples and take BatchNorm's statistics in the whole batch, as one process
    # would, instead of in each process's share of it
    gather: bool = True
    # "holdout": identities taken out of the training split; "test": the dataset's queries and gallery. The paper's
    # recipe trains on every identity and keeps the last epoch, so that nothing has to be chosen
    validate_on: Literal["none", "holdout", "test"] = "none"
    holdout_share: float = Field(0.1, ge=0, le=1)  # of the training identities, that "holdout" never trains on
    evaluate_every: int = Field(10, ge=1)  # epochs between two evaluations; the last epoch always has one
    log_every: int = Field(20, ge=1)  # steps between two looks at the losses; each makes the host wait for the device
    checkpoint_every: int = Field(5, ge=1)  # epochs between two checkpoints; the last epoch always has one
    checkpoint_every_steps: int = Field(0, ge=0)  # steps between two within an epoch, for epochs of hours; 0 makes none
    seed: int = Field(0, ge=0)  # of everything random

    @property
    def scaled_identities(self) -> int:
        """Identities of a batch."""
        return self.identities_per_batch * self.batch_scale

    @property
    def clips_per_batch(self) -> int:
        return self.scaled_identities * self.clips_per_identity

    @property
    def recomputed_blocks(self) -> int:
        """At most so many blocks, see checkpoint_blocks."""
        return sys.maxsize if self.checkpoint_blocks is True else int(self.checkpoint_blocks)


class RunConfig(NamedTuple):
    """Everything a run depends on besides its data.

    Attributes:
        preset: where the values started from.
        model: the network, without what is counted in the data.
        training: the recipe.
        augment: the augmentation.
    """

    preset: str
    model: NetworkSettings
    training: TrainingConfig
    augment: AugmentSettings

    def model_config(self, labels: LabelTables) -> ModelConfig:
        """The network for these identities and cameras."""
        return ModelConfig(
            **self.model.model_dump(),
            num_identities=len(labels.identities),
            num_cameras=len(labels.cameras),
            camera_numbers=labels.cameras,
            camera_names=labels.camera_names,
        )

    def to_dict(self) -> dict[str, Any]:
        """The values as JSON can hold them."""
        return {"preset": self.preset, **{name: getattr(self, name).to_dict() for name in SECTIONS}}


SECTIONS: dict[str, type[Settings]] = {"model": NetworkSettings, "training": TrainingConfig, "augment": AugmentSettings}


class ConfigFile(NamedTuple):
    """What a file says.

    Attributes:
        preset: which preset its values are laid over; None if it does not say.
        sections: section -> key -> value.
    """

    preset: str | None
    sections: dict[str, dict[str, Any]]


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
        model: the model section of the network that the run starts from, see start.start_values; its weights stand in
            place of model.pretrained, which becomes "".

    Raises:
        SettingsError: an unknown preset, section or key (with the nearest known one), a value of another type or out
            of range, or an unreadable file.
    """
    given = read_config(file) if file else ConfigFile(None, {})
    name = name or given.preset or DEFAULT_PRESET
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    start = {"model": dict(model or {})}
    for source in (read_preset(name), start, given.sections, *map(_parse_assignment, assignments)):
        for section, entries in source.items():
            values[section].update(entries)
    if variant is not None:
        values["model"]["variant"] = variant
    if model is not None:
        if any(assignment.partition("=")[0].strip() == "model.pretrained" for assignment in assignments):
            raise SettingsError("--from and --set model.pretrained", "one of them: each says which weights come first")
        values["model"]["pretrained"] = ""
    return RunConfig(
        name,
        NetworkSettings(**values["model"]),
        TrainingConfig(**values["training"]),
        AugmentSettings(**values["augment"]),
    )


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
    sections: dict[str, dict[str, Any]] = {}
    for section, entries in content.items():
        if section == "preset":
            continue
        if not isinstance(entries, Mapping):
            raise SettingsError(f"{path} is not a valid config", expected)
        check_keys(str(section), map(str, entries))
        sections[section] = {key: _with_exponents(value) for key, value in entries.items()}
    return ConfigFile(preset, sections)


def config_text(settings: Mapping[str, Any]) -> str:
    """Every value of a run as YAML that `read_config` reads back.

    Args:
        settings: of RunConfig.to_dict or RUN/config.json; what is counted in the data is left out.
    """
    sections = {
        section: {key: value for key, value in settings[section].items() if section != "model" or key not in COUNTED}
        for section in SECTIONS
    }
    text = yaml.dump({"preset": settings["preset"], **sections}, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return "# Every value of the run; keyreid-train reads it with --config.\n" + text


def check_keys(section: str, keys: Iterable[str]) -> None:
    """Whether values may be given for these keys of a section.

    Raises:
        SettingsError: an unknown section or key (with the nearest known one), or one that is counted in the data.
    """
    if section not in SECTIONS:
        raise SettingsError(f"unknown section {section!r}", f"one of {', '.join(SECTIONS)}", nearest(section, SECTIONS))
    for key in keys:
        if section == "model" and key in COUNTED:
            raise SettingsError(f"model.{key} is set by hand", "nothing: it is counted in the dataset")
        if key not in SECTIONS[section].model_fields:
            raise SECTIONS[section].unknown_key(key)


def _parse_assignment(assignment: str) -> dict[str, dict[str, Any]]:
    target, equals, text = assignment.partition("=")
    section, dot, key = target.strip().partition(".")
    if not equals:
        raise SettingsError(f"--set {assignment}", "section.key=value, such as training.epochs=60")
    if not dot:
        homes = [f"{name}.{section}" for name, owner in SECTIONS.items() if section in owner.model_fields]
        raise SettingsError(
            f"--set {assignment} names no section",
            "section.key=value, such as training.epochs=60",
            f"did you mean {' or '.join(homes)}?" if homes else "",
        )
    check_keys(section, [key])
    try:
        return {section: {key: _with_exponents(yaml.safe_load(text))}}
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise SettingsError(f"--set {target}: the value cannot be read ({error})", "a YAML value") from error


def _with_exponents(value: Any) -> Any:
    """`value`, or the items of a list, with words such as 1e-4 as numbers."""
    if isinstance(value, list):
        return [_number(item) for item in value]
    return _number(value)


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


class _Dumper(yaml.SafeDumper):
    """Lists on one line, sections not."""


_Dumper.add_representer(
    list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)

"""Every number of training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from keyreid.model.data.augment import AugmentSettings
from keyreid.model.data.labels import LabelTables
from keyreid.model.network.config import ModelConfig
from keyreid.pipeline.errors import SettingsError

OPTIMIZERS = ("sgd", "adamw")
VALIDATIONS = ("none", "holdout", "test")
COMPILING = ("auto", "none", "default", "reduce-overhead")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The recipe; the defaults are the paper's (docs/training.md).

    Attributes:
        epochs: passes over the training identities, see IdentitySampler.
        identities_per_batch, clips_per_identity: P and K; a batch is P * K clips.
        batch_scale: multiplies P and with it learning_rate, final_rate and center_rate, for more devices or memory; the
            warm-up keeps its epochs and its first rate.
        optimizer: "sgd" (the paper's) or "adamw" (learns from scratch in a few hundred steps).
        learning_rate: of weights, after the warm-up.
        bias_rate_factor: learning rate of biases over that of weights.
        momentum: of SGD.
        weight_decay: of every parameter.
        warmup_epochs, warmup_rate, final_rate: see schedule.cosine_schedule.
        label_smoothing: of the identity loss.
        global_share: alpha: each loss is alpha * global + (1 - alpha) * mean over parts. The paper has 0.75, which
            the preset `authors` keeps; 0.25 was best for the aligned variant (docs/ablation.md).
        center_weight, center_rate: factor of the centre loss, and the learning rate of the centres themselves.
        attention_weight: factor of the attention loss.
        ema_decay: of the moving average of the weights that is evaluated and exported; 0 exports the weights as they
            are.
        clip_gradient: largest norm of the gradient; 0 leaves it as it is.
        mixed_precision: bfloat16 on CUDA devices that have it, float16 on others; a CPU always computes in float32.
        compile: let torch.compile make the kernels of network and losses: minutes at the start, and other rounding and
            random numbers. "default", "reduce-overhead" (CUDA graphs as well), "none", or "auto": default on CUDA, none
            on a CPU.
        checkpoint_blocks: of how many of the backbone's blocks, from the first, the inner values are computed again in
            the backward pass instead of kept, to fit into memory; the result is the same.
        gather: with several processes, seek hard examples and take BatchNorm's statistics in the whole batch, as one
            process would, instead of in each process's share of it.
        validate_on: "none", "holdout" (identities taken out of the training split; see holdout_share) or "test" (the
            dataset's queries and gallery). The paper's recipe trains on every identity and keeps the last epoch, so
            that nothing has to be chosen.
        holdout_share: share of the training identities that "holdout" measures on and never trains on.
        evaluate_every: epochs between two evaluations; the last epoch always has one.
        log_every: steps between two looks at the losses; each makes the host wait for the device.
        checkpoint_every: epochs between two checkpoints; the last epoch always has one.
        checkpoint_every_steps: steps between two checkpoints within an epoch, for epochs of hours; 0 makes none.
        seed: of everything random.
    """

    epochs: int = 120
    identities_per_batch: int = 4
    clips_per_identity: int = 4
    batch_scale: int = 1
    optimizer: str = "sgd"
    learning_rate: float = 0.008
    bias_rate_factor: float = 2.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_epochs: int = 5
    warmup_rate: float = 8e-5
    final_rate: float = 1.6e-5
    label_smoothing: float = 0.1
    global_share: float = 0.25
    center_weight: float = 0.0005
    center_rate: float = 0.5
    attention_weight: float = 1.0
    ema_decay: float = 0.995
    clip_gradient: float = 0.0
    mixed_precision: bool = True
    compile: str = "auto"
    checkpoint_blocks: int = 0
    gather: bool = True
    validate_on: str = "none"
    holdout_share: float = 0.1
    evaluate_every: int = 10
    log_every: int = 20
    checkpoint_every: int = 5
    checkpoint_every_steps: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise SettingsError(f"training.optimizer is {self.optimizer!r}", " or ".join(OPTIMIZERS))
        if self.validate_on not in VALIDATIONS:
            raise SettingsError(f"training.validate_on is {self.validate_on!r}", " or ".join(VALIDATIONS))
        if self.compile not in COMPILING:
            raise SettingsError(f"training.compile is {self.compile!r}", " or ".join(COMPILING))
        for name in ("epochs", "batch_scale", "evaluate_every", "log_every", "checkpoint_every"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "1 or more")
        for name in ("label_smoothing", "global_share", "ema_decay", "momentum", "holdout_share"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "between 0 and 1")
        for name in ("learning_rate", "bias_rate_factor", "weight_decay", "warmup_epochs", "warmup_rate", "final_rate",
                     "center_weight", "center_rate", "attention_weight", "clip_gradient", "checkpoint_every_steps",
                     "checkpoint_blocks",
                     "seed"):  # fmt: skip
            _check(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")

    @property
    def scaled_identities(self) -> int:
        """Identities of a batch."""
        return self.identities_per_batch * self.batch_scale

    @property
    def clips_per_batch(self) -> int:
        return self.scaled_identities * self.clips_per_identity


def _check(name: str, value: float, holds: bool, expected: str) -> None:
    if not holds:
        raise SettingsError(f"training.{name} is {value}", expected)


@dataclass(frozen=True)
class RunConfig:
    """Everything a run depends on besides its data.

    Attributes:
        preset: where the values started from.
        model: fields of ModelConfig, without those that the dataset gives.
        training: the recipe.
        augment: the augmentation.
    """

    preset: str
    model: dict[str, Any]
    training: TrainingConfig
    augment: AugmentSettings

    def model_config(self, labels: LabelTables) -> ModelConfig:
        """The network for these identities and cameras."""
        tables = {
            "num_identities": len(labels.identities),
            "num_cameras": len(labels.cameras),
            "camera_numbers": list(labels.cameras),
            "camera_names": list(labels.camera_names),
        }
        return ModelConfig.from_dict({**self.model, **tables})

    def to_dict(self) -> dict[str, Any]:
        """The values as JSON can hold them."""
        augment = {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self.augment).items()
        }
        return {"preset": self.preset, "model": self.model, "training": asdict(self.training), "augment": augment}

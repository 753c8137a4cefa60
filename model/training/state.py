"""All that training changes, and how it begins: network, loss, moving average, optimisers and their rates.

Letters: B clips of this rank, W ranks, T frames, N patches, P parts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from keyreid.model.data.sampler import torch_seed
from keyreid.model.device import autocast, compute_dtype, gradient_scaler
from keyreid.model.distributed import Ranks, is_first_process
from keyreid.model.network.build import build_model
from keyreid.model.network.config import ModelConfig
from keyreid.model.network.keyreid import KeyReID, TrainingFeatures
from keyreid.pipeline.skeleton import NUM_PARTS

from .config import TrainingConfig
from .losses import KeyReIDLoss, LossTerms

logger = logging.getLogger(__name__)


class Clips(NamedTuple):
    """A batch as the network takes it.

    Attributes:
        frames: float32 (B, T, 3, H, W), augmented and normalised.
        part_weights: float32 (B, T, N, P).
        cameras, identities: int64 (B,), rows of the tables.
        erased: float32 (B, T), 1 where a frame was erased.
    """

    frames: Tensor
    part_weights: Tensor
    cameras: Tensor
    identities: Tensor
    erased: Tensor


class Learner(nn.Module):
    """Clips in, loss terms out.

    With `gather`, every rank computes the necks, classifiers and losses of all ranks' clips: hard examples are mined
    and BatchNorm's statistics taken over the whole batch, as one process would. Only features travel, not frames.

    Args:
        model: in training mode.
        loss: holds the class centres.
        dtype: what the network computes in; the loss is always float32.
        gather: the ranks whose clips meet in the loss; None keeps to this rank's.
        compiling: mode of torch.compile, "default" or "reduce-overhead" (CUDA graphs); "none" leaves it out. Network
            and losses are a graph each: between them the features of other ranks are gathered.
    """

    def __init__(
        self, model: KeyReID, loss: KeyReIDLoss, *, dtype: torch.dtype, gather: Ranks | None, compiling: str
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self._dtype, self._gather = dtype, gather
        self._features, self._losses = model.training_features, self._compute_losses
        self.compiled = compiling != "none"
        if self.compiled:
            mode = None if compiling == "default" else compiling
            self._features = torch.compile(self._features, mode=mode, dynamic=False)
            self._losses = torch.compile(self._losses, mode=mode, dynamic=False)

    def forward(self, clips: Clips) -> LossTerms:
        if self.compiled:
            torch.compiler.cudagraph_mark_step_begin()  # what the graphs gave in the step before may be overwritten
        with autocast(clips.frames.device, self._dtype):
            features = self._features(clips.frames, clips.part_weights, clips.cameras)
        identities, erased = clips.identities, clips.erased
        if self._gather is not None:
            features = TrainingFeatures(*(_of_all_ranks(tensor, self._gather) for tensor in features))
            identities, erased = (_of_all_ranks(tensor, self._gather) for tensor in (identities, erased))
        terms: LossTerms = self._losses(features, identities, erased)
        return terms

    def _compute_losses(self, features: TrainingFeatures, identities: Tensor, erased: Tensor) -> LossTerms:
        """Necks, classifiers and losses, of the clips together."""
        with autocast(erased.device, self._dtype):
            output = self.model.classify(features)
        terms: LossTerms = self.loss(output, identities, erased)
        return terms

    def stop_compiling(self) -> None:
        """From now on, compute without torch.compile."""
        self.compiled = False
        self._features, self._losses = self.model.training_features, self._compute_losses


def compile_mode(asked: str, device: torch.device) -> str:
    """The mode of `training.compile`: for "auto", compiled on CUDA and not on a CPU, where compiling takes longer."""
    if asked != "auto":
        return asked
    return "default" if device.type == "cuda" else "none"


def falls_back(learner: nn.Module, error: Exception) -> bool:
    """Whether a step failed because torch.compile did; the learner then continues without it, and says so once.

    torch.compile needs a compiler and drivers that are not on every machine, and some of it is compiled as late as in
    the first backward pass.
    """
    own = learner.module if isinstance(learner, DistributedDataParallel) else learner
    compilers = ("torch._dynamo", "torch._inductor", "torch._functorch", "triton")
    raised_by = [kind.__module__ for kind in type(error).__mro__]
    if not isinstance(own, Learner) or not own.compiled or not any(name.startswith(compilers) for name in raised_by):
        return False
    own.stop_compiling()
    if is_first_process():
        told = " ".join(str(error).strip().split("\n\n")[0].split())[:300]  # advice for torch's developers follows
        logger.warning("torch.compile failed, so the network trains uncompiled, which is slower (%s)", told)
    return True


def distribute(learner: Learner, ranks: Ranks) -> nn.Module:
    """The learner itself, or within DistributedDataParallel, which averages gradients over the ranks."""
    if ranks.size == 1:
        return learner
    # Nobody reads another rank's BatchNorm statistics: in training a batch's own count, and the first rank evaluates.
    return DistributedDataParallel(learner, broadcast_buffers=False, gradient_as_bucket_view=True)


class _Gather(torch.autograd.Function):
    """(B, ...) of each rank -> (W * B, ...) in the order of the ranks.

    Backward gives this rank's rows of the gradient times W. All ranks compute the same loss of the same rows, so that
    nothing has to travel back; and DistributedDataParallel divides by W the sum in which each rank's rows occur once.
    The parameters after the gathering have the same gradient on every rank, which averaging leaves as it is.
    """

    @staticmethod
    def forward(context: Any, tensor: Tensor, ranks: Ranks) -> Tensor:
        context.ranks = ranks
        rows = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(ranks.size)]
        dist.all_gather(rows, tensor.contiguous())
        return torch.cat(rows)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ranks = context.ranks
        return gradients[0].chunk(ranks.size)[ranks.rank] * ranks.size, None


def _of_all_ranks(tensor: Tensor, ranks: Ranks) -> Tensor:
    gathered: Tensor = _Gather.apply(tensor, ranks)
    return gathered


Averaged = TypeVar("Averaged", bound=nn.Module)


class MovingAverage(Generic[Averaged]):
    """An average of parameters and BatchNorm statistics; call .update(n) after the n-th step, from 1.

    The decay rises as min(decay, (n - 1) / (n + 8)): a constant 0.995 would leave a third of the random start in the
    average after 200 steps.

    Args:
        model: what is averaged; its tensors must stay the same objects.
        decay: of the average, in the end.

    Attributes:
        module: the average, in eval mode.
    """

    def __init__(self, model: Averaged, decay: float) -> None:
        self.module = deepcopy(model).eval().requires_grad_(False)
        self._decay = decay
        pairs = list(zip(_values(self.module), _values(model), strict=True))
        self._floats = _columns([(own, new) for own, new in pairs if own.is_floating_point()])
        self._counts = _columns([(own, new) for own, new in pairs if not own.is_floating_point()])

    def decay(self, step: int) -> float:
        """Share of the average that the step leaves."""
        return min(self._decay, (step - 1) / (step + 8))

    @torch.no_grad()
    def update(self, step: int) -> None:
        torch._foreach_lerp_(*self._floats, 1 - self.decay(step))
        if self._counts[0]:
            torch._foreach_copy_(*self._counts)


def _values(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _columns(pairs: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [own for own, _ in pairs], [new.detach() for _, new in pairs]


def build_optimizer(model: nn.Module, config: TrainingConfig, *, scaled: bool = False) -> Optimizer:
    """The network's optimiser: two groups, weights and biases, which differ in their learning rate.

    Args:
        model: what is trained.
        config: the recipe.
        scaled: whether a gradient scaler may skip steps.
    """
    rate = config.learning_rate * config.batch_scale
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for name, p in trained if not name.endswith("bias")], "lr": rate},
        {"params": [p for name, p in trained if name.endswith("bias")], "lr": rate * config.bias_rate_factor},
    ]
    kernels = optimizer_kernels(trained[0][1].device, scaled)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay, **kernels)
    return torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay, **kernels)


def build_center_optimizer(loss: nn.Module, config: TrainingConfig, *, scaled: bool = False) -> Optimizer:
    """The centres' optimiser: plain SGD; see `scale_center_gradients`."""
    parameters = list(loss.parameters())
    rate = config.center_rate * config.batch_scale
    return torch.optim.SGD(parameters, lr=rate, **optimizer_kernels(parameters[0].device, scaled))


def optimizer_kernels(device: torch.device, scaled: bool) -> dict[str, Any]:
    """How an optimiser updates all parameters at once: on CUDA in one kernel, unless a gradient scaler is at work.

    torch's fused SGD takes memory for its momentum as it finds it, and fills it in the first step. Where that step is
    skipped, since its gradients overflowed, the second one adds whatever lay there to the weights.
    """
    return {"fused": True} if device.type == "cuda" and not scaled else {"foreach": True}


def scale_center_gradients(optimizer: Optimizer, config: TrainingConfig) -> None:
    """Divide the centres' gradient by the centre loss's weight, so that its smallness does not slow them."""
    for group in optimizer.param_groups if config.center_weight else ():
        for centers in group["params"]:
            centers.grad.div_(config.center_weight)


def cosine_schedule(optimizer: Optimizer, config: TrainingConfig) -> CosineLRScheduler:
    """timm's schedule; call .step(epoch) at the start of epoch 0, 1, ...

    From warmup_rate straight to each group's own rate over warmup_epochs, then along the cosine, which has been running
    since epoch 0, to final_rate; both ends are the same for weights and biases, as in timm. batch_scale multiplies all
    but warmup_rate.
    """
    return CosineLRScheduler(
        optimizer,
        t_initial=config.epochs,
        lr_min=config.final_rate * config.batch_scale,
        warmup_t=config.warmup_epochs,
        warmup_lr_init=config.warmup_rate,
    )


@dataclass(frozen=True)
class TrainingState:
    """All that training changes.

    Attributes:
        model: the network.
        average: its moving average.
        loss: holds the class centres.
        learner: both of them, as training calls them; see distribute.
        optimizer, center_optimizer: of the network and of the centres.
        scaler: of the loss, where the network computes in float16.
    """

    model: KeyReID
    average: MovingAverage[KeyReID]
    loss: KeyReIDLoss
    learner: nn.Module
    optimizer: Optimizer
    center_optimizer: Optimizer
    scaler: GradScaler

    def modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "average": self.average.module, "loss": self.loss}

    def optimizers(self) -> dict[str, Optimizer]:
        return {"optimizer": self.optimizer, "center_optimizer": self.center_optimizer}


def build_state(
    model_config: ModelConfig,
    config: TrainingConfig,
    device: torch.device,
    ranks: Ranks | None = None,
    adopt: Callable[[KeyReID], None] | None = None,
) -> TrainingState:
    """The state before the first step; its random weights are a function of the seed.

    `adopt`, where it is given, fills the new network with weights.
    """
    ranks = ranks or Ranks()
    torch.manual_seed(torch_seed("weights", config.seed))
    model = build_model(model_config).train()
    if adopt is not None:
        adopt(model)
    model.backbone.checkpoint_blocks = config.recomputed_blocks
    loss = KeyReIDLoss(
        num_identities=model_config.num_identities,
        global_width=model.global_head.classifier.in_features,
        part_width=model.part_heads.classifiers.shape[2],
        num_parts=NUM_PARTS,
        config=config,
    )
    model.to(device)
    loss.to(device)
    average = MovingAverage(model, config.ema_decay)
    dtype = compute_dtype(device, config.mixed_precision)
    scaler = gradient_scaler(device, dtype)
    gather = ranks if config.gather and ranks.size > 1 else None
    learner = Learner(model, loss, dtype=dtype, gather=gather, compiling=compile_mode(config.compile, device))
    return TrainingState(
        model,
        average,
        loss,
        distribute(learner, ranks),
        build_optimizer(model, config, scaled=scaler.is_enabled()),
        build_center_optimizer(loss, config, scaled=scaler.is_enabled()),
        scaler,
    )

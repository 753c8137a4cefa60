"""Network and loss as the one module that DistributedDataParallel wraps.

Letters: B clips of this rank, W ranks, T frames, N patches, P parts.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from keyreid.model.distributed import Ranks, is_first_process
from keyreid.model.network.keyreid import KeyReID, TrainingFeatures
from keyreid.model.precision import autocast

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

    With `gather`, every rank computes the necks, classifiers and losses of all ranks' clips: hard examples are sought
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
    """Whether a step failed because torch.compile did; the learner then goes on without it, and says so once.

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

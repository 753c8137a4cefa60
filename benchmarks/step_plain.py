"""The plain way of a training step: the recipe as it is usually written down.

The plain network (network_plain.py), one group of parameters for each parameter, a loop over the branches in every
loss, distances to all class centres of which one is kept, an average that is updated tensor by tensor, and each loss
read by the host in every step. `benchmarks/step.py` times it and a test holds its losses against the trainer's.

Letters: B clips, C channels, K identities.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from network_plain import PlainKeyReID
from torch import Tensor, nn
from torch.nn import functional

from keyreid.model.device import autocast
from keyreid.model.network.keyreid import TrainingOutput
from keyreid.model.training.config import TrainingConfig
from keyreid.model.training.rehearsal import AUGMENTATION, AVERAGE, BACKWARD, FORWARD, UPDATE, Phases
from keyreid.model.training.state import Clips, TrainingState


class PlainTraining:
    """One training run the plain way.

    Args:
        state: whose network is trained; the centres are copied.
        config: the recipe.
        dtype: what the network computes in.
        compiled: whether the network goes through torch.compile.
    """

    def __init__(
        self, state: TrainingState, config: TrainingConfig, *, dtype: torch.dtype, compiled: bool = False
    ) -> None:
        self.config, self._dtype, self._model = config, dtype, state.model
        self._network = torch.compile(PlainKeyReID(state.model)) if compiled else PlainKeyReID(state.model)
        parts = state.loss.part_centers.detach()
        centers = [state.loss.global_centers.detach()[:, 0], *(parts[:, part] for part in range(parts.shape[1]))]
        self._centers = [nn.Parameter(center.clone()) for center in centers]
        trained = [(name, parameter) for name, parameter in state.model.named_parameters() if parameter.requires_grad]
        groups = [{"params": [parameter], "lr": self._rate(name)} for name, parameter in trained]
        self._optimizer = torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)
        self._center_optimizer = torch.optim.SGD(self._centers, lr=config.center_rate)
        self._average = copy.deepcopy(state.model)

    def step(self, clips: Clips, device: torch.device, phases: Phases | None = None) -> dict[str, float]:
        """Copy, forward, backward, update, average; `clips` are augmented and in host memory. The losses by name."""
        enter: Callable[[str | None], None] = phases.enter if phases else lambda name: None
        enter(AUGMENTATION)
        on_device = Clips(*(tensor.to(device) for tensor in clips))
        enter(FORWARD)
        terms = self.losses(on_device)
        values = {name: term.item() for name, term in terms.items()}
        enter(BACKWARD)
        self._optimizer.zero_grad()
        self._center_optimizer.zero_grad()
        terms["total"].backward()
        enter(UPDATE)
        self._optimizer.step()
        for center in self._centers:
            center.grad.data *= 1.0 / self.config.center_weight  # type: ignore[union-attr]
        self._center_optimizer.step()
        enter(AVERAGE)
        with torch.no_grad():
            now = self._model.state_dict()
            for name, averaged in self._average.state_dict().items():
                averaged.copy_(self.config.ema_decay * averaged + (1 - self.config.ema_decay) * now[name])
        enter(None)
        return values

    def losses(self, clips: Clips) -> dict[str, Tensor]:
        """Every term, of a forward pass in training mode."""
        with autocast(clips.frames.device, self._dtype):
            output = self._network(clips.frames, clips.part_weights, clips.cameras)
        output = TrainingOutput(*(tensor.float() for tensor in output))
        logits = [output.global_logits, *output.part_logits.unbind(1)]
        features = [output.global_feature, *output.part_features.unbind(1)]
        smoothing, identities = self.config.label_smoothing, clips.identities
        identity = self._balanced([cross_entropy(each, identities, smoothing) for each in logits])
        triplet = self._balanced([batch_hard(each, identities) for each in features])
        pairs = zip(features, self._centers, strict=True)
        center = self._balanced([center_distance(each, centers, identities) for each, centers in pairs])
        attention = (output.frame_scores * clips.erased).sum(1).mean()
        total = identity + triplet + self.config.center_weight * center + self.config.attention_weight * attention
        return {"total": total, "identity": identity, "triplet": triplet, "center": center, "attention": attention}

    def _balanced(self, terms: list[Tensor]) -> Tensor:
        share = self.config.global_share
        return share * terms[0] + (1 - share) * sum(terms[1:]) / len(terms[1:])

    def _rate(self, name: str) -> float:
        return self.config.learning_rate * (self.config.bias_rate_factor if name.endswith("bias") else 1.0)


def cross_entropy(logits: Tensor, identities: Tensor, smoothing: float) -> Tensor:
    """With label smoothing; logits (B, K), identities (B,) -> scalar."""
    targets = functional.one_hot(identities, logits.shape[1]) * (1 - smoothing) + smoothing / logits.shape[1]
    return (-targets * logits.log_softmax(dim=1)).mean(0).sum()


def batch_hard(features: Tensor, identities: Tensor) -> Tensor:
    """Farthest same against nearest other, soft margin; features (B, C), identities (B,) -> scalar.

    Every identity has the same number of clips.
    """
    squares = features.square().sum(1, keepdim=True)
    distances = (squares + squares.T - 2 * features @ features.T).clamp_min(1e-12).sqrt()
    same = identities[:, None] == identities[None, :]
    farthest = distances[same].view(len(features), -1).amax(1)
    nearest = distances[~same].view(len(features), -1).amin(1)
    return functional.soft_margin_loss(nearest - farthest, torch.ones_like(nearest))


def center_distance(features: Tensor, centers: Tensor, identities: Tensor) -> Tensor:
    """Squared distance to the own centre; features (B, C), centers (K, C), identities (B,) -> scalar."""
    distances = features.square().sum(1, keepdim=True) + centers.square().sum(1) - 2 * features @ centers.T
    own = identities[:, None] == torch.arange(len(centers), device=centers.device)
    return (distances * own).sum() / len(features)

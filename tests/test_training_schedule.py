import math

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn

from keyreid.model.training.config import TrainingConfig
from keyreid.model.training.losses import KeyReIDLoss
from keyreid.model.training.state import (
    MovingAverage,
    build_center_optimizer,
    build_optimizer,
    cosine_schedule,
    scale_center_gradients,
)


def rates(config: TrainingConfig, epoch: int) -> list[float]:
    optimizer = build_optimizer(nn.Linear(2, 2), config)
    cosine_schedule(optimizer, config).step(epoch)
    return [group["lr"] for group in optimizer.param_groups]


def cosine(top: float, epoch: int, epochs: int = 120) -> float:
    return 1.6e-5 + 0.5 * (top - 1.6e-5) * (1 + math.cos(math.pi * epoch / epochs))


@pytest.mark.parametrize(
    ("epoch", "weights", "biases"),
    [
        (0, 8e-5, 8e-5),
        (4, 8e-5 + 0.8 * (0.008 - 8e-5), 8e-5 + 0.8 * (0.016 - 8e-5)),
        (5, cosine(0.008, 5), cosine(0.016, 5)),
        (60, (0.008 + 1.6e-5) / 2, (0.016 + 1.6e-5) / 2),
        (119, cosine(0.008, 119), cosine(0.016, 119)),
    ],
)
def test_the_papers_learning_rates(epoch, weights, biases):
    assert rates(TrainingConfig(), epoch) == pytest.approx([weights, biases])


def test_a_larger_batch_has_larger_rates_and_the_same_warm_up():
    """Linear: as many times the rate as there are clips; the first steps are as careful as before."""
    config = TrainingConfig(batch_scale=4)
    assert rates(config, 0) == pytest.approx([8e-5, 8e-5])
    assert rates(config, 4) == pytest.approx([8e-5 + 0.8 * (0.032 - 8e-5), 8e-5 + 0.8 * (0.064 - 8e-5)])
    assert rates(config, 60) == pytest.approx([4 * rate for rate in rates(TrainingConfig(), 60)])
    loss = KeyReIDLoss(num_identities=2, global_width=3, part_width=3, num_parts=2, config=config)
    assert build_center_optimizer(loss, config).param_groups[0]["lr"] == 2.0
    assert (config.scaled_identities, config.clips_per_batch) == (16, 64)


def test_sgd_and_adamw_take_the_recipe():
    sgd = build_optimizer(nn.Linear(2, 2), TrainingConfig())
    assert isinstance(sgd, torch.optim.SGD)
    assert all(group["momentum"] == 0.9 and group["weight_decay"] == 1e-4 for group in sgd.param_groups)
    assert isinstance(build_optimizer(nn.Linear(2, 2), TrainingConfig(optimizer="adamw")), torch.optim.AdamW)


def test_frozen_parameters_are_not_in_the_optimizer():
    layer = nn.BatchNorm1d(3)
    layer.bias.requires_grad_(False)
    groups = build_optimizer(layer, TrainingConfig()).param_groups
    assert [len(group["params"]) for group in groups] == [1, 0]


def test_centers_move_by_the_gradient_divided_by_their_weight():
    config = TrainingConfig()
    loss = KeyReIDLoss(num_identities=2, global_width=3, part_width=3, num_parts=2, config=config)
    optimizer = build_center_optimizer(loss, config)
    before = [centers.detach().clone() for centers in loss.parameters()]
    for centers in loss.parameters():
        centers.grad = torch.full_like(centers, 0.0005)
    scale_center_gradients(optimizer, config)
    optimizer.step()
    for old, new in zip(before, loss.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old - 0.5)


def test_average_starts_fast_and_ends_at_its_decay():
    layer = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    average = MovingAverage(layer, 0.995)
    expected = average.module[0].weight.item()
    for step in range(1, 40):
        with torch.no_grad():
            layer[0].weight.fill_(step)
            layer[1].running_mean.fill_(step)
            layer[1].num_batches_tracked.fill_(step)
        average.update(step)
        decay = min(0.995, (step - 1) / (step + 8))
        expected = decay * expected + (1 - decay) * step
    assert average.module[0].weight.item() == pytest.approx(expected, rel=1e-5)
    assert average.module[1].running_mean.item() == pytest.approx(expected, rel=1e-5)
    assert average.module[1].num_batches_tracked.item() == 39
    assert average.decay(10_000) == 0.995 and not average.module.training


def test_the_average_is_timms_to_the_bit():
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7))
    ours, theirs = MovingAverage(layer, 0.98), ModelEmaV3(layer, 0.98, use_warmup=True, warmup_gamma=9, warmup_power=1)
    for step in range(1, 60):
        for tensor in layer.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape) * 9)
        ours.update(step)
        theirs.update(layer, step=step)
    for name, tensor in theirs.module.state_dict().items():
        assert torch.equal(ours.module.state_dict()[name], tensor)

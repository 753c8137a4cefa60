import math

import pytest
import torch
from torch import Tensor

from keyreid.model.network.keyreid import TrainingOutput
from keyreid.model.training.config import TrainingConfig
from keyreid.model.training.losses import (
    KeyReIDLoss,
    attention_loss,
    center_loss,
    identity_loss,
    triplet_loss,
)

B, Q, C, K, T = 8, 3, 5, 4, 4
IDENTITIES = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])


@pytest.fixture
def draws():
    return torch.Generator().manual_seed(0)


def ones() -> Tensor:
    return torch.ones(B, Q, dtype=torch.float64)


def rand(draws, *shape) -> Tensor:
    return torch.randn(*shape, generator=draws, dtype=torch.float64)


def slow_identity(logits, weights, smoothing=0.1):
    per_branch = []
    for q in range(Q):
        total = mass = 0.0
        for b in range(B):
            norm = math.log(sum(math.exp(x) for x in logits[b, q].tolist()))
            target = [smoothing / K + (1 - smoothing) * (k == IDENTITIES[b]) for k in range(K)]
            value = -sum(t * (x - norm) for t, x in zip(target, logits[b, q].tolist(), strict=True))
            total, mass = total + float(weights[b, q]) * value, mass + float(weights[b, q])
        if mass:
            per_branch.append(total / mass)
    return sum(per_branch) / len(per_branch)


def slow_triplet(features, weights):
    per_branch = []
    for q in range(Q):
        total = mass = 0.0
        for a in range(B):
            if weights[a, q] == 0:
                continue
            others = [b for b in range(B) if weights[b, q] > 0]
            same = [math.dist(features[a, q], features[b, q]) for b in others if IDENTITIES[a] == IDENTITIES[b]]
            different = [math.dist(features[a, q], features[b, q]) for b in others if IDENTITIES[a] != IDENTITIES[b]]
            if not different:
                continue
            value = math.log(1 + math.exp(max(same) - min(different)))
            total, mass = total + float(weights[a, q]) * value, mass + float(weights[a, q])
        if mass:
            per_branch.append(total / mass)
    return sum(per_branch) / len(per_branch)


def slow_center(features, centers, weights):
    per_branch = []
    for q in range(Q):
        total = mass = 0.0
        for b in range(B):
            value = math.dist(features[b, q], centers[IDENTITIES[b], q]) ** 2
            total, mass = total + float(weights[b, q]) * value, mass + float(weights[b, q])
        if mass:
            per_branch.append(total / mass)
    return sum(per_branch) / len(per_branch)


def weight_cases() -> list[Tensor]:
    partly = ones()
    partly[1, 0], partly[3, 1] = 0, 0.25
    unseen = ones()
    unseen[:, 2] = 0  # a part that no clip saw
    lonely = ones()
    lonely[2:, 1] = 0  # a part that one identity alone shows: no triplet
    return [ones(), partly, unseen, lonely]


@pytest.mark.parametrize("weights", weight_cases(), ids=["all seen", "partly seen", "unseen part", "one identity"])
def test_terms_agree_with_plain_loops(draws, weights):
    logits, features, centers = rand(draws, B, Q, K), rand(draws, B, Q, C), rand(draws, K, Q, C)
    assert identity_loss(logits, IDENTITIES, weights, 0.1).item() == pytest.approx(slow_identity(logits, weights))
    assert triplet_loss(features, IDENTITIES, weights).item() == pytest.approx(slow_triplet(features, weights))
    expected = slow_center(features, centers, weights)
    assert center_loss(features, centers, IDENTITIES, weights).item() == pytest.approx(expected)


def test_attention_term_is_the_score_of_erased_frames():
    scores = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])
    erased = torch.tensor([[0.0, 1, 0, 1], [1, 0, 0, 0]])
    assert attention_loss(scores, erased) == ((2 + 4) + 5) / 2


def output(draws, visibility: Tensor) -> TrainingOutput:
    return TrainingOutput(
        rand(draws, B, C).requires_grad_(),
        rand(draws, B, Q, C + 1).requires_grad_(),
        rand(draws, B, K).requires_grad_(),
        rand(draws, B, Q, K).requires_grad_(),
        rand(draws, B, T).abs().requires_grad_(),
        visibility,
    )


def make_loss(**options) -> KeyReIDLoss:
    config = TrainingConfig(**options)
    return KeyReIDLoss(num_identities=K, global_width=C, part_width=C + 1, num_parts=Q, config=config)


def test_total_is_the_papers_sum(draws):
    result, erased = output(draws, ones()), torch.tensor([[1.0, 0, 0, 1]]).expand(B, T)
    loss = make_loss(global_share=0.75)
    terms = loss(result, IDENTITIES, erased)
    whole, single = ones()[:, :1], [tensor.float() for tensor in result]
    global_terms = [
        identity_loss(single[2][:, None], IDENTITIES, whole, 0.1),
        triplet_loss(single[0][:, None], IDENTITIES, whole),
        center_loss(single[0][:, None], loss.global_centers, IDENTITIES, whole),
    ]
    part_terms = [
        sum(identity_loss(single[3][:, q : q + 1], IDENTITIES, whole, 0.1) for q in range(Q)) / Q,
        sum(triplet_loss(single[1][:, q : q + 1], IDENTITIES, whole) for q in range(Q)) / Q,
        sum(center_loss(single[1][:, q : q + 1], loss.part_centers[:, q : q + 1], IDENTITIES, whole) for q in range(Q))
        / Q,
    ]
    identity, triplet, center = (0.75 * g + 0.25 * p for g, p in zip(global_terms, part_terms, strict=True))
    expected = identity + triplet + 0.0005 * center + attention_loss(single[4], erased)
    torch.testing.assert_close(terms.total, expected, check_dtype=False)
    global_alone = make_loss(global_share=1.0)(result, IDENTITIES, erased)
    torch.testing.assert_close(global_alone.identity, global_terms[0], check_dtype=False)


def test_parts_that_nobody_saw_get_no_gradient_and_break_nothing(draws):
    visibility = ones()
    visibility[:, 2] = 0
    visibility[0] = 0
    result = output(draws, visibility)
    terms = make_loss()(result, IDENTITIES, torch.zeros(B, T))
    terms.total.backward()
    assert terms.total.isfinite()
    for gradient in (result.part_features.grad, result.part_logits.grad):
        assert gradient.isfinite().all()
        assert gradient[:, 2].abs().sum() == 0 and gradient[0].abs().sum() == 0 and gradient[1:, :2].abs().sum() > 0


def test_equal_features_give_finite_gradients():
    result = TrainingOutput(
        torch.zeros(B, C, requires_grad=True),
        torch.zeros(B, Q, C + 1, requires_grad=True),
        torch.zeros(B, K, requires_grad=True),
        torch.zeros(B, Q, K, requires_grad=True),
        torch.zeros(B, T),
        ones(),
    )
    make_loss()(result, IDENTITIES, torch.zeros(B, T)).total.backward()
    assert result.global_feature.grad.isfinite().all() and result.part_features.grad.isfinite().all()

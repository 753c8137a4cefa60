"""Both variants against the plain oracle: everything the losses read, the descriptor, and every gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from network_fixtures import clips, tiny_model
from oracle_reference import Oracle
from torch import Tensor

from keyreid.model import KeyReID

BOTH_VARIANTS = pytest.mark.parametrize("variant", ["reference", "aligned"])


def fixed_model(variant: str) -> KeyReID:
    """Without shifts in time, which the oracle does not draw."""
    return tiny_model(variant=variant, shift_share=0.0, shuffle_share=0.0)


def oracle_of(model: KeyReID, differentiable: bool = False) -> Oracle:
    state = {
        name: tensor.detach().clone().requires_grad_(differentiable and tensor.is_floating_point())
        for name, tensor in model.state_dict().items()
    }
    config = model.config
    return Oracle(state, config.patch_size, config.num_heads, config.clip_length)


def parts_of(oracle: Oracle, variant: str) -> Callable[[list[Tensor], Tensor], Tensor]:
    return oracle.reference_parts if variant == "reference" else partial(oracle.aligned_parts, floor=1e-3)


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-10) -> bool:
    return bool((found - wanted).norm() <= tolerance * wanted.norm())


@BOTH_VARIANTS
def test_what_the_losses_read_is_the_oracles(variant: str) -> None:
    model = fixed_model(variant)
    inputs = clips(model)
    oracle = oracle_of(model)  # before training mode moves the running statistics
    feature, parts, scores = oracle.run(*inputs, parts_of(oracle, variant))
    global_logits, part_logits = oracle.logits(feature, parts)
    output = model(*inputs)
    assert close(output.global_feature, feature)
    assert close(output.part_features, parts)
    assert close(output.frame_scores, scores)
    assert close(output.global_logits, global_logits)
    assert close(output.part_logits, part_logits)


@BOTH_VARIANTS
def test_the_descriptor_is_the_oracles(variant: str) -> None:
    model = fixed_model(variant).eval()
    inputs = clips(model)
    oracle = oracle_of(model)
    feature, parts, _ = oracle.run(*inputs, parts_of(oracle, variant))
    describe = oracle.reference_descriptor if variant == "reference" else oracle.aligned_descriptor
    wanted = torch.stack([describe(f, p) for f, p in zip(feature, parts, strict=True)])
    with torch.no_grad():
        found, necks = model(*inputs), model.describe(*inputs)
    assert close(found, wanted)
    one_by_one = [oracle.necks(f, p) for f, p in zip(feature, parts, strict=True)]
    assert close(necks.global_feature, torch.stack([pieces[0] for pieces in one_by_one]))
    assert close(necks.part_features, torch.stack([torch.stack(pieces[1:]) for pieces in one_by_one]))


@BOTH_VARIANTS
def test_every_gradient_is_the_oracles(variant: str) -> None:
    model = fixed_model(variant)
    inputs = clips(model)
    oracle = oracle_of(model, differentiable=True)
    feature, parts, scores = oracle.run(*inputs, parts_of(oracle, variant))
    # Each with a factor of its own, for an error in one may cancel in an even sum.
    outputs = feature, parts, *oracle.logits(feature, parts), scores
    sum((1 + place) * tensor.square().sum() for place, tensor in enumerate(outputs)).backward()
    ours = model(*inputs)[:5]
    sum((1 + place) * tensor.square().sum() for place, tensor in enumerate(ours)).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert close(parameter.grad, oracle.state[name].grad, 1e-8), name


def test_scores_below_zero_count_as_zero() -> None:
    model = fixed_model("reference").eval()
    inputs = clips(model)
    with torch.no_grad():
        _, _, scores = oracle_of(model).run(*inputs, lambda clip, w: w)
        model.global_branch.score.bias -= scores.median()
        feature, _, scores = oracle_of(model).run(*inputs, lambda clip, w: w)
        output = model.train()(*inputs)
    assert (scores == 0).any() and (scores > 0).any()
    assert close(output.frame_scores, scores)
    assert close(output.global_feature, feature)

"""torch.compile takes the network whole: one graph for every batch size, forward and backward."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from network_fixtures import clips, tiny_model
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

EACH_KIND = pytest.mark.parametrize(
    "fields",
    [{}, {"variant": "reference"}, {"part_pooling": "average"}],
    ids=["aligned", "reference", "average"],
)
BATCHES = (2, 3, 5)  # torch gives a batch of one a graph of its own, whatever the code


@pytest.fixture(autouse=True)
def _compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing compiled is left over, and pytest does not collect the compiler's trace, which takes longer than it."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compile_whole(function: Callable[..., Any], backend: str) -> tuple[Callable[..., Any], CompileCounterWithBackend]:
    """Compiled without code generation; a graph break is an error, and the counter counts graphs."""
    counter = CompileCounterWithBackend(backend)
    return torch.compile(function, backend=counter, fullgraph=True), counter


def clips_of_any_number(*arguments: Any) -> tuple[Tensor, ...]:
    """Clips whose number may not be built into a graph: that would be an error."""
    inputs = clips(*arguments)
    for tensor in inputs:
        torch._dynamo.mark_dynamic(tensor, 0)
    return inputs


@EACH_KIND
def test_training_step_is_one_graph_for_every_batch_size(fields: dict[str, str]) -> None:
    model = tiny_model(depth=2, drop_path=0.1, **fields)
    compiled, counter = compile_whole(model, "aot_eager")  # which traces the backward pass, too
    for num_clips in BATCHES:
        inputs = clips_of_any_number(model, num_clips)
        results = []
        for call in (model, compiled):
            torch.manual_seed(3)  # the same stochastic depth and shifts in time
            model.zero_grad()
            output = call(*inputs)
            sum(tensor.square().sum() for tensor in output[:5]).backward()
            results.append([*output, *(p.grad.clone() for p in model.parameters() if p.requires_grad)])
        for wanted, found in zip(*results, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-9)
    assert counter.frame_count == 1

"""Checkpointed blocks, precision and compilation change nothing but rounding; and no step waits for the device."""

import logging

import pytest
import torch
from prepared_dataset import make_prepared
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode
from training_fixtures import CPU, TINY

from keyreid.model.device import compute_dtype
from keyreid.model.training import state as training_state
from keyreid.model.training.config import resolve_config
from keyreid.model.training.inputs import open_inputs
from keyreid.model.training.state import build_state
from keyreid.model.training.step import train_step

STEADY = (
    "model.stem=patch",
    "model.drop_path=0",
    "model.part_pooling=attention",
    "model.shift_share=0",
    "model.shuffle_share=0",
)
RANDOM = ("model.stem=patch", "model.drop_path=0.5", "model.part_pooling=attention")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("tiny"))


def begin(prepared, *assignments, preset="vit-small"):
    """Configuration, state before the first step, and the batches of the first epochs."""
    config = resolve_config(preset, assignments=[*TINY, "training.warmup_rate=0.01", *assignments])
    inputs = open_inputs(prepared, config, device=CPU, num_workers=0, identity_split=0)
    state = build_state(config.model_config(inputs.labels), config.training, CPU)
    for group in state.optimizer.param_groups:
        group["lr"] = 0.05
    return config, state, [batch for epoch in range(2) for batch in inputs.loader.epoch(epoch)]


def steps(config, state, batches):
    """Train on the batches; the loss terms of each step, and all parameters afterwards."""
    terms = [torch.stack(list(train_step(state, batch, config, 0))).detach() for batch in batches]
    return torch.stack(terms), torch.cat([p.detach().flatten() for module in (state.model, state.loss)
                                          for p in module.parameters()])  # fmt: skip


DEEP = (*RANDOM, "model.depth=4")


class KeptBytes(torch.autograd.graph.saved_tensors_hooks):
    """Of what the graphs that are made within keep for their backward pass."""

    def __init__(self):
        self.total = 0
        super().__init__(self.count, lambda tensor: tensor)

    def count(self, tensor):
        self.total += tensor.nbytes
        return tensor


@pytest.mark.parametrize("variant", ["aligned", "reference"])
def test_checkpointed_blocks_train_alike_and_keep_less(prepared, variant):
    """To the bit, under random depth: the second computation has the draws of the first."""
    found = {}
    for blocks in (0, 2, True):
        config, state, batches = begin(
            prepared, *DEEP, f"model.variant={variant}", f"training.checkpoint_blocks={str(blocks).lower()}"
        )
        kept = KeptBytes()
        with kept:
            found[blocks] = (*steps(config, state, batches), kept.total)
    for blocks in (2, True):
        assert torch.equal(found[blocks][0], found[0][0]) and torch.equal(found[blocks][1], found[0][1])
    assert found[True][2] < found[2][2] < found[0][2]


def with_scaler(state, scale):
    object.__setattr__(state, "scaler", torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000))
    return state


def test_scaled_gradients_give_the_same_step(prepared):
    """A power of two changes no bit of float32."""
    options = (*RANDOM, "training.clip_gradient=1.0")
    plain = steps(*begin(prepared, *options))
    config, state, batches = begin(prepared, *options)
    scaled = steps(config, with_scaler(state, 1024.0), batches)
    assert torch.equal(plain[0], scaled[0]) and torch.equal(plain[1], scaled[1])


def test_a_gradient_that_overflows_is_skipped_and_the_scale_halved(prepared):
    config, state, batches = begin(prepared, *RANDOM)
    before = torch.cat([p.detach().flatten() for p in state.model.parameters()])
    with_scaler(state, 2.0**127)
    train_step(state, batches[0], config, 0)
    after = torch.cat([p.detach().flatten() for p in state.model.parameters()])
    assert torch.equal(before, after) and state.scaler.get_scale() == 2.0**126


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_first_step_that_overflows_is_as_if_it_had_not_been(prepared, monkeypatch, optimizer):
    """With the kernels of a CUDA device in float16, and memory that nobody cleared full of NaN."""
    options = (*RANDOM, f"training.optimizer={optimizer}", "training.center_weight=0")  # centres overflow later
    config, state, batches = begin(prepared, *options)
    expected = steps(config, state, batches[1:])
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        chosen = training_state.optimizer_kernels(torch.device("cuda"), scaled=True)
        monkeypatch.setattr(training_state, "optimizer_kernels", lambda device, scaled: chosen)
        config, state, batches = begin(prepared, *options)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-117, growth_interval=1000)
        object.__setattr__(state, "scaler", scaler)
        train_step(state, batches[0], config, 0)
        assert scaler.get_scale() == 1024.0
        found = steps(config, state, batches[1:])
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


@pytest.mark.parametrize("options", [(), ("model.part_pooling=average",), ("model.variant=reference",),
                                     ("training.checkpoint_blocks=1",), ("training.clip_gradient=1.0",)])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_a_device_does_in_half_precision(prepared, monkeypatch, dtype, options):
    """On a CPU, which has the same autocast, fused optimisers and scaler: the losses stay those of float32."""
    exact = steps(*begin(prepared, *STEADY, *options))
    monkeypatch.setattr(training_state, "compute_dtype", lambda device, mixed: dtype)
    monkeypatch.setattr(training_state, "optimizer_kernels", lambda device, scaled: {"fused": True})
    config, state, batches = begin(prepared, *STEADY, *options)
    rough = steps(config, with_scaler(state, 1024.0) if dtype == torch.float16 else state, batches)
    torch.testing.assert_close(rough[0], exact[0], rtol=0.02, atol=0.02)
    assert not torch.equal(rough[1], exact[1]) and rough[1].dtype == torch.float32


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a device: reading a number, and shapes that depend on values."""

    REFUSED = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim", "is_nonzero")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::").partition(".")[0]
        if name in self.REFUSED:
            raise AssertionError(f"the step calls {name}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [(), ("training.clip_gradient=1.0",), ("training.checkpoint_blocks=1",),
                                     ("model.variant=reference",)])  # fmt: skip
def test_a_step_never_waits_for_the_device(prepared, options):
    config, state, batches = begin(prepared, *RANDOM, *options)
    with NoWaiting():
        terms = train_step(state, batches[0], config, 0)
        state.average.update(1)
        with pytest.raises(AssertionError, match="_local_scalar_dense"):
            float(terms.total.detach())


def compile_with(backend, **options):
    real = torch.compile
    return lambda function, mode, dynamic: real(function, backend=backend, dynamic=dynamic, **options)


def test_a_compiled_network_trains_alike(prepared, monkeypatch):
    """Without code generation, which takes a minute: what is traced, forward and backward, is the network."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)
    monkeypatch.setattr(torch, "compile", compile_with("aot_eager", fullgraph=True))
    torch._dynamo.reset()
    plain = steps(*begin(prepared, *STEADY))
    counters.clear()
    config, state, batches = begin(prepared, *STEADY, "training.compile=default")
    compiled = steps(config, state, batches)
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-6)
    steps(config, state, batches)
    assert counters["stats"]["unique_graphs"] == 2 and not counters["graph_break"]  # network, losses; never again
    torch._dynamo.reset()


def failing_backend(graph, inputs):
    raise OSError("no compiler here")


def test_a_network_that_cannot_be_compiled_trains_uncompiled_and_says_so_once(prepared, monkeypatch, caplog):
    plain = steps(*begin(prepared, *RANDOM))
    monkeypatch.setattr(torch, "compile", compile_with(failing_backend))
    torch._dynamo.reset()
    config, state, batches = begin(prepared, *RANDOM, "training.compile=default")
    fallen_back = steps(config, state, batches)
    assert torch.equal(fallen_back[0], plain[0]) and torch.equal(fallen_back[1], plain[1])
    assert [record.message for record in caplog.records if "torch.compile failed" in record.message] == [
        "torch.compile failed, so the network trains uncompiled, which is slower "
        "(backend='failing_backend' raised: OSError: no compiler here)"
    ]
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("device", "mixed", "has_bfloat16", "expected"),
    [
        ("cpu", True, True, torch.float32),
        ("cuda", True, True, torch.bfloat16),
        ("cuda", True, False, torch.float16),
        ("cuda", False, True, torch.float32),
    ],
)
def test_precision(monkeypatch, device, mixed, has_bfloat16, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bfloat16)
    assert compute_dtype(torch.device(device), mixed) == expected

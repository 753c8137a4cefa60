"""The fast forward pass against the plain one, and the device that it runs on (GPUs are made up)."""

import socket
from typing import Any

import psutil
import pytest
import torch
from torch import nn

from keyreid.pipeline.errors import SettingsError, SurroundingsError
from keyreid.pipeline.executor import WORKER_VARIABLE
from keyreid.pipeline.pose import pifpaf
from keyreid.pipeline.pose.checkpoints import load_checkpoint, resolve_checkpoint
from keyreid.pipeline.pose.forward import FastForward, check_device, choose_device, fold_batch_norm, normalise


@pytest.fixture(scope="module")
def synthetic() -> Any:
    return load_checkpoint(resolve_checkpoint("synthetic"))


@pytest.fixture(scope="module")
def fast(synthetic: Any) -> FastForward:
    return FastForward(synthetic, "cpu")


def pictures(count: int, size: tuple[int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, *size, 3), generator=generator, dtype=torch.uint8)


def plain(model: Any, batch: torch.Tensor) -> list[torch.Tensor]:
    with torch.inference_mode():
        return list(model(normalise(batch)))


@pytest.mark.parametrize("count", [1, 2, 5])  # the graph is traced with two pictures
@pytest.mark.parametrize("size", [(129, 65), (65, 49)])
def test_agrees_with_the_plain_forward_pass(synthetic: Any, fast: FastForward, count: int, size: Any) -> None:
    batch = pictures(count, size)
    torch.testing.assert_close(fast(batch), plain(synthetic, batch), atol=1e-4, rtol=1e-4)
    if (count, size) == (2, (65, 49)):
        torch.manual_seed(0)
        official = pifpaf.build_network("shufflenetv2k16", 1).eval()
        torch.testing.assert_close(FastForward(official, "cpu")(batch), plain(official, batch), atol=1e-4, rtol=1e-4)


def test_memory_does_not_grow_with_the_sizes_that_were_seen(fast: FastForward) -> None:
    """--scale leads to many sizes, and torch never frees a traced graph."""
    process = psutil.Process()
    sizes = [(16 * rows + 1, 16 * columns + 1) for rows in range(3, 10) for columns in range(2, 8)]
    first = fast(pictures(2, sizes[0]))
    for size in sizes:
        fast(pictures(2, size))
    before = process.memory_info().rss
    for size in reversed(sizes):
        again = fast(pictures(2, size))
    assert process.memory_info().rss - before < 100e6
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)), "whatever was seen before"


def test_folding_leaves_no_normalisation_and_the_given_network_as_it_was(synthetic: Any) -> None:
    before = {name: value.clone() for name, value in synthetic.state_dict().items()}
    FastForward(synthetic, "cpu")
    assert all(torch.equal(before[name], value) for name, value in synthetic.state_dict().items())
    sequence = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    sequence[1].running_mean.fill_(0.7)
    batch = torch.randn(2, 3, 8, 8)
    expected = sequence(batch)
    folded = fold_batch_norm(sequence)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(batch), expected)


@pytest.mark.parametrize(
    ("device", "gpus", "worker", "chosen"),
    [
        ("auto", 0, None, "cpu"),
        ("auto", 1, None, "cuda:0"),
        ("cpu", 4, "1", "cpu"),
        ("cuda", 4, "1", "cuda:1"),
        ("auto", 4, "6", "cuda:2"),  # more workers than GPUs: they take turns
    ],
)
def test_each_worker_has_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, device: str, gpus: int, worker: str | None, chosen: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.delenv(WORKER_VARIABLE, raising=False)
    if worker is not None:
        monkeypatch.setenv(WORKER_VARIABLE, worker)
    assert choose_device(device) == chosen
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SettingsError, match=r"CUDA is not available on .*; expected .*; use --device auto"):
        choose_device("cuda")


def test_a_device_that_does_not_work_is_named_with_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    check_device("cpu")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: uncorrectable ECC error\nCUDA kernel errors might be reported later")

    monkeypatch.setattr(torch, "ones", fail)
    with pytest.raises(SurroundingsError, match=rf"cuda:3 of {socket.gethostname()} .*\(CUDA error: .* ECC error\);"):
        check_device("cuda:3")

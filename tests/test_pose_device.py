"""Which device a worker's network runs on; the count of GPUs is made up, since most machines of tests have none."""

import socket

import pytest
import torch

from keyreid.pipeline.errors import SettingsError, SurroundingsError
from keyreid.pipeline.executor import WORKER_VARIABLE
from keyreid.pipeline.pose.forward import check_device, choose_device


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


def test_cuda_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SettingsError, match=r"CUDA is not available on .*; expected .*; use --device auto"):
        choose_device("cuda")


def test_a_device_that_works() -> None:
    check_device("cpu")


def test_a_device_that_does_not_work_is_named_with_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: uncorrectable ECC error\nCUDA kernel errors might be reported later")

    monkeypatch.setattr(torch, "ones", fail)
    with pytest.raises(SurroundingsError) as raised:
        check_device("cuda:3")
    assert raised.value.found == (
        f"device cuda:3 of {socket.gethostname()} does not work (CUDA error: uncorrectable ECC error)"
    )

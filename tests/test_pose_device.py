"""Which device a worker's network runs on; the count of GPUs is made up, since most machines of tests have none."""

import pytest
import torch

from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.executor import WORKER_VARIABLE
from keyreid.pipeline.pose.device import choose_device


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
    with pytest.raises(SettingsError, match=r"device cuda, and torch sees none; .*--device auto"):
        choose_device("cuda")

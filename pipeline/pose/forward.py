"""The network's forward pass as fast as it safely goes; benchmarks/extraction.py measures it against the plain one."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .frames import normalise

MAX_GRAPHS = 32  # picture sizes whose graphs are kept
# Pixels of a batch that run fastest: a CPU's caches hold no more (benchmarks/batch_size.py), a GPU wants many.
CPU_PIXELS, CUDA_PIXELS = 1 << 17, 1 << 21


class FastForward:
    """A frozen network: batch normalisation folded into the convolutions, then the device's fastest form.

    On a CPU a graph is traced for each picture size and packed for oneDNN, which halves shufflenetv2k16's time; on CUDA
    the network runs channels-last in mixed precision.

    Args:
        model: a network in eval mode; left as it is.
        device: "cpu", or a CUDA device.
    """

    def __init__(self, model: nn.Module, device: str) -> None:
        folded = fold_batch_norm(copy.deepcopy(model)).to(device)
        self._model = folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = torch.device(device)
        self._graphs: dict[tuple[int, ...], Any] = {}

    def suitable_batch(self, shape: torch.Size) -> int:
        """How many pictures of a shape (H, W, 3) run fastest together; at least 1."""
        pixels = CPU_PIXELS if self._device.type == "cpu" else CUDA_PIXELS
        return max(1, round(pixels / (shape[0] * shape[1])))

    def __call__(self, batch: Tensor) -> list[Tensor]:
        """uint8 (B, H, W, 3) RGB -> the heads' fields, float32 on the CPU."""
        batch = normalise(batch.to(self._device)).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            if self._device.type == "cpu":
                fields = self._graph(batch)(batch)
            else:
                with torch.autocast(self._device.type):
                    fields = self._model(batch)
        return [head.float().cpu() for head in fields]

    def _graph(self, batch: Tensor) -> Any:
        size = tuple(batch.shape[1:])
        if size not in self._graphs:
            if len(self._graphs) >= MAX_GRAPHS:
                del self._graphs[next(iter(self._graphs))]
            # Two pictures: a batch of one could be traced as a constant.
            example = torch.zeros(2, *size).contiguous(memory_format=torch.channels_last)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the heads turn sizes into constants, which is what is wanted here
                traced = torch.jit.trace(self._model, example, check_trace=False)
                self._graphs[size] = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
        return self._graphs[size]


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Fold each batch normalisation that follows a convolution in a Sequential into it, in place; returns the model."""
    for module in model.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for index in range(len(module) - 1):
            convolution, norm = module[index], module[index + 1]
            if type(convolution) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
                module[index] = fuse_conv_bn_eval(convolution, norm)
                module[index + 1] = nn.Identity()
    return model

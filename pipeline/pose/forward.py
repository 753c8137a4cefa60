"""From a frame to the network's fields: settings, the picture, the device, and a fast forward pass."""

from __future__ import annotations

import copy
import os
import socket
import warnings
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import SettingsError, SurroundingsError
from ..executor import WORKER_VARIABLE

# ImageNet's, as openpifpaf normalises.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
PADDING_VALUE = 124  # grey near the mean, on every padded pixel
LONGEST_OF_HEIGHT = 4  # a picture is at most so many times as wide as the height asked for,
LONGEST = 2048  # or so long where a scale is asked for: one odd frame must not exhaust memory
# Pixels of a batch that run fastest: a CPU's caches hold no more (benchmarks/batch_size.py), a GPU wants many.
CPU_PIXELS, CUDA_PIXELS = 1 << 17, 1 << 21


@dataclass(frozen=True)
class DecoderSettings:
    """openpifpaf's own thresholds, 0 to 1, and defaults; the authors' 0.005 and 0.1 come after (method, part 2)."""

    cif: float = 0.3  # evidence for a joint that is added up at all
    seed: float = 0.2  # confidence of a joint from which a person may be grown
    keypoint: float = 0.15  # confidence of a joint that is kept
    instance: float = 0.15  # score of a person that is kept
    force_complete: bool = False  # find every joint of a person whatever its confidence; `keypoint` counts as 0


@dataclass(frozen=True)
class PoseSettings:
    """How frames reach the network and people come out of it; part of the fingerprint of keypoints."""

    input_height: int | None  # pixels that every frame's height is resized to; None where `scale` is given
    scale: float | None = None  # 1 to 3, the picture's pixels for one of the frame; None where `input_height` is given
    batch_size: int | None = None  # frames in one forward pass, by which kernels may round; None: what suits the device
    decoder: DecoderSettings = DecoderSettings()


@dataclass(frozen=True)
class Picture:
    """One frame as the network sees it."""

    frame_size: tuple[int, int]  # width and height of the frame in pixels
    scale: float  # pixels of the picture for a pixel of the frame
    pixels: Tensor  # uint8 (H, W, 3) RGB; sides of the form 16k + 1, padded at the right and below


def make_picture(frame: np.ndarray, settings: PoseSettings) -> Picture:
    """Resize a frame, uint8 (H, W, 3) RGB, keeping its aspect ratio, and pad it."""
    height, width = frame.shape[:2]
    if settings.input_height is not None:
        scale = settings.input_height / max(height, width / LONGEST_OF_HEIGHT)
    else:
        scale = min(settings.scale or 1.0, LONGEST / max(height, width))
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    if (height, width) != (new_height, new_width):
        frame = np.asarray(Image.fromarray(frame).resize((new_width, new_height), Image.Resampling.BILINEAR))
    padded_size = [(size + 14) // 16 * 16 + 1 for size in (new_height, new_width)]
    padded = np.full((*padded_size, 3), PADDING_VALUE, np.uint8)
    padded[:new_height, :new_width] = frame
    return Picture((width, height), scale, torch.from_numpy(padded))


def normalise(pictures: Tensor) -> Tensor:
    """uint8 (..., H, W, 3) RGB -> float32 (..., 3, H, W), on the same device."""
    mean, std = (torch.tensor(values, device=pictures.device) for values in (MEAN, STD))
    return ((pictures.float() / 255 - mean) / std).movedim(-1, -3)


def choose_device(device: str) -> str:
    """The device of this process for "auto" (CUDA where there is one), "cpu" or "cuda"; workers share GPUs in turn.

    Raises:
        SettingsError: there is no CUDA device.
    """
    count = torch.cuda.device_count()
    if device == "cuda" and count == 0:
        raise SettingsError(
            f"CUDA is not available on {socket.gethostname()}",
            "a CUDA device for --device cuda",
            "use --device auto or --device cpu",
        )
    if device == "cpu" or count == 0:
        return "cpu"
    return f"cuda:{int(os.environ.get(WORKER_VARIABLE, 0)) % count}"


def check_device(device: str) -> None:
    """Run one tiny operation, so that a broken device (see choose_device) is found before any frame is blamed for it.

    Raises:
        SurroundingsError: the operation failed.
    """
    try:
        torch.ones(4, device=device).sum().item()
    except (RuntimeError, AssertionError) as error:  # torch raises the latter where it was built without CUDA
        raise SurroundingsError(
            f"device {device} of {socket.gethostname()} does not work ({str(error).splitlines()[0]})",
            "a device that adds four numbers",
            "see nvidia-smi there, or use --device cpu",
        ) from error


class FastForward:
    """A frozen network: batch normalisation folded into the convolutions, then the device's fastest form.

    On a CPU a traced graph is packed for oneDNN, which halves shufflenetv2k16's time; on CUDA the network runs
    channels-last in mixed precision. One graph serves pictures of every size: it ends with the heads' convolutions, as
    what follows them turns sizes into constants, and torch never frees a graph.

    Args:
        model: a network of openpifpaf in eval mode; left as it is.
        device: "cpu", or a CUDA device.
    """

    def __init__(self, model: nn.Module, device: str) -> None:
        folded = fold_batch_norm(copy.deepcopy(model)).to(device)
        trunk = folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = torch.device(device)
        self._heads = trunk.head_nets
        trunk.head_nets = nn.ModuleList([head.conv for head in self._heads])
        for head in self._heads:
            head.conv = nn.Identity()
        self._trunk = trunk
        if self._device.type == "cpu":
            # Two pictures: a batch of one could be traced as a constant. Their size does not matter.
            example = torch.zeros(2, 3, 129, 65).contiguous(memory_format=torch.channels_last)
            with warnings.catch_warnings(), torch.inference_mode():
                warnings.simplefilter("ignore")  # openpifpaf's shape checks are traced as constants, which is harmless
                traced = torch.jit.trace(trunk, example, check_trace=False)
                self._trunk = torch.jit.optimize_for_inference(torch.jit.freeze(traced))

    def suitable_batch(self, shape: torch.Size) -> int:
        """How many pictures of a shape (H, W, 3) run fastest together; at least 1."""
        pixels = CPU_PIXELS if self._device.type == "cpu" else CUDA_PIXELS
        return max(1, round(pixels / (shape[0] * shape[1])))

    def __call__(self, batch: Tensor) -> list[Tensor]:
        """uint8 (B, H, W, 3) RGB -> the heads' fields, float32 on the CPU."""
        batch = normalise(batch.to(self._device)).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(self._device.type, enabled=self._device.type != "cpu"):
            fields = [head(raw) for head, raw in zip(self._heads, self._trunk(batch), strict=True)]
        return [head.float().cpu() for head in fields]


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Fold each batch normalisation that follows a convolution in a Sequential into it, in place; returns the model."""
    for module in model.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for index, (convolution, norm) in enumerate(pairwise(list(module))):
            if type(convolution) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
                module[index] = fuse_conv_bn_eval(convolution, norm)
                module[index + 1] = nn.Identity()
    return model

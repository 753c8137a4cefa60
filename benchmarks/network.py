"""Time and FLOPs of the network and of the plain way: every row of the last blocks, six passes of the part block.

    .venv/bin/python benchmarks/network.py --threads 1
    .venv/bin/python benchmarks/network.py --device cuda --batch 16 --dtype bfloat16 --compile

Both variants at paper size (ViT-B/16, 256x128, 4 frames per clip, 625 identities), random weights, the same parameters
in both ways (network_plain.py). Before anything is timed, both must give the same descriptor, features and frame
scores to 1e-5 (relative, float32) on the device. The ways take turns; printed are medians. FLOPs are those of matrix
products, two for a multiplication with its addition, as torch.utils.flop_counter counts them. bfloat16 is autocast, as
in training.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from network_plain import PlainKeyReID
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from keyreid.model import KeyReID, ModelConfig, build_model
from keyreid.model.network.keyreid import TrainingOutput
from keyreid.pipeline.skeleton import NUM_PARTS

TOLERANCE = 1e-5
SIZES: dict[str, dict[str, Any]] = {
    "paper": {"backbone": "vit_base_patch16_224", "num_identities": 625, "num_cameras": 6},
    "tiny": {
        "backbone": "vit_tiny_patch16_224", "num_identities": 5, "num_cameras": 3, "frame_size": (32, 16),
        "patch_size": 4, "width": 24, "depth": 3, "num_heads": 3, "score_width": 8,
    },
}  # fmt: skip
Inputs = tuple[Tensor, Tensor, Tensor]


def make_inputs(model: KeyReID, num_clips: int, device: str) -> Inputs:
    """Random frames (B, T, 3, H, W), part weights (B, T, N, P) in the variant's range and cameras (B,)."""
    config, (rows, columns) = model.config, model.patch_grid
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(num_clips, config.clip_length, 3, *config.frame_size, generator=generator)
    weights = torch.rand(num_clips, config.clip_length, rows * columns, NUM_PARTS, generator=generator)
    if config.variant == "reference":
        weights = 2 * weights - 1
    cameras = torch.randint(0, config.num_cameras, (num_clips,), generator=generator)
    return frames.to(device), weights.to(device), cameras.to(device)


def check_agreement(ways: dict[str, nn.Module], inputs: Inputs) -> float:
    """Largest relative difference of the ways' descriptors and, in training mode, features and frame scores.

    Logits are left to the tests, in float64: random clips are so alike that a neck's batch statistics magnify rounding.

    Raises:
        SystemExit: it is over the tolerance.
    """
    worst = 0.0
    for training in (False, True):
        found = []
        for way in ways.values():
            torch.manual_seed(2)  # both draw the same stochastic depth and shifts in time
            with torch.no_grad():
                output = way.train(training)(*inputs)
            tensors = (output.global_feature, output.part_features, output.frame_scores) if training else (output,)
            found.append(tensors)
        for ours, plain in zip(*found, strict=True):
            worst = max(worst, ((ours - plain).norm() / plain.norm().clamp_min(1e-12)).item())
    if not worst <= TOLERANCE:
        raise SystemExit(f"Error: the two ways differ by {worst:.1e}; expected {TOLERANCE:.0e} at most")
    return worst


def make_step(way: nn.Module, inputs: Inputs, dtype: torch.dtype, backward: bool) -> Callable[[], None]:
    """One forward pass in eval mode without gradients, or one forward and backward pass in training mode."""
    device = inputs[0].device.type

    def step() -> None:
        way.train(backward)
        with (
            torch.set_grad_enabled(backward),
            torch.autocast(device, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16),
        ):
            output = way(*inputs)
        if backward:
            way.zero_grad(set_to_none=True)
            loss_of(output).backward()

    return step


def loss_of(output: TrainingOutput) -> Tensor:
    """A scalar that every feature, logit and score has a gradient in."""
    return torch.stack([tensor.float().square().mean() for tensor in output[:5]]).sum()


def count_flops(step: Callable[[], None]) -> int:
    """FLOPs of one step; attention as plain products, since the counter knows not every fused kernel."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def medians(steps: dict[str, Callable[[], None]], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each step; they take turns, after two turns that are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in tqdm(range(rounds + 2), leave=False):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn >= 2:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(variant: str, options: argparse.Namespace) -> None:
    """Print the rows of one variant."""
    torch.manual_seed(0)
    model = build_model(ModelConfig(variant=variant, part_pooling="attention", **SIZES[options.size])).to(
        options.device
    )
    inputs = make_inputs(model, options.batch, options.device)
    ways: dict[str, nn.Module] = {"ours": model, "plain": PlainKeyReID(model)}
    difference = check_agreement(ways, inputs)
    dtype = getattr(torch, options.dtype)
    called = {name: torch.compile(way) if options.compile else way for name, way in ways.items()}
    for label, backward in (("forward", False), ("forward + backward", True)):
        if options.passes not in ("both", label.replace(" + ", "+")):
            continue
        flops = {name: count_flops(make_step(way, inputs, dtype, backward)) for name, way in ways.items()}
        steps = {name: make_step(way, inputs, dtype, backward) for name, way in called.items()}
        seconds = medians(steps, options.rounds, options.device)
        print(
            f"| {variant} | {label} | {seconds['plain'] * 1000:.1f} | {seconds['ours'] * 1000:.1f} "
            f"| {seconds['plain'] / seconds['ours']:.2f} | {flops['plain'] / 1e9:.1f} | {flops['ours'] / 1e9:.1f} "
            f"| {flops['plain'] / flops['ours']:.2f} | {difference:.0e} |",
            flush=True,
        )


def main(arguments: list[str] | None = None) -> None:
    """Parse the options, say on what is measured, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=("both", "reference", "aligned"), default="both")
    parser.add_argument("--passes", choices=("both", "forward", "forward+backward"), default="both")
    parser.add_argument("--size", choices=tuple(SIZES), default="paper")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compile", action="store_true", help="both ways through torch.compile")
    parser.add_argument("--batch", type=int, default=2, help="clips; 2 or more, for the batch statistics")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 keeps torch's choice")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    print(
        f"{where}; {platform.machine()}, torch {torch.__version__}; {options.dtype}"
        f"{', compiled' if options.compile else ''}; {options.batch} clips; medians of {options.rounds}\n"
    )
    print("| variant | pass | plain, ms | ours, ms | faster | plain, GFLOP | ours, GFLOP | fewer | difference |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for variant in ("reference", "aligned") if options.variant == "both" else (options.variant,):
        measure(variant, options)


if __name__ == "__main__":
    main()

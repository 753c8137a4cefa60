"""Time of a full training step beside the plain way, where it goes, and what MARS's 120 epochs would take.

    .venv/bin/python benchmarks/step.py --rounds 5
    .venv/bin/python benchmarks/step.py --pooling average --rounds 5
    .venv/bin/python benchmarks/step.py --device cuda --dtype bfloat16 --compile --rounds 50

Both ways train the same parameters with random weights on the same random batch in host memory, at paper size by
default: ViT-B/16, 16 clips of 4 frames of 256x128, 625 identities, 6 cameras. A step is: copy to the device, forward,
losses, backward, both optimisers, moving average. Ours is model/training/step.py as the trainer calls it; the plain way
is step_plain.py.

Augmentation is in our step, where it happens on the device; the plain way gets its frames and patch weights augmented,
as its loader makes them, and pays nothing for it. Before anything is timed, both must give the same loss terms and
the same norm of the gradient (not compiled: torch.compile draws other random numbers). The ways take turns; printed are
medians. Phases come from other turns, where the host waits for the device after each. FLOPs are those of the network's
matrix products, forward and backward, as torch.utils.flop_counter counts them; the utilisation is these, by the time of
a whole step, of what the device's maker states for dense bfloat16, or of --peak-tflops.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Iterator

import torch
from network import medians
from peak_memory import peak, run_alone
from step_ways import Ways, build_ways

from keyreid.model.device import choose_device
from keyreid.model.training.config import RunConfig, resolve_config
from keyreid.model.training.rehearsal import Phases

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # FLOP/s, dense bfloat16, as the maker states them
MARS_CLIPS, MARS_EPOCHS = 7440, 120  # clips per epoch: 465 batches of 16, as the sampler leaves remainders out
PHASE_TURNS = 3


def make_config(options: argparse.Namespace) -> RunConfig:
    """The preset at the asked size, with the paper's optimiser."""
    of_each = 4 if options.clips % 4 == 0 and options.clips >= 8 else 2
    return resolve_config(
        options.preset,
        variant=options.variant,
        assignments=[
            "model.pretrained=''",
            f"model.part_pooling={options.pooling}",
            f"model.clip_length={options.frames}",
            f"training.identities_per_batch={options.clips // of_each}",
            f"training.clips_per_identity={of_each}",
            "training.optimizer=sgd",
            "training.clip_gradient=0",
            f"training.mixed_precision={str(options.dtype == 'bfloat16').lower()}",
            f"training.compile={'default' if options.compile else 'none'}",
        ],
    )


def measure_phases(ways: Ways, turns: int) -> dict[str, dict[str, float]]:
    """Seconds of each phase of each way, the mean over some turns."""

    def wait() -> None:
        if ways.device.type == "cuda":
            torch.cuda.synchronize()

    found = {"plain": Phases(wait), "ours": Phases(wait)}
    for _ in range(turns):
        ways.plain_step(found["plain"])
        ways.our_step(found["ours"])
    return {way: {name: s / turns for name, s in phases.seconds.items()} for way, phases in found.items()}


def peak_memory(steps: dict[str, Callable[[], None]]) -> dict[str, float]:
    """GB of the device in a step of each way, with what both hold all the time."""
    peaks = {}
    for way, step in steps.items():
        torch.cuda.reset_peak_memory_stats()
        step()
        peaks[way] = torch.cuda.max_memory_allocated() / 1e9
    return peaks


def host_peak(options: argparse.Namespace, way: str) -> float:
    """GB of a process that takes one step of one way, with what both hold all the time."""
    ways = prepare_ways(options)
    ways.plain_step() if way == "plain" else ways.our_step()
    return peak()


def table_rows(ways: Ways, rounds: int, flops_peak: float) -> Iterator[str]:
    """The table, row by row.

    Args:
        ways: what to time.
        rounds: turns that count.
        flops_peak: FLOP/s of the device; 0 leaves the utilisation out.
    """
    steps = {"plain": ways.plain_step, "ours": ways.our_step}
    seconds = medians(steps, rounds, ways.device.type)
    clips = len(ways.batch.identities)
    yield _row("step, ms", {way: 1000 * value for way, value in seconds.items()}, "{:.1f}")
    yield _row("clips a second", {way: clips / value for way, value in seconds.items()}, "{:.1f}", times=False)
    hours = {way: MARS_EPOCHS * (MARS_CLIPS // clips) * value / 3600 for way, value in seconds.items()}
    yield _row("120 epochs of MARS, hours", hours, "{:.2f}", times=False)
    yield from _phase_rows(measure_phases(ways, min(PHASE_TURNS, rounds)))
    flops = ways.graph_flops()
    yield _row("GFLOP, forward and backward", {way: value / 1e9 for way, value in flops.items()}, "{:,.0f}")
    if flops_peak:
        shares = {way: 100 * flops[way] / seconds[way] / flops_peak for way in steps}
        yield _row("model-FLOPs utilisation, of the own graph, %", shares, "{:.1f}", times=False)
    if ways.device.type == "cuda":
        yield _row("peak device memory, GB", peak_memory(steps), "{:.1f}")


def _phase_rows(phases: dict[str, dict[str, float]]) -> Iterator[str]:
    for name in phases["ours"]:
        yield _row(f"- {name}, ms", {way: 1000 * phases[way].get(name, 0.0) for way in phases}, "{:.1f}")


def _row(name: str, values: dict[str, float], form: str, *, times: bool = True) -> str:
    ratio = f"{values['plain'] / values['ours']:.2f}" if times and values["ours"] else ""
    return f"| {name} | {form.format(values['plain'])} | {form.format(values['ours'])} | {ratio} |"


def prepare_ways(options: argparse.Namespace) -> Ways:
    return build_ways(
        make_config(options),
        choose_device(options.device),
        num_identities=options.identities,
        num_cameras=options.cameras,
        compile_plain=options.compile_plain,
    )


def main(arguments: list[str] | None = None) -> None:
    """Parse the options, say on what is measured, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="vit-base")
    parser.add_argument("--variant", choices=("aligned", "reference"), default="aligned")
    parser.add_argument(
        "--pooling",
        choices=("attention", "average"),
        default="attention",
        help="the paper's part block, or the default of the aligned variant",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="bfloat16 on CUDA alone")
    parser.add_argument("--compile", action="store_true", help="our network through torch.compile")
    parser.add_argument("--compile-plain", action="store_true", help="the plain network, too")
    parser.add_argument("--clips", type=int, default=16, help="of a batch; an even number from 4 on")
    parser.add_argument("--frames", type=int, default=4, help="of a clip")
    parser.add_argument("--identities", type=int, default=625)
    parser.add_argument("--cameras", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 keeps torch's choice")
    parser.add_argument("--peak-tflops", type=float, help="of the device in this precision, for the utilisation")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    if device.type == "cpu" and options.dtype == "bfloat16":
        parser.error("--dtype bfloat16 needs CUDA: the trainer computes in float32 on a CPU")
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    stated = next((flops for name, flops in PEAKS.items() if name in where and options.dtype == "bfloat16"), 0.0)
    flops_peak = 1e12 * options.peak_tflops if options.peak_tflops else stated
    ways = prepare_ways(options)
    compiled = [way for way, asked in (("ours", options.compile), ("plain", options.compile_plain)) if asked]
    print(
        f"{where}; {platform.machine()}, torch {torch.__version__}; {options.dtype}"
        f"{''.join(f', {way} compiled' for way in compiled)}; {options.preset}, {options.variant}; "
        f"{options.clips} clips of {options.frames} frames; medians of {options.rounds}\n"
    )
    difference = ways.check()
    print("| | plain | ours | times |\n| --- | --- | --- | --- |", flush=True)
    for row in table_rows(ways, options.rounds, flops_peak):
        print(row, flush=True)
    if device.type == "cpu":
        del ways
        peaks = {way: run_alone(host_peak, options, way, threads=torch.get_num_threads()) for way in ("plain", "ours")}
        print(_row("peak memory of a process of its own, GB", peaks, "{:.1f}"))
    print(f"\nLoss terms and norm of the gradient differ by {difference:.0e} at most.")
    print(
        f"MARS: {MARS_CLIPS // options.clips} batches per epoch of its 8,298 training tracklets: the sampler leaves "
        "remainders of identities to other epochs. Steps alone, if data is in time."
    )


if __name__ == "__main__":
    main()

"""What the host does in a training step, and into how many graphs torch.compile makes it; a CPU is enough.

    .venv/bin/python benchmarks/step_host.py
    .venv/bin/python benchmarks/step_host.py --compile default
    .venv/bin/python benchmarks/step_host.py --compile default --backend aot_eager --set model.part_pooling=attention

The preset's network at its full depth on tensors so small that kernels take no time: what is left is what a fast device
would wait for. Operators are those that Python or autograd calls (an operator within another one and the kernels of
compiled graphs are not counted), as torch.profiler sees them. Time is of the process's CPU, so that other work on the
machine counts little.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch
from step_ways import make_batch
from torch._dynamo.utils import counters
from torch.profiler import ProfilerActivity, profile

from keyreid.model.data.labels import LabelTables
from keyreid.model.training.config import resolve_config
from keyreid.model.training.state import build_state
from keyreid.model.training.step import train_step

SMALL = (
    "model.pretrained=''", "model.frame_size=[64, 32]", "model.width=48", "model.num_heads=4", "model.score_width=8",
    "training.identities_per_batch=2", "training.clips_per_identity=2",
)  # fmt: skip
WARMUP, PROFILED = 3, 3
COMPILED_FUNCTIONS = 2  # network; losses


def main(arguments: list[str] | None = None) -> None:
    """Parse the options and print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="vit-base")
    parser.add_argument("--compile", default="none", choices=("none", "default", "reduce-overhead"))
    parser.add_argument("--backend", default="inductor", help="of torch.compile; aot_eager generates no code")
    parser.add_argument("--set", action="append", default=[], help="SECTION.KEY=VALUE, as keyreid-train takes it")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.backend != "inductor":
        real = torch.compile
        torch.compile = lambda function, mode, dynamic: real(function, backend=options.backend, dynamic=dynamic)
    values = [*SMALL, *options.set, f"training.compile={options.compile}"]
    config = resolve_config(options.preset, assignments=values)
    labels = LabelTables(tuple(range(10)), (0, 1))
    state = build_state(config.model_config(labels), config.training, torch.device("cpu"))
    batch = make_batch(config, 10, 2)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        train_step(state, batch, config, 0)
        state.average.update(done)

    began = time.perf_counter()
    step()
    print(f"first step, s                        {time.perf_counter() - began:.1f}", flush=True)
    for _ in range(WARMUP):
        step()
    seconds, averaging = [], []
    for _ in range(options.rounds):
        began_cpu = time.process_time()
        step()
        seconds.append(time.process_time() - began_cpu)
        began_cpu = time.process_time()
        state.average.update(done)
        averaging.append(time.process_time() - began_cpu)
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        for _ in range(PROFILED):
            step()
    events = [event for event in profiler.events() if event.name.startswith("aten::")]
    operators = sum(not _within_operator(event) for event in events)
    print(f"CPU ms per step, median              {1000 * median(seconds):.2f}")
    print(f"CPU ms of the moving average, median {1000 * median(averaging):.2f}")
    print(f"operators per step                   {operators / PROFILED:.0f}")
    if options.compile != "none":
        graphs = counters["stats"]["unique_graphs"]
        print(f"graphs, recompilations               {graphs}, {graphs - COMPILED_FUNCTIONS}")
        print(f"graph breaks                         {sum(counters['graph_break'].values())}")


def _within_operator(event: torch.autograd.profiler_util.FunctionEvent) -> bool:
    parent = event.cpu_parent
    while parent is not None:
        if parent.name.startswith("aten::"):
            return True
        parent = parent.cpu_parent
    return False


if __name__ == "__main__":
    main()

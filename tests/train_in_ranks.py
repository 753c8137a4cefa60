"""What torchrun starts in test_training_ranks.py: several runs, one after another, in the same processes."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from training_fixtures import CPU

from keyreid.cli.train import main
from keyreid.model.training import loop
from keyreid.model.training.config import resolve_config
from keyreid.model.training.failures import TrainingStopped
from keyreid.model.training.trainer import train
from keyreid.pipeline.errors import KeyReIDError


def run(prepared: Path, runs: Path, plan: dict[str, list[str]]) -> None:
    for name in ("gathered", "shared", "checkpointed"):
        train(prepared, runs / name, resolve_config("demo", assignments=plan[name]), device=CPU)
    stop_one_rank(prepared, runs / "stopped", plan["gathered"])
    try:
        train(prepared, runs / "exploded", resolve_config("vit-small", assignments=plan["exploding"]), device=CPU)
    except KeyReIDError as error:
        (runs / f"error-{os.environ['RANK']}.txt").write_text(f"{type(error).__name__}: {error}")


def stop_one_rank(prepared: Path, folder: Path, assignments: list[str]) -> None:
    """The second rank alone gets a signal in its third step; then both go on."""
    real = loop.train_step

    def step(state, batch, config, epoch):
        if os.environ["RANK"] == "1" and (epoch, batch.step) == (1, 0):
            os.kill(os.getpid(), signal.SIGUSR1)
        return real(state, batch, config, epoch)

    config = resolve_config("demo", assignments=assignments)
    loop.train_step = step
    try:
        train(prepared, folder, config, device=CPU)
    except TrainingStopped:
        loop.train_step = real
        train(prepared, folder, config, device=CPU, resume=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    given = json.loads(sys.argv[1])
    run(Path(given["prepared"]), Path(given["runs"]), given["plan"])
    main(given["command"])

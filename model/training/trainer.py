"""The training loop, in the order things happen."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from keyreid.model.data.loader import TrainingLoader
from keyreid.model.network.model_card import write_model_card
from keyreid.model.network.weights import save_model
from keyreid.pipeline.progress import progress_bar

from .checkpoint import load_checkpoint, save_checkpoint
from .config import RunConfig
from .inputs import open_inputs
from .run_folder import RunFolder, dataset_settings
from .schedule import cosine_schedule
from .state import TrainingState, build_state
from .step import train_step
from .step_log import StepLog


@dataclass(frozen=True)
class TrainingSummary:
    """What a finished run did.

    Attributes:
        weights: folder of the exported network, for load_model and keyreid-eval.
        epochs, steps: done in all, with what was done before a resume.
        seconds: of this call.
        loss: mean total loss of the last epoch; None where nothing was left to do.
        num_tracklets, num_identities: trained on.
        device: "cpu" or "cuda".
    """

    weights: str
    epochs: int
    steps: int
    seconds: float
    loss: float | None
    num_tracklets: int
    num_identities: int
    device: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def train(
    prepared: Path,
    run: Path,
    config: RunConfig,
    *,
    device: torch.device,
    num_workers: int = 0,
    identity_split: int = 0,
    resume: bool = False,
    tensorboard: bool = False,
) -> TrainingSummary:
    """Train on the training split of a prepared dataset; RUN/weights holds the moving average at the end.

    Raises:
        FormatError: no prepared dataset, or its shards are missing.
        SettingsError: too few identities, RUN in use, or other settings than the run to resume had.
        CheckpointError: nothing to resume, or a broken checkpoint.
        KeyReIDError: the loss became NaN or infinite.
    """
    began = time.monotonic()
    inputs = open_inputs(prepared, config, device=device, num_workers=num_workers, identity_split=identity_split)
    store, tracklets, labels, loader = inputs
    model_config = config.model_config(labels)
    settings = {
        **config.to_dict(),
        "model": model_config.to_dict(),
        "dataset": dataset_settings(prepared, store.manifest, identity_split),
    }
    folder = RunFolder(run, settings, resume=resume, tensorboard=tensorboard)
    state = build_state(model_config, config.training, device)
    folder.begin()
    first_epoch, steps = 0, 0
    if folder.checkpoint.exists():
        first_epoch, steps = load_checkpoint(folder.checkpoint, state)
    folder.drop_metrics_from(first_epoch)
    means: dict[str, float] = {}
    if first_epoch < config.training.epochs:
        steps, means = _train_epochs(state, loader, config, folder, first_epoch, steps)
    return TrainingSummary(
        str(folder.weights), config.training.epochs, steps, time.monotonic() - began, means.get("total"),
        len(tracklets), len(labels.identities), device.type,
    )  # fmt: skip


def _train_epochs(
    state: TrainingState, loader: TrainingLoader, config: RunConfig, folder: RunFolder, first_epoch: int, steps: int
) -> tuple[int, dict[str, float]]:
    """Train from `first_epoch` to the end; returns the steps done in all and the last epoch's mean loss terms."""
    training = config.training
    schedule = cosine_schedule(state.optimizer, training)
    per_epoch = loader.steps(first_epoch)
    means: dict[str, float] = {}
    # An estimate: epochs differ by a few batches, and the bar is corrected after each.
    clips = loader.sampler.batch_size
    total = steps + (training.epochs - first_epoch) * per_epoch
    bar = progress_bar(total * clips, "train", "clips", done=steps * clips)
    with bar:
        for epoch in range(first_epoch, training.epochs):
            began = time.monotonic()
            schedule.step(epoch)
            done, means = _train_epoch(state, loader, config, folder, bar, epoch, steps)
            steps += done
            seconds = time.monotonic() - began
            last = epoch + 1 == training.epochs
            rate = done * loader.sampler.batch_size / seconds
            record = {"kind": "epoch", "epoch": epoch, "steps": steps, "learning_rate": _rate(state), **means}
            folder.log({**record, "seconds": round(seconds, 3), "clips_per_second": round(rate, 2)})
            if last or (epoch + 1) % training.checkpoint_every == 0:
                save_model(
                    state.average.module, folder.weights, {**folder.dataset, "epochs": epoch + 1, "steps": steps}
                )
                write_model_card(folder.weights)
                save_checkpoint(folder.checkpoint, state, epochs_done=epoch + 1, steps_done=steps)
                folder.write_page()
            bar.total = (steps + (training.epochs - epoch - 1) * per_epoch) * clips
    return steps, means


def _train_epoch(
    state: TrainingState,
    loader: TrainingLoader,
    config: RunConfig,
    folder: RunFolder,
    bar: tqdm,
    epoch: int,
    steps: int,
) -> tuple[int, dict[str, float]]:
    """One epoch; returns its number of steps and mean loss terms. `steps` were done before it."""
    device = next(state.model.parameters()).device
    log, done = StepLog(), 0
    for batch in loader.epoch(epoch):
        terms = train_step(state, batch.to(device), config, epoch)
        done += 1
        state.average.update(state.model, step=steps + done)
        log.add(epoch, batch.step, batch.tracklet_ids.tolist(), terms)
        if log.pending == config.training.log_every:
            _report(log, folder, bar, epoch, steps + done, _rate(state))
        bar.update(loader.sampler.batch_size)
    if log.pending:
        _report(log, folder, bar, epoch, steps + done, _rate(state))
    return done, log.epoch_means()


def _report(log: StepLog, folder: RunFolder, bar: tqdm, epoch: int, steps: int, rate: float) -> None:
    terms = log.flush()
    folder.log({"kind": "step", "epoch": epoch, "steps": steps, "learning_rate": rate, **terms})
    shown = {"epoch": epoch + 1, "rate": f"{rate:.1e}", **{name: f"{value:.3g}" for name, value in terms.items()}}
    bar.set_postfix(shown)


def _rate(state: TrainingState) -> float:
    return float(state.optimizer.param_groups[0]["lr"])

"""Epochs, in the order things happen: steps, losses, measuring, saving."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from keyreid.model.distributed import Ranks, StopVote
from keyreid.model.network.model_card import write_model_card
from keyreid.model.network.weights import save_model
from keyreid.pipeline.environment import progress_bar

from .checkpoint import Progress, save_checkpoint
from .config import RunConfig
from .inputs import TrainingInputs, require_same_shards
from .memory import peak_memory
from .run_folder import RunFolder
from .schedule import cosine_schedule
from .signals import StopRequest
from .state import TrainingState
from .step import train_step
from .step_log import StepLog

BEST_FOLDERS = {"mAP": "best-map", "rank1": "best-rank1"}


class TrainingLoop:
    """Trains from where `progress` stands to the end; every rank runs one, and the first one writes.

    Args:
        state: what training changes.
        inputs: batches, and what to measure on.
        config: of the run.
        folder: of the run.
        progress: where the run stands; kept up to date.
        ranks: this process among those that train together.
        stop: of the signals.
    """

    def __init__(
        self,
        state: TrainingState,
        inputs: TrainingInputs,
        config: RunConfig,
        folder: RunFolder,
        progress: Progress,
        ranks: Ranks,
        stop: StopRequest,
    ) -> None:
        self.state, self.inputs, self.training, self.folder = state, inputs, config.training, folder
        self.config, self.progress, self.ranks, self.stop = config, progress, ranks, stop
        self.device = next(state.model.parameters()).device
        self._vote = StopVote(ranks)

    def run(self) -> dict[str, float]:
        """Train; returns the mean loss terms of the last epoch, {} where nothing was left to do.

        Raises:
            TrainingStopped: a signal came; the checkpoint holds the state after the last step.
            KeyReIDError: the loss became NaN or infinite, the disk is full, or shards were rebuilt.
        """
        progress, loader, clips = self.progress, self.inputs.loader, self.inputs.loader.sampler.batch_size
        schedule = cosine_schedule(self.state.optimizer, self.training)
        means: dict[str, float] = {}
        with progress_bar(None, "train", "clips", progress.steps * clips, hidden=not self.ranks.is_first) as bar:
            while progress.epoch < self.training.epochs:
                self.ranks.first_alone(lambda: require_same_shards(self.inputs.store))
                # An estimate: epochs differ by a few batches.
                steps = progress.steps - progress.step + loader.steps(progress.epoch) * self._epochs_left()
                bar.total = steps * clips
                schedule.step(progress.epoch)
                means = self._epoch(bar)
        self._vote.close()
        return means

    def _epochs_left(self) -> int:
        return self.training.epochs - self.progress.epoch

    def _epoch(self, bar: tqdm) -> dict[str, float]:
        """The rest of one epoch, and what is due after it; returns its mean loss terms."""
        progress, training = self.progress, self.training
        log = StepLog(progress.epoch, self.ranks, self.folder.checkpoint, progress.log)
        began = time.monotonic() - progress.seconds
        for batch in self.inputs.loader.epoch(progress.epoch, progress.step):
            terms = train_step(self.state, batch.to(self.device), self.config, progress.epoch)
            progress.step, progress.steps = progress.step + 1, progress.steps + 1
            if self.ranks.is_first:
                self.state.average.update(progress.steps)
            log.add(batch.step, batch.tracklet_ids.tolist(), terms)
            if log.pending == training.log_every:
                self._report(log, bar)
            bar.update(self.inputs.loader.sampler.batch_size)
            stopping = self._vote.cast(self.stop.requested)
            if stopping or (training.checkpoint_every_steps and progress.step % training.checkpoint_every_steps == 0):
                self._save(log, time.monotonic() - began)
            if stopping:
                raise self.stop.stopped(self.folder.checkpoint)
        measures = self.inputs.validation is not None and self._is_due(training.evaluate_every)
        if measures:
            self._save(log, time.monotonic() - began)  # a signal may end the measuring, which takes long
        if log.pending:
            self._report(log, bar)
        means = log.epoch_means()
        self._log("epoch", **means, **self._speed(time.monotonic() - began), **peak_memory(self.device))
        if measures:
            self.ranks.first_alone(self._measure)
        saves = self._is_due(training.checkpoint_every)
        progress.epoch, progress.step, progress.seconds, progress.log = progress.epoch + 1, 0, 0.0, {}
        if saves:
            self._save()
            self.ranks.first_alone(self._export)
        return means

    def _is_due(self, every: int) -> bool:
        return self._epochs_left() == 1 or (self.progress.epoch + 1) % every == 0

    def _report(self, log: StepLog, bar: tqdm) -> None:
        terms = log.flush()
        self._log("step", **terms)
        shown = {name: f"{value:.3g}" for name, value in terms.items()}
        bar.set_postfix({"epoch": self.progress.epoch + 1, "rate": f"{self._rate():.1e}", **shown})

    def _log(self, kind: str, **values: Any) -> None:
        """A line of metrics.jsonl."""
        self.progress.records += 1
        if self.ranks.is_first:
            place = {"kind": kind, "epoch": self.progress.epoch, "steps": self.progress.steps}
            rate = {} if kind == "evaluation" else {"learning_rate": self._rate()}
            self.folder.log({**place, **rate, **values})

    def _rate(self) -> float:
        return float(self.state.optimizer.param_groups[0]["lr"])

    def _speed(self, seconds: float) -> dict[str, float]:
        clips = self.progress.step * self.inputs.loader.sampler.batch_size
        share = round(self.inputs.loader.waiting_share, 4)
        return {"seconds": round(seconds, 3), "clips_per_second": round(clips / seconds, 2), "waiting_share": share}

    def _measure(self) -> None:
        """Measure the moving average, and keep it where it is the best so far."""
        assert self.inputs.validation is not None
        with self.stop.at_once(self.folder.checkpoint):
            numbers = self.inputs.validation.measure(self.state.average.module)
        self._log("evaluation", **numbers)
        for measure, name in BEST_FOLDERS.items():
            value = float(numbers[measure])
            if measure not in self.progress.best or value > self.progress.best[measure]["value"]:
                self.progress.best[measure] = {"value": value, "epochs": self.progress.epoch + 1}
                self._write_weights(self.folder.path / name, self.progress.epoch + 1, evaluation=numbers)

    def _export(self) -> None:
        self._write_weights(self.folder.weights, self.progress.epoch)
        self.folder.write_page()

    def _write_weights(self, folder: Path, epochs: int, **extra: Any) -> None:
        made_by = {**self.folder.dataset, "epochs": epochs, "steps": self.progress.steps, **extra}
        save_model(self.state.average.module, folder, made_by)
        write_model_card(folder)

    def _save(self, log: StepLog | None = None, seconds: float = 0.0) -> None:
        """The checkpoint: of an epoch that is under way, with its log, or between two epochs."""
        if log is not None:
            log.read()
            self.progress.log, self.progress.seconds = log.state(), seconds
        if self.ranks.is_first:
            save_checkpoint(self.folder.checkpoint, self.state, self.progress)

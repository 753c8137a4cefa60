"""Epochs, in the order things happen: steps, losses, measuring, saving."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from keyreid.model.distributed import EndedElsewhere, Ranks, StopVote
from keyreid.model.network.model_card import write_model_card
from keyreid.model.network.weights import save_model
from keyreid.pipeline.environment import progress_bar
from keyreid.pipeline.errors import KeyReIDError

from .checkpoint import Progress, save_checkpoint
from .config import RunConfig
from .failures import StopRequest, peak_memory
from .inputs import TrainingInputs, require_same_shards
from .losses import LossTerms
from .run_folder import RunFolder
from .state import TrainingState, cosine_schedule
from .step import train_step

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


class StepLog:
    """Collects loss terms of one epoch on the device; reading them makes the host wait, and checks all of them.

    A loss that is not finite is found at the next reading, which comes before anything is saved.

    Args:
        epoch: named in the message of a loss that is not finite.
        ranks: terms are means over them.
        checkpoint: of the run, named there too.
        remembered: `state` of a log that is resumed.
    """

    def __init__(self, epoch: int, ranks: Ranks, checkpoint: Path, remembered: dict[str, Any] | None = None) -> None:
        remembered = remembered or {"sum": [0.0] * len(LossTerms._fields), "count": 0, "unreported": []}
        self._epoch, self._ranks, self._checkpoint = epoch, ranks, checkpoint
        self._sum, self._count = torch.tensor(remembered["sum"]), int(remembered["count"])
        self._read = [torch.tensor(row) for row in remembered["unreported"]]
        self._unread: list[Tensor] = []
        self._places: list[tuple[int, list[int]]] = []

    def add(self, step: int, tracklet_ids: list[int], terms: LossTerms) -> None:
        self._unread.append(torch.stack([term.detach() for term in terms]))
        self._places.append((step, tracklet_ids))

    def flush(self) -> dict[str, float]:
        """Mean terms since the last flush.

        Raises:
            KeyReIDError: a loss was NaN or infinite.
        """
        self.read()
        values = torch.stack(self._read)
        self._sum, self._count, self._read = self._sum + values.sum(0), self._count + len(values), []
        return _named(values.mean(0))

    def read(self) -> None:
        """Fetch the terms that are still on the device; every rank does so at the same step.

        Raises:
            KeyReIDError: a loss was NaN or infinite.
        """
        if not self._unread:
            return
        values = self._ranks.mean(torch.stack(self._unread)).cpu()
        for (step, tracklet_ids), row in zip(self._places, values, strict=True):
            if not row.isfinite().all():
                self._refuse(step, tracklet_ids, row)
        self._read += list(values)
        self._unread, self._places = [], []

    def state(self) -> dict[str, Any]:
        """What `remembered` takes, after `read`: float32 values as numbers that JSON gives back exactly."""
        return {"sum": self._sum.tolist(), "count": self._count, "unreported": [row.tolist() for row in self._read]}

    def epoch_means(self) -> dict[str, float]:
        """Mean terms over everything flushed."""
        return _named(self._sum / max(1, self._count))

    @property
    def pending(self) -> int:
        """Steps since the last flush."""
        return len(self._read) + len(self._unread)

    def _refuse(self, step: int, tracklet_ids: list[int], row: Tensor) -> None:
        everyones = [number for ids in self._ranks.collect(tracklet_ids) for number in ids]
        if not self._ranks.is_first:
            raise EndedElsewhere()
        terms = ", ".join(f"{name} {value:.4g}" for name, value in _named(row).items())
        kept = (
            f"the last checkpoint is from before it: {self._checkpoint}"
            if self._checkpoint.exists()
            else "there is no checkpoint yet"
        )
        raise KeyReIDError(
            f"the loss is not finite in epoch {self._epoch}, step {step} ({terms}), "
            f"tracklets {', '.join(map(str, everyones))}; {kept}",
            "a finite loss",
            "lower training.learning_rate or set training.clip_gradient",
        )


def _named(row: Tensor) -> dict[str, float]:
    return {name: float(value) for name, value in zip(LossTerms._fields, row, strict=True)}

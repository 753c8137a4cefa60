"""The training stage: a prepared dataset in, a run folder out."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from keyreid.model.distributed import Ranks, joined

from .checkpoint import Progress, load_checkpoint
from .config import RunConfig
from .failures import explained, peak_memory, stop_signals
from .inputs import TrainingInputs, compare_shards, open_inputs, remarks
from .loop import TrainingLoop
from .run_folder import RunFolder, dataset_settings
from .start import Start, read_start, refuse_seen_test_people, start_from
from .state import build_state

logger = logging.getLogger(__name__)


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
        best: "mAP" and "rank1" -> the highest value during training and after how many epochs; {} without validation.
        memory: see peak_memory.
    """

    weights: str
    epochs: int
    steps: int
    seconds: float
    loss: float | None
    num_tracklets: int
    num_identities: int
    device: str
    best: dict[str, dict[str, float]] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)

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
    start: Path | None = None,
    same_cameras: bool = False,
) -> TrainingSummary:
    """Train on the training split of a prepared dataset; RUN/weights holds the moving average at the end.

    With `start`, a run or folder of weights, the network starts from what that one has learnt; see start.start_from.
    Started by torchrun, the processes train together, each on the CUDA device of its local rank, and the first writes.

    Raises:
        FormatError: no prepared dataset, or its shards are missing, damaged or were rebuilt during the run.
        SettingsError: too few identities, RUN in use, or other settings than the run to resume had.
        CheckpointError: nothing to resume, or a broken checkpoint.
        TrainingStopped: SIGTERM or SIGUSR1 came; the state is saved.
        EndedElsewhere: another process of the run failed.
        KeyReIDError: the loss became NaN or infinite, memory or disk ran out, or a worker process died.
    """
    began = time.monotonic()
    trained = read_start(start) if start else None
    with (
        ExitStack() as stack,
        stop_signals() as stop,
        joined(device) as (ranks, own_device),
        explained(config, own_device),
    ):
        inputs, folder = ranks.together(
            lambda: _open(
                prepared, run, config, own_device, num_workers, identity_split, resume, tensorboard, ranks, trained
            )
        )
        if ranks.is_first:
            for remark in remarks(inputs):
                logger.warning(remark)
        ranks.together(lambda: compare_shards(inputs, ranks))
        ranks.first_alone(lambda: stack.enter_context(folder.held()))
        adopt = None
        if trained is not None:
            same = same_cameras or trained.dataset.get("manifest") == inputs.store.manifest.fingerprint
            adopt = partial(start_from, start=trained, same_cameras=same)
        state = build_state(config.model_config(inputs.labels), config.training, own_device, ranks, adopt)
        progress = Progress()
        if folder.checkpoint.exists():
            progress = ranks.together(lambda: load_checkpoint(folder.checkpoint, state))
        ranks.first_alone(folder.begin)
        ranks.first_alone(lambda: folder.keep_metrics(progress.records))
        means = TrainingLoop(state, inputs, config, folder, progress, ranks, stop).run()
        return TrainingSummary(
            weights=str(folder.weights),
            epochs=progress.epoch,
            steps=progress.steps,
            seconds=time.monotonic() - began,
            loss=means.get("total"),
            num_tracklets=len(inputs.tracklets),
            num_identities=len(inputs.labels.identities),
            device=own_device.type,
            best=progress.best,
            memory=peak_memory(own_device),
        )


def _open(
    prepared: Path,
    run: Path,
    config: RunConfig,
    device: torch.device,
    num_workers: int,
    identity_split: int,
    resume: bool,
    tensorboard: bool,
    ranks: Ranks,
    trained: Start | None,
) -> tuple[TrainingInputs, RunFolder]:
    inputs = open_inputs(
        prepared, config, device=device, num_workers=num_workers, identity_split=identity_split, ranks=ranks
    )
    settings = {
        **config.to_dict(),
        "model": config.model_config(inputs.labels).to_dict(),
        "dataset": dataset_settings(inputs.store, identity_split),
    }
    if trained is not None:
        refuse_seen_test_people(trained, settings["dataset"])
        settings["origin"] = trained.origin
    return inputs, RunFolder(run, settings, resume=resume, tensorboard=tensorboard)

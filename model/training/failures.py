"""Errors of libraries in the middle of training, in words that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from keyreid.model.data.reading import worker_death
from keyreid.pipeline.commit import FULL
from keyreid.pipeline.errors import KeyReIDError, NotEnoughMemoryError

from .config import RunConfig

_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


@contextmanager
def explained(config: RunConfig, device: torch.device) -> Iterator[None]:
    """Within, running out of memory or of disk raises a KeyReIDError, and so does the death of a worker process."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # DataLoader raises it in a signal handler, wherever the trainer is at that moment.
        death = worker_death(error) if isinstance(error, RuntimeError) else None
        if death is not None:
            raise death from error
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in _NO_MEMORY):
            raise
        raise _out_of_memory(config, device, error) from error
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise KeyReIDError(
            f"there is no room to write the run ({error})",
            "",
            "free some space; the same command with --resume goes on",
        ) from error


def _out_of_memory(config: RunConfig, device: torch.device, error: BaseException) -> NotEnoughMemoryError:
    training = config.training
    height, width = config.model.frame_size
    size = f"{training.clips_per_batch} clips of {config.model.clip_length} frames of {height}x{width}"
    recompute = "training.checkpoint_blocks=true recomputes the blocks in the backward pass, with the same result; or "
    smaller = "smaller batches: training.batch_scale, training.identities_per_batch, training.clips_per_identity"
    return NotEnoughMemoryError(
        f"the {device.type} has no memory left for batches of {size} "
        f"({str(error).splitlines()[0] if str(error) else type(error).__name__})",
        "",
        f"--set {'' if training.checkpoint_blocks else recompute}{smaller}",
    )

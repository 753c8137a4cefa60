"""The records of metrics.jsonl as TensorBoard events."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyreid.pipeline.errors import SettingsError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_PLACE = ("kind", "epoch", "steps")


class TensorBoardLog:
    """Writes each number of a record as the scalar KIND/NAME at its number of steps; on disk at once.

    Args:
        folder: where the event file goes.
        steps_done: what an earlier process logged after these steps is hidden: those steps are done again.

    Raises:
        SettingsError: the package tensorboard is not installed.
    """

    def __init__(self, folder: Path, *, steps_done: int) -> None:
        self._writer = _writer_class()(str(folder), purge_step=steps_done + 1)

    def add(self, record: dict[str, Any]) -> None:
        for name, value in record.items():
            if name not in _PLACE and isinstance(value, int | float):
                self._writer.add_scalar(f"{record['kind']}/{name}", value, record["steps"])
        self._writer.flush()


def require_tensorboard() -> None:
    """Find out before anything is written.

    Raises:
        SettingsError: the package tensorboard is not installed.
    """
    _writer_class()


def _writer_class() -> type[SummaryWriter]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SettingsError(
            f"TensorBoard events were asked for, and tensorboard cannot be imported ({error})",
            "the package tensorboard",
            "pip install 'keyreid[tensorboard]', or leave out --tensorboard: metrics.jsonl has the same numbers",
        ) from error
    return SummaryWriter

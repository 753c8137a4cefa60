"""RUN/: what a run writes, and whether it may resume there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keyreid.pipeline.commit import commit_file, exclusive, fingerprint, read_json, write_json
from keyreid.pipeline.environment import package_versions
from keyreid.pipeline.errors import CheckpointError, SettingsError
from keyreid.pipeline.store import TrackletStore

from .checkpoint import checkpoint_path
from .config import config_text
from .metrics_file import Record, append_record, keep_records, read_records

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

UNUSED = ("profile", ".lock")  # what may be in a folder where no run was started
_PACKAGES = ("torch", "torchvision", "timm", "numpy", "safetensors")


class RunFolder:
    """RUN/config.json, config.yaml, metrics.jsonl, training.html, curves/, checkpoints/, weights/ and tensorboard/.

    Args:
        path: RUN.
        settings: everything that decides the result, as JSON values; kept in config.json.
        resume: continue the run that is there.
        tensorboard: write what is logged as TensorBoard events, too.

    Raises:
        SettingsError: RUN is in use and `resume` was not asked for, or it was and the settings differ; or tensorboard
            is not installed.
        CheckpointError: there is no run to resume.
    """

    def __init__(self, path: Path, settings: dict[str, Any], *, resume: bool, tensorboard: bool = False) -> None:
        self.path, self._settings, self._resume = path, settings, resume
        self._config_path = path / "config.json"
        self._wants_tensorboard = tensorboard
        self._tensorboard: TensorBoardLog | None = None
        if tensorboard:
            require_tensorboard()
        if resume:
            if not self._config_path.is_file():
                raise CheckpointError(f"there is no run to resume in {path}", "", "leave out --resume to start one")
            _refuse_differences(path, read_json(self._config_path)["settings"], settings)
        else:
            self._require_unused()

    def _require_unused(self) -> None:
        path = self.path
        if path.exists() and (not path.is_dir() or any(entry.name not in UNUSED for entry in path.iterdir())):
            raise SettingsError(
                f"{path} already exists", "a new folder", "add --resume to continue that run, or choose another --out"
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, no other process can train into RUN; what a killed one left half-written goes first.

        Raises:
            SettingsError: another one does, or did since this object was made.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with exclusive(self.path):
            if not self._resume:
                self._require_unused()
            for leftover in self.path.rglob(".*.partial"):
                leftover.unlink()
            yield

    def begin(self) -> None:
        """Write config.json and config.yaml; from here on RUN is in use."""
        if not self._config_path.exists():
            write_json(self._config_path, {"settings": self._settings, "versions": package_versions(*_PACKAGES)})
            _commit(self.path / "config.yaml", config_text(self._settings).encode())

    @property
    def checkpoint(self) -> Path:
        return checkpoint_path(self.path)

    @property
    def dataset(self) -> dict[str, Any]:
        """What names the data and the network that the run started from; exported with the weights."""
        return {key: self._settings[key] for key in ("dataset", "origin") if key in self._settings}

    @property
    def weights(self) -> Path:
        """Folder of the exported network, see network.weights.save_model."""
        return self.path / "weights"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def log(self, record: Record) -> None:
        """Append one line to metrics.jsonl, and its numbers to TensorBoard's events."""
        if self._wants_tensorboard and self._tensorboard is None:
            done = max((line["steps"] for line in read_records(self.metrics)), default=0)
            self._tensorboard = TensorBoardLog(self.path / "tensorboard", steps_done=done)
        append_record(self.metrics, record)
        if self._tensorboard is not None:
            self._tensorboard.add(record)

    def keep_metrics(self, count: int) -> None:
        """Forget all but the first lines: what a stopped run logged after its checkpoint is done again."""
        keep_records(self.metrics, count)

    def write_page(self) -> None:
        """Draw what was logged so far: curves/*.png, and training.html with all of them."""
        from .run_page import (
            draw_curves,  # matplotlib is slow to load, and not every process draws
            run_page,
        )

        records = read_records(self.metrics)
        pictures = draw_curves(records)
        for name, png in pictures.items():
            _commit(self.path / "curves" / f"{name}.png", png)
        versions = read_json(self._config_path)["versions"]
        text = config_text(self._settings)
        page = run_page(self.path.absolute().name, self._settings, versions, text, records, pictures)
        _commit(self.path / "training.html", page.encode())


def dataset_settings(store: TrackletStore, identity_split: int) -> dict[str, Any]:
    """What names the data of a run: the manifest, the division of the identities, and the shards' checksums."""
    return {
        "name": store.manifest.name,
        "manifest": store.manifest.fingerprint,
        "identity_split": identity_split,
        "shards": fingerprint([receipt.sha256 for receipt in store.receipts]),
    }


def _refuse_differences(path: Path, found: dict[str, Any], asked: dict[str, Any]) -> None:
    before, now = _flat(found), _flat(json.loads(json.dumps(asked)))
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if names:
        changes = ", ".join(f"{name} was {before.get(name)} and is {now.get(name)}" for name in names)
        raise SettingsError(
            f"the run in {path} was started with other settings: {changes}",
            "the same command with --resume added",
            "or choose another --out",
        )


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {key: leaf for part in value for key, leaf in _flat(value[part], f"{name}.{part}".lstrip(".")).items()}


def _commit(path: Path, content: bytes) -> None:
    commit_file(path, lambda partial: _write(partial, content))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


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

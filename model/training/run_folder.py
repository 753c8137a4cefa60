"""RUN/: what a run writes, and whether it may go on there."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from keyreid.pipeline.commit import commit_file, fingerprint, read_json, read_receipt, write_json
from keyreid.pipeline.errors import CheckpointError, SettingsError
from keyreid.pipeline.manifest import Manifest, manifest_fingerprint

from .checkpoint import checkpoint_path

_PACKAGES = ("keyreid", "torch", "torchvision", "timm", "numpy", "safetensors")


class RunFolder:
    """RUN/config.json, metrics.jsonl, checkpoints/ and weights/.

    Args:
        path: RUN.
        settings: everything that decides the result, as JSON values; kept in config.json.
        resume: go on with the run that is there.

    Raises:
        SettingsError: RUN is in use and `resume` was not asked for, or it was and the settings differ.
        CheckpointError: there is no run to resume.
    """

    def __init__(self, path: Path, settings: dict[str, Any], *, resume: bool) -> None:
        self.path, self._settings = path, settings
        self._config_path = path / "config.json"
        if resume:
            if not self._config_path.is_file():
                raise CheckpointError(f"there is no run to resume in {path}", "", "leave out --resume to start one")
            _refuse_differences(path, read_json(self._config_path)["settings"], settings)
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise SettingsError(
                f"{path} already exists", "a new folder", "add --resume to go on with that run, or choose another --out"
            )

    def begin(self) -> None:
        """Write config.json; from here on RUN is in use."""
        if not self._config_path.exists():
            write_json(self._config_path, {"settings": self._settings, "versions": _versions()})

    @property
    def checkpoint(self) -> Path:
        return checkpoint_path(self.path)

    @property
    def dataset(self) -> dict[str, Any]:
        """What names the data, see dataset_settings; exported with the weights."""
        return {"dataset": self._settings["dataset"]}

    @property
    def weights(self) -> Path:
        """Folder of the exported network, see network.weights.save_model."""
        return self.path / "weights"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def log(self, record: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with open(self.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def drop_metrics_from(self, epoch: int) -> None:
        """Forget what a stopped run logged after its checkpoint; those epochs are trained again."""
        if not self.metrics.exists():
            return
        lines = self.metrics.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _is_whole(line) and json.loads(line)["epoch"] < epoch]
        text = "".join(line + os.linesep for line in kept)
        commit_file(self.metrics, lambda partial: _write(partial, text))


def dataset_settings(prepared: Path, manifest: Manifest, identity_split: int) -> dict[str, Any]:
    """What names the data of a run: the manifest, the division of the identities, and the shards' checksums."""
    receipts = [read_receipt(prepared, "shards", shard) for shard in range(manifest.num_shards)]
    return {
        "name": manifest.name,
        "manifest": manifest_fingerprint(manifest),
        "identity_split": identity_split,
        "shards": fingerprint([receipt.sha256 for receipt in receipts if receipt is not None]),
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


def _is_whole(line: str) -> bool:
    """Whether a line was written to its end; a killed process may leave half of one."""
    return line.startswith("{") and line.endswith("}")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found

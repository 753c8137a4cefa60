"""Checks of the receipts of a stage, and of the bytes that they vouch for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..commit import fingerprint, read_receipt, receipt_path, sha256_of
from ..errors import FormatError
from ..records import ShardReceipt
from .findings import Findings


@dataclass(frozen=True)
class StageFiles:
    """A stage, as its receipts and files must be.

    Attributes:
        name: of the stage.
        begun: whether there is anything of it.
        settings: what dataset.json says, or None.
        inputs: shard -> fingerprint of what it is made from; raises FormatError where that is not known.
        path: shard -> its file.
    """

    name: str
    begun: bool
    settings: dict[str, Any] | None
    inputs: Callable[[int], str]
    path: Callable[[int], Path]


def check_receipt(prepared: Path, stage: StageFiles, findings: Findings) -> ShardReceipt | None:
    """The receipt of a shard whose file is there with the receipt's bytes, or None: its content is not looked at."""
    shard = findings.shard or 0
    path = stage.path(shard)
    name, receipt_name = (
        str(place.relative_to(prepared)) for place in (path, receipt_path(prepared, stage.name, shard))
    )
    try:
        receipt = read_receipt(prepared, stage.name, shard)
    except (FormatError, OSError) as error:
        findings.add("receipt", error.found if isinstance(error, FormatError) else f"{receipt_name}: {error}")
        return None
    if receipt is None:
        findings.add("unfinished", f"{receipt_name} is missing: the shard is not made")
        return None
    if (receipt.stage, receipt.shard, receipt.file) != (stage.name, shard, name):
        belongs = f"shard {receipt.shard} of {receipt.stage} in {receipt.file}"
        findings.add("receipt", f"{receipt_name} is the receipt of {belongs}; expected shard {shard} in {name}")
        return None
    _check_origin(stage, receipt, receipt_name, findings)
    try:
        digest = sha256_of(path)
    except FileNotFoundError:
        findings.add("file", f"{name} is missing, although it has a receipt")
        return None
    except OSError as error:
        findings.add("file", f"{name} cannot be read ({error})")
        return None
    if digest != receipt.sha256:
        findings.add("checksum", f"{name} has SHA-256 {digest[:16]}...; expected {str(receipt.sha256)[:16]}...")
        return None
    return receipt


def _check_origin(stage: StageFiles, receipt: ShardReceipt, name: str, findings: Findings) -> None:
    """The receipt names the settings of dataset.json, and the inputs that there are now."""
    if stage.settings is not None and receipt.settings != (expected := fingerprint(stage.settings)):
        findings.add("settings", f"{name} has settings {receipt.settings}; expected {expected}, those of dataset.json")
    try:
        inputs = stage.inputs(findings.shard or 0)
    except FormatError as error:
        findings.add("inputs", f"{name} cannot be compared with what the shard was made from ({error.found})")
        return
    if receipt.inputs != inputs:
        source = "its frames in the manifest" if stage.name == "keypoints" else "its keypoints"
        findings.add("inputs", f"{name} has inputs {receipt.inputs}; expected {inputs}, those of {source}")

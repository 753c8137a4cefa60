"""The chain of receipts: frames of the manifest -> keypoints -> shards. What does not follow from what is there now is
not used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .commit import fingerprint, has_its_size, read_receipt
from .errors import FormatError
from .manifest import read_dataset, shard_inputs
from .records import ShardReceipt

KEYPOINTS, SHARDS = "keypoints", "shards"  # the stages


def stage_settings(prepared: Path, stage: str) -> dict[str, Any]:
    """The settings that a stage was started with.

    Raises:
        FormatError: the stage was not started.
    """
    settings = read_dataset(prepared).get("stages", {}).get(stage)
    if settings is None:
        raise FormatError(f"{prepared} has no {stage} yet", "", "run the stages in order: keyreid-prep --help")
    return settings


def keypoint_receipts(prepared: Path) -> dict[int, ShardReceipt]:
    """Shard -> receipt of its keypoints, of all shards.

    Raises:
        FormatError: some are missing, or made from other frames or with other settings than there are now.
    """
    settings = fingerprint(stage_settings(prepared, KEYPOINTS))
    receipts, missing = {}, []
    inputs = shard_inputs(prepared)
    for shard, frames in inputs.items():
        receipt = read_receipt(prepared, KEYPOINTS, shard)
        if receipt is None or (receipt.settings, receipt.inputs) != (settings, frames):
            missing.append(shard)
        else:
            receipts[shard] = receipt
    if missing:
        raise FormatError(
            f"keypoints of {len(missing)} of {len(inputs)} shards of {prepared} are missing or outdated (first: "
            f"{missing[0]:05d})",
            "all of them",
            "run keyreid-prep extract-keypoints (or import-keypoints) again: it resumes",
        )
    return receipts


def keypoint_inputs(prepared: Path) -> dict[int, str]:
    """Shard -> fingerprint of the keypoints that it is made from; see keypoint_receipts."""
    return {shard: keypoint_fingerprint(receipt) for shard, receipt in keypoint_receipts(prepared).items()}


def keypoint_fingerprint(receipt: ShardReceipt) -> str:
    """What a shard's `inputs` is when it is made from these keypoints."""
    return fingerprint([receipt.sha256, receipt.inputs])


def shard_receipts(prepared: Path) -> list[ShardReceipt]:
    """Receipts of all built shards, each made from the keypoints and settings that there are now.

    Raises:
        FormatError: some are missing, outdated, or of another size than their receipt says.
    """
    settings = fingerprint(stage_settings(prepared, SHARDS))
    receipts, wrong = [], {}
    for shard, inputs in keypoint_inputs(prepared).items():
        receipt = read_receipt(prepared, SHARDS, shard)
        if receipt is None:
            wrong[shard] = "not built"
        elif (receipt.settings, receipt.inputs) != (settings, inputs):
            wrong[shard] = "made from other keypoints or with other settings than there are now"
        elif not has_its_size(prepared, receipt):
            wrong[shard] = "not the file that its receipt was written for"
        else:
            receipts.append(receipt)
    if wrong:
        first, why = next(iter(wrong.items()))
        raise FormatError(
            f"{len(wrong)} of {len(wrong) + len(receipts)} shards of {prepared} are unusable: {first:05d} is {why}",
            "complete shards",
            "run keyreid-prep build-shards: it builds what is missing",
        )
    return receipts

"""What the stages share: the chain of receipts (frames of the manifest -> keypoints -> shards), settings that may not
change half-way, progress, failures. What does not follow from what is there now is not used."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .commit import exclusive, fingerprint, has_its_size, read_receipt, receipt_path, write_json
from .environment import progress_bar
from .errors import FormatError, KeyReIDError, SettingsError, SourceError, SurroundingsError
from .executor import Executor, Outcome, Task, noop
from .images import check_decoders
from .manifest import Manifest, dataset_path, read_dataset, shard_inputs, shard_sizes
from .records import FRAMES_LEFT_OUT, ShardReceipt

logger = logging.getLogger(__name__)

KEYPOINTS, SHARDS = "keypoints", "shards"  # the stages
MAX_LEFT_OUT = 0.01  # share of all frames; more than that is seldom the frames' fault
NAMED_AT_MOST = 5  # shards or frames in an error


@dataclass(frozen=True)
class StageSummary:
    """What a run of a stage did: shards made now, shards that were complete already, receipts of all in order."""

    num_made: int
    num_kept: int
    receipts: tuple[ShardReceipt, ...]


def run_stage(
    prepared: Path,
    stage: str,
    settings: dict[str, Any],
    task: Task[ShardReceipt],
    executor: Executor,
    *,
    prepare: Callable[[], object] = noop,
    before_start: Callable[[], object] = noop,
    overwrite: bool = False,
    retry_left_out: bool = False,
    recall: Mapping[str, Any] | None = None,
) -> StageSummary:
    """Make every shard of a stage that is not complete yet. Nothing is touched before the executor is ready.

    Args:
        prepared: the prepared dataset.
        stage: KEYPOINTS or SHARDS.
        settings: what its bytes depend on; kept in dataset.json.
        task: makes one shard and returns its receipt, already written.
        executor: serial or Dask.
        prepare: called once in each worker, before its first shard.
        before_start: called here, when `prepared` is locked and its settings are found to be the same.
        overwrite: rebuild everything, whatever is there.
        retry_left_out: make shards of keypoints with frames left out again.
        recall: options that later commands want to know, such as the checkpoint's name; kept in dataset.json.

    Raises:
        FormatError: the stage was started with other settings; shards of both would be mixed.
        SettingsError: another run is at work.
        KeyReIDError: some shards failed, each for the reason given; all others were made.
    """
    with exclusive(prepared):
        info = read_dataset(prepared)
        if not overwrite:
            _refuse_other_settings(prepared, info, stage, settings)
        before_start()
        sizes, inputs = shard_sizes(prepared), stage_inputs(prepared, stage)
        receipts = {shard: _undamaged_receipt(prepared, stage, shard) for shard in sizes}
        pending = [
            shard
            for shard, receipt in receipts.items()
            if overwrite
            or receipt is None
            or (receipt.settings, receipt.inputs) != (fingerprint(settings), inputs[shard])
            or not has_its_size(prepared, receipt)
            or (retry_left_out and any(count_left_out([receipt]).values()))
        ]
        for folder in (prepared / stage, receipt_path(prepared, stage, 0).parent):
            for leftover in folder.glob(".*.partial"):  # of a run that was killed: this one holds the lock
                leftover.unlink(missing_ok=True)
        failed: list[Outcome[ShardReceipt]] = []
        total = sum(sizes.values())
        with progress_bar(total, stage, "frames", done=total - sum(sizes[shard] for shard in pending)) as bar:

            def advance(count: int) -> None:
                bar.update(max(0, min(count, total - bar.n)))  # a shard that is tried twice reports its frames twice

            if pending:
                with executor:
                    info.setdefault("stages", {})[stage] = settings
                    info.setdefault("recall", {})[stage] = dict(recall or {})
                    write_json(dataset_path(prepared), info)
                    for outcome in executor.run(task, pending, advance, prepare):
                        if outcome.error is None:
                            receipts[outcome.unit] = outcome.result
                            bar.set_postfix_str(f"shard {outcome.unit:05d}", refresh=False)
                        else:
                            failed.append(outcome)
            if not failed:
                advance(total)  # events of the last frames may still be under way
    if failed:
        raise _explain(prepared, stage, failed, len(sizes), searchable="checkpoint" in (recall or {}))
    done = tuple(receipt for receipt in receipts.values() if receipt is not None)
    return StageSummary(len(pending), len(sizes) - len(pending), done)


def _undamaged_receipt(prepared: Path, stage: str, shard: int) -> ShardReceipt | None:
    try:
        return read_receipt(prepared, stage, shard)
    except FormatError as error:
        logger.warning("%s: the shard is rebuilt", error.found)
        return None


def _explain(
    prepared: Path, stage: str, failed: Sequence[Outcome[ShardReceipt]], count: int, *, searchable: bool
) -> KeyReIDError:
    """One error for all shards that failed: which, where, why, and what to do."""
    lines = []
    for outcome in failed[:NAMED_AT_MOST]:
        kind = "" if isinstance(outcome.error, (KeyReIDError, OSError)) else f"{type(outcome.error).__name__}: "
        lines.append(f"\n  shard {outcome.unit:05d} on {outcome.machine}: {kind}{outcome.error}")
    if len(failed) > NAMED_AT_MOST:
        lines.append(f"\n  and {len(failed) - NAMED_AT_MOST:,} more")
    remedy = "\nAll others are complete and kept; repair the cause and run the same command again"
    crashed = [outcome.unit for outcome in failed if not isinstance(outcome.error, (KeyReIDError, OSError))]
    if searchable and crashed:
        remedy += (
            f". If it fails again, keyreid-prep find-bad-frames {prepared} --shard {crashed[0]} looks for frames that "
            "crash pose estimation, to be listed in --skip-frames"
        )
    surroundings = all(isinstance(outcome.error, (SurroundingsError, OSError)) for outcome in failed)
    found = f"{len(failed):,} of {count:,} shards of {stage} failed:{''.join(lines)}{remedy}"
    return SurroundingsError(found) if surroundings else KeyReIDError(found)


def _refuse_other_settings(prepared: Path, info: dict[str, Any], stage: str, settings: dict[str, Any]) -> None:
    before = info.get("stages", {}).get(stage, settings)
    if before != settings:
        old, new = flatten(before), flatten(settings)
        changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
        raise FormatError(
            f"{prepared} was started with other settings of {stage}: "
            + ", ".join(f"{key} {old.get(key)!r}, now {new.get(key)!r}" for key in changed),
            "",
            "repeat the first settings, add --overwrite to rebuild the stage, or prepare into another folder",
        )


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one table, keys joined with dots."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def stage_settings(prepared: Path, stage: str) -> dict[str, Any]:
    """The settings that a stage was started with; a FormatError where it was not."""
    settings = read_dataset(prepared).get("stages", {}).get(stage)
    if settings is None:
        raise FormatError(f"{prepared} has no {stage} yet", "", "run the stages in order: keyreid-prep --help")
    return dict(settings)


def stage_inputs(prepared: Path, stage: str) -> dict[int, str]:
    """Shard -> fingerprint of what a stage makes it from; of all shards; a FormatError where some lack it."""
    if stage == KEYPOINTS:
        return shard_inputs(prepared)
    return {shard: keypoint_fingerprint(receipt) for shard, receipt in stage_receipts(prepared, KEYPOINTS).items()}


def keypoint_fingerprint(receipt: ShardReceipt) -> str:
    """What a shard's `inputs` is when it is made from these keypoints."""
    return fingerprint([receipt.sha256, receipt.inputs])


def stage_receipts(prepared: Path, stage: str) -> dict[int, ShardReceipt]:
    """Shard -> receipt, of all shards; each was made from what is there now, with the settings that are there now.

    Raises:
        FormatError: some were not, are missing, or (shards) have another size than their receipt says.
    """
    settings, inputs = fingerprint(stage_settings(prepared, stage)), stage_inputs(prepared, stage)
    source, command = "keypoints", "build-shards"
    if stage == KEYPOINTS:
        source, command = "frames", "extract-keypoints (or import-keypoints)"
    receipts, wrong = {}, {}
    for shard in inputs:
        receipt = read_receipt(prepared, stage, shard)
        if receipt is None:
            wrong[shard] = "not made"
        elif (receipt.settings, receipt.inputs) != (settings, inputs[shard]):
            wrong[shard] = f"made from other {source} or with other settings than there are now"
        elif stage == SHARDS and not has_its_size(prepared, receipt):
            wrong[shard] = "not the file that its receipt was written for"
        else:
            receipts[shard] = receipt
    if wrong:
        first = min(wrong)
        raise FormatError(
            f"{stage} of {len(wrong)} of {len(inputs)} shards of {prepared} cannot be used: {first:05d} is "
            f"{wrong[first]}",
            "",
            f"run keyreid-prep {command} again: it resumes",
        )
    return receipts


def frame_roots(manifest: Manifest, root: Path | Mapping[str, Path] | None) -> dict[int, Path]:
    """Generation -> the folder that its frame paths are relative to.

    Args:
        manifest: has the roots of the time when it was indexed.
        root: the folder's new place if it has moved since; where generations have different roots: old -> new.
    """
    old = {generation.root for generation in manifest.generations}
    if isinstance(root, Path):
        if len(old) > 1:
            found = f"--root {root} for the roots {', '.join(sorted(old))}"
            raise SettingsError(found, "--root OLD=NEW for each that has moved")
        root = {one: root for one in old}
    moved = {one: place.absolute() for one, place in (root or {}).items()}
    if unknown := set(moved) - old:
        raise SettingsError(f"--root {min(unknown)}=...", "one of the roots " + ", ".join(sorted(old)))
    return {one.number: moved.get(one.root, Path(one.root)) for one in manifest.generations}


def check_roots(roots: Iterable[Path]) -> None:
    """Refuse (SurroundingsError) a machine that does not see the frames' folders, or cannot decode images."""
    check_decoders()
    for root in sorted(set(roots)):
        found = f"the frames' folder {root} is empty on {socket.gethostname()}"
        try:
            with os.scandir(root) as entries:
                if next(entries, None) is not None:
                    continue
        except OSError as error:
            found = f"{socket.gethostname()} cannot read the frames' folder {root} ({error.strerror})"
        raise SurroundingsError(found, "the frames", "mount it there, or name its new place with --root")


def count_left_out(receipts: Iterable[ShardReceipt]) -> dict[str, list[str]]:
    """Status -> names of the frames that are left out for it, from receipts of keypoints."""
    named: dict[str, list[str]] = {status: [] for status in FRAMES_LEFT_OUT}
    for receipt in receipts:
        for status in FRAMES_LEFT_OUT:
            named[status] += receipt.notes[status]
    return named


def limit_left_out(receipts: Iterable[ShardReceipt], max_left_out: float) -> None:
    """Refuse (SourceError) a dataset of which more than a share of the frames, 0 to 1, is left out.

    `receipts` are those of the keypoints of all shards.
    """
    receipts = list(receipts)
    named = count_left_out(receipts)
    count, total = sum(map(len, named.values())), sum(receipt.rows for receipt in receipts)
    if count > max_left_out * total:
        examples = [name for names in named.values() for name in names][:NAMED_AT_MOST]
        counts = ", ".join(f"{len(names):,} {status}" for status, names in named.items() if names)
        raise SourceError(
            f"{count:,} of {total:,} frames are left out ({counts}), such as {', '.join(examples)}",
            f"at most {100 * max_left_out:g} %",
            "repair them and run extract-keypoints (or import-keypoints) with --retry-left-out; or accept them with a "
            "higher --max-left-out",
        )

"""What the stages share: settings that may not change half-way, what is done, progress, failures, the summary."""

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
from .manifest import Manifest, dataset_path, read_dataset, shard_sizes
from .records import FRAMES_LEFT_OUT, ShardReceipt

logger = logging.getLogger(__name__)

MAX_LEFT_OUT = 0.01  # share of all frames; more than that is seldom the frames' fault
NAMED_AT_MOST = 5  # shards or frames in an error


@dataclass(frozen=True)
class StageSummary:
    """What a run of a stage did.

    Attributes:
        stage: its name.
        num_made, num_kept: shards made now, and shards that were complete already.
        receipts: of all shards, in order.
        seconds: time that making took.
    """

    stage: str
    num_made: int
    num_kept: int
    receipts: tuple[ShardReceipt, ...]
    seconds: float


def run_stage(
    prepared: Path,
    stage: str,
    settings: dict[str, Any],
    inputs: Callable[[], Mapping[int, str]],
    task: Task[ShardReceipt],
    executor: Executor,
    *,
    prepare: Callable[[], object] = noop,
    overwrite: bool = False,
    retry: Callable[[ShardReceipt], bool] = lambda receipt: False,
    recall: Mapping[str, Any] | None = None,
) -> StageSummary:
    """Make every shard of a stage that is not complete yet. Nothing is touched before the executor is ready.

    Args:
        prepared: the prepared dataset.
        stage: its name.
        settings: what its bytes depend on; kept in dataset.json.
        inputs: shard -> fingerprint of what it is made from, of all shards.
        task: makes one shard and returns its receipt, already written.
        executor: serial or Dask.
        prepare: called once in each worker, before its first shard.
        overwrite: rebuild everything, whatever is there.
        retry: whether a complete shard is to be made again.
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
        sizes, expected, made_from = shard_sizes(prepared), fingerprint(settings), inputs()
        receipts = {shard: _intact_receipt(prepared, stage, shard) for shard in sizes}
        pending = [
            shard
            for shard, receipt in receipts.items()
            if overwrite
            or receipt is None
            or (receipt.settings, receipt.inputs) != (expected, made_from[shard])
            or not has_its_size(prepared, receipt)
            or retry(receipt)
        ]
        for leftover in _partial_files(prepared, stage):
            leftover.unlink(missing_ok=True)  # of a run that was killed: the lock says that no other one is at work
        failed: list[Outcome[ShardReceipt]] = []
        total = sum(sizes.values())
        with progress_bar(total, stage, "frames", done=total - sum(sizes[shard] for shard in pending)) as bar:
            if pending:
                with executor:
                    info.setdefault("stages", {})[stage] = settings
                    info.setdefault("recall", {})[stage] = dict(recall or {})
                    write_json(dataset_path(prepared), info)
                    for outcome in executor.run(task, pending, lambda count: _advance(bar, count), prepare):
                        if outcome.error is None:
                            receipts[outcome.unit] = outcome.result
                            bar.set_postfix_str(f"shard {outcome.unit:05d}", refresh=False)
                        else:
                            failed.append(outcome)
            if not failed:
                _advance(bar, total)  # events of the last frames may still be under way
            seconds = bar.format_dict["elapsed"]
    if failed:
        raise _explain(prepared, stage, failed, len(sizes), searchable="checkpoint" in (recall or {}))
    done = tuple(receipt for receipt in receipts.values() if receipt is not None)
    return StageSummary(stage, len(pending), len(sizes) - len(pending), done, seconds)


def _intact_receipt(prepared: Path, stage: str, shard: int) -> ShardReceipt | None:
    """None also for a damaged one: it vouches for nothing, so the shard is rebuilt."""
    try:
        return read_receipt(prepared, stage, shard)
    except FormatError as error:
        logger.warning("%s: the shard is rebuilt", error.found)
        return None


def _advance(bar: Any, count: int) -> None:
    bar.update(max(0, min(count, bar.total - bar.n)))  # a shard that is tried twice reports its frames twice


def _partial_files(prepared: Path, stage: str) -> list[Path]:
    folders = prepared / stage, receipt_path(prepared, stage, 0).parent
    return [path for folder in folders for path in folder.glob(".*.partial")]


def _explain(
    prepared: Path, stage: str, failed: Sequence[Outcome[ShardReceipt]], count: int, *, searchable: bool
) -> KeyReIDError:
    """One error for all shards that failed: which, where, why, and what to do."""
    lines = []
    for outcome in failed[:NAMED_AT_MOST]:
        error, place = outcome.error, f" on {outcome.machine}" if outcome.machine else ""
        known = isinstance(error, (KeyReIDError, OSError))
        lines.append(f"\n  shard {outcome.unit:05d}{place}: {'' if known else f'{type(error).__name__}: '}{error}")
    if len(failed) > NAMED_AT_MOST:
        lines.append(f"\n  and {len(failed) - NAMED_AT_MOST:,} more")
    kinds = {type(outcome.error) for outcome in failed}
    remedy = "\nAll others are complete and kept; repair the cause and run the same command again"
    if searchable and not all(issubclass(kind, (KeyReIDError, OSError)) for kind in kinds):
        unit = next(one.unit for one in failed if not isinstance(one.error, (KeyReIDError, OSError)))
        remedy += (
            f". If it fails again, keyreid-prep find-bad-frames {prepared} --shard {unit} looks for frames that crash "
            "pose estimation, to be listed in --skip-frames"
        )
    kind = SurroundingsError if all(issubclass(kind, (SurroundingsError, OSError)) for kind in kinds) else KeyReIDError
    return kind(f"{len(failed):,} of {count:,} shards of {stage} failed:{''.join(lines)}{remedy}")


def _refuse_other_settings(prepared: Path, info: dict[str, Any], stage: str, settings: dict[str, Any]) -> None:
    before = info.get("stages", {}).get(stage)
    if before is None or before == settings:
        return
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


def frame_roots(manifest: Manifest, root: Path | Mapping[str, Path] | None) -> dict[int, Path]:
    """Generation -> the folder that its frame paths are relative to.

    Args:
        manifest: has the roots of the time when it was indexed.
        root: the folder's new place if it has moved since; where generations have different roots: old -> new.

    Raises:
        SettingsError: one new place for several roots, or a root that no generation has.
    """
    old = {generation.root for generation in manifest.generations}
    if isinstance(root, Path):
        if len(old) > 1:
            raise SettingsError(
                f"--root {root} for the roots {', '.join(sorted(old))}", "--root OLD=NEW for each that has moved"
            )
        root = {one: root for one in old}
    moved = {one: place.absolute() for one, place in (root or {}).items()}
    if unknown := set(moved) - old:
        raise SettingsError(f"--root {sorted(unknown)[0]}=...", "one of the roots " + ", ".join(sorted(old)))
    return {one.number: moved.get(one.root, Path(one.root)) for one in manifest.generations}


def check_roots(roots: Iterable[Path]) -> None:
    """Whether this machine sees the frames' folders.

    Raises:
        SurroundingsError: naming machine and folder.
    """
    for root in sorted(set(roots)):
        try:
            with os.scandir(root) as entries:
                empty = next(entries, None) is None
        except OSError as error:
            raise SurroundingsError(
                f"{socket.gethostname()} cannot read the frames' folder {root} ({error.strerror})",
                "",
                "mount it there, or name its new place with --root",
            ) from error
        if empty:
            raise SurroundingsError(
                f"the frames' folder {root} is empty on {socket.gethostname()}",
                "the frames",
                "mount it there, or name its new place with --root",
            )


def count_left_out(receipts: Iterable[ShardReceipt]) -> dict[str, list[str]]:
    """Status -> names of the frames that are left out for it, from receipts of keypoints."""
    named: dict[str, list[str]] = {status: [] for status in FRAMES_LEFT_OUT}
    for receipt in receipts:
        for status in FRAMES_LEFT_OUT:
            named[status] += receipt.notes[status]
    return named


def limit_left_out(receipts: Sequence[ShardReceipt], max_left_out: float) -> None:
    """Refuse a dataset of which too many frames are left out.

    Args:
        receipts: of the keypoints of all shards.
        max_left_out: share of all frames, 0 to 1.

    Raises:
        SourceError: more are.
    """
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

"""What the stages share: settings that may not change half-way, shards that are done, progress, the summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .commit import fingerprint, is_done, read_json, read_receipt, receipt_path, write_json
from .errors import FormatError, SourceError
from .executor import Executor, Task, nothing
from .lock import exclusive
from .manifest import Manifest, dataset_path
from .environment import progress_bar
from .records import ShardReceipt


@dataclass(frozen=True)
class StageSummary:
    """What a run of a stage did.

    Attributes:
        stage: its name.
        num_made, num_kept: shards made now, and shards that were whole already.
        receipts: of all shards, in order.
        seconds: time that making took.
    """

    stage: str
    num_made: int
    num_kept: int
    receipts: tuple[ShardReceipt, ...]
    seconds: float


@contextmanager
def begin_stage(prepared: Path, stage: str, settings: dict[str, Any], *, overwrite: bool) -> Iterator[str]:
    """Hold the prepared dataset's lock, and write the stage's settings into dataset.json; yields their fingerprint.

    Raises:
        FormatError: the stage was begun with other settings; shards of both would be mixed.
        SettingsError: another run is at work.
    """
    with exclusive(prepared):
        info = read_json(dataset_path(prepared))
        stages = info.setdefault("stages", {})
        before = stages.get(stage)
        if before is not None and before != settings and not overwrite:
            old, new = flatten(before), flatten(settings)
            changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
            raise FormatError(
                f"{prepared} was begun with other settings of {stage}: "
                + ", ".join(f"{key} {old.get(key)!r}, now {new.get(key)!r}" for key in changed),
                "",
                "repeat the first settings, add --overwrite to do the stage anew, or prepare into another folder",
            )
        if before != settings:
            stages[stage] = settings
            write_json(dataset_path(prepared), info)
        yield fingerprint(settings)


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one table, keys joined with dots."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def frames_folder(manifest: Manifest, root: Path | None) -> Path:
    """The folder that the manifest's frame paths are relative to.

    Raises:
        SourceError: it is not there.
    """
    root = root or Path(manifest.root)
    if not root.is_dir():
        raise SourceError(f"the frames' folder {root} is not there", "", "mount it, or name its new place with --root")
    return root


def stage_settings(prepared: Path, stage: str) -> dict[str, Any]:
    """The settings that a stage was begun with.

    Raises:
        FormatError: the stage was not begun.
    """
    settings = read_json(dataset_path(prepared)).get("stages", {}).get(stage)
    if settings is None:
        raise FormatError(f"{prepared} has no {stage} yet", "", "run the stages in order: keyreid-prep --help")
    return settings


def run_stage(
    prepared: Path,
    manifest: Manifest,
    stage: str,
    settings: str,
    inputs: Callable[[int], str],
    task: Task[ShardReceipt],
    executor: Executor,
    *,
    prepare: Callable[[], object] = nothing,
    rescue: Task[ShardReceipt] | None = None,
) -> StageSummary:
    """Make every shard of a stage that is not whole yet.

    Args:
        settings: fingerprint of the stage's settings.
        inputs: shard -> fingerprint of what it is made from.
        task: makes one shard and returns its receipt, already written.
        prepare: called once in each worker, before its first shard.
        rescue: makes a shard over which workers died.
    """
    shards = range(manifest.num_shards)
    frames = [0] * manifest.num_shards
    for tracklet in manifest.tracklets:
        frames[tracklet.shard] += tracklet.num_frames
    pending = [shard for shard in shards if not is_done(prepared, stage, shard, settings, inputs(shard))]
    for leftover in [
        *(prepared / stage).glob(".*.partial"),
        *receipt_path(prepared, stage, 0).parent.glob(".*.partial"),
    ]:
        leftover.unlink(missing_ok=True)  # of a run that was killed: the lock says that no other one is at work
    for shard in pending:
        receipt_path(prepared, stage, shard).unlink(missing_ok=True)  # from here on the old shard is not whole
    total = sum(frames)
    kept = total - sum(frames[shard] for shard in pending)
    with progress_bar(total, stage, "frames", done=kept) as bar:
        if pending:
            with executor:
                for made in executor.run(task, pending, lambda count: _advance(bar, count), prepare, rescue):
                    bar.set_postfix_str(f"shard {made.shard:05d}", refresh=False)
        _advance(bar, total)  # events of the last frames may still be under way
        seconds = bar.format_dict["elapsed"]
    receipts = tuple(receipt for shard in shards if (receipt := read_receipt(prepared, stage, shard)) is not None)
    return StageSummary(stage, len(pending), manifest.num_shards - len(pending), receipts, seconds)


def _advance(bar: Any, count: int) -> None:
    bar.update(max(0, min(count, bar.total - bar.n)))  # a shard begun twice reports its frames twice

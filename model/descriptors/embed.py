"""Descriptors of a whole dataset as one file, made part by part: a run goes on where another one stopped."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from keyreid.pipeline.commit import fingerprint
from keyreid.pipeline.environment import progress_bar
from keyreid.pipeline.errors import KeyReIDError, SettingsError, SourceError
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.store import TrackletStore

from ..distributed import Ranks
from ..network.keyreid import KeyReID
from .clip_network import Compute
from .describe import Origin, TrackletDescriptors, describe_parts
from .file import data_fingerprint, load_descriptors, model_fingerprint
from .parts import Parts
from .settings import PLAIN, DescriptionSettings, camera_rows

DTYPES = ("float32", "float16")
ALONE = Ranks()


@dataclass(frozen=True)
class Embedded:
    """What embed did.

    Attributes:
        path: the file.
        num_tracklets: in it.
        num_made, num_kept: parts that this process made, and parts that were there already; 0 and 0 where the whole
            file was there.
    """

    path: Path
    num_tracklets: int
    num_made: int
    num_kept: int

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}


def embed(
    model: KeyReID,
    store: TrackletStore,
    tracklets: Sequence[Tracklet],
    path: Path,
    settings: DescriptionSettings = PLAIN,
    compute: Compute | None = None,
    *,
    dtype: str = "float32",
    ranks: Ranks = ALONE,
    overwrite: bool = False,
) -> Embedded:
    """Describe tracklets into one file; parts wait in the folder PATH.parts until all are there.

    Part i is made by rank i modulo their number, so that no two ranks make the same; the first rank joins. The bytes of
    the file depend neither on the ranks nor on interruptions, as long as batch size and kind of machine stay.

    Args:
        model: in eval mode, on the device to use.
        store: where the frames are.
        tracklets: with at least one readable frame each; the rows of the file.
        path: .parquet or HDF5, see save_pieces.
        settings, compute: how.
        dtype: of the values on disk, one of DTYPES.
        ranks: the processes that share the work.
        overwrite: whether a file or parts of another making are thrown away.

    Raises:
        SourceError: no tracklets.
        SettingsError: another file, or parts of another making, are there and may not be thrown away, another run is
            at work on them, or a setting is refused (see describe_parts).
        FormatError: a shard was changed since it was built, or a frame cannot be read.
        KeyReIDError: descriptors that are NaN or infinite, or too large for float16.
    """
    if dtype not in DTYPES:
        raise SettingsError(f"dtype is {dtype!r}", " or ".join(DTYPES))
    if not tracklets:
        raise SourceError("no tracklets to describe", "at least one with readable frames", "name other splits")
    settings.check(model.config)
    camera_rows(tracklets, model.config, settings.cameras)  # refused before anything is written
    compute = compute or Compute()
    origin = origin_of(model, store, settings, compute)
    making = {
        "fingerprint": fingerprint_of(origin),
        "precision": origin.precision,
        "dtype": dtype,
        "tracklets": fingerprint([tracklet.tracklet_id for tracklet in tracklets]),
    }
    if all(ranks.collect(ranks.together(lambda: not overwrite and _is_there(path, tracklets, making)))):
        return Embedded(path, len(tracklets), 0, 0)
    parts = Parts.of(path, store, tracklets, model.config, settings)
    ours = range(ranks.rank, len(parts.tracklets), ranks.size)
    with ExitStack() as stack:
        ranks.first_alone(lambda: stack.enter_context(parts.begun(making, overwrite)))
        pending = [part for part in ours if not parts.path(part).exists()]
        total = sum(len(parts.tracklets[part]) for part in ours)
        waiting = [parts.tracklets[part] for part in pending]
        shards = store.shards_of(chain.from_iterable(waiting))
        ranks.together(lambda: store.require_intact(shards, hidden=not ranks.is_first))
        label = "describe" if ranks.size == 1 else f"describe (rank {ranks.rank} of {ranks.size})"
        with progress_bar(total, label, "tracklets", done=total - sum(map(len, waiting))) as bar:
            described = describe_parts(model, store, waiting, settings, compute, making["fingerprint"], bar.update)
            for part, found in zip(pending, described, strict=True):
                parts.save(part, replace(found, values=_as_dtype(found, dtype), origin=origin))
        ranks.first_alone(lambda: parts.join(making["fingerprint"]))
    return Embedded(path, len(tracklets), len(pending), len(ours) - len(pending))


def origin_of(model: KeyReID, store: TrackletStore, settings: DescriptionSettings, compute: Compute) -> Origin:
    """What is kept with descriptors that are made like this."""
    return Origin(
        model_fingerprint(model),
        data_fingerprint(store),
        store.manifest.name,
        settings.to_dict(),
        compute.precision(model),
    )


def fingerprint_of(origin: Origin) -> str:
    """A hash of everything that values depend on, but for rounding."""
    changed = {} if origin.settings == PLAIN.to_dict() else {"settings": origin.settings}
    return fingerprint([origin.model, origin.data, *changed.values()])


def _is_there(path: Path, tracklets: Sequence[Tracklet], making: dict[str, str]) -> bool:
    """Whether the file is there and is what would be made; another file is an error."""
    if not path.exists():
        return False
    found = load_descriptors(path)
    wanted = [tracklet.tracklet_id for tracklet in tracklets]
    facts = {
        "weights, dataset or settings": found.fingerprint == making["fingerprint"],
        "tracklets": found.tracklet_ids.tolist() == wanted,
        "dtype": str(found.values.dtype) == making["dtype"],
        "precision": found.origin.precision == making["precision"],
    }
    if not all(facts.values()):
        raise SettingsError(
            f"{path} holds descriptors of other {', other '.join(name for name, same in facts.items() if not same)}",
            "no file, or the same again",
            "name another file, or add --overwrite",
        )
    return True


def _as_dtype(found: TrackletDescriptors, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        values = found.values.astype(dtype)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        largest = float(np.abs(found.values).max())
        remedy = "use --dtype float32" if np.isfinite(largest) else "training may have diverged"
        raise KeyReIDError(
            f"descriptors of {bad.sum()} tracklets hold numbers that {dtype} has not, NaN or infinity among them or "
            f"too large (first: tracklet {found.tracklet_ids[bad][0]}, largest number {largest:.3g})",
            "finite numbers",
            remedy,
        )
    return values

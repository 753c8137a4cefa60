"""Descriptors of a whole dataset as one file, made part by part, so that a run that stopped can be resumed.

A part is a piece of the tracklets and a file of descriptors itself. Its values depend on its tracklets alone, so they
are the same whoever makes it and whenever; joining the parts is copying them one after the other.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from keyreid.pipeline.commit import exclusive, fingerprint, read_json, write_json
from keyreid.pipeline.environment import progress_bar
from keyreid.pipeline.errors import FormatError, KeyReIDError, SettingsError, SourceError
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.store import TrackletStore

from ..distributed import Ranks
from ..network.config import ModelConfig
from ..network.keyreid import KeyReID
from .descriptors import Origin, TrackletDescriptors, data_fingerprint, model_fingerprint
from .file import load_descriptors, save_descriptors, save_pieces
from .settings import PLAIN, EmbeddingSettings, camera_rows
from .tracklets import Compute, clips_of, embed_parts

DTYPES = ("float32", "float16")
ALONE = Ranks()
CLIPS_OF_A_PART = 1024  # a second of a fast GPU, minutes of a CPU: what a killed run loses at most


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


@dataclass(frozen=True)
class Parts:
    """Pieces of a file of descriptors, each in a file of its own until all are there.

    Attributes:
        file: that they become.
        tracklets: of each part.
    """

    file: Path
    tracklets: tuple[tuple[Tracklet, ...], ...]

    @classmethod
    def of(
        cls,
        file: Path,
        store: TrackletStore,
        tracklets: Sequence[Tracklet],
        config: ModelConfig,
        settings: EmbeddingSettings,
    ) -> Parts:
        """Cut where CLIPS_OF_A_PART clips or more are together."""
        parts: list[list[Tracklet]] = [[]]
        filled = 0
        for tracklet in tracklets:
            if filled >= CLIPS_OF_A_PART:
                parts.append([])
                filled = 0
            parts[-1].append(tracklet)
            filled += len(clips_of(store, tracklet, config, settings))
        return cls(file, tuple(map(tuple, parts)))

    @property
    def folder(self) -> Path:
        return self.file.with_name(self.file.name + ".parts")

    def path(self, part: int) -> Path:
        """Of a part's file; where it exists, it is complete."""
        return self.folder / f"{part:05d}.h5"

    @contextmanager
    def started(self, making: dict[str, str], overwrite: bool) -> Iterator[None]:
        """Make and hold the folder.

        Args:
            making: what all parts have to agree in.
            overwrite: whether parts that do not are deleted.

        Raises:
            SettingsError: there are such, or another run holds the folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with exclusive(self.folder):
            written = self.folder / "making.json"
            before = read_json(written) if written.exists() else making
            changed = sorted(key for key in making if before.get(key) != making[key])
            if changed and not overwrite:
                raise SettingsError(
                    f"{self.folder} was started with another {', '.join(changed)}",
                    "the same weights, dataset and settings",
                    "repeat them, name another file, or add --overwrite",
                )
            if changed:
                for path in self.folder.glob("*.h5"):
                    path.unlink()
            write_json(written, making)
            for leftover in self.file.parent.glob(f".{self.file.name}.*.partial"):
                leftover.unlink()  # of a run that was killed while it joined the parts
            yield

    def join(self, fingerprint: str) -> None:
        """Write the whole file and remove the parts.

        Args:
            fingerprint: that all must have.

        Raises:
            FormatError: a part is damaged, or was produced with different settings.
        """
        save_pieces(self.file, sum(map(len, self.tracklets)), self._load(fingerprint))
        shutil.rmtree(self.folder)

    def _load(self, fingerprint: str) -> Iterator[TrackletDescriptors]:
        for part, tracklets in enumerate(self.tracklets):
            piece = load_descriptors(self.path(part))
            if piece.fingerprint != fingerprint or piece.tracklet_ids.tolist() != [t.tracklet_id for t in tracklets]:
                raise FormatError(
                    f"{self.path(part)} was produced with different settings",
                    f"fingerprint {fingerprint}",
                    f"delete {self.folder}",
                )
            yield piece


def embed(
    model: KeyReID,
    store: TrackletStore,
    tracklets: Sequence[Tracklet],
    path: Path,
    settings: EmbeddingSettings = PLAIN,
    compute: Compute | None = None,
    *,
    dtype: str = "float32",
    ranks: Ranks = ALONE,
    overwrite: bool = False,
) -> Embedded:
    """Embed tracklets into one file; parts wait in the folder PATH.parts until all are there.

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
        overwrite: whether a file or parts that were produced with different settings are deleted.

    Raises:
        SourceError: no tracklets.
        SettingsError: a file or parts of different settings are there and may not be deleted, another run is at work
            on them, or a setting is refused (see embed_parts).
        FormatError: a shard was changed since it was built, or a frame cannot be read.
        KeyReIDError: descriptors that are NaN or infinite, or too large for float16.
    """
    if dtype not in DTYPES:
        raise SettingsError(f"dtype is {dtype!r}", " or ".join(DTYPES))
    if not tracklets:
        raise SourceError("no tracklets to embed", "at least one with readable frames", "name other splits")
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
        ranks.first_alone(lambda: stack.enter_context(parts.started(making, overwrite)))
        pending = [part for part in ours if not parts.path(part).exists()]
        total = sum(len(parts.tracklets[part]) for part in ours)
        waiting = [parts.tracklets[part] for part in pending]
        shards = store.shards_of(chain.from_iterable(waiting))
        ranks.together(lambda: store.require_intact(shards, hidden=not ranks.is_first))
        label = "embed" if ranks.size == 1 else f"embed (rank {ranks.rank} of {ranks.size})"
        with progress_bar(total, label, "tracklets", done=total - sum(map(len, waiting))) as bar:
            embedded = embed_parts(model, store, waiting, settings, compute, making["fingerprint"], bar.update)
            for part, found in zip(pending, embedded, strict=True):
                save_descriptors(parts.path(part), replace(found, values=_as_dtype(found, dtype), origin=origin))
        ranks.first_alone(lambda: parts.join(making["fingerprint"]))
    return Embedded(path, len(tracklets), len(pending), len(ours) - len(pending))


def origin_of(model: KeyReID, store: TrackletStore, settings: EmbeddingSettings, compute: Compute) -> Origin:
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

"""The parts of a file of descriptors that is being made.

A part is a piece of the tracklets and a file of descriptors itself. Its values depend on its tracklets alone, so they
are the same whoever makes it and whenever; joining the parts is copying them one after the other.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from keyreid.pipeline.commit import exclusive, read_json, write_json
from keyreid.pipeline.errors import FormatError, SettingsError
from keyreid.pipeline.records import Tracklet
from keyreid.pipeline.store import TrackletStore

from ..network.config import ModelConfig
from .clip_batches import clips_of
from .describe import TrackletDescriptors
from .file import load_descriptors, save_descriptors, save_pieces
from .settings import DescriptionSettings

CLIPS_OF_A_PART = 1024  # a second of a fast GPU, minutes of a CPU: what a killed run loses at most


@dataclass(frozen=True)
class Parts:
    """Pieces of a file of descriptors, each in a file of its own until all are there.

    Attributes:
        whole: the file that they become.
        tracklets: of each part.
    """

    whole: Path
    tracklets: tuple[tuple[Tracklet, ...], ...]

    @classmethod
    def of(
        cls,
        whole: Path,
        store: TrackletStore,
        tracklets: Sequence[Tracklet],
        config: ModelConfig,
        settings: DescriptionSettings,
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
        return cls(whole, tuple(map(tuple, parts)))

    @property
    def folder(self) -> Path:
        return self.whole.with_name(self.whole.name + ".parts")

    def path(self, part: int) -> Path:
        """Of a part's file: where it is, it is whole."""
        return self.folder / f"{part:05d}.h5"

    @contextmanager
    def begun(self, making: dict[str, str], overwrite: bool) -> Iterator[None]:
        """Make and hold the folder.

        Args:
            making: what all parts have to agree in.
            overwrite: whether parts that do not are thrown away.

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
                    f"{self.folder} was begun with another {', '.join(changed)}",
                    "the same weights, dataset and settings",
                    "repeat them, name another file, or add --overwrite",
                )
            if changed:
                for path in self.folder.glob("*.h5"):
                    path.unlink()
            write_json(written, making)
            for leftover in self.whole.parent.glob(f".{self.whole.name}.*.partial"):
                leftover.unlink()  # of a run that was killed while it joined the parts
            yield

    def save(self, part: int, descriptors: TrackletDescriptors) -> None:
        save_descriptors(self.path(part), descriptors)

    def join(self, fingerprint: str) -> None:
        """Write the whole file and remove the parts.

        Args:
            fingerprint: that all must have.

        Raises:
            FormatError: a part is damaged, or of another making.
        """
        save_pieces(self.whole, sum(map(len, self.tracklets)), self._load(fingerprint))
        shutil.rmtree(self.folder)

    def _load(self, fingerprint: str) -> Iterator[TrackletDescriptors]:
        for part, tracklets in enumerate(self.tracklets):
            piece = load_descriptors(self.path(part))
            if piece.fingerprint != fingerprint or piece.tracklet_ids.tolist() != [t.tracklet_id for t in tracklets]:
                raise FormatError(
                    f"{self.path(part)} is of another making", f"fingerprint {fingerprint}", f"delete {self.folder}"
                )
            yield piece

"""What every dataset reader returns, before it is compared with a complete copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..manifest import IdentitySplit, SourceTracklet


@dataclass(frozen=True)
class Reading:
    """The tracklets of a dataset on disk, and what its own tables promise but the disk lacks.

    Attributes:
        name: name of the dataset, such as "mars".
        root: folder that frame paths are relative to.
        tracklets: in the order of the manifest; every frame path exists.
        missing: files and folders that should exist, relative to root; folders end with "/".
        identity_splits: see Manifest.
        notes: counts worth keeping, such as left-out junk.
    """

    name: str
    root: Path
    tracklets: tuple[SourceTracklet, ...]
    missing: tuple[str, ...] = ()
    identity_splits: tuple[IdentitySplit, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)


def without_junk(tracklets: Sequence[SourceTracklet], notes: dict[str, Any]) -> tuple[SourceTracklet, ...]:
    """Leave out the tracklets of negative identities and count them in notes["junk"].

    Junk (identity -1, MARS's word for crops that show no usable person) must not count for or against a query;
    distractors (identity 0) stay.
    """
    junk = [tracklet for tracklet in tracklets if tracklet.identity < 0]
    if junk:
        num_frames = sum(len(tracklet.frame_paths) for tracklet in junk)
        notes["junk"] = {"tracklets": len(junk), "frames": num_frames}
    return tuple(tracklet for tracklet in tracklets if tracklet.identity >= 0)

"""Foreign poses laid beside the frames of a manifest: the best person of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import SourceError
from ..environment import progress_bar
from ..skeleton import NUM_JOINTS
from .frame_names import FrameNames
from .people import SourceEntry


@dataclass(frozen=True)
class MatchedPoses:
    """One row for each of the F frames of the manifest, in its order.

    Attributes:
        keypoints: float32 (F, 17, 3), pixels and confidence; zeros where nobody was found.
        scores: float64 (F), of the chosen person; -1 where nobody was found.
        has_entry: bool (F), whether the source speaks of the frame at all.
        sizes: int32 (F, 2), width and height of the frame as the source says; 0 where it is silent.
        unmatched: names of entries that match no frame, each once, in order.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    has_entry: np.ndarray
    sizes: np.ndarray
    unmatched: tuple[str, ...]


def match_poses(frames: FrameNames, entries: Iterable[SourceEntry]) -> MatchedPoses:
    """Keep each frame's person of the best score, the first of equals. A person without any joint is nobody.

    Raises:
        SourceError: an entry fits several frames, two names fit one frame, or no entry fits any.
    """
    count = len(frames.paths)
    keypoints = np.zeros((count, NUM_JOINTS, 3), np.float32)
    scores = np.full(count, -1.0)
    sizes = np.zeros((count, 2), np.int32)
    names: dict[int, str] = {}
    unmatched: dict[str, None] = {}
    with progress_bar(None, "read", "entries") as bar:
        for entry in entries:
            bar.update()
            rows = list(frames.rows(entry.name))
            if not rows:
                unmatched[entry.name] = None
                continue
            for row in rows:
                if names.setdefault(row, entry.name) != entry.name:
                    raise SourceError(
                        f"{names[row]} and {entry.name} both mean frame {frames.paths[row]}",
                        "one name a frame",
                        "leave one of them out",
                    )
            if entry.size:
                sizes[rows] = entry.size
            for person in entry.people:
                if person.keypoints.any() and person.score > scores[rows[0]]:
                    keypoints[rows], scores[rows] = person.keypoints, person.score
    if not names:
        raise SourceError(
            f"no entry matches a frame: the source has {next(iter(unmatched), 'no entries')}",
            f"paths such as {frames.paths[0]}, or their last parts",
            "check that SOURCE belongs to this dataset; docs/keypoints.md says how names are matched",
        )
    has_entry = np.zeros(count, bool)
    has_entry[list(names)] = True
    return MatchedPoses(keypoints, scores, has_entry, sizes, tuple(unmatched))

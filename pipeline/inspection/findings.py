"""What a check of a prepared dataset found: kinds of problems, what to do about each, and the report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

COMMANDS = {"keypoints": "extract-keypoints", "shards": "build-shards"}

_AGAIN = "run keyreid-prep {command} again with the settings in dataset.json: it makes these shards anew"
_REDO = "delete their receipts in receipts/{stage} and run keyreid-prep {command} again: it makes these shards anew"

# kind of problem -> what to do about it, on one line
REMEDIES = {
    "dataset": "restore manifest.parquet and dataset.json from a copy, or index the source again into an empty folder",
    "version": "verify with the version that made these shards, or make them anew: keyreid-prep {command} --overwrite",
    "unfinished": "run keyreid-prep {command} again: it goes on where it stopped",
    "file": "run keyreid-prep {command} again: it makes what is missing",
    "settings": _AGAIN,
    "inputs": _AGAIN,
    "receipt": _REDO,
    "checksum": _REDO,
    "content": _REDO,
    "rows": _REDO,
    "frames": _REDO,
    "values": _REDO,
    "images": _REDO,
    "heatmaps": _REDO,
}


@dataclass(frozen=True)
class Problem:
    """Something that is wrong.

    Attributes:
        kind: a key of REMEDIES.
        stage: "keypoints" or "shards", or "" where it belongs to the whole dataset.
        shard: number of the shard, or None.
        found: what was found and what was expected, naming the file.
    """

    kind: str
    stage: str
    shard: int | None
    found: str

    @property
    def remedy(self) -> str:
        """What to do about it; the same for all problems of a kind and stage."""
        return REMEDIES[self.kind].format(stage=self.stage, command=COMMANDS.get(self.stage, ""))


@dataclass(frozen=True)
class Findings:
    """Where the checks of one shard put its problems.

    Attributes:
        problems: of all shards together.
    """

    stage: str
    shard: int | None
    problems: list[Problem]

    def add(self, kind: str, found: str) -> None:
        self.problems.append(Problem(kind, self.stage, self.shard, found))

    def add_frames(
        self, kind: str, text: str, wrong: np.ndarray, tracklet_id: np.ndarray, frame_index: np.ndarray
    ) -> None:
        """Add one problem for all the frames that have it, or none where no frame has.

        Args:
            text: what is wrong; %s in it becomes the number of frames and the name of the first.
            wrong: bool (F,), which frames have the problem.
            tracklet_id, frame_index: int (F,), their names.
        """
        rows = np.flatnonzero(wrong)
        if len(rows):
            frames = f"{len(rows)} frames" if len(rows) > 1 else "1 frame"
            first = frame_name(int(tracklet_id[rows[0]]), int(frame_index[rows[0]]))
            self.add(kind, text.replace("%s", f"{frames} (first: {first})"))


def frame_name(tracklet_id: int, frame_index: int) -> str:
    return f"tracklet {tracklet_id}, frame {frame_index}"


@dataclass(frozen=True)
class StageCheck:
    """How far a stage is.

    Attributes:
        stage: its name.
        begun: whether dataset.json holds settings of it, or files of it are there.
        num_shards: that the manifest asks for.
        num_whole: shards without any problem.
        num_rows: frames in those.
    """

    stage: str
    begun: bool
    num_shards: int
    num_whole: int
    num_rows: int


@dataclass(frozen=True)
class VerifyReport:
    """The result of verify.

    Attributes:
        prepared: the folder.
        deep: whether every image and heatmap was looked at.
        stages: in order; empty where the manifest could not be read, since nothing else can be checked without it.
        problems: everything that is wrong.
        leftovers: files that belong to no receipt, relative to `prepared`; nothing reads them.
    """

    prepared: Path
    deep: bool
    stages: tuple[StageCheck, ...]
    problems: tuple[Problem, ...]
    leftovers: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def groups(self) -> dict[tuple[str, str], list[Problem]]:
        """Problems by (stage, kind), which share a remedy, in the order of first appearance."""
        result: dict[tuple[str, str], list[Problem]] = {}
        for problem in self.problems:
            result.setdefault((problem.stage, problem.kind), []).append(problem)
        return result

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {
            "ok": self.ok,
            "prepared": str(self.prepared),
            "deep": self.deep,
            "stages": [asdict(stage) for stage in self.stages],
            "problems": [{**asdict(problem), "remedy": problem.remedy} for problem in self.problems],
            "leftovers": list(self.leftovers),
        }

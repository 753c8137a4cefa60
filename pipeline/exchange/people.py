"""What every format of foreign keypoints is read into, and what is refused whatever the format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import SourceError
from ..skeleton import NUM_JOINTS

JOINT_VALUES = "x, y and confidence of the 17 COCO joints"
OVERSHOOT = 0.2  # networks that learn heatmaps go a little beyond 0 and 1: clipped; farther off is another unit


@dataclass(frozen=True)
class SourcePerson:
    """One person of a frame, as a foreign file has it.

    Attributes:
        keypoints: float32 (17, 3): x, y in pixels of the frame and confidence 0 to 1, joints in COCO's order; zeros
            where the confidence is 0.
        score: of the person, 0 or more; where the file has none, the mean confidence of the 17 joints.
    """

    keypoints: np.ndarray
    score: float


@dataclass(frozen=True)
class SourceEntry:
    """What a foreign file says of one frame. Several entries of one name speak of the same frame.

    Attributes:
        name: path or file name of the frame, as the source has it.
        people: found in it; none where the source says that there is nobody.
        size: width and height of the frame that the coordinates are pixels of, or None where the source is silent.
    """

    name: str
    people: tuple[SourcePerson, ...]
    size: tuple[int, int] | None = None


class KeypointReader(Protocol):
    """One format: which files it reads (they are hashed), and what they say."""

    def files(self) -> list[Path]:
        """The files, in a fixed order."""
        ...

    def entries(self) -> Iterator[SourceEntry]:
        """All entries, in the order of the files."""
        ...


def load_json(path: Path) -> Any:
    """Read JSON text, and nothing else: a pickle would run whatever it holds.

    Raises:
        SourceError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise SourceError(f"{path} is not there", "a JSON file", "check the path") from error
    except (ValueError, RecursionError, OSError) as error:
        raise SourceError(f"{path} is not readable as JSON ({error})", "a whole JSON file", "write it again") from error


def source_person(
    values: Any, score: Any, where: str, *, confidences: Any = None, full_confidence: float = 1.0
) -> SourcePerson:
    """Check one person's numbers.

    Args:
        values: 51 numbers x, y, confidence joint by joint, or 17 lists of three.
        score: of the person, or None.
        where: file and entry, for errors.
        confidences: 17 numbers that stand in for every third of `values`, or None.
        full_confidence: what those in `values` have in place of 1.

    Raises:
        SourceError: another number of joints, NaN, no number at all, or confidences that are not 0 to 1.
    """
    keypoints = _numbers(values, ((NUM_JOINTS * 3,), (NUM_JOINTS, 3)), JOINT_VALUES, where).reshape(NUM_JOINTS, 3)
    if confidences is None:
        keypoints[:, 2] /= full_confidence
    else:
        keypoints[:, 2] = _numbers(confidences, ((NUM_JOINTS,),), "one confidence a joint", where)
    lowest, highest = keypoints[:, 2].min(), keypoints[:, 2].max()
    if lowest < -OVERSHOOT or highest > 1 + OVERSHOOT:
        raise SourceError(
            f"{where} has a joint of confidence {lowest if lowest < -OVERSHOOT else highest:g}",
            "0 to 1",
            "scale them: percent by 1/100, logits through a sigmoid",
        )
    keypoints[:, 2] = keypoints[:, 2].clip(0, 1)
    number = keypoints[:, 2].mean() if score is None else _numbers([score], ((1,),), "a score", where)[0]
    if number < 0:
        raise SourceError(f"{where} has score {number:g}", "0 or more: the best score is kept")
    keypoints[keypoints[:, 2] == 0] = 0
    return SourcePerson(keypoints, float(number))


def _numbers(values: Any, shapes: tuple[tuple[int, ...], ...], meaning: str, where: str) -> np.ndarray:
    """Finite float32 numbers of one of the shapes, in memory of their own."""
    count = int(np.prod(shapes[0]))
    try:
        numbers = np.array(values, np.float64)
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
            numbers = numbers.astype(np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise SourceError(f"{where} holds something that is no number ({error})", f"{count}: {meaning}") from error
    if numbers.shape not in shapes:
        found = " x ".join(map(str, numbers.shape)) or "1"
        raise SourceError(
            f"{where} has {found} numbers",
            f"{' or '.join(' x '.join(map(str, shape)) for shape in shapes)}: {meaning}",
            "leave out other joints, and bring these into the order of docs/keypoints.md",
        )
    if not np.isfinite(numbers).all():
        raise SourceError(
            f"{where} holds NaN, null or infinity", f"numbers: {meaning}", "write 0, 0, 0 for a joint that is missing"
        )
    return numbers

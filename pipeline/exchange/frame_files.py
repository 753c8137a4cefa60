"""Keypoints in one JSON file a frame: openpifpaf's predictions and the KeyRe-ID authors' .pose files."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import SourceError
from .people import SourceEntry, SourcePerson, load_json, source_person

PIFPAF_SUFFIX = ".predictions.json"
POSE_SUFFIX = ".pose"


class FrameFiles(ABC):
    """A folder with one file a frame, at the frame's path and with a suffix of the format's."""

    suffix: str

    def __init__(self, source: Path) -> None:
        self._source = source

    @cached_property
    def _files(self) -> list[Path]:
        """Sorted: neither hash nor order may depend on the disk."""
        found = (
            Path(folder, name)
            for folder, _, names in os.walk(self._source)
            for name in names
            if name.endswith(self.suffix)
        )
        return sorted(found, key=Path.as_posix)

    def files(self) -> list[Path]:
        return self._files

    def entries(self) -> Iterator[SourceEntry]:
        for path in self._files:
            name = path.relative_to(self._source).as_posix().removesuffix(self.suffix)
            yield SourceEntry(name, self.people(load_json(path), path))

    @abstractmethod
    def people(self, document: Any, path: Path) -> tuple[SourcePerson, ...]:
        """Those that the document of one frame holds."""


class PifPafFiles(FrameFiles):
    """FRAME.jpg.predictions.json, as openpifpaf.predict --json-output writes: a list of people (and of objects)."""

    suffix = PIFPAF_SUFFIX

    def people(self, document: Any, path: Path) -> tuple[SourcePerson, ...]:
        if not isinstance(document, list) or not all(isinstance(person, dict) for person in document):
            raise SourceError(
                f"{path} is no list of objects", "what openpifpaf.predict --json-output writes", "write it again"
            )
        return tuple(
            source_person(person["keypoints"], person.get("score"), f"{path}, person {number}")
            for number, person in enumerate(document, 1)
            if "keypoints" in person  # objects have a box alone
        )


class PoseFiles(FrameFiles):
    """FRAME.pose, as the authors' extract_keypoint.py writes: JSON text, 17 lists of x, y, confidence; no score.

    Where nobody was found all numbers are 0. The frame's suffix is not in the name.
    """

    suffix = POSE_SUFFIX

    def people(self, document: Any, path: Path) -> tuple[SourcePerson, ...]:
        return (source_person(document, None, str(path)),)

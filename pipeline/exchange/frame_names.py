"""Finds the frames of a manifest by the names that other programs gave them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import PurePosixPath

from ..errors import SourceError


class FrameNames:
    """Frames by path. A name fits a frame where one is the end of the other, folder by folder.

    Args:
        paths: of all frames, relative to the root; the row of a frame is its position here. A path may occur twice,
            in two tracklets.
        with_suffix: whether names come with the suffix of the image, such as ".jpg".

    Raises:
        SourceError: two frames have the same path without suffix, and names come without it.
    """

    def __init__(self, paths: Sequence[str], *, with_suffix: bool = True) -> None:
        self.paths = paths
        self._rows: dict[str, list[int]] = {}
        for row, path in enumerate(paths):
            key = path if with_suffix else str(PurePosixPath(path).with_suffix(""))
            rows = self._rows.setdefault(key, [])
            if rows and paths[rows[0]] != path:
                raise SourceError(
                    f"frames {paths[rows[0]]} and {path} have the same name without suffix",
                    "different names: this format has no suffixes",
                    "import from a table or COCO JSON",
                )
            rows.append(row)
        self._endings = cache(self._make_endings)

    def rows(self, name: str) -> Sequence[int]:
        """Rows of the frame that `name` means; none where nothing fits.

        Raises:
            SourceError: several frames fit.
        """
        parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part != "/"]
        for start in range(len(parts)):  # the longest end that is a path: a.jpg may lie beside folder/a.jpg
            rows = self._rows.get("/".join(parts[start:]))
            if rows:
                return rows
        keys = self._endings(len(parts)).get("/".join(parts), ())
        if len(keys) > 1:
            first, second = (self.paths[self._rows[key][0]] for key in keys[:2])
            raise SourceError(
                f"{name} fits {len(keys):,} frames, such as {first} and {second}",
                "a name that fits one frame",
                "give paths relative to the frames' folder",
            )
        return self._rows[keys[0]] if keys else ()

    def _make_endings(self, num_parts: int) -> dict[str, list[str]]:
        """The last parts of a path -> the paths that end with them."""
        found: dict[str, list[str]] = {}
        for key in self._rows:
            parts = key.split("/")
            if len(parts) > num_parts:
                found.setdefault("/".join(parts[-num_parts:]), []).append(key)
        return found

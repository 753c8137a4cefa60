"""Keypoints in COCO's JSON. Read, element by element: lists of results, annotation files with images, and openpifpaf's
lists, one file per frame. Written: a prepared dataset as one annotation file."""

from __future__ import annotations

import io
import json
import re
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ..commit import commit_file, require_intact
from ..environment import progress_bar
from ..errors import SettingsError, SourceError
from ..keypoints import KeypointColumns, keypoints_path, read_keypoints
from ..manifest import read_manifest, read_shard_frames
from ..pose.selection import Person
from ..skeleton import BONES, JOINTS
from ..sources.reading import open_source
from ..stages import KEYPOINTS, stage_receipts, stage_settings
from .formats import SourceEntry, printable, source_person, walk

PIFPAF_SUFFIX = ".predictions.json"
VISIBLE = 2  # COCO's third number is a flag: 0 not labelled, 1 hidden, 2 visible
SCORES_FIELD = "keypoint_scores"  # confidences next to COCO's flags: ours, and some other programs'
CATEGORY = {
    "id": 1,
    "name": "person",
    "supercategory": "person",
    "keypoints": list(JOINTS),
    "skeleton": [[a + 1, b + 1] for a, b in BONES],  # COCO counts joints from 1
}
LISTS = ("images", "annotations", "categories")
MAX_SIDE = 1_000_000  # pixels of a frame
MAX_ELEMENT = 4 << 20  # characters of one person, with all else that is written about them

_SPACE = re.compile(r"[ \t\n\r]*")


class JsonReader:
    """Reads a JSON document of any length whose elements are short; memory holds twice MAX_ELEMENT of it.

    Attributes:
        keys: of the document's lists, as far as it was read; "" for one that is a list.
    """

    def __init__(self, file: TextIO) -> None:
        self._file, self._text, self._at = file, "", 0
        self._passed, self._ended = 0, False  # characters before the buffer; whether the file ends with it
        self._decode = json.JSONDecoder().raw_decode
        self.keys: set[str] = set()

    def elements(self) -> Iterator[tuple[str, Any]]:
        """Key and element, for every element of the lists in the document's object. A document that is a list has the
        key "". ValueErrors say what is wrong, and where.
        """
        if self._take("[{") == "[":
            yield from self._list("")
        else:
            for _ in self._items("}"):
                key = self._value()
                if not isinstance(key, str):
                    raise ValueError(f"{reprlib.repr(key)} in place of a key")
                self._take(":")
                if self._peek() == "[":
                    self._take("[")
                    yield from self._list(key)
                elif key in LISTS:
                    raise ValueError(f"{key} is no list")
                else:
                    self._value()
        if self._peek():
            raise ValueError(f"more text after the document's end, at character {self._passed + self._at:,}")

    def _list(self, key: str) -> Iterator[tuple[str, Any]]:
        self.keys.add(key)
        for _ in self._items("]"):
            yield key, self._value()

    def _items(self, end: str) -> Iterator[None]:
        """Stops before each item, which the caller reads."""
        if self._peek() == end:
            self._take(end)
            return
        yield
        while self._take("," + end) == ",":
            yield

    def _value(self) -> Any:
        self._peek()
        try:
            value, self._at = self._decode(self._text, self._at)
        except json.JSONDecodeError as error:
            place = f"{error.msg}: character {self._passed + error.pos:,}"
            raise ValueError(f"{place}, or an element of more than {MAX_ELEMENT:,} characters") from error
        return value

    def _peek(self) -> str:
        """The next character that is no white space, "" at the end; from it on, the buffer holds a complete element."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._ended or len(self._text) - self._at >= MAX_ELEMENT:
                return self._text[self._at : self._at + 1]
            chunk = self._file.read(MAX_ELEMENT)
            self._passed += self._at
            self._text, self._at, self._ended = self._text[self._at :] + chunk, 0, not chunk

    def _take(self, expected: str) -> str:
        found = self._peek()
        if not found or found not in expected:
            place = f"{' or '.join(expected)} at character {self._passed + self._at:,}"
            raise ValueError(f"{repr(found) if found else 'the end'} in place of {place}")
        self._at += 1
        return found


def json_objects(path: Path, need: str = "annotations") -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and object of all lists in LISTS, or of a document that is a list; any other must have the key `need`."""
    with open_source(path, "JSON: a list of results, or an object with lists of images and annotations") as file:
        reader = JsonReader(io.TextIOWrapper(file, "utf-8-sig"))
        for key, item in reader.elements():
            if key in ("", *LISTS):
                if not isinstance(item, dict):
                    raise ValueError(f"something else than objects among its {key or 'results'}")
                yield key, item
        if not reader.keys & {"", need}:
            raise ValueError(f"neither a list nor an object with {need}")


def coco_entries(source: Path, images: Path | None = None) -> Iterator[SourceEntry]:
    """Either [{image_id, category_id, keypoints, score}, ...] or {images, annotations, categories}; or a folder with
    FRAME.jpg.predictions.json, as openpifpaf.predict --json-output writes. Objects without keypoints are passed over.
    `images` is an annotation file that names image ids.
    """
    if source.is_dir():
        for path in walk(source, PIFPAF_SUFFIX):
            people = tuple(_person(item, where) for item, where in _people(path))
            yield SourceEntry(printable(path.relative_to(source).as_posix().removesuffix(PIFPAF_SUFFIX)), people)
        return
    names: dict[int | str, str] = {}
    other_joints: dict[str, dict[str, Any]] = {}  # repr of a category's id -> category
    flags: set[Any] = set()  # third numbers, until there is one that is no flag
    for key, item in json_objects(source):  # lists come in any order: names first, people later
        if key == "images":
            yield SourceEntry(_add_image(names, item, source), (), _size(item, source))
        elif key == "categories":
            if item.get("keypoints", list(JOINTS)) != list(JOINTS):
                other_joints[repr(item.get("id"))] = item
        elif flags <= {0, 1, VISIBLE}:
            values = item.get("keypoints")
            if isinstance(values, list) and SCORES_FIELD not in item:
                flags.update(value for value in values[2::3] if isinstance(value, int | float))
        elif not key:
            break  # a list has nothing else
    full_confidence = VISIBLE if VISIBLE in flags and flags <= {0, 1, VISIBLE} else 1
    if images is not None:
        for key, item in json_objects(images, need="images"):
            if key == "images":
                yield SourceEntry(_add_image(names, item, images), None, _size(item, images))
    for item, where in _people(source):
        other = other_joints.get(repr(item.get("category_id")))
        if other is not None:
            found = f"{where} is a {reprlib.repr(other.get('name'))} with joints {reprlib.repr(other['keypoints'])}"
            raise SourceError(found, "COCO's 17", "leave it out, or bring its joints into COCO's order")
        name = item.get("image_id")
        if isinstance(name, int | str) and name in names:
            name = names[name]
        elif not isinstance(name, str):
            found = f"{where} has image_id {reprlib.repr(name)}, and no list of images names it"
            raise SourceError(found, "a file name or an id of images", "name the file that has them: --images FILE")
        yield SourceEntry(printable(name), (_person(item, where, full_confidence),))


def _people(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Objects with keypoints (boxes have none), and where each is, for errors."""
    number = 0
    for key, item in json_objects(path):
        if key in ("", "annotations") and "keypoints" in item:
            number += 1
            yield item, f"{path}, person {number}"


def _person(item: dict[str, Any], where: str, full_confidence: float = 1) -> Person:
    return source_person(item["keypoints"], item.get("score"), where, item.get(SCORES_FIELD), full_confidence)


def _add_image(names: dict[int | str, str], image: dict[str, Any], path: Path) -> str:
    """Remember an image's name under its id."""
    number, name = image.get("id"), image.get("file_name")
    if not isinstance(name, str) or not isinstance(number, int | str) or number in names:
        found = f"{path} has an image {reprlib.repr(image)}"
        raise SourceError(found, "id and file_name, each id once", "add or renumber them")
    names[number] = printable(name)
    return names[number]


def _size(image: dict[str, Any], path: Path) -> tuple[int, int] | None:
    """Width and height, or None where both are missing."""
    sides: tuple[Any, Any] = image.get("width"), image.get("height")
    if not any(sides):
        return None
    if any(type(side) not in (int, float) or not 1 <= side <= MAX_SIDE or side != int(side) for side in sides):
        found = f"{path} has an image of width and height {reprlib.repr(sides)}"
        raise SourceError(found, "pixels, or neither", "write the frame's size")
    return int(sides[0]), int(sides[1])


@dataclass
class ExportSummary:
    """What was written: images, people in them, and frames that the dataset leaves out."""

    num_images: int = 0
    num_people: int = 0
    num_left_out: int = 0


def export_keypoints(prepared: Path, out: Path, *, overwrite: bool = False) -> ExportSummary:
    """Write images, annotations and the category; `out` appears only when it is complete.

    The id of an image is the frame's number in the dataset, from 1. Annotations have COCO's [x, y, v], v = 2 where
    the confidence is over 0, and the confidences themselves as `keypoint_scores`, which import_keypoints reads: what
    is exported and imported again is the same to the last bit of float32.

    Raises:
        FormatError: shards of keypoints are missing, outdated, or differ from their receipts.
        SettingsError: `out` exists and `overwrite` is not given.
    """
    if out.exists() and not overwrite:
        raise SettingsError(f"{out} exists", "a new file", "choose another name, or add --overwrite")
    receipts = stage_receipts(prepared, KEYPOINTS)
    for receipt in receipts.values():
        require_intact(prepared, receipt, "delete it, then run the command again that made the keypoints: it resumes")
    summary = ExportSummary()
    commit_file(out, lambda partial_path: _write(partial_path, prepared, sorted(receipts), summary))
    return summary


def _write(path: Path, prepared: Path, shards: Sequence[int], summary: ExportSummary) -> None:
    """Frames are read twice, once for the images and once for the annotations: memory holds one shard."""
    manifest = read_manifest(prepared)
    bar = progress_bar(2 * manifest.num_frames, "export", "rows")
    with open(path, "w", encoding="utf-8") as file, bar:
        info = {"description": f"keypoints of {manifest.name}", "settings": stage_settings(prepared, KEYPOINTS)}
        file.write(f'{{"info": {json.dumps(info)},\n"categories": [{json.dumps(CATEGORY)}],\n"images": [')
        images = (
            {"id": number, "file_name": name} | dict(zip(("width", "height"), row.sizes[0].tolist(), strict=True))
            for number, name, row in _frames(prepared, shards, bar)
        )
        summary.num_images = _write_elements(file, images)
        file.write('],\n"annotations": [')
        frames = _frames(prepared, shards, bar)
        people = (_annotation(number, row) for number, _, row in frames if row.keypoints[..., 2].any())
        summary.num_people = _write_elements(file, people)
        file.write("]}\n")
    summary.num_left_out = manifest.num_frames - summary.num_images


def _frames(prepared: Path, shards: Sequence[int], bar: Any) -> Iterator[tuple[int, str, KeypointColumns]]:
    """Number from 1, path and row of every frame that is not left out."""
    start = 1
    for shard in shards:
        columns = read_keypoints(keypoints_path(prepared, shard))
        paths = read_shard_frames(prepared, shard).paths
        for row in np.flatnonzero(columns.in_shards).tolist():
            yield start + row, paths[row], columns[row : row + 1]
        start += len(columns)
        bar.update(len(columns))


def _write_elements(file: TextIO, elements: Iterable[dict[str, Any]]) -> int:
    """One element per line; returns how many there are."""
    count = 0
    for element in elements:
        file.write((",\n" if count else "\n") + json.dumps(element, separators=(",", ":")))
        count += 1
    return count


def _annotation(number: int, row: KeypointColumns) -> dict[str, Any]:
    """The person of a frame, found or interpolated."""
    keypoints = row.keypoints[0]
    found = keypoints[:, 2] > 0
    corner, opposite = keypoints[found, :2].min(0), keypoints[found, :2].max(0)
    box = _short(np.concatenate([corner, opposite - corner]))
    flagged = zip(_short(keypoints[:, :2]), (VISIBLE * found).tolist(), strict=True)
    return {
        "id": number,
        "image_id": number,
        "category_id": CATEGORY["id"],
        "iscrowd": 0,
        "area": box[2] * box[3],
        "bbox": box,
        "num_keypoints": int(found.sum()),
        "keypoints": [value for place, flag in flagged for value in (*place, flag)],
        SCORES_FIELD: _short(keypoints[:, 2]),
        "score": _short(row.score)[0],
    }


def _short(values: np.ndarray) -> Any:
    """Python floats with the fewest digits that are still these float32, in nested lists of the same shape."""
    return values.astype(np.float32).astype(str).astype(np.float64).tolist()

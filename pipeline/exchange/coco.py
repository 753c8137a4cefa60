"""Keypoints in COCO's JSON, read element by element: lists of results, annotation files with images, and openpifpaf's
lists, one file per frame."""

from __future__ import annotations

import io
import json
import re
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from ..errors import SourceError
from ..skeleton import BONES, JOINTS
from .formats import SourceEntry, SourcePerson, open_source, printable, source_person, walk

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
CHUNK = 1 << 20  # characters that are read at once
CUT = 16  # characters at the end of a buffer that may be the first part of a number, literal or escape

_SPACE = re.compile(r"[ \t\n\r]*")


class JsonReader:
    """Reads a JSON document of any length whose elements are short.

    Attributes:
        keys: of the document's lists, as far as it was read; "" for one that is a list.
    """

    def __init__(self, file: TextIO) -> None:
        self._file, self._text, self._at = file, "", 0
        self._passed, self._ended = 0, False  # characters before the buffer; whether the file ends with it
        self._decode = json.JSONDecoder().raw_decode
        self.keys: set[str] = set()

    def elements(self) -> Iterator[tuple[str, Any]]:
        """Key and element, for every element of the lists in the document's object; values that are no list come
        complete. A document that is a list has the key "". ValueErrors say what is wrong, and where.
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
                    yield key, self._value()
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
        while True:
            try:
                value, end = self._decode(self._text, self._at)
                if self._ended or end < len(self._text) - CUT:
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                cut = error.pos >= len(self._text) - CUT or error.msg.startswith("Unterminated")
                if self._ended or not cut:
                    raise ValueError(f"{error.msg}: character {self._passed + error.pos:,}") from error
            if len(self._text) - self._at > MAX_ELEMENT:
                raise ValueError(f"an element of more than {MAX_ELEMENT:,} characters at {self._passed + self._at:,}")
            self._read()

    def _peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._read()

    def _take(self, expected: str) -> str:
        found = self._peek()
        if not found or found not in expected:
            place = f"at character {self._passed + self._at:,}"
            raise ValueError(f"{repr(found) if found else 'the end'} in place of {' or '.join(expected)} {place}")
        self._at += 1
        return found

    def _read(self) -> None:
        chunk = self._file.read(CHUNK)
        self._passed += self._at
        self._text, self._at, self._ended = self._text[self._at :] + chunk, 0, not chunk


def json_objects(path: Path, need: str = "annotations") -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and object of all lists in LISTS, or of a document that is a list; any other must have the key `need`."""
    with open_source(path, "a complete JSON file") as file:
        reader = JsonReader(io.TextIOWrapper(file, "utf-8-sig"))
        for key, item in reader.elements():
            if key in ("", *LISTS):
                if not isinstance(item, dict):
                    found = f"{path} has something else than objects among its {key or 'results'}"
                    raise SourceError(found, "a list of objects")
                yield key, item
        if not reader.keys & {"", need}:
            raise SourceError(
                f"{path} is neither a list nor an object with {need}",
                "a list of results, or an object with images and annotations",
                "name the format with --format if it is not COCO",
            )


def coco_entries(source: Path, images: Path | None = None) -> Iterator[SourceEntry]:
    """Either [{image_id, category_id, keypoints, score}, ...] or {images, annotations, categories}; or a folder with
    FRAME.jpg.predictions.json, as openpifpaf.predict --json-output writes. Objects without keypoints are passed over.

    Memory holds one element and the images' names. `images` is an annotation file that names image ids.
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
            if not key:
                raise SourceError(f"{images} is a list", "an object with images, each with id and file_name")
            if key == "images":
                yield SourceEntry(_add_image(names, item, images), None, _size(item, images))
    for item, where in _people(source):
        other = other_joints.get(repr(item.get("category_id")))
        if other is not None:
            raise SourceError(
                f"{where} is a {reprlib.repr(other.get('name'))} with the joints {reprlib.repr(other['keypoints'])}",
                f"COCO's 17: {', '.join(JOINTS[:3])} ...",
                "leave it out, or bring its joints into COCO's order",
            )
        yield SourceEntry(_image_name(item.get("image_id"), names, where), (_person(item, where, full_confidence),))


def _people(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Objects with keypoints (boxes have none), and where each is, for errors."""
    number = 0
    for key, item in json_objects(path):
        if key in ("", "annotations") and "keypoints" in item:
            number += 1
            yield item, f"{path}, person {number}"


def _person(item: dict[str, Any], where: str, full_confidence: float = 1) -> SourcePerson:
    return source_person(
        item["keypoints"],
        item.get("score"),
        where,
        confidences=item.get(SCORES_FIELD),
        full_confidence=full_confidence,
    )


def _add_image(names: dict[int | str, str], image: dict[str, Any], path: Path) -> str:
    """Remember an image's name under its id."""
    number, name = image.get("id"), image.get("file_name")
    if not isinstance(name, str) or not isinstance(number, int | str):
        raise SourceError(f"{path} has an image {reprlib.repr(image)}", "id and file_name", "add them")
    if number in names:
        raise SourceError(f"{path} has two images of id {reprlib.repr(number)}", "each id once", "renumber them")
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


def _image_name(image_id: Any, names: dict[int | str, str], where: str) -> str:
    if isinstance(image_id, int | str) and image_id in names:
        return names[image_id]
    if isinstance(image_id, str):
        return printable(image_id)
    raise SourceError(
        f"{where} has image_id {reprlib.repr(image_id)}, and no list of images names it",
        "a file name, or an id of `images`",
        "name the annotation file that holds the images: --images FILE",
    )

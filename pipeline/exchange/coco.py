"""Keypoints in COCO's JSON: lists of results, and annotation files with images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import SourceError
from ..skeleton import BONES, JOINTS
from .people import SourceEntry, load_json, source_person

VISIBLE = 2  # COCO's third number is a flag: 0 not labelled, 1 hidden, 2 visible
SCORES_FIELD = "keypoint_scores"  # confidences beside COCO's flags: ours, and some other programs'
CATEGORY = {
    "id": 1,
    "name": "person",
    "supercategory": "person",
    "keypoints": list(JOINTS),
    "skeleton": [[a + 1, b + 1] for a, b in BONES],  # COCO counts joints from 1
}


class CocoFile:
    """Either [{image_id, category_id, keypoints, score}, ...] or {images, annotations, categories}.

    The whole document is in memory while it is read: about 5 KB a person.

    Args:
        source: the file.
        images: for results whose image ids are numbers: an annotation file whose `images` gives their names.
    """

    def __init__(self, source: Path, images: Path | None = None) -> None:
        self._source, self._images = source, images

    def files(self) -> list[Path]:
        return [self._source]

    def entries(self) -> Iterator[SourceEntry]:
        document = load_json(self._source)
        if isinstance(document, list):
            document = {"annotations": document}
        elif not isinstance(document, dict) or "annotations" not in document:
            raise SourceError(
                f"{self._source} is neither a list nor an object with annotations",
                "a list of results, or an object with images and annotations",
                "name the format with --format where it is not COCO",
            )
        images = _images(document, self._source)
        for image in images.values():  # those without an annotation have nobody, and the source says so
            yield SourceEntry(image["file_name"], (), _size(image))
        if self._images is not None:
            images |= _images(load_json(self._images), self._images)
        other_categories = _other_categories(document, self._source)
        people = [item for item in _objects(document, "annotations", self._source) if "keypoints" in item]  # not boxes
        full_confidence = VISIBLE if _have_flags(people) else 1
        for number, item in enumerate(people, 1):
            where = f"{self._source}, person {number}"
            _check_joints(item, other_categories, where)
            image = _image(item, images, where)
            person = source_person(
                item["keypoints"],
                item.get("score"),
                where,
                confidences=item.get(SCORES_FIELD),
                full_confidence=full_confidence,
            )
            yield SourceEntry(image["file_name"], (person,), _size(image))


def _objects(document: dict[str, Any], key: str, path: Path) -> Sequence[dict[str, Any]]:
    items = document.get(key, [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise SourceError(f"{path} has something else than objects among its {key}", "a list of objects")
    return items


def _images(document: Any, path: Path) -> dict[Any, dict[str, Any]]:
    """Image id -> image."""
    if not isinstance(document, dict):
        raise SourceError(f"{path} is a list", "an object with images, each with id and file_name")
    found: dict[Any, dict[str, Any]] = {}
    for image in _objects(document, "images", path):
        if not isinstance(image.get("file_name"), str) or not isinstance(image.get("id"), int | str):
            raise SourceError(f"{path} has an image {str(image)[:80]}", "id and file_name", "add them")
        if image["id"] in found:
            raise SourceError(f"{path} has two images of id {image['id']!r}", "each id once", "number them anew")
        found[image["id"]] = image
    return found


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def _other_categories(document: dict[str, Any], path: Path) -> Sequence[dict[str, Any]]:
    """Categories that do not have COCO's 17 joints; boxes' categories have none."""
    categories = _objects(document, "categories", path)
    return [category for category in categories if category.get("keypoints", list(JOINTS)) != list(JOINTS)]


def _have_flags(people: Sequence[dict[str, Any]]) -> bool:
    """Whether the third numbers are COCO's 0, 1, 2 in place of confidences."""
    lists = [item["keypoints"] for item in people if SCORES_FIELD not in item]
    thirds = {value for values in lists if isinstance(values, list) for value in values[2::3] if _is_number(value)}
    return VISIBLE in thirds and thirds <= {0, 1, VISIBLE}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _check_joints(item: dict[str, Any], other_categories: Sequence[dict[str, Any]], where: str) -> None:
    for category in other_categories:
        if category.get("id") == item.get("category_id"):
            raise SourceError(
                f"{where} is a {category.get('name', 'thing')} with the joints {str(category['keypoints'])[:60]} ...",
                f"COCO's 17: {', '.join(JOINTS[:3])} ...",
                "leave it out, or bring its joints into COCO's order",
            )


def _image(item: dict[str, Any], images: dict[Any, dict[str, Any]], where: str) -> dict[str, Any]:
    image_id = item.get("image_id")
    if isinstance(image_id, int | str) and image_id in images:
        return images[image_id]
    if isinstance(image_id, str):
        return {"file_name": image_id}
    raise SourceError(
        f"{where} has image_id {image_id!r}, and no list of images names it",
        "a file name, or an id of `images`",
        "name the annotation file that holds the images: --images FILE",
    )

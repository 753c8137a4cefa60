"""Which format a source of foreign keypoints has."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..commit import sha256_of
from ..errors import SettingsError, SourceError
from .coco import CocoFile
from .frame_files import PIFPAF_SUFFIX, POSE_SUFFIX, PifPafFiles, PoseFiles
from .people import KeypointReader
from .table import KeypointTable

COCO, PIFPAF, POSE, TABLE = "coco", "pifpaf", "pose", "table"
FILE_FORMATS = {COCO: CocoFile, TABLE: KeypointTable}
FOLDER_FORMATS = {PIFPAF: PifPafFiles, POSE: PoseFiles}
FORMATS = (*FILE_FORMATS, *FOLDER_FORMATS)
SUFFIXES = {".json": COCO, ".csv": TABLE, ".parquet": TABLE}
FORMS = f"a file .json, .csv or .parquet, or a folder with *{PIFPAF_SUFFIX} or *{POSE_SUFFIX}"


def open_source(source: Path, name: str = "auto", images: Path | None = None) -> tuple[str, KeypointReader]:
    """The format's name and its reader.

    Args:
        source: file or folder.
        name: "auto" or one of FORMATS.
        images: COCO annotation file that names the images of a list of results.

    Raises:
        SourceError: nothing is there, or nothing of the format.
        SettingsError: an unknown format, or `images` with another format than COCO.
    """
    if not source.exists():
        raise SourceError(f"{source} is not there", FORMS, "check the path")
    if name == "auto":
        name = _detect(source)
    if name not in FORMATS:
        raise SettingsError(f"format {name!r}", "one of auto, " + ", ".join(FORMATS))
    if images is not None and name != COCO:
        raise SettingsError(f"--images with format {name}", "--images with COCO results alone", "leave it out")
    if images is not None and not images.is_file():
        raise SourceError(f"{images} is not a file", "a COCO annotation file with images", "check --images")
    if source.is_dir() != (name in FOLDER_FORMATS):
        kind, wanted = ("folder", "file") if source.is_dir() else ("file", "folder")
        raise SourceError(f"{source} is a {kind}", f"a {wanted}, as format {name} has it")
    if name in FILE_FORMATS:
        return name, CocoFile(source, images) if name == COCO else KeypointTable(source)
    reader = FOLDER_FORMATS[name](source)
    if not reader.files():
        raise SourceError(f"{source} holds no *{reader.suffix}", "one a frame, in any folder below")
    return name, reader


def source_sha256(source: Path, reader: KeypointReader) -> str:
    """SHA-256 of everything that is read: of the file, or of the names and contents of a folder's files."""
    if source.is_file():
        return sha256_of(source)
    digest = hashlib.sha256()
    for path in reader.files():
        digest.update(f"{sha256_of(path)}  {path.relative_to(source).as_posix()}\n".encode())
    return digest.hexdigest()


def _detect(source: Path) -> str:
    if source.is_file():
        if source.suffix.lower() not in SUFFIXES:
            raise SourceError(f"{source} has no suffix that says its format", FORMS, "or name it with --format")
        return SUFFIXES[source.suffix.lower()]
    found = [name for name, reader in FOLDER_FORMATS.items() if reader(source).files()]
    if not found:
        raise SourceError(f"{source} holds neither *{PIFPAF_SUFFIX} nor *{POSE_SUFFIX}", FORMS, "check the path")
    if len(found) > 1:
        raise SourceError(f"{source} holds files of {' and '.join(found)}", "one format", "choose with --format")
    return found[0]

"""What was found, as pictures: the query at the left, the nearest to the right of it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from keyreid.pipeline.commit import commit_file
from keyreid.pipeline.environment import progress_bar
from keyreid.pipeline.errors import SettingsError
from keyreid.pipeline.manifest import read_manifest
from keyreid.pipeline.store import TrackletStore

from ..data.decode import decode_frame
from ..embedding.descriptors import Origin, data_fingerprint

THUMBNAIL = (160, 80)  # height and width of a frame
BORDER, GAP, CAPTION = 5, 8, 44  # pixels
PAPER, INK = (255, 255, 255), (34, 34, 34)
QUERY, SAME, OTHER = (69, 117, 180), (26, 152, 80), (150, 150, 150)


def open_store(prepared: Path, origin: Origin, option: str) -> TrackletStore:
    """The prepared dataset that descriptors were made from.

    Args:
        prepared: its folder.
        origin: of the descriptors.
        option: that names the folder.

    Raises:
        SettingsError: it is another.
        FormatError: it is none.
    """
    for split in range(max(1, len(read_manifest(prepared).identity_splits))):
        store = TrackletStore(prepared, split)
        if data_fingerprint(store) == origin.data:
            return store
    raise SettingsError(
        f"{prepared} is not the prepared dataset that the descriptors were made from",
        f"{origin.dataset}, fingerprint {origin.data}",
        f"name that one with {option}",
    )


def write_pictures(folder: Path, found: pd.DataFrame, queries: TrackletStore, gallery: TrackletStore) -> list[Path]:
    """One PNG for each query of a table of `search`: the middle frame of each tracklet, nearest first.

    The query is framed in blue; what lies below the threshold in green; everything else in grey.

    Returns:
        The paths, query-00017.png for tracklet 17.
    """
    paths = []
    groups = found.groupby("query", sort=False)
    with progress_bar(len(groups), "pictures", "queries") as bar:
        for number, rows in groups:
            path = folder / f"query-{number:05d}.png"
            picture = _strip(rows, queries, gallery)
            commit_file(path, lambda partial, drawn=picture: drawn.save(partial, "PNG"))  # type: ignore[misc]
            paths.append(path)
            bar.update()
    return paths


def _strip(rows: pd.DataFrame, queries: TrackletStore, gallery: TrackletStore) -> Image.Image:
    width, height = THUMBNAIL[1] + 2 * BORDER, THUMBNAIL[0] + 2 * BORDER
    picture = Image.new("RGB", (2 * GAP + (len(rows) + 1) * (width + GAP), height + CAPTION + 2 * GAP), PAPER)
    records = rows.to_dict("records")
    first = records[0]
    lines = ["query", f"tracklet {first['query']}", f"id {first['query_identity']} cam {first['query_camera']}"]
    _cell(picture, GAP, _frame(queries, first["query"]), QUERY, lines)
    for place, row in enumerate(records, 1):
        colour = SAME if row.get("same_person") else OTHER
        lines = [f"d {row['distance']:.4g}", f"tracklet {row['tracklet']}", f"id {row['identity']} cam {row['camera']}"]
        _cell(picture, 2 * GAP + place * (width + GAP), _frame(gallery, row["tracklet"]), colour, lines)
    return picture


def _cell(picture: Image.Image, left: int, frame: Image.Image, colour: tuple[int, int, int], lines: list[str]) -> None:
    draw = ImageDraw.Draw(picture)
    right, bottom = left + THUMBNAIL[1] + 2 * BORDER - 1, GAP + THUMBNAIL[0] + 2 * BORDER - 1
    draw.rectangle((left, GAP, right, bottom), outline=colour, width=BORDER)
    picture.paste(frame, (left + BORDER, GAP + BORDER))
    font = ImageFont.load_default(size=11)
    for line, text in enumerate(lines):
        draw.text((left, bottom + 3 + line * CAPTION // 3), text, INK, font)


def _frame(store: TrackletStore, tracklet_id: int) -> Image.Image:
    """The middle frame."""
    (encoded,) = store.images(tracklet_id, [store.num_frames(tracklet_id) // 2])
    return Image.fromarray(decode_frame(encoded, THUMBNAIL).permute(1, 2, 0).numpy())

"""Own data as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from keyreid.pipeline.errors import SettingsError, SourceError
from keyreid.pipeline.sources import read_source
from keyreid.pipeline.sources.table import read

ROWS = [
    ("a/f10.jpg", "walk", "7", "1", "train"),
    ("a/f2.jpg", "walk", "7", "1", "train"),
    ("b/1.jpg", "door", "9", "1", "query"),
    ("b/2.jpg", "exit", "9", "2", "gallery"),
]
COLUMNS = ["frame_path", "tracklet", "identity", "camera", "split"]


def frame(rows: list[tuple[str, ...]] = ROWS) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS)


def write_table(folder: Path, table: pd.DataFrame, name: str = "mine.csv") -> Path:
    for path in table.get("frame_path", []):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"")
    path = folder / name
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False)
    return path


def facts(path: Path, **options: Any) -> list[tuple[Any, ...]]:
    return [(t.split, t.identity, t.camera, t.frame_paths) for t in read(path, **options).tracklets]


EXPECTED = [
    ("train", 7, 1, ("a/f2.jpg", "a/f10.jpg")),
    ("query", 9, 1, ("b/1.jpg",)),
    ("gallery", 9, 2, ("b/2.jpg",)),
]


@pytest.mark.parametrize("name", ["mine.csv", "mine.parquet"])
def test_csv_and_parquet(tmp_path: Path, name: str) -> None:
    assert facts(write_table(tmp_path, frame(), name)) == EXPECTED


@pytest.mark.parametrize("kind", ["int64", "float64"], ids=["whole numbers", "floats of whole numbers"])
def test_numbers_in_parquet(tmp_path: Path, kind: str) -> None:
    table = frame().astype({"identity": kind, "camera": kind})
    assert facts(write_table(tmp_path, table, "mine.parquet")) == EXPECTED


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    assert facts(write_table(tmp_path, frame(ROWS[::-1]))) == EXPECTED


def test_frame_index_orders_frames(tmp_path: Path) -> None:
    table = frame().assign(frame_index=[1, 10, 2, 3])
    assert facts(write_table(tmp_path, table))[0][3] == ("a/f10.jpg", "a/f2.jpg")


def test_root_elsewhere_and_absolute_paths(tmp_path: Path) -> None:
    images = tmp_path / "images"
    path = write_table(images, frame()).rename(tmp_path / "mine.csv")
    assert facts(path, root=images) == EXPECTED
    absolute = frame([(str(images / row[0]), *row[1:]) for row in ROWS])
    absolute.to_csv(path, index=False)
    assert facts(path, root=images) == EXPECTED
    with pytest.raises(SourceError, match=r"f10.jpg is not under .*; expected paths under it; give --root"):
        read(path, images / "b")


def test_text_is_numbered(tmp_path: Path) -> None:
    table = frame().assign(identity=["NA", "NA", "ann", "ann"], camera=["hall", "hall", "hall", "2"])
    reading = read(write_table(tmp_path, table))
    assert reading.notes == {"identity_numbers": {"NA": 1, "ann": 2}, "camera_numbers": {"2": 1, "hall": 2}}
    assert [(t.identity, t.camera) for t in reading.tracklets] == [(1, 2), (2, 2), (2, 1)]


def test_junk_is_left_out(tmp_path: Path) -> None:
    reading = read(write_table(tmp_path, frame().assign(identity=["-1", "-1", "9", "9"])))
    assert reading.notes["junk"] == {"tracklets": 1, "frames": 2}
    assert {t.identity for t in reading.tracklets} == {9}


def test_missing_files_are_named_and_counted(tmp_path: Path) -> None:
    rows = [(f"many/{number}.jpg", "crowd", "1", "1", "train") for number in range(30)]
    path = write_table(tmp_path, frame([*ROWS, *rows]))
    for number in range(25):
        (tmp_path / f"many/{number}.jpg").unlink()
    with pytest.raises(SourceError, match=r"missing: many/0.jpg\n[\s\S]*many/19.jpg\n  and 5 more files") as error:
        read_source("table", path)
    assert "many/20.jpg" not in str(error.value)
    manifest = read_source("table", path, allow_incomplete=True)
    assert manifest.notes["missing_frames"] == 25
    assert manifest.name == "mine"


def change(column: str, value: str, row: int = 1) -> pd.DataFrame:
    table = frame()
    table.loc[row, column] = value
    return table


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            frame().drop(columns=["camera", "split"]),
            r"has no column camera, split \(it has frame_path, tracklet, identi",
        ),
        (frame([]), r"has no rows; expected one row a frame"),
        (change("identity", "8"), r"tracklet 'walk' of .* has 2 identities: 7, 8; expected one"),
        (change("camera", "2"), r"tracklet 'walk' of .* has 2 cameras: 1, 2; expected one"),
        (change("split", "query"), r"tracklet 'walk' of .* has 2 splits: query, train; expected one"),
        (change("split", "test"), r"has split 'test'; expected one of train, query, gallery"),
        (change("identity", " "), r"row 2 of .* has no identity \(1 rows lack it\)"),
        (change("frame_path", "a/f10.jpg"), r"tracklet 'walk' of .* names a/f10.jpg twice"),
        (frame().assign(frame_index=["1", "two", "3", "4"]), r"row 2 of .* has a frame_index that is no number"),
        (change("identity", "07", row=2).assign(tracklet=list("aabc")), r"identity '07' and identity '7' are the same"),
    ],
    ids=["column", "rows", "identities", "cameras", "splits", "split", "empty", "twice", "frame_index", "7 and 07"],
)
def test_bad_input(tmp_path: Path, table: pd.DataFrame, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(write_table(tmp_path, table))


def test_not_a_table(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere.csv is not a file; expected a table"):
        read(tmp_path / "nowhere.csv")
    (tmp_path / "table.xlsx").write_bytes(b"")
    with pytest.raises(SourceError, match=r"a table table.xlsx; expected a file .csv or .parquet"):
        read(tmp_path / "table.xlsx")
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    with pytest.raises(SourceError, match=r"broken.parquet cannot be read"):
        read(tmp_path / "broken.parquet")
    with pytest.raises(SourceError, match=r"--root .*nowhere is not a folder"):
        read(write_table(tmp_path, frame()), tmp_path / "nowhere")


def test_root_belongs_to_tables_alone(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--root with source folder"):
        read_source("folder", tmp_path, table_root=tmp_path)

"""Own data as a table."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from keyreid.pipeline.errors import SettingsError, SourceError
from keyreid.pipeline.index import write_manifest
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
    folder.mkdir(exist_ok=True)
    for path in table.get("frame_path", []):
        if ".." not in path and len(path) < 200:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(b"")
    path = folder / name
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False)
    return path


def facts(path: Path, **options: Any) -> list[tuple[Any, ...]]:
    return [(t.split, t.identity, t.camera, t.name, t.frame_paths) for t in read(path, **options).tracklets]


EXPECTED = [
    ("train", "7", "1", "walk", ("a/f2.jpg", "a/f10.jpg")),
    ("query", "9", "1", "door", ("b/1.jpg",)),
    ("gallery", "9", "2", "exit", ("b/2.jpg",)),
]


@pytest.mark.parametrize("kind", ["csv", "str", "int64", "float64", "Int64", "category"])
def test_csv_and_parquet_in_any_order_of_rows(tmp_path: Path, kind: str) -> None:
    table = frame(ROWS[::-1])
    for column in ("identity", "camera") if kind != "csv" else ():
        table[column] = (table[column].astype("int64") if kind == "Int64" else table[column]).astype(kind)
    assert facts(write_table(tmp_path, table, "mine.csv" if kind == "csv" else "mine.parquet")) == EXPECTED


def test_root_elsewhere_and_absolute_paths(tmp_path: Path) -> None:
    images = tmp_path / "images"
    path = write_table(images, frame()).rename(tmp_path / "mine.csv")
    assert facts(path, root=images) == EXPECTED
    for prefix in (f"{images}/", "./", ".//"):
        frame([(prefix + row[0], *row[1:]) for row in ROWS]).to_csv(path, index=False)
        assert facts(path, root=images) == EXPECTED
    frame([(f"{images}/{row[0]}", *row[1:]) for row in ROWS]).to_csv(path, index=False)
    assert read(path, Path("/")).tracklets[1].frame_paths == (f"{images}/b/1.jpg".removeprefix("/"),)
    with pytest.raises(SourceError, match=r"a frame '/.*f2.jpg', which leaves"):
        write_manifest(tmp_path / "p", read(path, images / "b"))


def test_one_name_among_numbers_renumbers_nobody(tmp_path: Path) -> None:
    """Before, junk and distractors became persons 1 and 2 here, and camera 10 camera 1."""
    rows = [(f"{n}.jpg", f"t{n}", identity, camera, "gallery") for n, (identity, camera) in enumerate(
        [("-1", "10"), ("0", "hall"), ("7", "10"), ("NA", "hall")])]  # fmt: skip
    made = write_manifest(tmp_path / "p", read(write_table(tmp_path, frame(rows))))
    found = [(t.identity, t.identity_name, t.camera, t.camera_name) for t in made.tracklets]
    assert found == [(0, "0", 11, "hall"), (7, "7", 10, "10"), (8, "NA", 11, "hall")]
    assert made.notes["junk"] == made.notes["distractors"] == {"tracklets": 1, "frames": 1}


@pytest.mark.parametrize("column", ["frame_number", "frame_index"])
@pytest.mark.parametrize("name", ["mine.csv", "mine.parquet"])
def test_frame_numbers_order_frames_and_are_kept(tmp_path: Path, column: str, name: str) -> None:
    tracklets = read(write_table(tmp_path, frame().assign(**{column: [1, 500, 2, -3]}), name)).tracklets
    assert tracklets[0].frame_paths == ("a/f10.jpg", "a/f2.jpg")
    assert [t.frame_numbers for t in tracklets] == [(1, 500), (2,), (-3,)]


STAMPS = ["2024-05-01T12:00:00.25Z", "2024-05-01T11:00:00", "2024-05-01 13:00:00+02:00", ""]
UTC = pd.to_datetime(STAMPS, utc=True, format="ISO8601")


@pytest.mark.parametrize(
    ("name", "values", "times", "since"),
    [
        ("mine.csv", ["7.5", "2", "1e3", ""], (2.0, 7.5, 1000.0), "seconds"),
        ("mine.parquet", [7.5, 2, 1000, None], (2.0, 7.5, 1000.0), "seconds"),
        ("mine.csv", STAMPS, (1714561200.0, 1714564800.25, 1714561200.0), "unix"),
        ("mine.parquet", UTC, (1714561200.0, 1714564800.25, 1714561200.0), "unix"),
        ("mine.parquet", UTC.tz_localize(None), (1714561200.0, 1714564800.25, 1714561200.0), "unix"),
        ("mine.parquet", UTC.tz_convert("Asia/Tokyo"), (1714561200.0, 1714564800.25, 1714561200.0), "unix"),
    ],
    ids=["CSV", "Parquet", "ISO", "UTC", "no zone", "a zone"],
)  # fmt: skip
def test_times(tmp_path: Path, name: str, values: Any, times: tuple[float, ...], since: str) -> None:
    """They order a tracklet's frames where each of all frames has one; these do not."""
    reading = read(write_table(tmp_path, frame().assign(time=values), name))
    found = [time for tracklet in reading.tracklets for time in tracklet.times or ()]
    assert tuple(found[:3]) == times and math.isnan(found[3])
    assert reading.notes == {"times": since}


def test_times_order_frames_where_there_are_no_numbers(tmp_path: Path) -> None:
    path = write_table(tmp_path, frame().assign(time=[0.5, 0.75, 0, 0]))
    assert read(path).tracklets[0].frame_paths == ("a/f10.jpg", "a/f2.jpg")
    path = write_table(tmp_path, frame().assign(time=[0.5, 0.75, 0, 0], frame_number=[9, 8, 1, 1]))
    assert read(path).tracklets[0].times == (0.75, 0.5)


def test_missing_files_are_named_and_counted(tmp_path: Path) -> None:
    rows = [(f"many/{number}.jpg", "crowd", "1", "1", "train") for number in range(30)]
    path = write_table(tmp_path, frame([*ROWS, *rows]))
    for number in range(25):
        (tmp_path / f"many/{number}.jpg").unlink()
    os.mkfifo(tmp_path / "many/0.jpg")
    with pytest.raises(SourceError, match=r"missing: many/0.jpg\n[\s\S]*many/19.jpg\n  and 5 more files") as error:
        read_source("table", path)
    assert "many/20.jpg" not in str(error.value)
    reading = read_source("table", path, allow_incomplete=True)
    assert reading.notes["missing_frames"] == 25
    assert reading.name == "mine"


def change(column: str, value: str, row: int = 1) -> pd.DataFrame:
    table = frame()
    table.loc[row, column] = value
    return table


BAD_TABLES: list[tuple[str, pd.DataFrame, str]] = [
    ("column", frame().drop(columns=["camera", "split"]), r"has no column camera, split \(it has frame_path, tracklet"),
    ("two columns", pd.concat([frame(), frame()[["identity"]]], axis=1), r"has two columns identity"),
    ("two numbers", frame().assign(frame_index=1, frame_number=2), r"the columns frame_number and frame_index; expec"),
    ("rows", frame([]), r"has no rows; expected one row per frame"),
    ("identities", change("identity", "8"), r"tracklet 'walk' of .* has more than one identity: 7, 8"),
    ("cameras", change("camera", "2"), r"tracklet 'walk' of .* has more than one camera: 1, 2"),
    ("splits", change("split", "query"), r"tracklet 'walk' of .* has more than one split: query, train"),
    ("split", change("split", "test"), r"has split 'test'; expected one of train, query, gallery"),
    ("empty", change("identity", " "), r"row 2 of .* has no identity \(1 rows lack it\)"),
    ("twice", change("frame_path", "a/f10.jpg"), r"tracklet 'walk' of .* names frame_path a/f10.jpg twice"),
    ("number twice", frame().assign(frame_number=[5, 5, 1, 1]), r"'walk' of .* names number 5 twice"),
    ("no number", frame().assign(frame_index=["1", "two", "3", "4"]), r"row 2 .* frame_index that is no whole number"),
    ("fraction", frame().assign(frame_number=[1, 2.5, 3, 4]), r"row 2 .* frame_number that is no whole number: '2.5'"),
    ("infinite", frame().assign(frame_number=[1, float("inf"), 3, 4]), r"row 2 .* that is no whole number: 'inf'"),
    ("huge", frame().assign(frame_number=["1", "9" * 30, "3", "4"]), r"row 2 .* that is no whole number: '9999"),
    ("very huge", frame().assign(frame_number=["1", "9" * 9999, "3", "4"]), r"row 2 .* that is no whole number: '9999"),
    ("time", frame().assign(time=["2024-05-01", "noon", "", ""]), r"row 2 of .* time that is no ISO 8601 and no "),
    ("infinite time", frame().assign(time=["0", "-inf", "", ""]), r"row 2 of .* time that is infinite: '-inf'"),
    ("leaves the root", frame([("../t/mine.csv", "t", "1", "1", "train")]), r"a frame '../t/mine.csv', which leaves"),
    ("long path", change("frame_path", "x" * 5000), r"not a complete copy of mine\n  missing: xxxx"),
    ("long digits", frame([("9" * 5000, "9" * 5000, "1", "1", "train")]), r"no tracklets in .*\n  missing: 9{300}\.\."),
]  # fmt: skip


BAD_VALUES: list[tuple[str, list[Any], str]] = [
    ("identity", [7, 7, 9, float("inf")], r"row 4 .* identity that is neither text nor a whole number: 'inf'"),
    ("identity", [7, 7, 9, 1e300], r"row 4 .* identity that is neither text nor a whole number: '1e\+300"),
    ("camera", [1, 1, 1.5, 2], r"row 3 of .* camera that is neither text nor a whole number: '1.5"),
    ("camera", [1, 1, None, 2], r"row 3 of .* has no camera"),
    ("frame_number", [1, 2, None, 4], r"row 3 of .* frame_number that is no whole number"),
    ("identity", [[7], [7], [9], [9]], r"mine.parquet cannot be read"),
    ("identity", [b"\xff", b"\xff", b"9", b"9"], r"mine.parquet cannot be read \(.*UTF8"),
    ("time", [datetime.time(12)] * 4, r"row 1 of .* time that is no ISO 8601"),
]
CASES = [(table, "mine.csv", message) for _, table, message in BAD_TABLES] + [
    (frame().assign(**{column: values}), "mine.parquet", message) for column, values, message in BAD_VALUES
]


@pytest.mark.parametrize(("table", "name", "message"), CASES, ids=[message[:40] for *_, message in CASES])
def test_bad_input(tmp_path: Path, table: pd.DataFrame, name: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        write_manifest(tmp_path / "p", read_source("table", write_table(tmp_path / "t", table, name)))


def claim_rows(path: Path) -> None:
    """A file whose rows are equal, so that a few bytes hold millions of them."""
    table = pa.table(
        {name: pa.repeat(pa.scalar(value), 2_000_000) for name, value in zip(COLUMNS, ROWS[0], strict=True)}
    )
    pq.write_table(table, path)


HEADER = ",".join(COLUMNS) + "\n"
NO_TABLES: list[tuple[str, Callable[[Path], Any], str]] = [
    ("nowhere.csv", lambda path: None, r"nowhere.csv is not there; expected a table"),
    ("pipe.csv", os.mkfifo, r"pipe.csv is not a regular file; expected a table"),
    ("loop.csv", lambda path: path.symlink_to(path), r"loop.csv is not a regular file; expected a table"),
    ("table.xlsx", Path.touch, r"a table table.xlsx; expected a file .csv or .parquet"),
    ("empty.csv", Path.touch, r"empty.csv cannot be read"),
    ("latin.csv", lambda path: path.write_bytes(b"frame_path\xff"), r"latin.csv cannot be read .*utf-8"),
    ("ragged.csv", lambda path: path.write_text(f"{HEADER}a,b,1,1,train,x\n"), r"ragged.csv cannot be read"),
    ("quote.csv", lambda path: path.write_text(f'{HEADER}"a,b,1,1,train\n'), r"quote.csv cannot be read"),
    ("broken.parquet", lambda path: path.write_bytes(b"no parquet"), r"broken.parquet cannot be read"),
    ("claims.parquet", claim_rows, r"claims.parquet cannot be read \(it claims 2,000,000 rows of .* in a file of"),
]


@pytest.mark.parametrize(("name", "make", "message"), NO_TABLES, ids=[name for name, *_ in NO_TABLES])
def test_not_a_table(tmp_path: Path, name: str, make: Callable[[Path], Any], message: str) -> None:
    make(tmp_path / name)
    with pytest.raises(SourceError, match=message):
        read(tmp_path / name)


def test_roots(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"--root .*nowhere is not a folder"):
        read(write_table(tmp_path, frame()), tmp_path / "nowhere")
    with pytest.raises(SettingsError, match=r"--root with source folder"):
        read_source("folder", tmp_path, table_root=tmp_path)

"""Descriptors on disk: what is written comes back, and what was not written by this is refused."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mutations import mutate

from keyreid.model.embedding.descriptors import Origin, TrackletDescriptors
from keyreid.model.embedding.file import load_descriptors, save_descriptors, save_pieces
from keyreid.model.sealed import UNSEALED, seal
from keyreid.pipeline.errors import FormatError, KeyReIDError

ORIGIN = Origin("model", "data", "mars", {"flip": True, "max_clips": None}, "bfloat16")


def described(rows: range = range(7), parts: int = 2, dtype: type = np.float32) -> TrackletDescriptors:
    generator = np.random.default_rng(0)
    values, visibility = generator.normal(size=(100, 5)).astype(dtype), generator.random((100, parts), np.float32)
    numbers = np.arange(300).reshape(3, 100)
    return TrackletDescriptors(
        values[rows], visibility[rows], *(n[rows] for n in numbers), np.array(["train", "gallery"] * 50)[rows],
        np.array([3, 1, 1]), np.array([1.0, 0.5, 0.5]), "made so", ORIGIN,
    )  # fmt: skip


def check_equal(found: TrackletDescriptors, expected: TrackletDescriptors) -> None:
    for name, value in vars(expected).items():
        assert np.array_equal(getattr(found, name), value), name
        assert getattr(getattr(found, name), "dtype", None) == getattr(value, "dtype", None), name


@pytest.mark.parametrize("suffix", [".h5", ".parquet"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("parts", [2, 0], ids=["visibility", "none"])
def test_saved_descriptors_come_back_equal(suffix, dtype, parts, tmp_path):
    path, expected = tmp_path / f"d{suffix}", described(parts=parts, dtype=dtype)
    save_descriptors(path, expected)
    check_equal(load_descriptors(path), expected)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".h5", ".parquet"])
def test_pieces_are_one_file(suffix, tmp_path):
    path = tmp_path / f"d{suffix}"
    save_pieces(path, 12, (described(range(start, start + 4)) for start in (0, 4, 8)))
    check_equal(load_descriptors(path), described(range(12)))


def test_the_table_is_for_other_programs(tmp_path):
    save_descriptors(tmp_path / "d.parquet", described())
    table = pq.read_table(tmp_path / "d.parquet")
    assert table.column_names == ["tracklet_id", "identity", "camera", "split", "visibility", "descriptor"]
    assert table["descriptor"][3].as_py() == described().values[3].tolist()
    assert table["camera"].to_pylist() == list(range(200, 207))


@pytest.mark.parametrize("suffix", [".h5", ".parquet"])
def test_another_file_or_version_is_refused(suffix, tmp_path):
    path = tmp_path / f"d{suffix}"
    with pytest.raises(FormatError, match=rf"there is no file .*d{suffix}; expected descriptors as keyreid embed"):
        load_descriptors(path)
    path.write_text("no descriptors")
    with pytest.raises(FormatError, match=rf"d{suffix} holds no hash of itself; .*; delete it and run keyreid embed"):
        load_descriptors(path)


@pytest.mark.parametrize("suffix", [".h5", ".parquet"])
def test_a_damaged_file_is_refused_before_anything_is_parsed(suffix, tmp_path, monkeypatch):
    """HDF5 may spin for minutes over one changed bit."""
    path, generator = tmp_path / f"d{suffix}", np.random.default_rng(0)
    save_descriptors(path, described(range(40)))
    monkeypatch.setattr(h5py, "File", None)
    monkeypatch.setattr(pq, "ParquetFile", None)
    content = path.read_bytes()
    for damaged in {mutate(content, generator) for _ in range(400)} - {content}:
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match=r"was changed after it was written|holds no hash of itself"):
            load_descriptors(path)


def test_numbers_that_the_file_cannot_hold_are_refused_before_memory_is_taken(tmp_path):
    save_descriptors(tmp_path / "d.h5", described())
    with h5py.File(tmp_path / "d.h5", "r+") as file:
        del file["values"]
        file.create_dataset("values", (1 << 40, 5), np.float32)  # nothing of it is written
    reseal(tmp_path / "d.h5")
    with pytest.raises(FormatError, match=r"arrays of .*1099511627776, 5.* numbers in a smaller file"):
        load_descriptors(tmp_path / "d.h5")
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(1 << 22, np.float32)), 1 << 10)
    table = pa.table({"descriptor": values}, metadata={"keyreid": "{}", "seal": UNSEALED})
    pq.write_table(table, tmp_path / "d.parquet", compression="zstd")
    seal(tmp_path / "d.parquet")
    with pytest.raises(FormatError, match=r"4,096 rows of 4,096 bytes in a smaller file"):
        load_descriptors(tmp_path / "d.parquet")


def reseal(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(UNSEALED.encode() + content[len(UNSEALED) :])
    seal(path)


def test_a_file_of_the_last_version_is_refused(tmp_path):
    save_descriptors(tmp_path / "d.h5", described())
    with h5py.File(tmp_path / "d.h5", "r+") as file:
        file.attrs["format_version"] = 2
        del file.attrs["origin"]
    reseal(tmp_path / "d.h5")
    with pytest.raises(FormatError, match=r"descriptor format version 2; expected version 5; .*: run keyreid embed"):
        load_descriptors(tmp_path / "d.h5")


def test_a_table_of_something_else_is_refused(tmp_path):
    table = pq.read_table(_saved(tmp_path)).replace_schema_metadata({"seal": UNSEALED})
    pq.write_table(table, tmp_path / "other.parquet")
    seal(tmp_path / "other.parquet")
    with pytest.raises(FormatError, match="a Parquet file without keyreid's metadata"):
        load_descriptors(tmp_path / "other.parquet")


def _saved(folder: Path) -> Path:
    save_descriptors(folder / "d.parquet", described())
    return folder / "d.parquet"


@pytest.mark.parametrize("suffix", [".h5", ".parquet"])
def test_a_full_disk_is_one_error_and_leaves_what_was_there(suffix, tmp_path):
    path = tmp_path / f"d{suffix}"
    save_descriptors(path, described())
    large = described()
    large = replace(large, values=np.zeros((7, 50_000), np.float32), widths=np.array([50_000]), weights=np.ones(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, before[1]))
    try:
        with pytest.raises(KeyReIDError, match="no room to write"):
            save_descriptors(path, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    check_equal(load_descriptors(path), described())
    assert [file.name for file in tmp_path.iterdir()] == [path.name]

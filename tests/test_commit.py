import errno
from pathlib import Path

import pytest

from keyreid.pipeline.commit import (
    commit_file,
    fingerprint,
    is_done,
    read_json,
    read_receipt,
    receipt_path,
    sha256_of,
    write_json,
    write_receipt,
)  # fmt: skip
from keyreid.pipeline.errors import FormatError, KeyReIDError
from keyreid.pipeline.records import ShardReceipt

RECEIPT = ShardReceipt("keypoints", 3, "keypoints/00003.parquet", "ab", 4, 5, "settings", "inputs", {}, {})


def test_commit_returns_the_hash_of_what_lies_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    assert commit_file(path, lambda partial: _write(partial, b"abc")) == sha256_of(path)
    assert path.read_bytes() == b"abc"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(partial: Path) -> None:
        partial.write_bytes(b"half of the new")
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match=r"interrupted"):
        commit_file(path, fail)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_says_so(tmp_path: Path) -> None:
    def full(partial: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(KeyReIDError, match=r"there is no room to write .*file .No space left.*; free some space"):
        commit_file(tmp_path / "file", full)
    assert not any(tmp_path.iterdir())


def test_receipts_come_back(tmp_path: Path) -> None:
    assert read_receipt(tmp_path, "keypoints", 3) is None
    write_receipt(tmp_path, RECEIPT)
    assert read_receipt(tmp_path, "keypoints", 3) == RECEIPT


@pytest.mark.parametrize(
    ("settings", "inputs", "artefact", "done"),
    [
        ("settings", "inputs", b"full", True),
        ("other", "inputs", b"full", False),  # made with other settings
        ("settings", "other", b"full", False),  # made from other frames
        ("settings", "inputs", None, False),  # somebody deleted the artefact
        ("settings", "inputs", b"cut", False),  # or shortened it
    ],
)
def test_what_counts_as_done(tmp_path: Path, settings: str, inputs: str, artefact: bytes | None, done: bool) -> None:
    write_receipt(tmp_path, RECEIPT)
    if artefact is not None:
        commit_file(tmp_path / RECEIPT.file, lambda partial: _write(partial, artefact))
    assert is_done(tmp_path, "keypoints", 3, settings, inputs) is done


def test_a_damaged_receipt_is_named(tmp_path: Path) -> None:
    write_json(receipt_path(tmp_path, "keypoints", 3), {"stage": "keypoints"})
    with pytest.raises(FormatError, match=r"00003.json is not a receipt .*delete it and run the stage again"):
        read_receipt(tmp_path, "keypoints", 3)
    receipt_path(tmp_path, "keypoints", 3).write_text("{")
    with pytest.raises(FormatError, match=r"not readable as JSON"):
        read_json(receipt_path(tmp_path, "keypoints", 3))


def test_fingerprints_follow_values_and_not_their_order() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)

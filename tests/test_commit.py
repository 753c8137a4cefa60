import errno
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pytest

from keyreid.pipeline.commit import (
    commit_file,
    commit_shard,
    exclusive,
    fingerprint,
    read_json,
    read_receipt,
    receipt_path,
    sha256_of,
    write_json,
)
from keyreid.pipeline.errors import FormatError, KeyReIDError, SettingsError
from keyreid.pipeline.records import ShardReceipt

RECEIPT = ShardReceipt("keypoints", 3, 0, "keypoints/00003.parquet", "ab", 4, 5, "settings", "inputs", {}, {})
FACTS = ("generation", "rows", "settings", "inputs", "notes", "made_with")


def test_commit_returns_the_hash_of_what_lies_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    assert commit_file(path, lambda partial: partial.write_bytes(b"abc")) == sha256_of(path)
    assert path.read_bytes() == b"abc"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [RuntimeError("interrupted"), OSError(errno.ENOSPC, "No space left on device")])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(partial: Path) -> None:
        partial.write_bytes(b"half of the new")
        raise error

    room = r"there is no room to write .*file .No space left.*; free some space"
    with pytest.raises((RuntimeError, KeyReIDError), match=room if isinstance(error, OSError) else "interrupted"):
        commit_file(path, fail)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_every_bit_of_a_receipt_counts(tmp_path: Path) -> None:
    path = receipt_path(tmp_path, "keypoints", 3)
    assert read_receipt(tmp_path, "keypoints", 3) is None
    write_json(path, asdict(RECEIPT))
    assert read_receipt(tmp_path, "keypoints", 3) == RECEIPT
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        with suppress(FormatError):
            assert read_receipt(tmp_path, "keypoints", 3) == RECEIPT, "white space"


def test_an_old_receipt_never_vouches_for_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies between the file and its receipt leaves none."""
    facts = {name: getattr(RECEIPT, name) for name in FACTS}
    path = tmp_path / RECEIPT.file
    commit_shard(tmp_path, "keypoints", 3, path, lambda partial: partial.write_bytes(b"old"), **facts)
    monkeypatch.setattr("keyreid.pipeline.commit.write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        commit_shard(tmp_path, "keypoints", 3, path, lambda partial: partial.write_bytes(b"new"), **facts)
    assert path.read_bytes() == b"new" and read_receipt(tmp_path, "keypoints", 3) is None


@pytest.mark.parametrize("kind", ["symlink", "folder", "fifo"])
def test_a_lock_is_an_ordinary_file(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "precious"
    target.write_text("content")
    lock = tmp_path / ".lock"
    {"symlink": lambda: lock.symlink_to(target), "folder": lock.mkdir, "fifo": lambda: os.mkfifo(lock)}[kind]()
    with pytest.raises(SettingsError, match=r"\.lock is no lock file; expected an ordinary file; delete it"):
        exclusive(tmp_path).__enter__()
    assert target.read_text() == "content", "it is not emptied through the link"


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

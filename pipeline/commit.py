"""Files that are whole or absent: write to a temporary name, fsync, hash, rename, then the receipt."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .errors import FormatError, KeyReIDError
from .records import ShardReceipt

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def commit_file(path: Path, write: Callable[[Path], None]) -> str:
    """Let `write` fill a temporary file beside `path`, then move it into place.

    Returns:
        The SHA-256 of the file's bytes, in hex.

    Raises:
        KeyReIDError: the disk is full or the folder cannot be written; nothing is left at `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    os.close(handle)
    partial = Path(name)
    try:
        write(partial)
        with open(partial, "rb+") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _hash(file)
            os.fsync(file.fileno())
        partial.chmod(0o666 & ~_umask())  # mkstemp makes files private; data is meant to be shared
        os.replace(partial, path)
        _sync_folder(path.parent)
    except Exception as error:  # h5py says it in words, safetensors in words of an error of its own
        if getattr(error, "errno", None) in FULL or any(os.strerror(code) in str(error) for code in FULL):
            raise KeyReIDError(
                f"there is no room to write {path} ({getattr(error, 'strerror', None) or error})",
                "",
                "free some space or raise the quota, and run the command again: it goes on",
            ) from error
        raise
    finally:
        partial.unlink(missing_ok=True)
    return digest


def write_json(path: Path, value: Any) -> None:
    """Commit `value` as indented JSON with sorted keys."""
    text = json.dumps(value, indent=2, sort_keys=True) + "\n"
    commit_file(path, lambda partial: _write_text(partial, text))


def read_json(path: Path) -> Any:
    """Read a JSON file of the prepared dataset.

    Raises:
        FormatError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FormatError(
            f"{path} is not readable as JSON ({error})", "", "delete it and run the stage again"
        ) from error


def fingerprint(value: Any) -> str:
    """A short hash of anything that JSON can hold; equal values have equal hashes."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _hash(file)


def receipt_path(prepared: Path, stage: str, shard: int) -> Path:
    return prepared / "receipts" / stage / f"{shard:05d}.json"


def commit_shard(
    prepared: Path, stage: str, shard: int, path: Path, write: Callable[[Path], None], **facts: Any
) -> ShardReceipt:
    """Commit a shard's artefact at `path`, then its receipt; from then on it counts as whole.

    Args:
        write: fills the file whose path it is given.
        facts: the receipt's rows, settings, inputs, notes and made_with.
    """
    digest = commit_file(path, write)
    receipt = ShardReceipt(
        stage=stage,
        shard=shard,
        file=str(path.relative_to(prepared)),
        sha256=digest,
        num_bytes=path.stat().st_size,
        **facts,
    )
    write_receipt(prepared, receipt)
    return receipt


def write_receipt(prepared: Path, receipt: ShardReceipt) -> None:
    """The last step of a unit of work: from here on the shard counts as whole."""
    write_json(receipt_path(prepared, receipt.stage, receipt.shard), asdict(receipt))


def read_receipt(prepared: Path, stage: str, shard: int) -> ShardReceipt | None:
    """The receipt of a shard, or None where the shard is not done."""
    path = receipt_path(prepared, stage, shard)
    if not path.exists():
        return None
    try:
        return ShardReceipt(**read_json(path))
    except TypeError as error:
        raise FormatError(f"{path} is not a receipt ({error})", "", "delete it and run the stage again") from error


def is_done(prepared: Path, stage: str, shard: int, settings: str, inputs: str) -> bool:
    """Whether the shard is whole and was made with these settings from these inputs."""
    receipt = read_receipt(prepared, stage, shard)
    return (
        receipt is not None
        and receipt.settings == settings
        and receipt.inputs == inputs
        and has_its_size(prepared, receipt)
    )


def has_its_size(prepared: Path, receipt: ShardReceipt) -> bool:
    """Whether the artefact is there and as long as its receipt says: what can be known without reading it."""
    path = prepared / receipt.file
    return path.is_file() and path.stat().st_size == receipt.num_bytes


def require_whole(prepared: Path, receipt: ShardReceipt, remedy: str) -> Path:
    """The artefact of a receipt, read once and compared with the receipt's hash.

    Raises:
        FormatError: it is missing or was changed.
    """
    path = prepared / receipt.file
    found = f"SHA-256 {sha256_of(path)[:16]}..." if path.is_file() else "is missing"
    if found != f"SHA-256 {receipt.sha256[:16]}...":
        raise FormatError(
            f"{path} {'has ' * path.is_file()}{found}", f"{receipt.sha256[:16]}... of its receipt", remedy
        )
    return path


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _hash(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Files that are complete or absent: write to a temporary name, fsync, hash, rename, then the receipt. One run at a
time in a folder."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

from .errors import FormatError, KeyReIDError, SettingsError
from .records import ShardReceipt

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SEAL = "content_sha256"  # key of a JSON file's hash of everything else in it
MAX_JSON_BYTES = 64 << 20  # of a file of this project's own


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Within, an error of a full disk becomes a KeyReIDError that names `path`."""
    try:
        yield
    except Exception as error:  # h5py says it in words, safetensors in words of an error of its own
        if getattr(error, "errno", None) in FULL or any(os.strerror(code) in str(error) for code in FULL):
            raise KeyReIDError(
                f"there is no room to write {path} ({getattr(error, 'strerror', None) or error})",
                "",
                "free some space or raise the quota, and run the command again: it resumes",
            ) from error
        raise


def commit_file(path: Path, write: Callable[[Path], object], before_rename: Callable[[], object] | None = None) -> str:
    """Let `write` fill a temporary file next to `path`, then move it into place; returns the SHA-256 in hex.

    Args:
        path: the file.
        write: fills the file whose path it is given.
        before_rename: called when the new content is safely on disk, before the old one goes.

    What was at `path` is still there if anything fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with explain_full_disk(path):
        partial = path.with_name(f".{path.name}.{uuid4().hex[:12]}.partial")
        try:
            partial.touch(exist_ok=False)
            write(partial)
            digest = sha256_of(partial)
            with open(partial, "rb+") as file:
                os.fsync(file.fileno())
            if before_rename is not None:
                before_rename()
            os.replace(partial, path)
            sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)
    return digest


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Commit `value` as indented JSON with sorted keys, and a hash of itself that read_json compares."""
    sealed = json.loads(json.dumps({key: one for key, one in value.items() if key != SEAL}))  # keys become texts
    text = json.dumps(sealed | {SEAL: _hash_of_value(sealed)}, indent=2, sort_keys=True) + "\n"
    commit_file(path, lambda partial: partial.write_bytes(text.encode()))


def read_json(path: Path, *, sealed: bool = True) -> dict[str, Any]:
    """Read what write_json wrote.

    Args:
        path: the file.
        sealed: whether it must carry its own hash; where it has one, that is compared in any case.

    Raises:
        FormatError: the file is not JSON, or was changed.
    """
    remedy = "restore it from a copy, or delete it and run the command again that made it"
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes")
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError(f"a {type(value).__name__} at its top")
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not readable as JSON ({error})", "", remedy) from error
    digest = value.pop(SEAL, None)
    if digest != _hash_of_value(value) and (sealed or digest is not None):
        raise FormatError(f"{path} was changed after it was written", f"its hash as {SEAL}", remedy)
    return value


def fingerprint(value: Any) -> str:
    """A short hash of anything that JSON can hold; equal values have equal hashes."""
    return _hash_of_value(value)[:16]


def _hash_of_value(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):  # hashlib.file_digest came with Python 3.11
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system gives it back when the process ends, however it ends.

    A SettingsError says who else holds it, or that the lock is a link or no file.
    """
    path = folder / ".lock"
    no_file = SettingsError(f"{path} is no lock file", "an ordinary file", "delete it")
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise no_file from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise no_file
    with open(handle, "r+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found = f"another run ({file.read(200).strip()}) is at work on {folder}"
            remedy = "wait until it ends, or stop it: a later run resumes where it was"
            raise SettingsError(found, "one at a time", remedy) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
        file.truncate(0)


def receipt_path(prepared: Path, stage: str, shard: int) -> Path:
    return prepared / "receipts" / stage / f"{shard:05d}.json"


def commit_shard(
    prepared: Path, stage: str, shard: int, path: Path, write: Callable[[Path], None], **facts: Any
) -> ShardReceipt:
    """Commit a shard's artefact at `path`, then its receipt with more `facts`; from then on it counts as complete.

    An earlier receipt goes when the new artefact is safely on disk: it never vouches for other bytes.
    """
    outdated = receipt_path(prepared, stage, shard)
    digest = commit_file(path, write, lambda: outdated.unlink(missing_ok=True))
    receipt = ShardReceipt(
        stage, shard, file=str(path.relative_to(prepared)), sha256=digest, num_bytes=path.stat().st_size, **facts
    )
    write_json(outdated, asdict(receipt))
    return receipt


def read_receipt(prepared: Path, stage: str, shard: int) -> ShardReceipt | None:
    """The receipt of a shard, or None where the shard is not done.

    Raises:
        FormatError: it is damaged.
    """
    path = receipt_path(prepared, stage, shard)
    try:
        return ShardReceipt(**read_json(path))
    except FileNotFoundError:
        return None
    except TypeError as error:
        raise FormatError(f"{path} is not a receipt ({error})", "", "delete it and run the stage again") from error


def has_its_size(prepared: Path, receipt: ShardReceipt) -> bool:
    """Whether the artefact is there and as long as its receipt says: what can be known without reading it."""
    path = prepared / receipt.file
    return path.is_file() and path.stat().st_size == receipt.num_bytes


def require_intact(prepared: Path, receipt: ShardReceipt, remedy: str) -> Path:
    """The artefact of a receipt, read once and compared with its hash; a FormatError where it is another or missing."""
    path = prepared / receipt.file
    digest = sha256_of(path) if path.is_file() else ""
    if digest != receipt.sha256:
        found = f"has SHA-256 {digest[:16]}..." if digest else "is missing"
        raise FormatError(f"{path} {found}", f"{receipt.sha256[:16]}... of its receipt", remedy)
    return path


def repair_hint(prepared: Path) -> str:
    """What an error about a damaged shard says to do."""
    return f"run keyreid-prep verify {prepared}, which names all that is damaged and what to do about it"


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

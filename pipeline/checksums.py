"""Shards against the hashes in their receipts, before hours are spent on what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .commit import require_whole
from .progress import progress_bar
from .records import ShardReceipt

THREADS = 8  # hashing leaves the interpreter lock alone; more would only wait for the disk


def compare_checksums(prepared: Path, receipts: Sequence[ShardReceipt], *, hidden: bool = False) -> None:
    """Read files whole and compare them with their receipts.

    Args:
        prepared: the prepared dataset.
        receipts: of the files.
        hidden: shows no progress bar.

    Raises:
        FormatError: a file is missing or was changed; the first of them in the order given.
    """
    if not receipts:
        return
    remedy = mend(prepared)
    with (
        ThreadPoolExecutor(THREADS) as pool,
        progress_bar(len(receipts), "compare checksums", "shards", hidden=hidden) as bar,
    ):
        try:
            for _ in pool.map(lambda receipt: require_whole(prepared, receipt, remedy), receipts):
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def mend(prepared: Path) -> str:
    """What an error about a damaged shard says to do."""
    return f"run keyreid-prep verify {prepared}, which names all that is damaged; build-shards makes it again"

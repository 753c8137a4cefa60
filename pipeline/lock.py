"""One run at a time on a prepared dataset."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import SettingsError


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system gives it back when the process ends, however it ends.

    Raises:
        SettingsError: another process holds it.
    """
    with open(folder / ".lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise SettingsError(
                f"another run ({file.read().strip()}) is at work on {folder}",
                "one at a time",
                "wait until it ends, or stop it: a later run goes on from where it was",
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
        file.truncate(0)

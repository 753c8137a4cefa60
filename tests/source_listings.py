"""A file system that lists folders the other way round."""

from __future__ import annotations

import os
from typing import Any

import pytest


def reverse_listings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let os.scandir give the entries of a folder in reversed order of their names."""
    real = os.scandir

    class Reversed:
        def __init__(self, path: Any) -> None:
            with real(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Reversed)

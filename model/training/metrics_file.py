"""RUN/metrics.jsonl: one JSON object a line, in the order of training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keyreid.pipeline.commit import commit_file

Record = dict[str, Any]


def append_record(path: Path, record: Record) -> None:
    """Add one line."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def read_records(path: Path) -> list[Record]:
    """Every whole line; a killed process may leave half of one. None where there is no file."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def keep_records(path: Path, count: int) -> None:
    """Drop all but the first lines, and half lines."""
    if path.exists():
        text = "".join(json.dumps(record) + "\n" for record in read_records(path)[:count])
        commit_file(path, lambda partial: _write(partial, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")

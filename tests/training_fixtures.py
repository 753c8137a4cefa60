"""A network that trains in a second, and what two runs that must be equal are compared by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

CPU = torch.device("cpu")
TINY = [
    "model.pretrained=''", "model.stem=conv", "model.patch_size=8", "model.frame_size=[32, 16]", "model.width=24",
    "model.depth=2", "model.num_heads=2", "model.score_width=8", "model.drop_path=0.2",
    "training.identities_per_batch=2", "training.clips_per_identity=2", "training.checkpoint_every=1",
    "training.compile=none",  # compiling takes a minute
]  # fmt: skip
CLOCK = ("seconds", "clips_per_second", "waiting_share", "host_peak_mib", "device_peak_mib")


def assignments(values: list[str]) -> list[str]:
    """As options of the command."""
    return [word for value in values for word in ("--set", value)]


def records(run: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    return [record for record in found if kind in (None, record["kind"])]


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path)


def same_results(first: Path, second: Path) -> None:
    """Whether two runs have the same bits in every file of tensors and the same metrics, but for clock and memory."""
    files = sorted(path.relative_to(first) for path in first.rglob("*.safetensors"))
    assert files == sorted(path.relative_to(second) for path in second.rglob("*.safetensors")) and files
    for file in files:
        one, other = tensors(first / file), tensors(second / file)
        assert one.keys() == other.keys()
        assert [name for name in one if not torch.equal(one[name], other[name])] == [], file
    timeless = [
        [{name: value for name, value in record.items() if name not in CLOCK} for record in records(run)]
        for run in (first, second)
    ]
    assert timeless[0] == timeless[1]

"""Shared by all tests: one thread for torch, and a tiny dataset that went the whole real way once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@dataclass(frozen=True)
class TinyDataset:
    """A synthetic MARS tree, and what was prepared from it with PifPaf and real shards. Copy it to change it."""

    root: Path
    prepared: Path


@pytest.fixture(scope="session")
def tiny_mars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic MARS tree of 8 identities under 2 cameras."""
    from keyreid.pipeline.synthetic.layouts import SyntheticSettings, synthesize

    root = tmp_path_factory.mktemp("tiny") / "mars"
    settings = SyntheticSettings(num_identities=8, num_cameras=2, min_frames=2, max_frames=6, difficulty=0.4, seed=5)
    synthesize(root, "mars", settings)
    return root


@pytest.fixture(scope="session")
def tiny_dataset(tiny_mars: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    """The tiny MARS tree, prepared serially."""
    from keyreid.pipeline.build_shards import build_shards
    from keyreid.pipeline.executor import SerialExecutor
    from keyreid.pipeline.extract_keypoints import extract_keypoints
    from keyreid.pipeline.index import write_manifest
    from keyreid.pipeline.pose.checkpoints import resolve_checkpoint
    from keyreid.pipeline.sources import read_source

    prepared = tmp_path_factory.mktemp("prepared") / "tiny"
    write_manifest(prepared, read_source("mars", tiny_mars), frames_per_shard=64)
    extract_keypoints(prepared, resolve_checkpoint("synthetic"), SerialExecutor())
    build_shards(prepared, SerialExecutor())
    return TinyDataset(tiny_mars, prepared)


@pytest.fixture
def copy(tiny_dataset: TinyDataset, tmp_path: Path) -> Path:
    """The tiny prepared dataset, to be changed."""
    return Path(shutil.copytree(tiny_dataset.prepared, tmp_path / "prepared"))


@contextmanager
def dask_cluster(
    scheduler: list[str], worker: list[str], environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A scheduler, which it yields, and two workers, started as a person does."""
    commands = [
        ["scheduler", *scheduler, "--no-dashboard"],
        ["worker", *worker, "--nworkers", "2", "--nthreads", "1", "--name", "host", "--no-dashboard"],
    ]
    dask = Path(sys.executable).with_name("dask")
    everywhere = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    processes = [subprocess.Popen([dask, *one], env=everywhere, stderr=subprocess.DEVNULL) for one in commands]
    try:
        yield processes[0]
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(timeout=60)

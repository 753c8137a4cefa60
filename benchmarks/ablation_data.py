"""Drawn people, prepared twice: with PifPaf's keypoints and with the true ones."""

from __future__ import annotations

import shutil
from pathlib import Path

from keyreid.pipeline.build_shards import build_shards
from keyreid.pipeline.exchange.import_keypoints import import_keypoints
from keyreid.pipeline.executor import DaskExecutor
from keyreid.pipeline.extract_keypoints import extract_keypoints
from keyreid.pipeline.index import write_manifest
from keyreid.pipeline.pose.checkpoints import resolve_checkpoint
from keyreid.pipeline.sources import read_source
from keyreid.pipeline.synthetic.layouts import TRUTH_FILE, SyntheticSettings, synthesize

KEYPOINTS = ("pifpaf", "true")


def prepare(folder: Path, settings: SyntheticSettings, workers: int) -> None:
    """FOLDER/people, FOLDER/pifpaf and FOLDER/true; what is there stays, and goes on where it stopped."""
    ready = folder / "ready"
    if ready.exists():
        return
    people = folder / "people"
    if not people.exists():
        synthesize(people, "mars", settings, workers)
    for keypoints in KEYPOINTS:
        prepared = folder / keypoints
        if not prepared.exists():
            partial = folder / f".{keypoints}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            write_manifest(partial, read_source("mars", people), frames_per_shard=1024)
            partial.rename(prepared)
        if keypoints == "pifpaf":
            extract_keypoints(prepared, resolve_checkpoint("synthetic"), DaskExecutor(workers=workers))
        else:
            import_keypoints(prepared, people / TRUTH_FILE, DaskExecutor(workers=workers))
        build_shards(prepared, DaskExecutor(workers=workers))
    ready.touch()

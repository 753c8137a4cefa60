"""What loading must never need: the source images, or more memory with every epoch."""

import os
from pathlib import Path

import pytest
from loader_fixtures import load, make_loader
from prepared_dataset import make_prepared

from keyreid.pipeline.store import TrackletStore


def test_no_frame_of_the_source_tree_is_opened(tiny_dataset):
    away = tiny_dataset.root.with_name("away")
    tiny_dataset.root.rename(away)
    try:
        batches = load(TrackletStore(tiny_dataset.prepared))
    finally:
        away.rename(tiny_dataset.root)
    assert batches and all(batch.heatmaps.max() > 200 for batch in batches)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_memory_does_not_grow_with_the_epochs(tmp_path):
    loader = make_loader(TrackletStore(make_prepared(tmp_path)), frame_size=(256, 128))

    def passed(epochs: range) -> int:
        return sum(batch.frames.nbytes + batch.heatmaps.nbytes for epoch in epochs for batch in loader.epoch(epoch))

    passed(range(10))
    before = resident_bytes()
    assert passed(range(10, 90)) > 8 * 24e6  # bytes: an eighth of what passes, kept, is found
    assert resident_bytes() - before < 24e6

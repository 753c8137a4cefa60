"""What loading must never need: the source images, or more memory with every epoch."""

import os
from pathlib import Path

import pytest
from loader_fixtures import load, make_loader
from prepared_dataset import make_prepared

from keyreid.model.data.settings import DataSettings
from keyreid.pipeline.store import TrackletStore


@pytest.mark.parametrize("heatmaps", ["stored", "rendered"])
def test_no_frame_of_the_source_tree_is_opened(tiny_dataset, heatmaps):
    away = tiny_dataset.root.with_name("away")
    tiny_dataset.root.rename(away)
    try:
        batches = load(TrackletStore(tiny_dataset.prepared), data=DataSettings(heatmaps=heatmaps))
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


def test_rendered_heatmaps_are_the_stored_ones(tiny_dataset):
    store = TrackletStore(tiny_dataset.prepared)
    stored, rendered = (load(store, epoch=1, data=DataSettings(heatmaps=way)) for way in ("stored", "rendered"))
    apart = [(a.heatmaps.int() - b.heatmaps.int()).abs() for a, b in zip(stored, rendered, strict=True)]
    assert apart and max(int(cells.max()) for cells in apart) <= 1  # of 255 steps
    assert sum(int(cells.sum()) for cells in apart) < 10

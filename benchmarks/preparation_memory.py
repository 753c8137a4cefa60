"""Memory that preparing a dataset takes, next to the plain ways of doing the same work.

    .venv/bin/python benchmarks/preparation_memory.py

Three claims, each measured in a process of its own, in MB beyond what the process held before:

- the part heatmaps of one tracklet: rendered all at once, and in chunks;
- writing a shard of 200 MB of images: made in memory by HDF5 and copied out, and through a file object;
- PifPaf's network over pictures of 44 sizes, as --scale gives them: a traced graph per size, and one for all.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import torch
from peak_memory import peak, resident, run_alone

from keyreid.pipeline import heatmaps
from keyreid.pipeline.pose.checkpoints import load_checkpoint, resolve_checkpoint
from keyreid.pipeline.pose.forward import FastForward, fold_batch_norm, normalise
from keyreid.pipeline.shards import TrackletFrames, write_shard

FRAMES, SIZE = 920, (128, 256)
BLOB_FRAMES, FRAME_BYTES = 4096, 50_000
SIZES = [(16 * (8 + height) + 1, 16 * (4 + width) + 1) for height in range(11) for width in range(4)]


def beyond(work: Callable[[], object]) -> float:
    """MB that a piece of work adds to the peak of this process."""
    before = resident()
    work()
    return 1000 * (peak() - before)


def render(chunked: bool) -> float:
    keypoints = np.random.default_rng(0).random((FRAMES, 17, 3), np.float32) * np.array([*SIZE, 1], np.float32)
    sizes = np.tile(np.array(SIZE), (FRAMES, 1))
    if not chunked:
        heatmaps.CHUNK_BYTES = 1 << 60
    return beyond(lambda: heatmaps.stored_heatmaps(keypoints, sizes))


def write(streamed: bool) -> float:
    image = np.random.default_rng(0).bytes(FRAME_BYTES)
    images = [image[number:] + image[:number] for number in range(BLOB_FRAMES)]
    shape = (BLOB_FRAMES, 6, 64, 32)
    frames = TrackletFrames(
        0, np.arange(BLOB_FRAMES), tuple(images), np.tile(np.array(SIZE), (BLOB_FRAMES, 1)),
        np.zeros((BLOB_FRAMES, 17, 3), np.float32), np.zeros(shape, np.uint8),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shard.h5")
        if streamed:
            return beyond(lambda: write_shard(path, [frames], {}))
        return beyond(lambda: write_in_memory(path, frames))


def write_in_memory(path: Path, frames: TrackletFrames) -> None:
    blob = b"".join(frames.encoded)
    with h5py.File("shard", "w", driver="core", backing_store=False) as file:
        file["frames/blob"] = np.frombuffer(blob, np.uint8)
        file.create_dataset("frames/heatmaps", data=frames.heatmaps, chunks=(1, 6, 64, 32), compression="lzf")
        file.flush()
        path.write_bytes(file.id.get_file_image())


def forward(one_graph: bool, passes: int) -> list[float]:
    """MB beyond the network after each pass over all sizes."""
    model = load_checkpoint(resolve_checkpoint("synthetic"))
    graphs: dict[tuple[int, int], torch.jit.ScriptModule] = {}
    folded = fold_batch_norm(copy.deepcopy(model)).to(memory_format=torch.channels_last)
    ours = FastForward(model, "cpu")

    def plain(batch: torch.Tensor) -> None:
        batch = normalise(batch).contiguous(memory_format=torch.channels_last)
        size = (batch.shape[2], batch.shape[3])
        if size not in graphs:
            if len(graphs) == 32:
                del graphs[next(iter(graphs))]
            traced = torch.jit.trace(folded, torch.zeros_like(batch), check_trace=False)
            graphs[size] = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
        graphs[size](batch)

    before, held = resident(), []
    for _ in range(passes):
        for height, width in SIZES:
            batch = torch.zeros(2, height, width, 3, dtype=torch.uint8)
            with torch.inference_mode():
                ours(batch) if one_graph else plain(batch)
        held.append(round(1000 * (resident() - before)))
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=3, help="over the 44 sizes")
    passes = parser.parse_args().passes
    print("| MB beyond what the process held before | plain | ours |\n| --- | --- | --- |")
    print(f"| heatmaps of {FRAMES} frames of {SIZE[1]}x{SIZE[0]} | " + row(render))
    print(f"| a shard of {BLOB_FRAMES * FRAME_BYTES / 1e6:.0f} MB of images | " + row(write))
    print(f"| after each of {passes} passes over {len(SIZES)} sizes | " + row(partial(forward, passes=passes)))


def row(measure: Callable[[bool], float | list[float]]) -> str:
    found = [run_alone(measure, way) for way in (False, True)]
    return " | ".join(", ".join(f"{value:,.0f}" for value in np.atleast_1d(value)) for value in found) + " |"


if __name__ == "__main__":
    main()

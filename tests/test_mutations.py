"""Damaged inputs of every reader, in child processes with limits of memory and time.

Each is read as before, or refused by an error of this project; never another error, a hang or a crash. What carries a
hash is never read as something else. A table of many more inputs: python tests/test_mutations.py 2000
"""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutations import mutate

MEMORY = 1 << 30  # bytes beyond what the reader takes for sound input
SECONDS = 20  # for one input; the system then ends the process
INPUTS = {
    "prepared": 500, "mars": 250, "ilids-vid": 150, "ilids-vid json": 100, "ls-vid": 45, "table csv": 200,
    "table parquet": 200, "images": 300, "model": 100, "config": 150, "pifpaf": 15, "pifpaf pickle": 15,
    "frame list": 50, "keypoints": 490,
}  # fmt: skip
SEALED = ("prepared", "model", "pifpaf pickle")

Files = list[Path]
Read = Callable[[], object]


def make_prepared(folder: Path) -> tuple[Files, Read]:
    """Everything that training reads, and the frames' table, which workers read."""
    from prepared_dataset import make_prepared

    from keyreid.pipeline.commit import require_intact
    from keyreid.pipeline.keypoints import read_keypoints
    from keyreid.pipeline.manifest import read_manifest, read_shard_frames
    from keyreid.pipeline.stages import KEYPOINTS, stage_receipts
    from keyreid.pipeline.store import TrackletStore

    prepared = make_prepared(folder / "prepared", identities=2, num_frames=3, size=(8, 16))

    def read() -> object:
        manifest = read_manifest(prepared)
        frames = [t.paths for n in range(manifest.num_shards) for t in read_shard_frames(prepared, n).tracklets]
        rows = [read_keypoints(require_intact(prepared, r, "")) for r in stage_receipts(prepared, KEYPOINTS).values()]
        store = TrackletStore(prepared)
        read = [store.read(t.tracklet_id, range(store.num_frames(t.tracklet_id))) for t in store.tracklets("train")]
        images = [(encoded, heatmaps.tobytes()) for encoded, heatmaps in read]
        return manifest.tracklets, frames, [row.keypoints.tobytes() for row in rows], images

    return sorted(path for path in prepared.rglob("*.*") if path.is_file() and path.name != ".lock"), read


def make_source(name: str) -> Callable[[Path], tuple[Files, Read]]:
    """A dataset on disk; its root is where its reader finds it."""

    def make(folder: Path) -> tuple[Files, Read]:
        from test_sources_ilids_vid import make_ilids
        from test_sources_ls_vid import make_ls_vid
        from test_sources_mars import make_mars

        from keyreid.pipeline.sources import read_source

        kind, _, form = name.partition(" ")
        root = folder / "root"
        if kind == "mars":
            files = sorted((make_mars(root) / "info").iterdir())
        elif kind == "ls-vid":
            files = sorted(path for path in make_ls_vid(root).rglob("*") if path.suffix in (".txt", ".mat"))
        elif kind == "ilids-vid":
            make_ilids(root, form or "mat")
            files = sorted(path for path in root.rglob("*") if path.suffix in (".mat", ".json"))
        else:
            files = [root := write_table(folder, form)]
        return files, lambda: list(read_source(kind, root, allow_incomplete=True).tracklets)

    return make


def write_table(folder: Path, form: str) -> Path:
    import pandas as pd

    for number in range(4):
        (folder / f"{number}.jpg").touch()
    rows = [(f"{n}.jpg", f"t{n // 2}", "1", "2", "train", n, f"2026-01-01T00:00:0{n}") for n in range(4)]
    columns = ["frame_path", "tracklet", "identity", "camera", "split", "frame_number", "time"]
    table = pd.DataFrame(rows, columns=columns)
    path = folder / f"mine.{form}"
    table.to_csv(path, index=False) if form == "csv" else table.to_parquet(path)
    return path


def make_images(folder: Path) -> tuple[Files, Read]:
    from PIL import Image

    from keyreid.pipeline.images import FORMATS, encoded_frame, read_frame

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 32, 3), np.uint8))
    files = [folder / f"frame.{name.lower()}" for name in FORMATS]
    for path, name in zip(files, FORMATS, strict=True):
        picture.save(path, name)
    picture.save(folder / "packed.tiff", compression="tiff_lzw")

    files.append(folder / "packed.tiff")
    return files, lambda: [(read_frame(path).tobytes(), encoded_frame(path)) for path in files]


def make_model(folder: Path) -> tuple[Files, Read]:
    from evaluation_dataset import save_tiny_model

    from keyreid.model.network.weights import load_model

    saved = save_tiny_model(folder / "model")
    return sorted(path for path in saved.rglob("*.*") if path.is_file()), lambda: weights(load_model(saved))


def make_config(folder: Path) -> tuple[Files, Read]:
    from keyreid.model.training.config import read_config

    path = folder / "config.yaml"
    path.write_text(
        "preset: demo\nmodel: {frame_size: [64, 32], depth: 2}\ntraining:\n  epochs: 2\n  warmup_rate: 1e-4\n"
    )
    return [path], lambda: read_config(path)


def make_pifpaf(name: str) -> Callable[[Path], tuple[Files, Read]]:
    """A PifPaf network in this project's form, or in openpifpaf's, whose checksums must be compared."""

    def make(folder: Path) -> tuple[Files, Read]:
        import torch

        from keyreid.pipeline.pose.checkpoints import SYNTHETIC_PATH, load_checkpoint, resolve_checkpoint
        from keyreid.pipeline.pose.pifpaf import build_network

        path = folder / ("theirs.pkl" if name == "pifpaf pickle" else "own.safetensors")
        if name == "pifpaf pickle":
            torch.save({"model": build_network("mobilenetv3small", 2), "epoch": 1}, path)
        else:
            shutil.copy(SYNTHETIC_PATH, path)

        def read() -> object:
            resolved = resolve_checkpoint(str(path))
            network = load_checkpoint(resolved)
            metas = str([vars(meta) for meta in network.head_metas])
            return resolved.input_height, str(network), metas, weights(network)

        return [path], read

    return make


def weights(network: Any) -> list[tuple[str, bytes]]:
    return [(name, value.numpy().tobytes()) for name, value in network.state_dict().items()]


def make_frame_list(folder: Path) -> tuple[Files, Read]:
    from keyreid.cli.keypoint_summary import read_frame_list

    path = folder / "skip.txt"
    path.write_text("# found by find-bad-frames\na/1.jpg\n\nb/2.jpg\n")
    return [path], lambda: read_frame_list(path)


def make_keypoints(folder: Path) -> tuple[Files, Read]:
    """What import-keypoints reads: a source of every format."""
    from foreign_keypoints import NAMES, WRITERS, person

    from keyreid.pipeline.exchange.import_keypoints import detect_format, read_source

    sources = [write(folder, {name: person(seed) for seed, name in enumerate(NAMES)}) for write in WRITERS]
    files = [path if path.is_file() else min(one for one in path.rglob("*") if one.is_file()) for path in sources]

    def read() -> object:
        found = []
        for source in sources:
            for entry in read_source(source, detect_format(source)):
                entry.name.encode()
                assert entry.size is None or min(entry.size) > 0
                for one in entry.people or ():
                    assert one.keypoints.shape == (17, 3) and np.isfinite(one.keypoints).all() and one.score >= 0
                    assert 0 <= one.keypoints[:, 2].min() <= one.keypoints[:, 2].max() <= 1
                    found.append((entry.name, one.score, one.keypoints.tobytes()))
        return found

    return files, read


READERS: dict[str, Callable[[Path], tuple[Files, Read]]] = {
    "prepared": make_prepared,
    **{
        name: make_source(name)
        for name in ("mars", "ilids-vid", "ilids-vid json", "ls-vid", "table csv", "table parquet")
    },
    "images": make_images,
    "model": make_model,
    "config": make_config,
    **{name: make_pifpaf(name) for name in ("pifpaf", "pifpaf pickle")},
    "frame list": make_frame_list,
    "keypoints": make_keypoints,
}


def read_damaged(name: str, count: int, seed: int) -> dict[str, int]:
    """What became of `count` inputs; called in a process of its own, which a hang or a crash ends."""
    from keyreid.pipeline.errors import KeyReIDError

    outcomes: Counter[str] = Counter({"refused": 0, "read as before": 0, "read as another": 0})
    generator = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        files, read = READERS[name](Path(folder))
        expected = read()
        contents = {path: path.read_bytes() for path in files}
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
        for number in range(count):
            path = files[number % len(files)]
            path.write_bytes(mutate(contents[path], generator))
            signal.alarm(SECONDS)
            try:
                outcomes["read as before" if read() == expected else "read as another"] += 1
            except KeyReIDError as error:
                assert 0 < len(str(error)) < 4000
                outcomes["refused"] += 1
            except BaseException:
                sys.stderr.write(f"input {number} of seed {seed}: {path.name}\n")
                raise
            path.write_bytes(contents[path])
    return outcomes


def in_a_child(name: str, count: int, seed: int) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", __file__, name, str(count), str(seed)]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60 + count)
    assert done.returncode == 0, f"{name}: exit code {done.returncode}\n{done.stderr[-4000:]}"
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", READERS)
def test_damaged_input_is_refused_or_read_as_before(name: str) -> None:
    outcomes = in_a_child(name, INPUTS[name], seed=1)
    assert sum(outcomes.values()) == INPUTS[name]
    if name in SEALED:
        assert outcomes["read as another"] == 0
    if name != "frame list":
        assert outcomes["refused"] > INPUTS[name] / 4, outcomes


if __name__ == "__main__":
    if len(sys.argv) == 4:
        sys.stdout.write(json.dumps(read_damaged(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))) + "\n")
    else:
        sys.stdout.write(
            "| reader | inputs | refused | read as before | read as another |\n| --- | --- | --- | --- | --- |\n"
        )
        for reader in READERS:
            found = in_a_child(reader, int(sys.argv[1]), seed=2)
            cells = [reader, sum(found.values()), *found.values()]
            sys.stdout.write("| " + " | ".join(map(str, cells)) + " |\n")
            sys.stdout.flush()

"""keyreid-eval with a report on a dataset of MARS's counts: seconds, memory, and bytes of the page.

    .venv/bin/python benchmarks/report.py
    .venv/bin/python benchmarks/report.py --tracklets 500      # does it run?

1,980 queries and 9,330 gallery tracklets, two synthetic frames each, and a network of two thin blocks with random
weights: what is measured is everything but the network, under all four protocols. Each command is a process of its own;
the second finds the descriptors that the first one made.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mars_tracklets import made_tracklets

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from evaluation_dataset import make_prepared, save_tiny_model

CAMERAS = (1, 2, 3, 4, 5, 6)


def make_dataset(folder: Path, limit: int) -> None:
    """The last tracklets of MARS's counts, and some training tracklets of every camera."""
    test = [(tracklet.split, tracklet.identity, tracklet.camera, 2) for tracklet in made_tracklets()[-limit:]]
    train = [("train", 10_001 + person, camera, 2) for person in range(4) for camera in CAMERAS]
    make_prepared(folder / "prepared", (*train, *test), frames_per_shard=1998)
    save_tiny_model(folder / "run", {"dataset": {"name": "striped"}}, num_cameras=len(CAMERAS), camera_numbers=CAMERAS)


def evaluate(folder: Path, *options: str) -> dict[str, Any]:
    """Run the command; seconds, and GB that the process had in memory at most."""
    arguments = ["run", "prepared", "--protocol", "all", "--descriptors", "d.h5", "--json", "--device", "cpu", *options]
    code = "from keyreid.cli.evaluate import main; main()"
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"Error: keyreid-eval ended with status {status}")
    return {"seconds": round(time.perf_counter() - start, 1), "GB_at_most": round(usage.ru_maxrss * 1024 / 1e9, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracklets", type=int, default=20_000, help="at most so many, for a trial")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_dataset(folder, options.tracklets)
        found = {
            "embed and measure": evaluate(folder),
            "measure": evaluate(folder),
            "measure and report": evaluate(folder, "--report", "report"),
        }
        sizes = {path.name: path.stat().st_size for path in (folder / "report").iterdir() if path.is_file()}
    print(json.dumps({**found, "bytes": sizes}, indent=2))


if __name__ == "__main__":
    main()

"""Kill keyreid-prep and its workers at random moments, again and again, and look for a file that lies.

    .venv/bin/python benchmarks/soak.py --kills 200

A small synthetic dataset is prepared once without disturbance. Then the same commands run with two Dask workers, while
SIGKILL strikes the command or one of its processes. After each kill every file that has a receipt must be the very file
of the undisturbed run; killed commands are started again until the dataset is complete, and then it begins anew. The
result stands in docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from tqdm import tqdm

from keyreid.pipeline.build_shards import build_shards
from keyreid.pipeline.commit import read_receipt, sha256_of
from keyreid.pipeline.executor import SerialExecutor
from keyreid.pipeline.extract_keypoints import extract_keypoints
from keyreid.pipeline.keypoints import read_keypoints
from keyreid.pipeline.manifest import read_manifest, write_manifest
from keyreid.pipeline.pose.checkpoints import resolve_checkpoint
from keyreid.pipeline.shards import ShardReader
from keyreid.pipeline.sources import read_source
from keyreid.pipeline.synthetic.layouts import synthesize
from keyreid.pipeline.synthetic.plan import SyntheticSettings

STAGES = {
    "keypoints": ["extract-keypoints", "--checkpoint", "synthetic", "--device", "cpu"],
    "shards": ["build-shards"],
}
COMMAND = str(Path(sys.executable).with_name("keyreid-prep"))
LONGEST_WAIT = 10.0  # seconds between two kills, at most: to start takes a command about five


@dataclass
class Tally:
    """What happened.

    Attributes:
        kills: by stage and kind of process.
        amid: of them, those that found some shards of the stage whole and others not.
        bad: what is wrong with files that count as whole; must stay empty.
        checked: files compared with the undisturbed run's.
        begun, complete: times that a dataset was begun, and completed in spite of all.
        gave_up: what commands said that ended with an error of their own, since something they needed was killed.
    """

    kills: Counter[str] = field(default_factory=Counter)
    amid: int = 0
    bad: list[str] = field(default_factory=list)
    checked: int = 0
    begun: int = 0
    complete: int = 0
    gave_up: Counter[str] = field(default_factory=Counter)


def soak(indexed: Path, reference: dict[str, str], kills: int, seed: int) -> Tally:
    """Prepare `indexed` again and again under fire.

    Args:
        indexed: a prepared dataset with nothing but its index; its artefacts are deleted each time it is complete.
        reference: file -> SHA-256, of the undisturbed run.
        kills: when to stop: after the dataset that was under way is complete.
        seed: of the moments and victims.
    """
    generator, tally = random.Random(seed), Tally()
    with tqdm(total=kills, unit=" kills", dynamic_ncols=True) as bar:
        while tally.kills.total() < kills:
            tally.begun += 1
            for stage in STAGES:
                while not _attempt(indexed, stage, reference, generator, tally, kills):
                    bar.update(min(kills, tally.kills.total()) - bar.n)
                bar.update(min(kills, tally.kills.total()) - bar.n)
            _check(indexed, reference, tally)
            tally.complete += _whole_files(indexed) == reference
            for name in (*STAGES, "receipts"):
                shutil.rmtree(indexed / name)
    return tally


def prepare_reference(folder: Path, identities: int, seed: int) -> tuple[Path, dict[str, str]]:
    """Draw people and prepare them in peace; returns an indexed folder, and file -> SHA-256 of the artefacts."""
    settings = SyntheticSettings(
        num_identities=identities, num_cameras=2, min_frames=4, max_frames=10, difficulty=0.5, seed=seed
    )
    synthesize(folder / "people", "mars", settings)
    manifest = read_source("mars", folder / "people", frames_per_shard=24)
    for name in ("calm", "soaked"):
        write_manifest(folder / name, manifest)
    extract_keypoints(folder / "calm", resolve_checkpoint("synthetic"), SerialExecutor(), device="cpu")
    build_shards(folder / "calm", SerialExecutor())
    return folder / "soaked", _whole_files(folder / "calm")


def _attempt(
    indexed: Path, stage: str, reference: dict[str, str], generator: random.Random, tally: Tally, kills: int
) -> bool:
    """Start the command of a stage and strike while it runs; True where it came to its end."""
    line = [COMMAND, STAGES[stage][0], str(indexed), *STAGES[stage][1:], "--workers", "2"]
    said = tempfile.TemporaryFile("w+")
    process = psutil.Popen(line, stdout=subprocess.DEVNULL, stderr=said)
    strikes = tally.kills.total() < kills
    while True:
        try:
            code = process.wait(generator.uniform(0, LONGEST_WAIT) if strikes else None)
        except psutil.TimeoutExpired:
            _strike(process, stage, generator, tally)
            whole = sum(name.startswith(stage) for name in _whole_files(indexed))
            tally.amid += 0 < whole < len(reference) / len(STAGES)
            _check(indexed, reference, tally)
        else:
            break
    _check(indexed, reference, tally)
    if code > 0:
        said.seek(0)
        tally.gave_up[re.sub(r"\d+", "N", said.read().strip().splitlines()[-1])] += 1
    said.close()
    return bool(code == 0)


def _strike(process: psutil.Popen, stage: str, generator: random.Random, tally: Tally) -> None:
    """Kill the command, with all that is left of it, in one case of four; else one of its processes."""
    try:
        family = process.children(recursive=True)
        if family and generator.random() < 0.75:
            victim = generator.choice(family)
            victim.send_signal(signal.SIGKILL)
            tally.kills[f"{stage}, a process of the command"] += 1
            return
        process.send_signal(signal.SIGKILL)
        tally.kills[f"{stage}, the command"] += 1
        _, alive = psutil.wait_procs(family, timeout=60)
        tally.bad += [f"process {orphan.pid} outlived its command" for orphan in alive]
    except psutil.NoSuchProcess:
        return


def _whole_files(prepared: Path) -> dict[str, str]:
    """File -> SHA-256, of all artefacts that have a receipt."""
    found = {}
    for stage in STAGES:
        for shard in range(read_manifest(prepared).num_shards):
            receipt = read_receipt(prepared, stage, shard)
            if receipt is not None:
                found[receipt.file] = sha256_of(prepared / receipt.file)
    return found


def _check(prepared: Path, reference: dict[str, str], tally: Tally) -> None:
    """Whatever counts as whole must be readable, and the same as in the undisturbed run."""
    for name, digest in _whole_files(prepared).items():
        tally.checked += 1
        if digest != reference[name]:
            tally.bad.append(f"{name} has {digest}, expected {reference[name]}")
        elif name.endswith(".parquet"):
            read_keypoints(prepared / name)
        else:
            reader = ShardReader(prepared / name)
            for position in range(len(reader.tracklet_ids)):
                reader.read(position, range(reader.num_frames(position)))
            reader.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--identities", type=int, default=60, help="of the synthetic dataset")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        indexed, reference = prepare_reference(Path(folder), options.identities, options.seed)
        tally = soak(indexed, reference, options.kills, options.seed)
    result = {
        "kills": dict(sorted(tally.kills.items())),
        "kills_amid_a_stage": tally.amid,
        "files_in_the_dataset": len(reference),
        "files_checked": tally.checked,
        "bad_reads": tally.bad,
        "datasets_begun": tally.begun,
        "datasets_completed": tally.complete,
        "commands_that_gave_up_with_an_error": dict(tally.gave_up),
        "minutes": round((time.perf_counter() - start) / 60, 1),
    }
    print(json.dumps(result, indent=2))
    sys.exit(bool(tally.bad))


if __name__ == "__main__":
    main()

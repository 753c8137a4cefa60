"""Kill keyreid-prep and what it depends on at random moments, again and again, and look for a file that lies.

    .venv/bin/python benchmarks/soak.py --kills 200
    .venv/bin/python benchmarks/soak.py --kills 60 --scheduler

A small synthetic dataset is prepared once without disturbance. Then the same commands run with two Dask workers, while
SIGKILL strikes the command or one of its processes; with --scheduler the workers belong to a scheduler of their own,
and the command, a worker or the scheduler is killed and replaced. After each kill every file that has a receipt must be
that of the undisturbed run. Commands that were killed, or gave up, are started again until the dataset is complete;
then the next one is started. Every command must end by itself, without a traceback. docs/reliability.md has results.
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
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from tqdm import tqdm

from keyreid.pipeline.build_shards import build_shards
from keyreid.pipeline.commit import read_receipt, sha256_of
from keyreid.pipeline.executor import SerialExecutor
from keyreid.pipeline.extract_keypoints import extract_keypoints
from keyreid.pipeline.index import write_manifest
from keyreid.pipeline.keypoints import read_keypoints
from keyreid.pipeline.manifest import read_manifest
from keyreid.pipeline.pose.checkpoints import resolve_checkpoint
from keyreid.pipeline.records import ShardReceipt
from keyreid.pipeline.shards import ShardReader
from keyreid.pipeline.sources import read_source
from keyreid.pipeline.synthetic.layouts import SyntheticSettings, synthesize

# What Python's own helper prints when the one before it was killed.
TRACKER = re.compile(r"Traceback.*\n(?: +File .*resource_tracker.*\n .*\n)+\w+Error.*\n")
STAGES = {
    "keypoints": ["extract-keypoints", "--checkpoint", "synthetic", "--device", "cpu"],
    "shards": ["build-shards"],
}
BIN = Path(sys.executable).parent
LONGEST_WAIT = 4.0  # seconds between two kills, at most
PATIENCE = 900.0  # seconds without a kill after which a command counts as hung
Strike = Callable[[psutil.Popen], str]  # kills something; returns what


@dataclass
class Tally:
    """What happened.

    Attributes:
        kills: by stage and kind of process.
        midway: of them, those that found some shards of the stage complete and others not.
        bad: what is wrong with files that have a receipt, or with commands; must stay empty.
        checked: files compared with the undisturbed run's.
        started, complete: times that a dataset was started, and completed in spite of all.
        gave_up: last lines of commands that ended with an error of their own, since something they needed was killed.
    """

    kills: Counter[str] = field(default_factory=Counter)
    midway: int = 0
    bad: list[str] = field(default_factory=list)
    checked: int = 0
    started: int = 0
    complete: int = 0
    gave_up: Counter[str] = field(default_factory=Counter)


@dataclass
class Soak:
    """A dataset that is prepared again and again under fire.

    Attributes:
        indexed: a prepared dataset with nothing but its index; its artefacts are deleted each time it is complete.
        reference: file -> SHA-256, of the undisturbed run.
        options: of the commands: where their workers are.
        strike: what is killed.
        generator: draws the moments.
    """

    indexed: Path
    reference: dict[str, str]
    options: list[str]
    strike: Strike
    generator: random.Random
    tally: Tally = field(default_factory=Tally)
    keep_workers: Callable[[], None] = lambda: None  # of a cluster: before each command

    def run(self, kills: int) -> None:
        """Go on until something was killed `kills` times and the dataset that was under way then is complete."""
        with tqdm(total=kills, unit=" kills", dynamic_ncols=True) as bar:
            while self.tally.kills.total() < kills:
                self.tally.started += 1
                for stage in STAGES:
                    while not self._attempt(stage, kills) and not self.tally.bad:
                        bar.update(min(kills, self.tally.kills.total()) - bar.n)
                    bar.update(min(kills, self.tally.kills.total()) - bar.n)
                self.tally.complete += complete_files(self.indexed) == self.reference
                if self.tally.bad:
                    return
                for name in (*STAGES, "receipts"):
                    shutil.rmtree(self.indexed / name)

    def _attempt(self, stage: str, kills: int) -> bool:
        """Start the command of a stage and strike while it runs; True where it came to its end."""
        self.keep_workers()
        line = [BIN / "keyreid-prep", STAGES[stage][0], str(self.indexed), *STAGES[stage][1:], *self.options]
        with tempfile.TemporaryFile("w+") as said:
            process = psutil.Popen(line, stdout=subprocess.DEVNULL, stderr=said)
            if self.tally.kills.total() < kills and self.generator.random() < 0.75:
                self._await_progress(process)  # else most kills would strike while the workers start
            code = None
            while code is None:
                strikes = self.tally.kills.total() < kills
                try:
                    code = process.wait(self.generator.uniform(0, LONGEST_WAIT) if strikes else PATIENCE)
                except psutil.TimeoutExpired:
                    if not strikes:
                        self.tally.bad.append(f"{stage}: the command did not end")
                        process.kill()
                    elif victim := self.strike(process):
                        self.tally.kills[f"{stage}, {victim}"] += 1
                        done = sum(name.startswith(stage) for name in complete_files(self.indexed))
                        self.tally.midway += 0 < done < len(self.reference) / len(STAGES)
                    self._check()
            self._check()
            said.seek(0)
            text = said.read()
        if "Traceback" in TRACKER.sub("", text):
            self.tally.bad.append(f"{stage}: {text}")
        if code > 0:
            self.tally.gave_up[re.sub(r"\d+", "N", re.split(r"[\r\n]", text.strip())[-1])] += 1
        return bool(code == 0)

    def _await_progress(self, process: psutil.Popen) -> None:
        """Until the command has finished another shard, or has ended."""
        before = len(complete_shards(self.indexed))
        while process.poll() is None and len(complete_shards(self.indexed)) == before:
            time.sleep(0.1)

    def _check(self) -> None:
        """Whatever has a receipt must be readable, and the same as in the undisturbed run."""
        for receipt in complete_shards(self.indexed):
            self.tally.checked += 1
            path = self.indexed / receipt.file
            digest = sha256_of(path)
            if digest != self.reference[receipt.file]:
                self.tally.bad.append(f"{receipt.file} has {digest}, expected {self.reference[receipt.file]}")
            elif receipt.stage == "keypoints":
                read_keypoints(path)
            else:
                reader = ShardReader(path, receipt)
                for position in range(len(reader.tracklet_ids)):
                    reader.read(position, range(reader.num_frames(position)))
                reader.close()


def complete_shards(prepared: Path) -> list[ShardReceipt]:
    shards = range(read_manifest(prepared).num_shards)
    receipts = [read_receipt(prepared, stage, shard) for stage in STAGES for shard in shards]
    return [receipt for receipt in receipts if receipt is not None]


def complete_files(prepared: Path) -> dict[str, str]:
    """File -> SHA-256, of all artefacts that have a receipt."""
    return {receipt.file: sha256_of(prepared / receipt.file) for receipt in complete_shards(prepared)}


def prepare_reference(folder: Path, identities: int, seed: int) -> tuple[Path, dict[str, str]]:
    """Render people and prepare them in peace; returns an indexed folder, and file -> SHA-256 of the artefacts."""
    settings = SyntheticSettings(
        num_identities=identities, num_cameras=2, min_frames=4, max_frames=10, difficulty=0.5, seed=seed
    )
    synthesize(folder / "people", "mars", settings)
    for name in ("calm", "soaked"):
        write_manifest(folder / name, read_source("mars", folder / "people"), frames_per_shard=24)
    extract_keypoints(folder / "calm", resolve_checkpoint("synthetic"), SerialExecutor(), device="cpu")
    build_shards(folder / "calm", SerialExecutor())
    return folder / "soaked", complete_files(folder / "calm")


def strike_family(generator: random.Random, tally: Tally) -> Strike:
    """Kills the command, with all that is left of it, in one case of four; else one of its processes."""

    def strike(process: psutil.Popen) -> str:
        try:
            family = process.children(recursive=True)
            if family and generator.random() < 0.75:
                generator.choice(family).kill()
                return "a process of the command"
            process.kill()
            _, alive = psutil.wait_procs(family, timeout=60)
            tally.bad += [f"process {orphan.pid} outlived its command" for orphan in alive]
            return "the command"
        except psutil.NoSuchProcess:
            return ""

    return strike


class Cluster:
    """A scheduler and two workers in processes of their own; a context manager.

    Args:
        folder: for the scheduler's file and the log.
        generator: draws the victims.
    """

    def __init__(self, folder: Path, generator: random.Random) -> None:
        self.file = folder / "scheduler.json"
        self._generator, self._stack = generator, ExitStack()
        self._log = self._stack.enter_context(open(folder / "dask.log", "wb"))

    def __enter__(self) -> Cluster:
        self._start_scheduler()
        self._start_workers()
        return self

    def __exit__(self, *error: object) -> None:
        self._end(self._workers)
        self._end(self._scheduler)
        self._stack.close()

    def strike(self, process: psutil.Popen) -> str:
        """Kill the command, a process of the workers, or the scheduler; replace what is gone."""
        victim = self._generator.choice(["the command", "a worker", "the scheduler"])
        if victim == "the command":
            process.kill()
        elif victim == "a worker":
            self._generator.choice([self._workers, *self._workers.children(recursive=True)]).kill()
        else:
            self._scheduler.kill()
            self._scheduler.wait()
            self._start_scheduler()
        if victim == "the scheduler":
            self._end(self._workers)
        self.keep_workers()
        return victim

    def keep_workers(self) -> None:
        """Start them again where they are gone; they end by themselves some time after too many were killed."""
        if self._workers.poll() is not None:
            self._end(self._workers)
            self._start_workers()

    def _start_scheduler(self) -> None:
        self.file.unlink(missing_ok=True)
        self._scheduler = self._start("scheduler", "--port", "0", "--host", "127.0.0.1")
        while not self.file.exists():
            time.sleep(0.1)

    def _start_workers(self) -> None:
        self._workers = self._start("worker", "--nworkers", "2", "--nthreads", "1", "--name", "soak")

    def _start(self, what: str, *options: str) -> psutil.Popen:
        line = [BIN / "dask", what, "--scheduler-file", str(self.file), "--no-dashboard", *options]
        return psutil.Popen(line, stdout=self._log, stderr=self._log)

    def _end(self, process: psutil.Popen) -> None:
        family = process.children(recursive=True) if process.is_running() else []
        for one in [process, *family]:
            try:
                one.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--identities", type=int, default=60, help="of the synthetic dataset")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scheduler", action="store_true", help="workers of a scheduler in a process of its own")
    options = parser.parse_args()
    start, generator = time.perf_counter(), random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        indexed, reference = prepare_reference(Path(name), options.identities, options.seed)
        tally = Tally()
        if options.scheduler:
            cluster = stack.enter_context(Cluster(Path(name), generator))
            where = ["--scheduler-file", str(cluster.file)]
            soak = Soak(indexed, reference, where, cluster.strike, generator, tally, cluster.keep_workers)
        else:
            soak = Soak(indexed, reference, ["--workers", "2"], strike_family(generator, tally), generator, tally)
        soak.run(options.kills)
    result = {
        "kills": dict(sorted(tally.kills.items())),
        "kills_midway_in_a_stage": tally.midway,
        "files_in_the_dataset": len(reference),
        "files_checked": tally.checked,
        "bad_reads": tally.bad,
        "datasets_begun": tally.started,
        "datasets_completed": tally.complete,
        "commands_that_gave_up_with_an_error": dict(tally.gave_up),
        "minutes": round((time.perf_counter() - start) / 60, 1),
    }
    print(json.dumps(result, indent=2))
    sys.exit(bool(tally.bad))


if __name__ == "__main__":
    main()

"""Whether a prepared dataset is complete: what is wrong with it, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..build_shards import shard_settings
from ..commit import fingerprint, read_receipt, receipt_path, sha256_of
from ..environment import progress_bar
from ..errors import KeyReIDError, SurroundingsError
from ..heatmaps import stored_heatmaps
from ..images import UnreadableImage, decode_rgb
from ..keypoints import keypoints_path, read_keypoints
from ..manifest import (
    Manifest,
    generation_folder,
    read_dataset,
    read_manifest,
    read_shard_frames,
    shard_inputs,
    shard_sizes,
)
from ..records import ShardReceipt
from ..shards import ShardReader, shard_path
from ..stages import KEYPOINTS, MAX_LEFT_OUT, SHARDS, count_left_out, keypoint_fingerprint

PATHS = {KEYPOINTS: keypoints_path, SHARDS: shard_path}
FRAMES_AT_ONCE = 256  # images and heatmaps in memory together
LARGEST_STEP = 1  # of 255: another processor's last bit of a Gaussian may round to the next step

# kind of problem -> what to do, where the error that was caught does not say it
REMEDIES = {
    "unfinished": "run {command}: it makes what is missing",
    "settings": "run {command}: it rebuilds these shards, with --overwrite if it refuses",
    "inputs": "run {command}: it rebuilds these shards",
    "receipt": "delete these receipts and run {command}: it rebuilds what has no receipt",
    "hash": "delete the receipts of these shards in receipts/{stage} and run {command}: it rebuilds them",
    "surroundings": "repair the disk, mount or permissions and verify again: nothing is known about the file",
}
REMEDIES |= dict.fromkeys(("images", "heatmaps"), REMEDIES["hash"])


@dataclass(frozen=True)
class Problem:
    """Something that is wrong: found, expected ("" where `found` says it all) and remedy, as of an error."""

    kind: str  # "manifest" or a key of REMEDIES
    stage: str  # "manifest", "keypoints" or "shards"
    shard: int | None
    found: str
    expected: str
    remedy: str


@dataclass(frozen=True)
class StageCheck:
    """How far a stage is."""

    stage: str
    started: bool  # dataset.json holds settings of it, or receipts of it are there
    num_shards: int  # that the manifest asks for
    num_complete: int  # shards without any problem
    num_frames: int  # frames in those


@dataclass
class VerifyReport:
    """The result of verify."""

    prepared: Path
    deep: bool  # every image and heatmap was looked at
    stages: list[StageCheck] = field(default_factory=list)  # empty where the manifest, which names them, is unreadable
    num_frames: int = 0
    left_out: dict[str, list[str]] = field(default_factory=dict)  # status -> paths of frames left out for it
    problems: list[Problem] = field(default_factory=list)
    leftovers: list[str] = field(
        default_factory=list
    )  # relative to `prepared`: files of no receipt; nothing reads them

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def too_many_left_out(self) -> bool:
        """Whether they are more than the stages accept unasked."""
        return sum(map(len, self.left_out.values())) > MAX_LEFT_OUT * self.num_frames

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {"ok": self.ok, **asdict(self), "prepared": str(self.prepared)}


def verify(prepared: Path, *, deep: bool = False) -> VerifyReport:
    """Check a prepared dataset; nothing in it is changed.

    The manifest's tables and every shard's file are compared with their hashes, and every receipt with what its shard
    is made from now: manifest -> keypoints -> shards.

    Args:
        prepared: the prepared dataset, at any stage.
        deep: also decode every image, and render every heatmap again and compare.
    """
    checks = _Checks(VerifyReport(prepared, deep))
    with checks.catch("manifest", "manifest"):
        checks.check_dataset(read_dataset(prepared), read_manifest(prepared))
    return checks.report


class _Checks:
    """The checks of all shards; problems go into the report."""

    def __init__(self, report: VerifyReport) -> None:
        self.report, self.prepared = report, report.prepared
        self.commands: dict[str, str] = {}  # stage -> how to run it
        self.settings: dict[str, str] = {}  # stage -> fingerprint
        self.receipts: dict[tuple[str, int], ShardReceipt] = {}  # stage and shard -> its own receipt
        self.wrong: set[tuple[str, int | None]] = set()  # stages and shards that have a problem

    def add(self, kind: str, stage: str, shard: int | None, found: str, expected: str = "", remedy: str = "") -> None:
        remedy = remedy or REMEDIES[kind].format(command=self.commands.get(stage, ""), stage=stage)
        self.report.problems.append(Problem(kind, stage, shard, found, expected, remedy))
        self.wrong.add((stage, shard))

    @contextmanager
    def catch(self, kind: str, stage: str, shard: int | None = None) -> Iterator[None]:
        """Within, an error becomes a problem: of the surroundings, or of this kind."""
        try:
            yield
        except KeyReIDError as error:
            kind = "surroundings" if isinstance(error, SurroundingsError) else kind
            self.add(kind, stage, shard, error.found, error.expected, "" if kind in REMEDIES else error.remedy)
        except OSError as error:
            if error.errno is None:  # HDF5's words about a broken file
                self.add(kind, stage, shard, str(error))
            else:
                self.add("surroundings", stage, shard, f"{error.filename} cannot be read now ({error.strerror})")

    def check_dataset(self, info: Mapping[str, Any], manifest: Manifest) -> None:
        """Shard by shard: its table of frames, its keypoints, its frames and heatmaps."""
        self.report.num_frames = manifest.num_frames
        kept, recall = info.get("stages", {}), info.get("recall", {}).get(KEYPOINTS, {})
        made = f"extract-keypoints {self.prepared} --checkpoint {recall.get('checkpoint', 'NAME')}"
        if "source_format" in kept.get(KEYPOINTS, {}):
            made = f"import-keypoints {self.prepared} SOURCE"
        self.commands = {KEYPOINTS: f"keyreid-prep {made}", SHARDS: f"keyreid-prep build-shards {self.prepared}"}
        none = "those of dataset.json, which has none"
        self.settings = {stage: fingerprint(kept[stage]) if stage in kept else none for stage in PATHS}
        deep, now = self.report.deep and SHARDS in kept, shard_settings()
        if deep and kept[SHARDS] != now:  # this version would render other heatmaps
            deep, found = False, f"the shards were built with {kept[SHARDS]}"
            remedy = f"use the version that built them, or run {self.commands[SHARDS]} --overwrite"
            self.add("settings", SHARDS, None, found, f"{now}, to compare", remedy)
        sizes, tables = shard_sizes(self.prepared), shard_inputs(self.prepared)
        folder = self.prepared / "receipts"
        started = {stage for stage in PATHS if stage in kept or any((folder / stage).glob("*.json"))}
        stages = [stage for stage in PATHS if stage in started or SHARDS in started]
        with progress_bar(len(sizes), "verify", "shards") as bar:
            for shard in sizes:
                with self.catch("manifest", "manifest", shard):
                    read_shard_frames(self.prepared, shard)
                for stage in stages:
                    self._check_receipt(stage, shard, tables[shard])
                if deep and not self.wrong & {(KEYPOINTS, shard), (SHARDS, shard)}:
                    self._check_pictures(self.receipts[SHARDS, shard])
                bar.update()
        for stage in PATHS:
            receipts = [receipt for (name, _), receipt in self.receipts.items() if name == stage]
            if stage == KEYPOINTS:
                self.report.left_out = count_left_out(receipts)
            rows = [receipt.rows for receipt in receipts if (stage, receipt.shard) not in self.wrong]
            self.report.stages.append(StageCheck(stage, stage in stages, len(sizes), len(rows), sum(rows)))
        self.report.leftovers = _leftovers(self.prepared, manifest)

    def _check_receipt(self, stage: str, shard: int, table: str) -> None:
        """A receipt is its shard's own, speaks of what there is now, and its file has its hash."""
        name, receipt = f"receipts/{stage}/{shard:05d}.json", None
        with self.catch("receipt", stage, shard):
            receipt = read_receipt(self.prepared, stage, shard)
            if receipt is None:
                self.add("unfinished", stage, shard, f"{name} is missing: the shard is not made")
        if receipt is None:
            return
        path = PATHS[stage](self.prepared, shard)
        file = str(path.relative_to(self.prepared))
        if (receipt.stage, receipt.shard, receipt.file) != (stage, shard, file):
            self.add("receipt", stage, shard, f"{name} is of {receipt.file}", file)
            return
        self.receipts[stage, shard] = receipt
        if receipt.settings != self.settings[stage]:
            self.add("settings", stage, shard, f"{name} has settings {receipt.settings}", self.settings[stage])
        keypoints = self.receipts.get((KEYPOINTS, shard))
        source = "its frames in the manifest" if stage == KEYPOINTS else "its keypoints"
        inputs = table if stage == KEYPOINTS else keypoint_fingerprint(keypoints) if keypoints else receipt.inputs
        if receipt.inputs != inputs:
            self.add("inputs", stage, shard, f"{name} has inputs {receipt.inputs[:16]}", f"{inputs[:16]}, of {source}")
        with self.catch("hash", stage, shard):
            if not path.exists():
                self.add("unfinished", stage, shard, f"{file} is missing, although it has a receipt")
            elif (digest := sha256_of(path)) != receipt.sha256:
                found = f"{file} has SHA-256 {digest[:16]}..."
                self.add("hash", stage, shard, found, f"SHA-256 {receipt.sha256[:16]}... of its receipt")

    def _check_pictures(self, receipt: ShardReceipt) -> None:
        """Every image decodes to its size, and every heatmap is the one that its keypoints give."""
        named: dict[str, list[str]] = {"images": [], "heatmaps": []}  # frames that are wrong
        with self.catch("hash", SHARDS, receipt.shard):
            rows = read_keypoints(keypoints_path(self.prepared, receipt.shard))
            rows = rows[rows.in_shards]
            with closing(ShardReader(self.prepared / receipt.file, receipt)) as reader:
                for position, tracklet_id in enumerate(reader.tracklet_ids.tolist()):
                    mine = rows[rows.tracklet_id == tracklet_id]
                    for start in range(0, len(mine), FRAMES_AT_ONCE):
                        some = mine[start : start + FRAMES_AT_ONCE]
                        images, heatmaps = reader.read(position, range(start, start + len(some)))
                        rendered = stored_heatmaps(some.keypoints, some.sizes).astype(np.int16)
                        steps = np.abs(rendered - heatmaps).max(axis=(1, 2, 3))
                        for frame, image, size, step in zip(some.frame_index, images, some.sizes, steps, strict=True):
                            name = f"tracklet {tracklet_id}, frame {frame}"
                            named["images"] += [name] * (not _decodes(image, size))
                            named["heatmaps"] += [name] * bool(step > LARGEST_STEP)
        what = {"images": "do not decode to an image of their size", "heatmaps": "are not what their keypoints give"}
        for kind, names in named.items():
            if names:
                which = f"{len(names):,} of {receipt.rows:,} frames {what[kind]} (first: {names[0]})"
                self.add(kind, SHARDS, receipt.shard, f"{receipt.file}: {kind} of {which}")


def _decodes(data: bytes, size: np.ndarray) -> bool:
    try:
        return decode_rgb(data).shape[1::-1] == tuple(size)
    except UnreadableImage:
        return False


def _leftovers(prepared: Path, manifest: Manifest) -> list[str]:
    """Files that an interrupted run left: half-written ones, and complete ones without a receipt."""
    known = {generation_folder(prepared, generation.number) for generation in manifest.generations}
    for stage, path_of in PATHS.items():
        for shard in range(manifest.num_shards):
            receipt = receipt_path(prepared, stage, shard)
            known |= {receipt, path_of(prepared, shard)} if receipt.exists() else set()
    patterns = ("manifest/*", "keypoints/*", "shards/*", "receipts/*/*", "**/*.partial")
    found = {path for pattern in patterns for path in prepared.glob(pattern)}
    return sorted(str(path.relative_to(prepared)) for path in found - known)

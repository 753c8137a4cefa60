"""Whether a prepared dataset is whole: what is wrong with it, all of it, and what to do about each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from .. import build_shards, extract_keypoints
from ..commit import read_json, receipt_path
from ..errors import KeyReIDError
from ..keypoints import keypoints_path
from ..manifest import Manifest, dataset_path, manifest_fingerprint, manifest_path, read_manifest
from ..environment import progress_bar
from ..shards import shard_path
from .findings import COMMANDS, Findings, Problem, StageCheck, VerifyReport
from .keypoint_checks import check_keypoints
from .receipt_checks import StageFiles, check_receipt
from .shard_checks import check_shard

BROKEN_TABLE = (KeyReIDError, pa.ArrowException, OSError, KeyError, TypeError, ValueError, AttributeError)


def verify(prepared: Path, *, deep: bool = False) -> VerifyReport:
    """Check a prepared dataset; nothing in it is changed.

    Every receipt is compared with dataset.json, the manifest and its file's SHA-256; every frame of the manifest must
    have one row of keypoints with values in range, and every readable frame its row in the shards.

    Args:
        prepared: the prepared dataset, at any stage.
        deep: also decode every image, and render every heatmap anew and compare.

    Raises:
        FormatError: there is neither a manifest nor a dataset.json: not a prepared dataset.
    """
    problems: list[Problem] = []
    if not dataset_path(prepared).exists() and not manifest_path(prepared).exists():
        read_manifest(prepared)  # says what to do
    manifest = _check_manifest(prepared, Findings("", None, problems))
    if manifest is None:
        return VerifyReport(prepared, deep, (), tuple(problems), _leftovers(prepared, 0))
    stages = _stages(prepared, manifest, problems)
    if deep:
        _check_version(stages[1], problems)
    made = _check_shards(prepared, manifest, stages, problems, deep=deep)
    broken = {(problem.stage, problem.shard) for problem in problems}
    checks = []
    for stage in stages:
        whole = [rows for place, rows in made.items() if place[0] == stage.name and place not in broken]
        checks.append(StageCheck(stage.name, stage.begun, manifest.num_shards, len(whole), sum(whole)))
    return VerifyReport(prepared, deep, tuple(checks), tuple(problems), _leftovers(prepared, manifest.num_shards))


def _check_shards(
    prepared: Path, manifest: Manifest, stages: Sequence[StageFiles], problems: list[Problem], *, deep: bool
) -> dict[tuple[str, int], int]:
    """Check all shards of the stages that are begun; returns (stage, shard) -> rows of those with a receipt's file."""
    made = {}
    begun = [stage for stage in stages if stage.begun]
    with progress_bar(manifest.num_shards * len(begun), "verify", "shards") as bar:
        for shard in range(manifest.num_shards):
            rows = None  # the shard's keypoints, which its frames are compared with
            for stage in begun:
                findings = Findings(stage.name, shard, problems)
                receipt = check_receipt(prepared, stage, findings)
                if receipt is not None:
                    made[stage.name, shard] = receipt.rows
                    if stage.name == extract_keypoints.STAGE:
                        rows = check_keypoints(stage.path(shard), manifest.shard(shard), receipt, findings)
                    else:
                        check_shard(stage.path(shard), manifest.shard(shard), rows, receipt, findings, deep=deep)
                bar.update(1)
    return made


def _check_manifest(prepared: Path, findings: Findings) -> Manifest | None:
    try:
        manifest = read_manifest(prepared)
        info = read_json(dataset_path(prepared))
        found, expected = manifest_fingerprint(manifest), info["manifest_fingerprint"]
        stages = info.get("stages", {})
        if not all(isinstance(settings, dict) for settings in stages.values()):
            raise ValueError("stages in dataset.json are not tables of settings")
    except BROKEN_TABLE as error:
        text = error.found if isinstance(error, KeyReIDError) else f"{type(error).__name__}: {error}"
        findings.add("dataset", f"manifest.parquet and dataset.json cannot be read ({text})")
        return None
    if found != expected:
        findings.add("dataset", f"manifest.parquet has fingerprint {found}; expected {expected}, as dataset.json says")
    if [tracklet.tracklet_id for tracklet in manifest.tracklets] != list(range(len(manifest.tracklets))):
        findings.add("dataset", "manifest.parquet does not number its tracklets from 0 in order")
    for key, value in (("counts", manifest.counts()), ("num_shards", manifest.num_shards)):
        if info.get(key) != value:
            findings.add(
                "dataset", f"dataset.json says {key} {info.get(key)}; expected {value}, as in manifest.parquet"
            )
    return manifest


def _stages(prepared: Path, manifest: Manifest, problems: list[Problem]) -> tuple[StageFiles, StageFiles]:
    settings = read_json(dataset_path(prepared)).get("stages", {})
    keypoints, shards = extract_keypoints.STAGE, build_shards.STAGE
    begun = {stage: stage in settings or any((prepared / "receipts" / stage).glob("*.json")) for stage in COMMANDS}
    begun[keypoints] = begun[keypoints] or begun[shards]  # shards without keypoints: those are missing
    for stage in COMMANDS:
        if begun[stage] and stage not in settings:
            found = f"dataset.json has no settings of {stage}, although there are receipts of it or of what follows"
            problems.append(Problem("settings", stage, None, found))
    return (
        StageFiles(
            keypoints,
            begun[keypoints],
            settings.get(keypoints),
            lambda shard: extract_keypoints.shard_inputs(manifest.shard(shard)),
            lambda shard: keypoints_path(prepared, shard),
        ),
        StageFiles(
            shards,
            begun[shards],
            settings.get(shards),
            lambda shard: build_shards.keypoint_inputs(prepared, shard),
            lambda shard: shard_path(prepared, shard),
        ),
    )


def _check_version(shards: StageFiles, problems: list[Problem]) -> None:
    """Heatmaps can be compared only with those that this version would make."""
    now = build_shards.shard_settings()
    if shards.settings is not None and shards.settings != now:
        changed = sorted(key for key in {*shards.settings, *now} if shards.settings.get(key) != now.get(key))
        found = ", ".join(f"{key} {shards.settings.get(key)!r}, now {now.get(key)!r}" for key in changed)
        problems.append(Problem("version", shards.name, None, f"shards were made with other settings: {found}"))


def _leftovers(prepared: Path, num_shards: int) -> tuple[str, ...]:
    """Files that an interrupted run left: half-written ones, and whole ones without a receipt."""
    found = set(prepared.rglob("*.partial"))
    for stage, suffix in ((extract_keypoints.STAGE, "parquet"), (build_shards.STAGE, "h5")):
        receipts = {path.stem for path in (prepared / "receipts" / stage).glob("*.json")}
        found |= {path for path in (prepared / stage).glob(f"*.{suffix}") if path.stem not in receipts}
        if num_shards:
            wanted = {f"{shard:05d}" for shard in range(num_shards)}
            found |= {receipt_path(prepared, stage, 0).with_name(f"{stem}.json") for stem in receipts - wanted}
    return tuple(sorted(str(path.relative_to(prepared)) for path in found))

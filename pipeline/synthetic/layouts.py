"""Writes a synthetic dataset in the exact tree of a real one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.io import savemat

from ..commit import write_json
from ..environment import progress_bar
from ..errors import SettingsError, SurroundingsError
from ..sources import prid2011
from .plan import JUNK, PlannedTracklet, SyntheticSettings, plan_tracklets, render_all

NOTE_FILE = "SYNTHETIC.json"  # marks a synthetic dataset, and holds its counts
TRUTH_FILE = "true_keypoints.parquet"  # for tests and measurements alone

Pattern = Callable[[PlannedTracklet], str]  # path of a tracklet's frames, with % for the number, from 1


def synthesize(out: Path, layout: str, settings: SyntheticSettings, workers: int = 1) -> dict[str, int]:
    """Write a synthetic dataset; `out` appears only when it is complete.

    Returns:
        Counts of the dataset as keyreid-prep index will find it, with the names of data_manifests/*.yaml.

    Raises:
        SettingsError: an unknown layout, a folder that is not empty, or settings that the layout cannot hold.
        SurroundingsError: the disk is full, or the folder cannot be written.
    """
    if layout not in LAYOUTS:
        raise SettingsError(f"layout {layout!r}", "one of " + ", ".join(LAYOUTS))
    out = out.resolve()
    partial = out.with_name(f".{out.name}.partial")
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise SettingsError(f"{out} exists and is not an empty folder", "a new folder", "choose another name")
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
        partial.mkdir(parents=True)
        counts = LAYOUTS[layout](partial, settings, workers)
        write_json(partial / NOTE_FILE, {"layout": layout, "settings": asdict(settings), "counts": counts})
        partial.rename(out)  # in place of an empty folder too
    except OSError as error:
        remedy = "make room or choose another folder; nothing of it was kept"
        raise SurroundingsError(f"{out} cannot be written ({error})", "", remedy) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return counts


def _mars(out: Path, settings: SyntheticSettings, workers: int) -> dict[str, int]:
    def pattern(tracklet: PlannedTracklet) -> str:
        name = "00-1" if tracklet.identity == JUNK else f"{tracklet.identity:04d}"
        return f"bbox_{tracklet.split}/{name}/{name}C{tracklet.camera}T{tracklet.number:04d}F%03d.jpg"

    planned = sorted(plan_tracklets(settings, extras=True), key=lambda t: (t.split == "test", t.identity))
    _write_frames(out, settings, planned, pattern, workers)
    info = out / "info"
    info.mkdir()
    parts = {split: [t for t in planned if t.split == split] for split in ("train", "test")}
    for split, tracklets in parts.items():
        names = [Path(path).name for tracklet in tracklets for path in _paths(tracklet, pattern)]
        (info / f"{split}_name.txt").write_text("".join(f"{name}\n" for name in names))
        ends = np.cumsum([t.num_frames for t in tracklets])
        rows = [
            [end - t.num_frames + 1, end, t.identity, t.camera] for t, end in zip(tracklets, ends.tolist(), strict=True)
        ]
        _save_mat(info / f"tracks_{split}_info.mat", f"track_{split}_info", np.array(rows, np.int32))
    trains, tests = parts["train"], parts["test"]
    query = [row for row, t in enumerate(tests, 1) if t.identity > 0 and t.number == 1]
    _save_mat(info / "query_IDX.mat", "query_IDX", np.array([query], np.int32))
    junk = [t for t in tests if t.identity == JUNK]
    return {
        "train.tracklets": len(trains),
        "train.frames": _num_frames(trains),
        "train.identities": len({t.identity for t in trains}),
        "query.tracklets": len(query),
        "gallery.tracklets": len(tests) - len(query) - len(junk),
        "junk.tracklets": len(junk),
        "junk.frames": _num_frames(junk),
        "all.frames": _num_frames(planned) - _num_frames(junk),
    }


def _ilids_vid(out: Path, settings: SyntheticSettings, workers: int) -> dict[str, int]:
    def pattern(tracklet: PlannedTracklet) -> str:
        camera, person = f"cam{tracklet.camera}", f"person{tracklet.identity:03d}"
        return f"i-LIDS-VID/sequences/{camera}/{person}/{camera}_{person}_%05d.png"

    _require_pairs(settings, "ilids-vid")
    planned = sorted(plan_tracklets(settings, extras=False), key=lambda t: (t.camera, t.identity))
    _write_frames(out, settings, planned, pattern, workers)
    rng = np.random.default_rng([settings.seed, 99])
    splits = np.stack([1 + rng.permutation(settings.num_identities) for _ in range(10)])
    folder = out / "train-test people splits"
    folder.mkdir()
    _save_mat(folder / "train_test_splits_ilidsvid.mat", "ls_set", splits.astype(np.uint16))
    return {**_counts(planned), "identity_splits": len(splits)}


def _prid2011(out: Path, settings: SyntheticSettings, workers: int) -> dict[str, int]:
    def pattern(tracklet: PlannedTracklet) -> str:
        camera = prid2011.CAMERAS[tracklet.camera]
        return f"{prid2011.SEQUENCES}/{camera}/person_{tracklet.identity:04d}/%04d.png"

    _require_pairs(settings, "prid2011")
    if settings.num_identities > prid2011.NUM_SHARED or settings.min_frames < prid2011.MIN_FRAMES:
        found = f"{settings.num_identities} identities with {settings.min_frames} frames or more"
        raise SettingsError(found, f"up to {prid2011.NUM_SHARED} with {prid2011.MIN_FRAMES} in the prid2011 layout")
    people = plan_tracklets(settings, extras=False)
    # Two people with the same number, as in the real tree: the reader must not take them for one person.
    number, after = prid2011.NUM_SHARED + 1, settings.num_identities
    strangers = [PlannedTracklet("test", number, after + c, c, 1, settings.min_frames) for c in prid2011.CAMERAS]
    _write_frames(out, settings, people + strangers, pattern, workers)
    return {**_counts(people), "identity_splits": prid2011.NUM_OWN_SPLITS}


def _folder(out: Path, settings: SyntheticSettings, workers: int) -> dict[str, int]:
    def pattern(tracklet: PlannedTracklet) -> str:
        split = "train" if tracklet.split == "train" else "query" if tracklet.number == 1 else "gallery"
        return f"{split}/{tracklet.identity:04d}/{tracklet.camera}/{tracklet.number:02d}/%03d.jpg"

    planned = plan_tracklets(settings, extras=False)
    _write_frames(out, settings, planned, pattern, workers)
    return _counts(planned)


LAYOUTS = {"mars": _mars, "ilids-vid": _ilids_vid, "prid2011": _prid2011, "folder": _folder}


def _require_pairs(settings: SyntheticSettings, layout: str) -> None:
    if settings.num_cameras != 2 or settings.tracklets_per_camera != 1:
        found = f"{settings.num_cameras} cameras with {settings.tracklets_per_camera} tracklets each"
        raise SettingsError(found, f"2 cameras with 1 tracklet each in the {layout} layout")


def _write_frames(
    out: Path, settings: SyntheticSettings, planned: list[PlannedTracklet], pattern: Pattern, workers: int
) -> None:
    size, file_format = ((256, 128), "JPEG") if pattern(planned[0]).endswith(".jpg") else ((128, 64), "PNG")
    truth_paths: list[str] = []
    truth: list[np.ndarray] = []
    with progress_bar(_num_frames(planned), "synthesize", "frames") as bar:
        for rendered in render_all(settings, planned, size=size, file_format=file_format, workers=workers):
            paths = _paths(rendered.planned, pattern)
            (out / paths[0]).parent.mkdir(parents=True, exist_ok=True)
            for path, data in zip(paths, rendered.encoded, strict=True):
                (out / path).write_bytes(data)
            truth_paths += paths
            truth.append(rendered.keypoints.reshape(len(paths), -1))
            bar.update(len(paths))
    keypoints = np.concatenate(truth).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(keypoints.ravel()), keypoints.shape[1])
    pq.write_table(pa.table({"frame_path": truth_paths, "keypoints": column}), out / TRUTH_FILE)


def _paths(tracklet: PlannedTracklet, pattern: Pattern) -> list[str]:
    return [pattern(tracklet) % frame for frame in range(1, tracklet.num_frames + 1)]


def _num_frames(planned: list[PlannedTracklet]) -> int:
    return sum(tracklet.num_frames for tracklet in planned)


def _counts(planned: list[PlannedTracklet]) -> dict[str, int]:
    return {
        "all.tracklets": len(planned),
        "all.frames": _num_frames(planned),
        "all.identities": len({t.identity for t in planned}),
        "all.cameras": len({t.camera for t in planned}),
    }


def _save_mat(path: Path, name: str, value: np.ndarray) -> None:
    """Write a MATLAB file without the date that scipy puts into its header: the same bytes every time."""
    savemat(path, {name: value}, do_compression=True)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 5.0 MAT-file, written by keyreid-prep synthesize".ljust(116))

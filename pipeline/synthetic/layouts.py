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

FramePaths = Callable[[PlannedTracklet], list[str]]


def synthesize(out: Path, layout: str, settings: SyntheticSettings, workers: int = 1) -> dict[str, int]:
    """Write a synthetic dataset; `out` appears only when it is complete.

    Args:
        out: folder to make; it must not exist yet, or be empty.
        layout: one of LAYOUTS.
        settings: of people and cameras.
        workers: processes that render.

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
        raise SurroundingsError(
            f"{out} cannot be written ({error})", "", "make room or choose another folder; nothing of it was kept"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return counts


def _mars(out: Path, settings: SyntheticSettings, workers: int) -> dict[str, int]:
    planned = sorted(plan_tracklets(settings, extras=True), key=lambda t: (t.split == "test", t.identity))

    def frame_paths(tracklet: PlannedTracklet) -> list[str]:
        name = "00-1" if tracklet.identity == JUNK else f"{tracklet.identity:04d}"
        stem = f"bbox_{tracklet.split}/{name}/{name}C{tracklet.camera}T{tracklet.number:04d}F"
        return [f"{stem}{frame + 1:03d}.jpg" for frame in range(tracklet.num_frames)]

    _write_frames(out, settings, planned, frame_paths, (256, 128), "JPEG", workers)
    info = out / "info"
    info.mkdir()
    for split in ("train", "test"):
        names: list[str] = []
        rows: list[list[int]] = []
        for tracklet in (t for t in planned if t.split == split):
            rows.append([len(names) + 1, len(names) + tracklet.num_frames, tracklet.identity, tracklet.camera])
            names += [path.rsplit("/", 1)[1] for path in frame_paths(tracklet)]
        (info / f"{split}_name.txt").write_text("".join(f"{name}\n" for name in names))
        _save_mat(info / f"tracks_{split}_info.mat", f"track_{split}_info", np.array(rows, np.int32))
    tests = [t for t in planned if t.split == "test"]
    query = [row for row, t in enumerate(tests, 1) if t.identity > 0 and t.number == 1]
    _save_mat(info / "query_IDX.mat", "query_IDX", np.array([query], np.int32))
    trains = [t for t in planned if t.split == "train"]
    junk = [t for t in tests if t.identity == JUNK]
    return {
        "train.tracklets": len(trains),
        "train.frames": sum(t.num_frames for t in trains),
        "train.identities": len({t.identity for t in trains}),
        "query.tracklets": len(query),
        "gallery.tracklets": len(tests) - len(query) - len(junk),
        "junk.tracklets": len(junk),
        "junk.frames": sum(t.num_frames for t in junk),
        "all.frames": sum(t.num_frames for t in planned) - sum(t.num_frames for t in junk),
    }


def _ilids_vid(out: Path, settings: SyntheticSettings, workers: int) -> dict[str, int]:
    _require_pairs(settings, "ilids-vid")
    planned = sorted(plan_tracklets(settings, extras=False), key=lambda t: (t.camera, t.identity))

    def frame_paths(tracklet: PlannedTracklet) -> list[str]:
        camera, person = f"cam{tracklet.camera}", f"person{tracklet.identity:03d}"
        stem = f"i-LIDS-VID/sequences/{camera}/{person}/{camera}_{person}_"
        return [f"{stem}{frame + 1:05d}.png" for frame in range(tracklet.num_frames)]

    _write_frames(out, settings, planned, frame_paths, (128, 64), "PNG", workers)
    rng = np.random.default_rng([settings.seed, 99])
    splits = np.stack([1 + rng.permutation(settings.num_identities) for _ in range(10)])
    folder = out / "train-test people splits"
    folder.mkdir()
    _save_mat(folder / "train_test_splits_ilidsvid.mat", "ls_set", splits.astype(np.uint16))
    return {**_counts(planned), "identity_splits": len(splits)}


def _prid2011(out: Path, settings: SyntheticSettings, workers: int) -> dict[str, int]:
    _require_pairs(settings, "prid2011")
    if settings.num_identities > prid2011.NUM_SHARED or settings.min_frames < prid2011.MIN_FRAMES:
        found = f"{settings.num_identities} identities with {settings.min_frames} frames or more"
        raise SettingsError(found, f"up to {prid2011.NUM_SHARED} with {prid2011.MIN_FRAMES} in the prid2011 layout")
    people = plan_tracklets(settings, extras=False)
    # Two people with the same number, as in the real tree: the reader must not take them for one person.
    number, after = prid2011.NUM_SHARED + 1, settings.num_identities
    strangers = [PlannedTracklet("test", number, after + c, c, 1, settings.min_frames) for c in prid2011.CAMERAS]

    def frame_paths(tracklet: PlannedTracklet) -> list[str]:
        stem = f"{prid2011.SEQUENCES}/{prid2011.CAMERAS[tracklet.camera]}/person_{tracklet.identity:04d}/"
        return [f"{stem}{frame + 1:04d}.png" for frame in range(tracklet.num_frames)]

    _write_frames(out, settings, people + strangers, frame_paths, (128, 64), "PNG", workers)
    return {**_counts(people), "identity_splits": prid2011.NUM_OWN_SPLITS}


def _folder(out: Path, settings: SyntheticSettings, workers: int) -> dict[str, int]:
    planned = plan_tracklets(settings, extras=False)

    def frame_paths(tracklet: PlannedTracklet) -> list[str]:
        split = "train" if tracklet.split == "train" else "query" if tracklet.number == 1 else "gallery"
        stem = f"{split}/{tracklet.identity:04d}/{tracklet.camera}/{tracklet.number:02d}/"
        return [f"{stem}{frame + 1:03d}.jpg" for frame in range(tracklet.num_frames)]

    _write_frames(out, settings, planned, frame_paths, (256, 128), "JPEG", workers)
    return _counts(planned)


LAYOUTS: dict[str, Callable[[Path, SyntheticSettings, int], dict[str, int]]] = {
    "mars": _mars,
    "ilids-vid": _ilids_vid,
    "prid2011": _prid2011,
    "folder": _folder,
}


def _require_pairs(settings: SyntheticSettings, layout: str) -> None:
    if settings.num_cameras != 2 or settings.tracklets_per_camera != 1:
        raise SettingsError(
            f"{settings.num_cameras} cameras with {settings.tracklets_per_camera} tracklets each",
            f"2 cameras with 1 tracklet each in the {layout} layout",
        )


def _write_frames(
    out: Path,
    settings: SyntheticSettings,
    planned: list[PlannedTracklet],
    frame_paths: FramePaths,
    size: tuple[int, int],
    file_format: str,
    workers: int,
) -> None:
    truth_paths: list[str] = []
    truth: list[np.ndarray] = []
    total = sum(tracklet.num_frames for tracklet in planned)
    with progress_bar(total, "synthesize", "frames") as bar:
        for rendered in render_all(settings, planned, size=size, file_format=file_format, workers=workers):
            paths = frame_paths(rendered.planned)
            (out / paths[0]).parent.mkdir(parents=True, exist_ok=True)
            for path, data in zip(paths, rendered.encoded, strict=True):
                (out / path).write_bytes(data)
            truth_paths += paths
            truth.append(rendered.keypoints.reshape(len(paths), -1))
            bar.update(len(paths))
    keypoints = np.concatenate(truth).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(keypoints.ravel()), keypoints.shape[1])
    pq.write_table(pa.table({"frame_path": truth_paths, "keypoints": column}), out / TRUTH_FILE)


def _counts(planned: list[PlannedTracklet]) -> dict[str, int]:
    return {
        "all.tracklets": len(planned),
        "all.frames": sum(t.num_frames for t in planned),
        "all.identities": len({t.identity for t in planned}),
        "all.cameras": len({t.camera for t in planned}),
    }


def _save_mat(path: Path, name: str, value: np.ndarray) -> None:
    """Write a MATLAB file without the date that scipy puts into its header: the same bytes every time."""
    savemat(path, {name: value}, do_compression=True)
    data = bytearray(path.read_bytes())
    header = b"MATLAB 5.0 MAT-file, written by keyreid-prep synthesize"
    data[:116] = header.ljust(116)
    path.write_bytes(bytes(data))

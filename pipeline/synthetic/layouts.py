"""Which tracklets a synthetic dataset has, and how they are written: in the exact tree of a real dataset."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.io import savemat

from ..commit import write_json
from ..environment import progress_bar
from ..errors import SettingsError, SurroundingsError
from ..sources import ls_vid, prid2011
from .person import sample_appearance
from .scene import HEIGHT, WIDTH, render_tracklet, sample_camera
from .wardrobe import disagree, dress

NOTE_FILE = "SYNTHETIC.json"  # marks a synthetic dataset, and holds its counts
TRUTH_FILE = "true_keypoints.parquet"  # for tests and measurements alone
WARDROBES = ("own", "shared")
LOOK_ALIKES = 4  # identities that share a wardrobe
JUNK, DISTRACTOR = -1, 0  # identity numbers, as in MARS
# First words of the random streams, so that no two draws share one.
_IDENTITY, _GROUP, _CAMERA, _PASSAGE, _PLAN, _TONE, _CLOTHES, _SPLITS = 1, 2, 3, 4, 5, 6, 7, 99


@dataclass(frozen=True)
class SyntheticSettings:
    """What a synthetic dataset depends on; equal settings give equal bytes."""

    num_identities: int = 48  # people, half of them in the test split; even
    num_cameras: int = 4  # 2 to 9
    tracklets_per_camera: int = 2  # of each person under each camera
    min_frames: int = 6  # of a tracklet
    max_frames: int = 12
    difficulty: float = 0.6  # 0 (own colours, clean pictures) to 1 (look-alikes, occluders, strangers, strong casts)
    seed: int = 0  # of every draw
    wardrobe: str = "own"  # or "shared": see wardrobe.py

    def __post_init__(self) -> None:
        for fine, name, expected in (
            (self.num_identities >= 4 and self.num_identities % 2 == 0, "num_identities", "an even number from 4"),
            (2 <= self.num_cameras <= 9, "num_cameras", "2 to 9"),
            (1 <= self.tracklets_per_camera <= 99, "tracklets_per_camera", "1 to 99"),
            (1 <= self.min_frames <= self.max_frames <= 999, "min_frames and max_frames", "1 <= min <= max <= 999"),
            (0 <= self.difficulty <= 1, "difficulty", "0 to 1"),
            (self.seed >= 0, "seed", "0 or more"),
            (self.wardrobe in WARDROBES, "wardrobe", " or ".join(WARDROBES)),
        ):
            if not fine:
                values = ", ".join(str(getattr(self, part)) for part in name.split(" and "))
                raise SettingsError(f"{name} is {values}", expected)


@dataclass(frozen=True)
class PlannedTracklet:
    """One tracklet to render: person `appearance` (None: nobody) under `camera`, the number-th of its kind."""

    split: str
    identity: int
    appearance: int | None
    camera: int
    number: int
    num_frames: int


def plan_tracklets(settings: SyntheticSettings, *, extras: bool) -> list[PlannedTracklet]:
    """The tracklets of the dataset: "train" and "test" by identity; with `extras` also distractors and junk."""
    rng = np.random.default_rng([settings.seed, _PLAN])
    train = set((1 + rng.permutation(settings.num_identities)[: settings.num_identities // 2]).tolist())
    planned = []

    def add(split: str, identity: int, appearance: int | None, camera: int, number: int) -> None:
        num_frames = int(rng.integers(settings.min_frames, settings.max_frames + 1))
        planned.append(PlannedTracklet(split, identity, appearance, camera, number, num_frames))

    if extras:
        num_tests = settings.num_identities // 2 * settings.num_cameras * settings.tracklets_per_camera
        for number in range(1, 2 + num_tests // 30):
            add("test", JUNK, None, int(rng.integers(1, settings.num_cameras + 1)), number)
        for number in range(1, 2 + num_tests // 10):
            stranger = settings.num_identities + number
            add("test", DISTRACTOR, stranger, int(rng.integers(1, settings.num_cameras + 1)), number)
    for identity in range(1, settings.num_identities + 1):
        split = "train" if identity in train else "test"
        for camera in range(1, settings.num_cameras + 1):
            for number in range(1, settings.tracklets_per_camera + 1):
                add(split, identity, identity, camera, number)
    return planned


def render_planned(
    settings: SyntheticSettings, planned: PlannedTracklet, small_png: bool = False
) -> tuple[list[bytes], np.ndarray]:
    """Render one tracklet, from the seed alone.

    Args:
        small_png: whether frames are written as PNG and half as large, in place of JPEG.

    Returns:
        The encoded frames, and their true keypoints, float32 (F, 17, 3), see SyntheticFrame.
    """

    def stream(*words: int) -> np.random.Generator:
        return np.random.default_rng([settings.seed, *words])

    camera = sample_camera(stream(_CAMERA, planned.camera), settings.difficulty)
    appearance = None
    if planned.appearance is not None:
        group = stream(_GROUP, planned.appearance // LOOK_ALIKES)
        appearance = sample_appearance(stream(_IDENTITY, planned.appearance), settings.difficulty, group)
        if settings.wardrobe == "shared":
            appearance = dress(appearance, stream(_CLOTHES, planned.appearance))
    if settings.wardrobe == "shared":
        camera = disagree(camera, stream(_TONE, planned.camera), settings.difficulty)
    in_train = int(planned.split == "train")
    rng = stream(_PASSAGE, 1 + planned.identity, planned.camera, planned.number, in_train)
    encoded, keypoints = [], []
    for frame in render_tracklet(appearance, camera, planned.num_frames, settings.difficulty, rng):
        buffer = io.BytesIO()
        if small_png:
            frame.image.resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BOX).save(buffer, "PNG", compress_level=3)
        else:
            frame.image.save(buffer, "JPEG", quality=camera.jpeg_quality)
        encoded.append(buffer.getvalue())
        keypoints.append(frame.keypoints * np.array([0.5, 0.5, 1] if small_png else [1, 1, 1], np.float32))
    return encoded, np.stack(keypoints)


Pattern = Callable[[PlannedTracklet], str]  # path of a tracklet's frames, with % for the number, from 1


def synthesize(out: Path, layout: str, settings: SyntheticSettings, workers: int = 1) -> dict[str, int]:
    """Write a synthetic dataset; `out` appears only when it is complete.

    Returns:
        Counts of the dataset as keyreid-prep index will find it, with the names of data_manifests/*.yaml.

    Raises:
        SettingsError: a folder that is not empty, or settings that the layout cannot hold.
        SurroundingsError: the disk is full, or the folder cannot be written.
    """
    out = out.resolve()
    unfinished = out.with_name(f".{out.name}.partial")
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise SettingsError(f"{out} exists and is not an empty folder", "a new folder", "choose another name")
        shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
        unfinished.mkdir(parents=True)
        counts = LAYOUTS[layout](unfinished, settings, workers)
        write_json(unfinished / NOTE_FILE, {"layout": layout, "settings": asdict(settings), "counts": counts})
        unfinished.rename(out)  # in place of an empty folder too
    except OSError as error:
        remedy = "make room or choose another folder; nothing of it was kept"
        raise SurroundingsError(f"{out} cannot be written ({error})", "", remedy) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return counts


def _mars(out: Path, settings: SyntheticSettings, workers: int) -> dict[str, int]:
    def pattern(tracklet: PlannedTracklet) -> str:
        name = "00-1" if tracklet.identity == JUNK else f"{tracklet.identity:04d}"
        return f"bbox_{tracklet.split}/{name}/{name}C{tracklet.camera}T{tracklet.number:04d}F%03d.jpg"

    planned = sorted(plan_tracklets(settings, extras=True), key=lambda t: (t.split == "test", t.identity))
    _write_frames(out, settings, planned, pattern, workers)
    info = out / "info"
    parts = {split: [t for t in planned if t.split == split] for split in ("train", "test")}
    for split, tracklets in parts.items():
        names = [Path(path).name for tracklet in tracklets for path in _paths(tracklet, pattern)]
        lengths, identities, cameras = zip(*((t.num_frames, t.identity, t.camera) for t in tracklets), strict=True)
        ends = np.cumsum(lengths)
        rows = np.column_stack([ends - lengths + 1, ends, identities, cameras])
        _save_mat(info / f"tracks_{split}_info.mat", f"track_{split}_info", rows.astype(np.int32))
        (info / f"{split}_name.txt").write_text("".join(f"{name}\n" for name in names))
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
    rng = np.random.default_rng([settings.seed, _SPLITS])
    splits = np.stack([1 + rng.permutation(settings.num_identities) for _ in range(10)])
    _save_mat(out / "train-test people splits/train_test_splits_ilidsvid.mat", "ls_set", splits.astype(np.uint16))
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


def _ls_vid(out: Path, settings: SyntheticSettings, workers: int) -> dict[str, int]:
    def pattern(tracklet: PlannedTracklet) -> str:
        person, track = f"{tracklet.identity:04d}", f"{tracklet.number:06d}_{tracklet.camera:02d}"
        return f"tracklet_{tracklet.split}/{person}/{person}_{track}_%06d.jpg"

    planned = sorted(plan_tracklets(settings, extras=False), key=lambda t: (t.split == "test", t.identity))
    _write_frames(out, settings, planned, pattern, workers)
    tests = [tracklet for tracklet in planned if tracklet.split == "test"]
    for split, name in ls_vid.LISTS.items():
        rows = tests if split == "gallery" else [tracklet for tracklet in planned if tracklet.split == "train"]
        (out / name).parent.mkdir(exist_ok=True)
        lines = [f"{pattern(tracklet).removesuffix('_%06d.jpg')} {tracklet.identity}\n" for tracklet in rows]
        (out / name).write_text("".join(lines))
    queries = [row for row, tracklet in enumerate(tests, 1) if tracklet.number == 1]
    (out / ls_vid.QUERY_FILE).parent.mkdir(parents=True)
    with h5py.File(out / ls_vid.QUERY_FILE, "w", userblock_size=512) as file:
        file["query"] = np.array([queries], np.float64)
    with open(out / ls_vid.QUERY_FILE, "r+b") as header:
        header.write(b"MATLAB 7.3 MAT-file, written by keyreid-prep synthesize".ljust(124) + b"\x00\x02IM")
    return {
        **_counts(planned),
        "query.tracklets": len(queries),
        "gallery.tracklets": len(tests) - len(queries),
    }


def _folder(out: Path, settings: SyntheticSettings, workers: int) -> dict[str, int]:
    def pattern(tracklet: PlannedTracklet) -> str:
        split = "train" if tracklet.split == "train" else "query" if tracklet.number == 1 else "gallery"
        return f"{split}/{tracklet.identity:04d}/{tracklet.camera}/{tracklet.number:02d}/%03d.jpg"

    planned = plan_tracklets(settings, extras=False)
    _write_frames(out, settings, planned, pattern, workers)
    return _counts(planned)


LAYOUTS = {"mars": _mars, "ilids-vid": _ilids_vid, "prid2011": _prid2011, "ls-vid": _ls_vid, "folder": _folder}


def _require_pairs(settings: SyntheticSettings, layout: str) -> None:
    if settings.num_cameras != 2 or settings.tracklets_per_camera != 1:
        found = f"{settings.num_cameras} cameras with {settings.tracklets_per_camera} tracklets each"
        raise SettingsError(found, f"2 cameras with 1 tracklet each in the {layout} layout")


def _write_frames(
    out: Path, settings: SyntheticSettings, planned: list[PlannedTracklet], pattern: Pattern, workers: int
) -> None:
    """Write frames and TRUTH_FILE; the bytes do not depend on the number of workers."""
    render = partial(render_planned, settings, small_png=pattern(planned[0]).endswith(".png"))
    truth: dict[str, np.ndarray] = {}
    with ExitStack() as stack:
        bar = stack.enter_context(progress_bar(_num_frames(planned), "synthesize", "frames"))
        rendered: Iterator[tuple[list[bytes], np.ndarray]] = map(render, planned)
        if workers > 1:
            pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=get_context("spawn")))
            rendered = pool.map(render, planned, chunksize=4)
        for tracklet, (encoded, keypoints) in zip(planned, rendered, strict=True):
            paths = _paths(tracklet, pattern)
            (out / paths[0]).parent.mkdir(parents=True, exist_ok=True)
            for path, data in zip(paths, encoded, strict=True):
                (out / path).write_bytes(data)
            truth |= dict(zip(paths, keypoints, strict=True))
            bar.update(len(paths))
    joints = np.stack(list(truth.values()))
    column = pa.FixedSizeListArray.from_arrays(pa.array(joints.ravel()), joints[0].size)
    pq.write_table(pa.table({"frame_path": list(truth), "keypoints": column}), out / TRUTH_FILE)


def _paths(tracklet: PlannedTracklet, pattern: Pattern) -> list[str]:
    return [pattern(tracklet) % frame for frame in range(1, tracklet.num_frames + 1)]


def _num_frames(planned: list[PlannedTracklet]) -> int:
    return sum(tracklet.num_frames for tracklet in planned)


def _counts(planned: list[PlannedTracklet]) -> dict[str, int]:
    identities, cameras = {t.identity for t in planned}, {t.camera for t in planned}
    frames = {"all.tracklets": len(planned), "all.frames": _num_frames(planned)}
    return {**frames, "all.identities": len(identities), "all.cameras": len(cameras)}


def _save_mat(path: Path, name: str, value: np.ndarray) -> None:
    """Write a MATLAB file without the date that scipy puts into its header: the same bytes every time."""
    path.parent.mkdir(exist_ok=True)
    savemat(path, {name: value}, do_compression=True)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 5.0 MAT-file, written by keyreid-prep synthesize".ljust(116))

"""Sources that must not be imported: wrong units, damage, other joints, things that are no files."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign_keypoints import (
    HEIGHT,
    NAMES,
    WIDTH,
    Poses,
    coco_annotations,
    coco_results,
    csv_of_columns,
    index_blank_frames,
    numbers,
    parquet_of_lists,
    person,
    result,
    stored,
    take,
    write_json,
)

from keyreid.pipeline.errors import KeyReIDError, SourceError
from keyreid.pipeline.skeleton import JOINTS


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return index_blank_frames(tmp_path)


@pytest.fixture
def poses() -> Poses:
    """A person in every frame but the last one."""
    return {name: person(seed) for seed, name in enumerate(NAMES[:-1])}


@pytest.mark.parametrize(
    ("scale", "shift", "message"),
    [
        ((1 / WIDTH, 1 / HEIGHT), (0, 0), r"all coordinates lie between .* normalised to 0..1"),
        ((4, 4), (0, 0), r"far outside their frames, such as \w+ at \(.*\) of train/0001/\S+, which is 64x128"),
        ((1, 1), (200, 0), r"far outside .* of the complete picture"),
        ((1, 1), (-WIDTH / 2, -HEIGHT / 2), r"far outside .*expected pixels of the frame, origin at its top left"),
    ],
)
def test_wrong_units_are_refused_before_anything_is_written(
    scale: tuple[float, float], shift: tuple[float, float], message: str, prepared: Path, poses: Poses, tmp_path: Path
) -> None:
    for keypoints in poses.values():
        keypoints[:, :2] = keypoints[:, :2] * scale + shift
    before = sorted(prepared.rglob("*")), (prepared / "dataset.json").read_bytes()
    with pytest.raises(SourceError, match=message):
        take(prepared, coco_results(tmp_path, poses))
    assert (sorted(prepared.rglob("*")), (prepared / "dataset.json").read_bytes()) == before


def test_joints_a_little_outside_are_no_wrong_unit(prepared: Path, tmp_path: Path) -> None:
    keypoints = person(0)
    keypoints[3, :2] = (-4, HEIGHT + 9)
    take(prepared, write_json(tmp_path / "results.json", [result(NAMES[0], keypoints)]))
    np.testing.assert_array_equal(stored(prepared)[NAMES[0]].keypoints, keypoints)


def test_sizes_that_the_source_names_must_be_those_of_the_frames(prepared: Path, poses: Poses, tmp_path: Path) -> None:
    source = coco_annotations(tmp_path, poses)
    source.write_text(source.read_text().replace('"width": 64', '"width": 128'))
    with pytest.raises(SourceError, match=r"the source says that train/\S+ is 128x128; expected 64x128"):
        take(prepared, source)


def text(folder: Path, name: str, content: str | bytes) -> Path:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


def shortened(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def changed(folder: Path, **change: object) -> Path:
    return write_json(folder / "results.json", [result(NAMES[0], person(0)) | change])


def with_nan(keypoints: np.ndarray) -> np.ndarray:
    keypoints[3, 0] = np.nan
    return keypoints


def sized(folder: Path, width: object) -> Path:
    images = [{"id": 1, "file_name": NAMES[0], "width": width, "height": HEIGHT}]
    return write_json(folder / "x.json", {"images": images, "annotations": []})


def row(name: str = NAMES[0]) -> str:
    return f'{name},"{numbers(person(0))}"\n'


def parquet(folder: Path, rows: int, joints: int) -> Path:
    """A small file with very many numbers: all of them 0."""
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * joints)
    zeros = pa.ListArray.from_arrays(offsets, pa.array(np.zeros(rows * joints, np.float32)))
    names = pa.array(["a.jpg"] * rows).dictionary_encode()
    pq.write_table(pa.table({"frame_path": names, "keypoints": zeros}), folder / "x.parquet", compression="zstd")
    return folder / "x.parquet"


NESTED = "[" * 100_000
TWICE = json.dumps({"images": [{"id": 1, "file_name": "a"}] * 2, "annotations": []})
BINARY = b"\xff\xfe" + "frame_path,keypoints\n".encode("utf-16-le")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder, poses: shortened(coco_results(folder, poses)), r"results.json cannot be read \(.*character"),
        (lambda folder, poses: shortened(parquet_of_lists(folder, poses)), r"lists.parquet cannot be read"),
        (lambda folder, _: text(folder, "x.json", ""), r"cannot be read \(the end in place of \[ or \{"),
        (lambda folder, _: text(folder, "x.json", '[{"a": 1} {}]'), r"'\{' in place of , or \] at character 10"),
        (lambda folder, _: text(folder, "x.json", "[] []"), r"more text after the document's end"),
        (lambda folder, _: text(folder, "x.json", b'[{"image_id": "\xff"}]'), r"cannot be read \('utf-8' codec"),
        (lambda folder, _: text(folder, "x.json", NESTED), r"cannot be read \(maximum recursion depth"),
        (lambda folder, _: text(folder, "x.json", "[" + "9" * 5000), r"cannot be read \("),
        (lambda folder, _: text(folder, "x.json", '["' + "a" * (5 << 20)), r"an element of more than 4,194,304 chara"),
        (lambda folder, _: text(folder, "x.json", TWICE), r"two images of id 1; expected each id once"),
        (lambda folder, _: write_json(folder / "x.json", {"people": []}), r"neither a list nor an object with annota"),
        (lambda folder, _: write_json(folder / "x.json", {"annotations": {}}), r"annotations is no list"),
        (lambda folder, _: write_json(folder / "x.json", [5]), r"something else than objects among its results"),
        (lambda folder, _: write_json(folder / "x.json", {"images": [5]}), r"else than objects among its images"),
        (lambda folder, _: sized(folder, 1e12), r"an image of width and height \(1000000000000.0, 128\)"),
        (lambda folder, _: sized(folder, None), r"an image of width and height \(None, 128\)"),
        (lambda folder, _: changed(folder, keypoints=[1.0] * 54), r"person 1 has 54 numbers; expected 51 or 17 x 3"),
        (lambda folder, _: changed(folder, keypoints=[[1.0] * 17] * 3), r"person 1 has 3 x 17 numbers"),
        (lambda folder, _: changed(folder, keypoints=[[1.0] * 3, [1.0]]), r"person 1 has numbers that fit no table"),
        (lambda folder, _: changed(folder, keypoints=["1.5"] * 51), r"person 1 holds something that is no number"),
        (lambda folder, _: changed(folder, keypoints=[True] * 51), r"person 1 holds something that is no number"),
        (lambda folder, _: changed(folder, keypoints={"nose": 1}), r"person 1 holds something that is no number"),
        (lambda folder, _: changed(folder, keypoints=[[[1.0]]]), r"person 1 holds something that is no number"),
        (lambda folder, _: changed(folder, keypoints=[float("nan")] * 51), r"person 1 holds NaN, null or infinity"),
        (lambda folder, _: changed(folder, keypoints=[None] * 51), r"person 1 holds NaN, null or infinity"),
        (lambda folder, _: changed(folder, keypoints=[1e300] * 51), r"person 1 holds NaN, null or infinity"),
        (lambda folder, _: changed(folder, keypoints=[10**400] * 51), r"person 1 has numbers that fit no table"),
        (lambda folder, _: changed(folder, keypoints=[90.0] * 51), r"a joint of confidence 90; expected 0 to 1"),
        (lambda folder, _: changed(folder, score=-1), r"person 1 has score -1"),
        (lambda folder, _: changed(folder, score=[0.5]), r"person 1 has 1 x 1 numbers; expected 1: a score"),
        (lambda folder, _: changed(folder, image_id=[3]), r"image_id \[3\], and no list of images names it"),
        (lambda folder, _: changed(folder, image_id="\ud800"), r"no entry matches a frame: the source has \?;"),
        (lambda folder, _: text(folder, "a.pose", NESTED).parent, r"a.pose cannot be read \(maximum recursion"),
        (lambda folder, _: text(folder, "a.pose", "0" * (2 << 20)).parent, r"more than 1,048,576 bytes"),
        (lambda folder, _: text(folder, "a.pose", "null").parent, r"a.pose has 1 numbers; expected 51"),
        (lambda folder, _: csv_of_columns(folder, {NAMES[0]: with_nan(person(0))}), r"columns.csv, row 1 holds NaN"),
        (lambda folder, _: text(folder, "x.csv", ""), r"x.csv has no column frame_path, nose_x"),
        (lambda folder, _: text(folder, "x.csv", "frame_path;keypoints\n"), r"has no column .* separated by commas"),
        (lambda folder, _: text(folder, "x.csv", BINARY), r"x.csv cannot be read \('utf-8' codec"),
        (lambda folder, _: text(folder, "x.csv", "frame_path,keypoints,keypoints\n"), r"several columns keypoints"),
        (lambda folder, _: text(folder, "x.csv", "frame_path,keypoints\n" + row() + "a,b,c\n"), r"row 2 has 3 cells"),
        (lambda folder, _: text(folder, "x.csv", 'frame_path,keypoints\na,"b'), r"x.csv cannot be read \(unexpected"),
        (
            lambda folder, _: text(folder, "x.csv", 'frame_path,keypoints\na,"' + NESTED),
            r"field larger than|unexpected",
        ),
        (lambda folder, _: text(folder, "x.csv", "frame_path,keypoints\na,half\n"), r"row 1 has keypoints 'half'"),
        (lambda folder, _: parquet(folder, 3_000_000, 1), r"3,000,000 rows in [\d,]+ bytes"),
        (lambda folder, _: parquet(folder, 2, 1_000_000), r"2,000,000 values of keypoints.list.element in 2 rows"),
        (lambda folder, _: coco_results(folder, {}), r"no entry matches a frame: the source has no entries"),
        (lambda folder, _: parquet_of_lists(folder, {"": person(0)}), r"row 1 has no frame_path"),
        (lambda folder, _: folder / "nowhere.json", r"nowhere.json is not there; expected a file .json"),
        (lambda folder, _: folder / "prepared", r"holds neither \*.predictions.json nor \*.pose"),
    ],
)
def test_damaged_sources_are_refused_in_words(
    damage: Callable[[Path, Poses], Path], message: str, prepared: Path, poses: Poses, tmp_path: Path
) -> None:
    with pytest.raises(KeyReIDError, match=message):
        take(prepared, damage(tmp_path, poses))
    assert not (prepared / "receipts").exists() and not (prepared / "import").exists()


@pytest.mark.parametrize("place", ["x.json", "x.parquet", "x.csv", "folder/a.pose", "folder/a.jpg.predictions.json"])
@pytest.mark.parametrize("kind", ["FIFO", "device", "socket", "folder"])
def test_only_regular_files_are_read(place: str, kind: str, prepared: Path, tmp_path: Path) -> None:
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    with closing(socket.socket(socket.AF_UNIX)) as server:
        if kind == "FIFO":
            os.mkfifo(path)  # it would be waited for
        elif kind == "device":
            path.symlink_to("/dev/zero")  # it never ends
        elif kind == "socket":
            server.bind(str(path))
        else:
            path.mkdir()
        with pytest.raises(SourceError, match=r"is not a regular file|is a socket|holds neither"):
            take(prepared, path if path.parent == tmp_path else path.parent)


def test_other_joints_of_a_category_are_refused(prepared: Path, tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "dog", "keypoints": ["muzzle", *JOINTS[1:]]}]
    annotations = [result("a", person(0))]
    source = write_json(tmp_path / "dogs.json", {"categories": categories, "annotations": annotations})
    with pytest.raises(SourceError, match=r"person 1 is a 'dog' with the joints \['muzzle'"):
        take(prepared, source)


def test_a_table_without_joints_says_which(prepared: Path, tmp_path: Path) -> None:
    pd.DataFrame({"frame_path": [NAMES[0]], "nose_x": [1.0], "nose_y": [1.0]}).to_csv(tmp_path / "t.csv")
    with pytest.raises(SourceError, match=r"has no column nose_c, left_eye_x, left_eye_y, left_eye_c \.\.\."):
        take(prepared, tmp_path / "t.csv")


STRANGE: tuple[Any, ...] = (
    None, True, -1, 10**400, float("nan"), float("inf"), 1e300, "", "\ud800", "a" * 9000, [], {}, [[[]]], [None] * 51,
)  # fmt: skip


def replace_one(document: Any, generator: np.random.Generator) -> Any:
    """The same document with one value or key, at any depth, that is something else."""
    strange = STRANGE[generator.integers(len(STRANGE))]
    if not isinstance(document, list | dict) or not document or generator.random() < 0.2:
        return strange
    keys = list(document) if isinstance(document, dict) else list(range(len(document)))
    key = keys[generator.integers(len(keys))]
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[key] = replace_one(document[key], generator)
    return copy


def read_mutated_sources(folder: Path, count: int, seed: int) -> None:
    """Called in a process of its own; ends with an error where a reader lets one through, or lets nonsense through."""
    import resource
    import signal

    from foreign_keypoints import WRITERS
    from mutations import mutate

    from keyreid.pipeline.exchange import import_keypoints as reader

    generator = np.random.default_rng(seed)
    poses = {name: person(n) for n, name in enumerate(NAMES[:3])}
    originals = []
    for write in WRITERS:
        source = write(folder, poses)
        path = source if source.is_file() else next(path for path in sorted(source.rglob("*")) if path.is_file())
        originals.append((source, path, path.read_bytes()))
        assert list(reader._entries(source, reader._format(source, "auto", None), None))  # libraries start threads
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (1 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    outcomes = {"read": 0, "refused": 0}
    for number in range(count):
        source, path, content = originals[number % len(originals)]
        if content[:1] in b"[{" and generator.random() < 0.5:
            damaged = json.dumps(replace_one(json.loads(content), generator)).encode()
        else:
            damaged = mutate(content, generator)
        path.write_bytes(damaged)
        signal.alarm(20)  # ends the process in the middle of whatever it does
        try:
            name = reader._format(source, "auto", None)
            for entry in reader._entries(source, name, None):
                assert "\ud800" not in entry.name and (entry.size is None or min(entry.size) > 0)
                for one in entry.people or ():
                    assert np.isfinite(one.keypoints).all() and one.keypoints.shape == (17, 3) and one.score >= 0
                    assert one.keypoints[:, 2].min() >= 0 and one.keypoints[:, 2].max() <= 1
            outcomes["read"] += 1
        except KeyReIDError as error:
            assert len(str(error)) < 2000 and str(error).encode()
            outcomes["refused"] += 1
        except BaseException:
            sys.stderr.write(f"input {number} of seed {seed}: {path.name}\n")
            raise
        path.write_bytes(content)
    sys.stdout.write(json.dumps(outcomes))


def test_mutated_sources_are_read_or_refused_in_words(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from test_import_keypoints_refused import read_mutated_sources as read; "
        f"read(Path({str(tmp_path)!r}), 700, 33)"
    )
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert outcomes["read"] > 50 and outcomes["refused"] > 350, outcomes

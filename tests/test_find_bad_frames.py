"""Frames that crash pose estimation: tried in real child processes, found by bisection."""

import os
import signal
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from keyreid.cli.prep import main as prep
from keyreid.pipeline import find_bad_frames as module
from keyreid.pipeline.errors import CheckpointError, FormatError, SurroundingsError
from keyreid.pipeline.find_bad_frames import find_bad_frames, search
from keyreid.pipeline.index import Reading, SourceTracklet, write_manifest

FRAMES = ["0.jpg", "1.jpg", "dies", "raises", "4.jpg", "5.jpg"]


def handle(frames: Sequence[str]) -> None:
    """Dies, stumbles or hangs over some frames."""
    for frame in frames:
        os.write(1, b"chatter on standard output must not disturb the answers")
        if frame == "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        if frame == "raises":
            raise RuntimeError("cannot decode")
        if frame == "hangs":
            time.sleep(600)


def good() -> None:
    """A good frame."""


def raise_always(frames: Sequence[str] = ()) -> None:
    raise RuntimeError("no kernel image is available")


def refuse(frames: Sequence[str] = ()) -> None:
    raise CheckpointError("weights are gone")


def break_down(folder: Path, frames: Sequence[str] = ()) -> None:
    """A device that breaks the second time that it is used."""
    if (folder / "used").exists():
        raise_always()
    (folder / "used").touch()


def stumble_once(folder: Path, frames: Sequence[str]) -> None:
    """Killed the first time that it sees one frame alone, as by chance; fails over more than two."""
    if len(frames) > 2:
        raise MemoryError("too much")
    if frames == ["dies"] and not (folder / "seen").exists():
        (folder / "seen").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def test_each_bad_frame_is_found_among_many() -> None:
    assert search(handle, good, FRAMES) == {"dies": "killed by SIGSEGV", "raises": "RuntimeError: cannot decode"}


def test_a_frame_that_hangs() -> None:
    assert search(handle, good, ["hangs"], timeout=5) == {"hangs": "not done after 5 seconds"}


def test_a_broken_device_names_no_frame(tmp_path: Path) -> None:
    with pytest.raises(SurroundingsError, match=r"known to be good fails as well .*no kernel image"):
        search(raise_always, raise_always, FRAMES)
    with pytest.raises(SurroundingsError, match="known to be good fails as well"):  # broken meanwhile
        search(partial(break_down, tmp_path), partial(break_down, tmp_path), FRAMES[:1])


def test_an_error_that_no_frame_makes_is_raised_as_it_is() -> None:
    with pytest.raises(CheckpointError, match="weights are gone"):
        search(refuse, good, FRAMES)


def test_a_child_that_cannot_start_blames_no_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multiprocessing.spawn._python_exe", b"/bin/false")
    with pytest.raises(SurroundingsError, match=r"did not start .*exit code 1"):
        search(handle, good, FRAMES)


def test_what_fails_together_or_once_by_chance_is_not_blamed(tmp_path: Path) -> None:
    assert search(partial(stumble_once, tmp_path), good, FRAMES[:5]) == {}
    assert (tmp_path / "seen").exists()


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """An index of five frames, which need not be there."""
    tracklets = [SourceTracklet("train", 1, 1, [f"{number}.jpg" for number in range(5)])]
    write_manifest(tmp_path / "prepared", Reading("made", tmp_path, tracklets))
    return tmp_path / "prepared"


def test_a_shard_that_is_not_there(prepared: Path) -> None:
    with pytest.raises(FormatError, match="has no shard 00001"):
        find_bad_frames(prepared, 1)


def test_the_command_prints_paths_and_what_to_do_next(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_bad_frames", lambda *_, **__: {"2.jpg": "killed by SIGSEGV"})
    arguments = ["find-bad-frames", str(prepared), "--shard", "0"]
    result = CliRunner().invoke(prep, arguments)
    assert result.exit_code == 0 and result.stdout == "2.jpg\n"
    assert "2.jpg: killed by SIGSEGV" in result.stderr
    result = CliRunner().invoke(prep, [*arguments, "--out", str(tmp_path / "bad.txt")])
    assert (tmp_path / "bad.txt").read_text() == "2.jpg\n" and result.stdout == ""
    assert f"extract-keypoints {prepared} --skip-frames {tmp_path / 'bad.txt'}" in result.stderr
    monkeypatch.setattr(module, "find_bad_frames", lambda *_, **__: {})
    result = CliRunner().invoke(prep, arguments)
    assert result.exit_code == 0 and result.stdout == "" and "no frame of shard 00000 fails alone" in result.stderr

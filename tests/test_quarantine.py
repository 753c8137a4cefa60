"""Frames that kill: tried in real child processes, found by bisection."""

import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from keyreid.pipeline.errors import CheckpointError, KeyReIDError
from keyreid.pipeline.quarantine import bisect, find_fatal, read_quarantine, write_quarantine
from keyreid.pipeline.trial import MEMORY_VARIABLE, Trial


def handle(names: Sequence[str]) -> None:
    """Dies, stumbles or hoards memory over some names."""
    for name in names:
        if name == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if name == "exit":
            os._exit(3)
        if name == "raises":
            raise RuntimeError("cannot decode")
        if name == "hoards":
            bytearray(1 << 31)
        os.write(1, b"chatter on standard output must not disturb the answers")


def stumble_once(folder: Path, names: Sequence[str]) -> None:
    """Killed the first time that it sees c, as by chance."""
    marker = folder / "seen"
    if "c" in names and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def test_each_fatal_frame_is_found_among_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEMORY_VARIABLE, str(1 << 30))
    names = [f"frame{number}" for number in range(13)]
    names[2], names[3], names[7], names[12] = "segfault", "raises", "hoards", "exit"
    assert find_fatal(handle, names) == {
        "segfault": "killed by SIGSEGV",
        "raises": "RuntimeError: cannot decode",
        "hoards": "MemoryError: ",
        "exit": "ended with exit code 3",
    }


def refuse(names: Sequence[str]) -> None:
    raise CheckpointError("weights are gone")


def test_an_error_that_no_frame_makes_is_raised_and_blamed_on_none() -> None:
    with pytest.raises(CheckpointError, match="weights are gone"):
        find_fatal(refuse, ["a", "b"])


def test_a_child_that_cannot_begin_blames_no_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [part for part in sys.path if not part.endswith("tests")])
    with pytest.raises(KeyReIDError, match="a process to try frames in did not begin"):
        find_fatal(handle, ["a", "b"])


def test_harmless_frames_and_no_frames() -> None:
    assert find_fatal(handle, ["a", "b", "c"]) == {}
    assert find_fatal(handle, []) == {}


def test_what_was_killed_once_by_chance_is_not_blamed(tmp_path: Path) -> None:
    assert find_fatal(partial(stumble_once, tmp_path), ["a", "b", "c", "d"]) == {}
    assert (tmp_path / "seen").exists()


def test_what_fails_together_alone_is_no_single_frames_fault() -> None:
    assert bisect(lambda names: "too much" if len(names) > 2 else None, list("abcdefg")) == {}


def test_the_child_ends_with_its_parent() -> None:
    with Trial(handle) as tried:
        assert tried(["a"]) is None
        child = tried._child
        assert child is not None and child.poll() is None
    assert child.poll() == 0


def test_the_quarantine_comes_back(tmp_path: Path) -> None:
    assert read_quarantine(tmp_path, 4) == {}
    write_quarantine(tmp_path, 4, {"a.jpg": "killed by SIGSEGV"})
    assert read_quarantine(tmp_path, 4) == {"a.jpg": "killed by SIGSEGV"}

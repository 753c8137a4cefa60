"""Frames that crash pose estimation, found by bisection in child processes, which may die of them."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .environment import progress_bar
from .errors import KeyReIDError, SettingsError, SurroundingsError
from .manifest import read_dataset, read_manifest, read_shard_frames
from .records import SourceFrames
from .stages import KEYPOINTS, frame_roots

if TYPE_CHECKING:
    from .extract_keypoints import ExtractTask

Work = Callable[[Sequence[str]], object]

TIMEOUT = 900.0  # seconds for a trial, loading of the network included
FRAMES_PER_TRIAL = 128  # of the trials that bisection begins from


def find_bad_frames(
    prepared: Path,
    shard: int,
    *,
    root: Path | Mapping[str, Path] | None = None,
    device: str = "auto",
    timeout: float = TIMEOUT,
) -> dict[str, str]:
    """Estimate poses, with the settings of extract-keypoints' last run, in fewer and fewer frames of a shard.

    Args:
        prepared: the prepared dataset; it is only read.
        shard: number of the shard.
        root, device: see extract_keypoints.
        timeout: seconds after which a trial of at most FRAMES_PER_TRIAL frames counts as failed.

    Returns:
        Path of a frame -> what happens over it, such as "killed by SIGSEGV".

    Raises:
        SurroundingsError: a good frame fails as well: the device, memory or the checkpoint is at fault.
        FormatError: no such shard.
        SettingsError: keypoints were not extracted here.
    """
    frames, task = read_shard_frames(prepared, shard), _last_task(prepared, root, device)
    paths = list(dict.fromkeys(frames.paths))
    with tempfile.TemporaryDirectory() as folder:
        noise = np.random.default_rng(0).integers(0, 256, (128, 64, 3), np.uint8)
        Image.fromarray(noise).save(Path(folder) / "noise.jpg")
        good_work = partial(_try_frames, task, Path(folder), ["noise.jpg"])
        return search(partial(_try_frames, task, task.roots[frames.generation]), good_work, paths, timeout)


def _last_task(prepared: Path, root: Path | Mapping[str, Path] | None, device: str) -> ExtractTask:
    """What dataset.json keeps of the last run of extract-keypoints: checkpoint and pose settings."""
    from .extract_keypoints import ExtractTask, KeypointSettings  # which loads torch, as the next one does
    from .pose.checkpoints import resolve_checkpoint
    from .pose.forward import DecoderSettings, PoseSettings

    info = read_dataset(prepared)
    settings, recall = (info.get(key, {}).get(KEYPOINTS, {}) for key in ("stages", "recall"))
    if "pose" not in settings or "checkpoint" not in recall:
        raise SettingsError(f"{prepared} has no extracted keypoints", "a run of extract-keypoints", "run it first")
    pose = PoseSettings(**settings["pose"] | {"decoder": DecoderSettings(**settings["pose"]["decoder"])})
    checkpoint = resolve_checkpoint(recall["checkpoint"], trust=recall["trusted"])
    plain = KeypointSettings(checkpoint.sha256, pose, "best-score", None, None)
    return ExtractTask(prepared.absolute(), frame_roots(read_manifest(prepared), root), checkpoint, plain, device)


def _try_frames(task: ExtractTask, root: Path, paths: Sequence[str]) -> None:
    """In a child: what extract-keypoints does with some frames under a root."""
    from .extract_keypoints import estimate_poses

    frames = SourceFrames(0, tuple(paths), np.arange(len(paths)), np.zeros(len(paths)))
    list(estimate_poses(task, [frames], root, lambda count: None))


def search(
    work: Work, good_work: Callable[[], object], frames: Sequence[str], timeout: float = TIMEOUT
) -> dict[str, str]:
    """The frames over which a child process dies, fails or hangs when it does `work` with them alone.

    Args:
        work: picklable; what a worker does with some frames.
        good_work: the same with a frame that is known to be good; a SurroundingsError says that it fails.
        timeout: seconds for one trial.

    Returns:
        Frame -> what happened; empty where none fails alone.
    """

    def require_good() -> None:
        reason = trial(good_work)
        if reason is not None:
            raise SurroundingsError(
                f"a frame that is known to be good fails as well ({reason}): the frames of the shard are not to blame",
                "",
                "look at the device, memory and the checkpoint; --device cpu tells whether it is the GPU",
            )

    def bisect(some: Sequence[str]) -> dict[str, str]:
        if trial(partial(work, some)) is None:
            return {}
        if len(some) > 1:
            middle = len(some) // 2
            return bisect(some[:middle]) | bisect(some[middle:])
        require_good()  # a device may have broken meanwhile
        reason = trial(partial(work, some))  # anything can be killed once
        return {} if reason is None else {some[0]: reason}

    found: dict[str, str] = {}
    with Trial(timeout) as trial, progress_bar(len(frames), "find bad frames", "frames") as bar:
        require_good()
        for start in range(0, len(frames), FRAMES_PER_TRIAL):
            some = frames[start : start + FRAMES_PER_TRIAL]
            found |= bisect(some)
            bar.update(len(some))
    return found


class Trial:
    """A child process that calls one function after the other, each in at most `timeout` seconds, and is replaced when
    it dies; a context manager."""

    def __init__(self, timeout: float = TIMEOUT) -> None:
        self._timeout = timeout
        self._child: Any = None
        self._connection: Any = None

    def __call__(self, function: Callable[[], object]) -> str | None:
        """Call `function`, which must be picklable: None where it went well, else what happened.

        Raises:
            KeyReIDError, OSError: of the function; or the child could not start.
        """
        if self._child is None:
            context = get_context("spawn")
            self._connection, other = context.Pipe()
            self._child = context.Process(target=_answer, args=(other,), daemon=True)
            self._child.start()
            other.close()  # so that the child's end is noticed
            problem = self._ask(os.getpid)  # what it dies of from here on is the function's doing
            if problem is not None:
                found = f"a process to try frames in did not start ({problem})"
                raise SurroundingsError(found, "", "see its output above")
        answer = self._ask(function)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *error: object) -> None:
        if self._child is not None:
            self._end()

    def _ask(self, function: Callable[[], object]) -> Any:
        try:
            self._connection.send(function)
            if self._connection.poll(self._timeout):
                return self._connection.recv()
        except (EOFError, OSError):
            return self._end()
        self._child.kill()
        self._end()
        return f"not done after {self._timeout:g} seconds"

    def _end(self) -> str:
        child, self._child = self._child, None
        self._connection.close()
        child.join()
        code = child.exitcode
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _answer(connection: Any) -> None:
    """The child: answers each function with None, what went wrong, or an error that no frame makes.

    It ends when the connection does, as it also does when the parent dies.
    """
    os.dup2(2, 1)  # standard output is the parent's, for the list
    while True:
        try:
            function = connection.recv()
        except EOFError:
            return
        answer: object = None
        try:
            function()
        except (KeyReIDError, OSError) as error:  # would happen whatever the frame
            answer = error
        except Exception as error:  # whatever it is: the parent decides
            answer = f"{type(error).__name__}: {error}"
        connection.send(answer)

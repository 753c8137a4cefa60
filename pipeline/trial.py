"""Work tried in a child process, which may die of it; the parent learns how and lives on.

`python -m keyreid.pipeline.trial` is the child: it reads pickles from standard input, first the work, then what to do
it with, again and again. It answers each with a pickle: None, an accident in words, or an
error that is no accident.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .errors import KeyReIDError

MEMORY_VARIABLE = "KEYREID_MEMORY_LIMIT"  # bytes a worker may use; set by the executor, kept by its children


class Trial:
    """A child process that does `work(item)` for one item after the other; a context manager.

    Args:
        work: picklable; what it returns is dropped.
    """

    def __init__(self, work: Callable[[Any], object]) -> None:
        self._work = work
        self._child: subprocess.Popen[bytes] | None = None

    def __call__(self, item: object) -> str | None:
        """Do the work once: None where it went well, else what happened, such as "killed by SIGSEGV".

        Raises:
            KeyReIDError, OSError: of the work; or the child could not begin.
        """
        child = self._child or self._start()
        answer = self._ask(child, item)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *error: object) -> None:
        if self._child is not None:
            _end_of(self._child)
            self._child = None

    def _start(self) -> subprocess.Popen[bytes]:
        """A child that has the work in hand: what it dies of from here on is the item's doing."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        child = self._child = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        if (problem := self._ask(child, self._work)) is not None:
            raise KeyReIDError(f"a process to try frames in did not begin ({problem})", "", "see what it printed above")
        return child

    def _ask(self, child: subprocess.Popen[bytes], item: object) -> Any:
        assert child.stdin is not None and child.stdout is not None
        try:
            pickle.dump(item, child.stdin)
            child.stdin.flush()
            return pickle.load(child.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            self._child = None
            return _end_of(child)


def _end_of(child: subprocess.Popen[bytes]) -> str:
    assert child.stdin is not None and child.stdout is not None
    child.stdout.close()
    with suppress(OSError):  # it may have died with bytes on the way to it
        child.stdin.close()
    code = child.wait()
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def main() -> None:
    """The child; ends when standard input does, as it also does when the parent dies."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not mix with answers
    limit = int(os.environ.get(MEMORY_VARIABLE) or 0)
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    work = pickle.load(sys.stdin.buffer)
    answer: object = None  # to the work itself: it has arrived
    while True:
        pickle.dump(answer, answers)
        answers.flush()
        try:
            item = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            work(item)
            answer = None
        except (KeyReIDError, OSError) as error:  # would happen whatever the item
            answer = error
        except Exception as error:  # whatever it is: the parent decides
            answer = f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()

"""One test for every executor: the serial one says what the result is. Workers really are killed."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import dask_cluster

from keyreid.pipeline import executor as executor_module
from keyreid.pipeline.errors import FormatError, SettingsError, SurroundingsError
from keyreid.pipeline.executor import (
    WORKER_VARIABLE,
    DaskExecutor,
    Executor,
    Report,
    SerialExecutor,
    WorkerDiedError,
)


def square(unit: int, report: Report) -> int:
    report(unit)
    return unit * unit


def refuse_two(unit: int, report: Report) -> int:
    if unit == 2:
        raise FormatError(f"unit {unit}", "another", "try again")
    return square(unit, report)


def note_and_fail(folder: Path, unit: int, report: Report) -> int:
    """Unit 1 is killed once, as by a machine that runs out of memory, 2 each time; 3 raises."""
    (folder / f"{unit}-{os.getpid()}").touch()
    if unit == 2 or (unit == 1 and len(list(folder.glob("1-*"))) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if unit == 3:
        raise RuntimeError("stumbled")
    return unit


def note_worker(folder: Path) -> None:
    (folder / f"{os.environ[WORKER_VARIABLE]}-{os.getpid()}").touch()


def unfit_but_one() -> None:
    if os.environ[WORKER_VARIABLE] != "1":
        raise SurroundingsError("the frames' folder /data is not there", "", "mount it")


def unfit() -> None:
    raise RuntimeError("no kernel image is available")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def number_of_worker(unit: int, report: Report) -> str:
    time.sleep(0.01)
    return os.environ[WORKER_VARIABLE]


def worker_memory(unit: int, report: Report) -> dict[str, Any]:
    import dask

    return dict(dask.config.get("distributed.worker.memory"))


def ignore(frames: int) -> None:
    """Nobody looks."""


@pytest.fixture(scope="module")
def dask() -> Iterator[DaskExecutor]:
    """Two workers for all tests; they leave no settings behind, and are replaced though Dask gives up on them at once.

    Dask drops a worker that is not back in time, as on a busy machine; a run would wait for another one forever.
    """
    import dask
    import distributed  # noqa: F401  (it has settings and levels of its own)

    def settings() -> list[object]:
        environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
        return [repr(dask.config.config), environment, logging.getLogger("distributed").level]

    with dask.config.set({"distributed.deploy.lost-worker-timeout": "10ms"}):
        before = settings()
        with DaskExecutor(workers=2) as executor:
            yield executor
        assert before == settings()


@pytest.fixture
def executor(request: pytest.FixtureRequest) -> Executor:
    return SerialExecutor() if request.param == "serial" else request.getfixturevalue("dask")


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_module, "LOOK_SECONDS", 0.2)


@pytest.mark.parametrize("executor", ["serial", "dask"], indirect=True)
def test_every_unit_has_one_outcome_whatever_happens_to_others(executor: Executor) -> None:
    reported: list[int] = []
    outcomes = sorted(executor.run(refuse_two, [3, 1, 2], reported.append), key=lambda one: one.unit)
    assert [(one.unit, one.result) for one in outcomes] == [(1, 1), (2, None), (3, 9)]
    error = outcomes[1].error
    assert isinstance(error, FormatError) and error.remedy == "try again", "an error arrives as it was raised"
    assert all(one.machine == os.uname().nodename for one in outcomes)
    assert sorted(reported) == [1, 3]


def test_the_serial_executor_raises_what_prepare_raises_and_can_be_interrupted() -> None:
    with pytest.raises(RuntimeError, match="no kernel image"):
        next(SerialExecutor().run(square, [1], ignore, prepare=unfit))

    def interrupt(unit: int, report: Report) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(SerialExecutor().run(interrupt, [1], ignore))


def test_every_worker_is_prepared_once_and_knows_its_number(dask: DaskExecutor, tmp_path: Path) -> None:
    list(dask.run(number_of_worker, range(40), ignore, prepare=partial(note_worker, tmp_path)))
    assert sorted(path.name.split("-")[0] for path in tmp_path.iterdir()) == ["0", "1"]


def test_a_worker_that_is_unfit_gets_no_units(dask: DaskExecutor, caplog: pytest.LogCaptureFixture) -> None:
    outcomes = list(dask.run(number_of_worker, range(10), ignore, prepare=unfit_but_one))
    assert [one.result for one in outcomes] == ["1"] * 10
    assert caplog.messages == [f"{os.uname().nodename} gets no shards: the frames' folder /data is not there; mount it"]


def test_the_local_cluster_is_encrypted_and_never_pauses(dask: DaskExecutor) -> None:
    assert dask._client.scheduler.address.startswith("tls://")
    memory = next(dask.run(worker_memory, [1], ignore)).result
    assert memory is not None
    assert [memory[key] for key in ("target", "spill", "pause", "terminate")] == [False, False, False, 0.95]


def test_a_unit_that_fails_is_tried_once_more_by_another_worker(dask: DaskExecutor, tmp_path: Path) -> None:
    outcomes = {one.unit: one for one in dask.run(partial(note_and_fail, tmp_path), [1, 2, 3, 4, 5], ignore)}
    assert sorted(outcomes) == [1, 2, 3, 4, 5]
    assert [outcomes[unit].result for unit in (1, 4, 5)] == [1, 4, 5], "1 was killed once, and went well then"
    assert isinstance(outcomes[2].error, WorkerDiedError) and "out of memory" in str(outcomes[2].error)
    assert isinstance(outcomes[3].error, RuntimeError)
    assert [len(list(tmp_path.glob(f"{unit}-*"))) for unit in range(1, 6)] == [2, 2, 2, 1, 1], "processes"


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (
            unfit,
            rf"no worker .*\({os.uname().nodename}: RuntimeError: no kernel image.*\); .*shards are kept.* resumes",
        ),
        (die, r"workers die while they start.*shards are kept"),
    ],
)
def test_no_worker_is_fit(dask: DaskExecutor, prepare: Callable[[], None], said: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(executor_module, "DEATHS_AT_START", 2)
    with pytest.raises(SurroundingsError, match=said):
        list(dask.run(square, [1, 2], ignore, prepare))
    assert [one.result for one in dask.run(square, [4], ignore)] == [16], "and are there again for the next run"


def test_local_workers_that_cannot_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: Any) -> None:
    from distributed import system

    with monkeypatch.context() as patch:
        patch.setattr(system, "MEMORY_LIMIT", 8 << 30)
        with pytest.raises(SettingsError, match=r"8 workers need 16.0 GiB of memory, .* has 8.0; --workers 3"):
            DaskExecutor(8, bytes_per_worker=2 << 30).__enter__()
    (tmp_path / "sitecustomize.py").write_text("import os\nif os.environ.get('MALLOC_TRIM_THRESHOLD_'): os._exit(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(SurroundingsError, match="the workers on this machine did not start"):
        DaskExecutor(workers=1).__enter__()
    assert "Traceback" not in capfd.readouterr().err


def pause(dask_worker: Any) -> None:
    dask_worker.status = type(dask_worker.status).paused


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def listeners(dask_scheduler: Any) -> set[str]:
    return {name for name, topic in dask_scheduler._broker._topics.items() if topic.subscribers}


def test_a_cluster_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    file = str(tmp_path / "scheduler.json")
    scheduler_options = ["--scheduler-file", file, "--port", "0", "--host", "127.0.0.1"]
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # this file is among them
    with dask_cluster(scheduler_options, ["--scheduler-file", file, "--memory-limit", "0"], paths) as scheduler:
        wait_until(Path(file).exists)
        with DaskExecutor(scheduler_file=file) as one, DaskExecutor(scheduler_file=file) as other:
            frames: tuple[list[int], list[int]] = ([], [])
            first = one.run(square, range(9), frames[0].append)
            second = other.run(square, range(9, 14), frames[1].append)
            results = [next(run).result for run in (first, second, first, second)]  # at the same time
            results += [outcome.result for run in (first, second) for outcome in run]
            assert sorted(results) == [unit * unit for unit in range(14)]
            assert [sorted(some) for some in frames] == [list(range(9)), list(range(9, 14))], "each sees its own alone"
            for client in (one._client, other._client):  # a run that is over listens no more
                wait_until(lambda client=client: client.id not in client.run_on_scheduler(listeners))
            assert len([line for line in caplog.messages if "no workers yet" in line]) <= 2

            monkeypatch.setattr(executor_module, "PAUSED_SECONDS", 0.3)
            one._client.run(pause, workers=list(one._client.scheduler_info()["workers"])[:1])
            assert sorted(outcome.result for outcome in one.run(square, range(4), ignore)) == [0, 1, 4, 9]
            one._client.run(pause)
            with pytest.raises(
                SurroundingsError, match=r"no worker is left.*paused it, since its memory is full.*kept"
            ):
                list(one.run(square, range(4), ignore))
        with DaskExecutor(scheduler_file=file) as one:
            run = one.run(square, range(4), ignore)
            scheduler.kill()
            with pytest.raises(SurroundingsError, match=r"scheduler at tcp://127.0.0.1:\d+ is lost.*shards are kept"):
                list(run)

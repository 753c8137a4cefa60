"""One test for every executor: the serial one says what the result is."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from keyreid.pipeline.errors import FormatError, KeyReIDError, SettingsError
from keyreid.pipeline.executor import WORKER_VARIABLE, DaskExecutor, Executor, Report, SerialExecutor
from keyreid.pipeline.trial import MEMORY_VARIABLE

UNITS = [3, 1, 2]


def square(unit: int, report: Report) -> int:
    report(unit)
    return unit * unit


def refuse(unit: int, report: Report) -> int:
    raise FormatError(f"unit {unit}", "another", "try again")


def die_once(folder: Path, unit: int, report: Report) -> int:
    """The first time that a unit is begun its process is killed, as by a machine that runs out of memory."""
    marker = folder / str(unit)
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return unit


def die_of_two(unit: int, report: Report) -> int:
    if unit == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return unit


def stumble(unit: int, report: Report) -> int:
    raise RuntimeError(f"stumbled over {unit}")


def leave_name(folder: Path) -> None:
    path = folder / os.environ[WORKER_VARIABLE]
    assert not path.exists()
    path.write_text(os.environ[MEMORY_VARIABLE])


def die(unit: int, report: Report) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


@pytest.mark.parametrize("executor", [SerialExecutor(), DaskExecutor(workers=2)], ids=["serial", "dask"])
def test_every_unit_is_run_and_reported(executor: Executor) -> None:
    reported: list[int] = []
    with executor:
        assert sorted(executor.run(square, UNITS, reported.append)) == [1, 4, 9]
    assert sorted(reported) == [1, 2, 3]


@pytest.mark.parametrize("executor", [SerialExecutor(), DaskExecutor(workers=1)], ids=["serial", "dask"])
def test_an_error_arrives_as_it_was_raised(executor: Executor) -> None:
    with pytest.raises(FormatError, match=r"unit 7; expected another; try again") as caught, executor:
        list(executor.run(refuse, [7], lambda frames: None))
    assert caught.value.remedy == "try again"


def test_a_unit_whose_worker_was_killed_is_given_to_another(tmp_path: Path) -> None:
    with DaskExecutor(workers=2) as executor:
        assert sorted(executor.run(partial(die_once, tmp_path), UNITS, lambda frames: None)) == [1, 2, 3]
    assert len(list(tmp_path.iterdir())) == 3, "each was killed once"


def test_a_worker_that_dask_gives_up_is_replaced(tmp_path: Path) -> None:
    """Dask drops a worker that is not back in time, as on a busy machine; a run would wait for another one forever."""
    import dask

    with dask.config.set({"distributed.deploy.lost-worker-timeout": "10ms"}), DaskExecutor(workers=1) as executor:
        assert list(executor.run(partial(die_once, tmp_path), [1], lambda frames: None)) == [1]


def test_a_unit_that_kills_every_worker_ends_in_one_clear_error() -> None:
    with pytest.raises(KeyReIDError, match=r"shard 00005: 4 workers died over it; .*--serial"):  # noqa: SIM117
        with DaskExecutor(workers=1) as executor:
            list(executor.run(die, [5], lambda frames: None))


def test_the_rescue_of_a_unit_whose_workers_die(tmp_path: Path) -> None:
    with DaskExecutor(workers=2) as executor:
        results = executor.run(die_of_two, UNITS, lambda frames: None, rescue=square)
        assert sorted(results) == [1, 3, 4], "unit 2 is squared by the rescue"


@pytest.mark.parametrize("executor", [SerialExecutor(), DaskExecutor(workers=1)], ids=["serial", "dask"])
def test_the_rescue_of_a_unit_that_fails_by_accident_and_not_on_purpose(executor: Executor) -> None:
    with executor:
        assert list(executor.run(stumble, [4], lambda frames: None, rescue=square)) == [16]
        with pytest.raises(RuntimeError, match="stumbled over 4"):
            list(executor.run(stumble, [4], lambda frames: None))
        with pytest.raises(FormatError, match="unit 7"):
            list(executor.run(refuse, [7], lambda frames: None, rescue=square))


def test_every_worker_is_prepared_once_and_knows_its_number(tmp_path: Path) -> None:
    with DaskExecutor(workers=2) as executor:
        list(executor.run(square, UNITS, lambda frames: None, prepare=partial(leave_name, tmp_path)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
    assert all(int(path.read_text()) > 1 << 20 for path in tmp_path.iterdir()), "bytes that it may use"


def test_a_scheduler_that_already_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import dask
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        with DaskExecutor(scheduler_address=cluster.scheduler_address) as executor:
            assert list(executor.run(square, [4], lambda frames: None)) == [16]
        with dask.config.set({"scheduler-address": cluster.scheduler_address}):  # as DASK_SCHEDULER_ADDRESS does
            with DaskExecutor() as executor:
                assert list(executor.run(square, [5], lambda frames: None)) == [25]
            assert len(cluster.workers) == 1 and len(cluster.scheduler_info["workers"]) == 1, "no cluster of its own"


def test_a_scheduler_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9 .*`dask scheduler`"):
        DaskExecutor(scheduler_address="tcp://127.0.0.1:9").__enter__()

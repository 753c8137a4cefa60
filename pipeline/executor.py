"""Runs a task over shards: serially, which defines the meaning, or with Dask. The one importer of Dask."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from threading import Event, Thread
from typing import Any, Protocol, TypeVar

from .errors import KeyReIDError, SettingsError
from .trial import MEMORY_VARIABLE

WORKER_VARIABLE = "KEYREID_WORKER"  # number of a worker among those of its machine

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Report = Callable[[int], None]  # a task calls it with the number of frames it has just finished
Task = Callable[[int, Report], Result]

_WATCH_SECONDS = 2
_FRAMES_TOPIC = "keyreid-frames"


def nothing() -> None:
    """A `prepare` that does nothing."""


class Executor(Protocol):
    """Something that runs tasks; a context manager, since workers must end."""

    def run(
        self,
        task: Task[Result],
        units: Sequence[int],
        report: Report,
        prepare: Callable[[], object] = nothing,
        rescue: Task[Result] | None = None,
    ) -> Iterator[Result]:
        """Yield task(unit, report) for every unit, in whatever order they finish.

        Args:
            prepare: called once in each worker, before its first unit.
            rescue: what is run, once, for a unit over which workers died, or whose task failed in a way that this
                project does not raise on purpose.

        Raises:
            KeyReIDError: of a task; or workers died over a unit, and over its rescue.
        """
        ...

    def __enter__(self) -> Executor: ...

    def __exit__(self, *error: object) -> None: ...


class SerialExecutor:
    """One unit after the other in this process."""

    def run(
        self,
        task: Task[Result],
        units: Sequence[int],
        report: Report,
        prepare: Callable[[], object] = nothing,
        rescue: Task[Result] | None = None,
    ) -> Iterator[Result]:
        prepare()
        for unit in units:
            try:
                result = task(unit, report)
            except Exception as error:
                if rescue is None or _on_purpose(error):
                    raise
                result = rescue(unit, report)
            yield result

    def __enter__(self) -> SerialExecutor:
        return self

    def __exit__(self, *error: object) -> None:
        return None


class DaskExecutor:
    """Dask workers: a local cluster of single-threaded processes, or a cluster that already runs.

    Args:
        workers: processes of the local cluster; None: one a core.
        scheduler_address: a running scheduler instead, such as "tcp://host:8786". Where nothing is given, Dask's own
            setting counts (DASK_SCHEDULER_ADDRESS or its configuration files, which hold TLS settings as well).
        scheduler_file: or the file that such a scheduler wrote.
        performance_report: HTML file for Dask's report of the run.
    """

    def __init__(
        self,
        workers: int | None = None,
        scheduler_address: str | None = None,
        scheduler_file: str | None = None,
        performance_report: str | None = None,
    ) -> None:
        self._workers, self._address, self._file = workers, scheduler_address, scheduler_file
        self._report = performance_report
        self._resources = ExitStack()
        self._client: Any = None

    def __enter__(self) -> DaskExecutor:
        import dask

        dask.config.set({"logging.distributed": "error"})  # before the import: it is read there
        from distributed import Client, performance_report

        if self._report and not find_spec("bokeh"):
            raise SettingsError(
                "a performance report was asked for, and bokeh is not installed", "", "pip install 'keyreid[clusters]'"
            )
        address = self._address
        if not address and not self._file and self._workers is None:
            address = dask.config.get("scheduler-address", None)
        with ExitStack() as stack:
            if address or self._file:
                self._client = stack.enter_context(_connect(address, self._file))
                if not self._client.scheduler_info()["workers"]:
                    logger.warning(
                        "the scheduler at %s has no workers yet: waiting for some", self._client.scheduler.address
                    )
            else:
                cluster = stack.enter_context(_local_cluster(self._workers))
                self._client = stack.enter_context(Client(cluster))
                stack.enter_context(_replaced_workers(cluster))
            if find_spec("bokeh"):
                logger.info("Dask's dashboard: %s", self._client.dashboard_link)
            if self._report:
                stack.enter_context(performance_report(filename=self._report))
            self._resources = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._resources.close()

    def run(
        self,
        task: Task[Result],
        units: Sequence[int],
        report: Report,
        prepare: Callable[[], object] = nothing,
        rescue: Task[Result] | None = None,
    ) -> Iterator[Result]:
        """See Executor.run; a unit whose worker died is given to another first."""
        from distributed import as_completed

        self._client.register_plugin(_setup_plugin(prepare))
        self._client.subscribe_topic(_FRAMES_TOPIC, lambda event: report(event[1]))
        units_of = {self._client.submit(_on_worker, task, unit, pure=False): unit for unit in units}
        rescued: set[int] = set()
        futures = as_completed(list(units_of))
        try:
            for future in futures:
                unit = units_of.pop(future)
                error = future.exception()
                if error is None:
                    yield future.result()
                elif rescue is not None and unit not in rescued and not _on_purpose(error):
                    rescued.add(unit)
                    again = self._client.submit(_on_worker, rescue, unit, pure=False)
                    units_of[again] = unit
                    futures.add(again)
                else:
                    raise _in_words(error, unit) from error
        finally:
            self._client.unsubscribe_topic(_FRAMES_TOPIC)


def _on_purpose(error: BaseException) -> bool:
    """Whether a second try would fail in the same way, whatever frames are left out."""
    return isinstance(error, (KeyReIDError, OSError))


def _in_words(error: BaseException, unit: int) -> BaseException:
    from distributed import KilledWorker

    if not isinstance(error, KilledWorker):
        return error
    return KeyReIDError(
        f"shard {unit:05d}: {error.allowed_failures + 1} workers died over it",
        "",
        "look for lack of memory (fewer --workers help); --serial shows what happens; finished shards are kept, and "
        "the next run goes on from them",
    )


def worker_number(name: object) -> str:
    """The digits at the end of a worker's name: "1" of 1, "SLURMCluster-0-1" and "node7-1"; "0" without digits."""
    found = re.search(r"\d+$", str(name))
    return found.group() if found else "0"


def _setup_plugin(prepare: Callable[[], object]) -> Any:
    """What each worker does when it starts: learn its number and its memory limit, then prepare."""
    from distributed import Worker, WorkerPlugin

    class Setup(WorkerPlugin):
        name = "keyreid"

        def setup(self, worker: Worker) -> None:
            os.environ[WORKER_VARIABLE] = worker_number(worker.name)
            os.environ[MEMORY_VARIABLE] = str(worker.memory_manager.memory_limit or 0)
            prepare()

    return Setup()


def _local_cluster(workers: int | None) -> Any:
    """Single-threaded processes; Dask's nanny gives each one BLAS thread."""
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0" if find_spec("bokeh") else None,
        silence_logs=logging.ERROR,
    )


@contextmanager
def _replaced_workers(cluster: Any) -> Iterator[None]:
    """Start a worker anew where Dask gave one up: one that did not come back in time, or died while it started."""
    wanted, stop = len(cluster.worker_spec), Event()

    def watch() -> None:
        while not stop.wait(_WATCH_SECONDS):
            cluster.scale(wanted)  # starts what is missing; mostly nothing

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _connect(address: str | None, scheduler_file: str | None) -> Any:
    from distributed import Client

    try:
        return Client(address=address, scheduler_file=scheduler_file, timeout="10s")
    except (OSError, TimeoutError, ValueError) as error:
        raise SettingsError(
            f"no Dask scheduler answers at {address or scheduler_file} ({error})",
            "a running scheduler",
            "start one with `dask scheduler`, or leave the option out for workers on this machine",
        ) from error


def _on_worker(task: Task[Result], unit: int) -> Result:
    from distributed import get_worker

    worker = get_worker()
    return task(unit, lambda frames: worker.log_event(_FRAMES_TOPIC, frames))

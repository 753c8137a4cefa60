"""Runs a task over shards: serially, which defines the meaning, or with Dask. The one importer of Dask."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any, Protocol, TypeVar

from .errors import KeyReIDError, SettingsError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Report = Callable[[int], None]  # a task calls it with the number of frames it has just finished
Task = Callable[[int, Report], Result]

_FRAMES_TOPIC = "keyreid-frames"


class Executor(Protocol):
    """Something that runs tasks; a context manager, since workers must end."""

    def run(self, task: Task[Result], units: Sequence[int], report: Report) -> Iterator[Result]:
        """Yield task(unit, report) for every unit, in whatever order they finish."""
        ...

    def __enter__(self) -> Executor: ...

    def __exit__(self, *error: object) -> None: ...


class SerialExecutor:
    """One unit after the other in this process."""

    def run(self, task: Task[Result], units: Sequence[int], report: Report) -> Iterator[Result]:
        for unit in units:
            yield task(unit, report)

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

        address = self._address
        if not address and not self._file and self._workers is None:
            address = dask.config.get("scheduler-address", None)
        with ExitStack() as stack:
            if address or self._file:
                self._client = stack.enter_context(_connect(address, self._file))
            else:
                self._client = stack.enter_context(Client(stack.enter_context(_local_cluster(self._workers))))
            logger.info("Dask's dashboard: %s", self._client.dashboard_link)
            if self._report:
                stack.enter_context(performance_report(filename=self._report))
            self._resources = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._resources.close()

    def run(self, task: Task[Result], units: Sequence[int], report: Report) -> Iterator[Result]:
        """See Executor.run; a unit whose worker died is given to another.

        Raises:
            KeyReIDError: workers died of the same unit again and again.
        """
        from distributed import KilledWorker, as_completed

        self._client.subscribe_topic(_FRAMES_TOPIC, lambda event: report(event[1]))
        futures = {self._client.submit(_on_worker, task, unit, pure=False): unit for unit in units}
        try:
            for future in as_completed(futures):
                try:
                    yield future.result()
                except KilledWorker as error:
                    raise KeyReIDError(
                        f"shard {futures[future]:05d}: {error.allowed_failures + 1} workers died over it",
                        "",
                        "look for lack of memory (fewer --workers help); --serial shows what happens; finished shards "
                        "are kept, and the next run goes on from them",
                    ) from error
        finally:
            self._client.unsubscribe_topic(_FRAMES_TOPIC)


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

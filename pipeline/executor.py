"""Runs a task over shards: serially, which defines the meaning, or with Dask. The one importer of Dask."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

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
        scheduler_address: a running scheduler instead, such as "tcp://host:8786".
        scheduler_file: or the file that such a scheduler wrote.
    """

    def __init__(
        self, workers: int | None = None, scheduler_address: str | None = None, scheduler_file: str | None = None
    ) -> None:
        self._workers, self._address, self._file = workers, scheduler_address, scheduler_file
        self._cluster: Any = None
        self._client: Any = None

    def __enter__(self) -> DaskExecutor:
        import dask

        dask.config.set({"logging.distributed": "error"})  # before the import: it is read there
        from distributed import Client, LocalCluster

        if self._address or self._file:
            self._client = Client(address=self._address, scheduler_file=self._file)
        else:
            self._cluster = LocalCluster(
                n_workers=self._workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                silence_logs=logging.ERROR,
            )
            self._client = Client(self._cluster)
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()

    def run(self, task: Task[Result], units: Sequence[int], report: Report) -> Iterator[Result]:
        from distributed import as_completed

        self._client.subscribe_topic(_FRAMES_TOPIC, lambda event: report(event[1]))
        futures = [self._client.submit(_on_worker, task, unit, pure=False) for unit in units]
        for future in as_completed(futures):
            yield future.result()
        self._client.unsubscribe_topic(_FRAMES_TOPIC)


def _on_worker(task: Task[Result], unit: int) -> Result:
    from distributed import get_worker

    worker = get_worker()
    return task(unit, lambda frames: worker.log_event(_FRAMES_TOPIC, frames))

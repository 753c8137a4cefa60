"""Runs a task over units (shards): serially, which defines the meaning, or with Dask. The one importer of Dask."""

from __future__ import annotations

import logging
import os
import platform
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar
from uuid import uuid4

from .errors import KeyReIDError, SettingsError, SurroundingsError

WORKER_VARIABLE = "KEYREID_WORKER"  # number of a worker among those of its machine
RESUME = "finished shards are kept, and the same command resumes"

LOOK_SECONDS = 2.0  # between two looks at the workers
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0  # a scheduler or worker that says nothing for so long is lost
RETURN_SECONDS = 60.0  # that a run without workers waits for one in place of one that died
PAUSED_SECONDS = 60.0  # without progress, after which a paused worker is given up
PREPARE_SECONDS = 900.0  # to load a network, on a slow disk
DEATHS_AT_START = 3  # in a row, on one machine
DASK_LOGGERS = ("distributed", "distributed.client")
# Workers keep nothing that could be spilled, and one that pauses for lack of memory never resumes; what uses more than
# its share is still terminated.
NO_PAUSE = {f"distributed.worker.memory.{what}": False for what in ("target", "spill", "pause")}

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Report = Callable[[int], None]  # a task calls it with the number of frames it has just finished
Task = Callable[[int, Report], Result]


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """How a unit ended.

    Attributes:
        unit: the unit.
        result: what the task returned; None where it failed.
        error: of the last try; None where it went well.
        machine: host name of whoever tried last.
    """

    unit: int
    result: Result | None = None
    error: Exception | None = None
    machine: str = ""


def noop() -> None:
    """A `prepare` that does nothing."""


class Executor(Protocol):
    """Something that runs tasks; a context manager, since workers must end."""

    def run(
        self, task: Task[Result], units: Sequence[int], report: Report, prepare: Callable[[], object] = noop
    ) -> Iterator[Outcome[Result]]:
        """Try task(unit, report) for every unit; yield one outcome for each, in whatever order they finish.

        Args:
            prepare: called once in each worker, before its first unit; a worker where it fails gets none.

        Raises:
            SurroundingsError: no worker can do the work, or the scheduler is lost.
        """
        ...

    def __enter__(self) -> Executor: ...

    def __exit__(self, *error: object) -> None: ...


class SerialExecutor:
    """One unit after the other in this process; an error of `prepare` is raised as it is."""

    def run(
        self, task: Task[Result], units: Sequence[int], report: Report, prepare: Callable[[], object] = noop
    ) -> Iterator[Outcome[Result]]:
        prepare()
        for unit in units:
            try:
                outcome = Outcome(unit, task(unit, report), machine=platform.node())
            except Exception as error:
                outcome = Outcome(unit, error=error, machine=platform.node())
            yield outcome

    def __enter__(self) -> SerialExecutor:
        return self

    def __exit__(self, *error: object) -> None:
        return None


class DaskExecutor:
    """Dask workers: a local cluster of single-threaded processes, or a cluster that already runs.

    A unit that fails, or whose worker dies, is tried once more by another worker where there is one, on another machine
    where there is one. A worker does one unit at a time.

    Args:
        workers: processes of the local cluster; None: one a core.
        scheduler_address: a running scheduler instead, such as "tcp://host:8786". Where nothing is given, Dask's own
            setting counts (DASK_SCHEDULER_ADDRESS or its configuration files, which hold TLS settings as well).
        scheduler_file: or the file that such a scheduler wrote.
        performance_report: HTML file for Dask's report of the run.
        bytes_per_worker: memory that a worker of the local cluster needs; 0: not checked.
    """

    def __init__(
        self,
        workers: int | None = None,
        scheduler_address: str | None = None,
        scheduler_file: str | None = None,
        performance_report: str | None = None,
        bytes_per_worker: int = 0,
    ) -> None:
        self._workers, self._address, self._file = workers, scheduler_address, scheduler_file
        self._report, self._bytes_per_worker = performance_report, bytes_per_worker
        self._resources = ExitStack()
        self._client: Any = None
        self._keep_workers: Callable[[], object] = noop

    def __enter__(self) -> DaskExecutor:
        import dask
        from dask.system import CPU_COUNT
        from distributed import Client, performance_report

        if self._report and not find_spec("bokeh"):
            raise SettingsError(
                "a performance report was asked for, and bokeh is not installed", "", "pip install 'keyreid[clusters]'"
            )
        address = self._address
        if not address and not self._file and self._workers is None:
            address = dask.config.get("scheduler-address", None)
        with ExitStack() as stack:
            stack.enter_context(_silenced())
            if address or self._file:
                self._client = stack.enter_context(_connect(address, self._file))
            else:
                workers = _count_workers(self._workers, CPU_COUNT, self._bytes_per_worker)
                cluster = stack.enter_context(_local_cluster(workers))
                # Dask drops a worker that is not back in time; scale starts what is missing, mostly nothing
                self._keep_workers = lambda: cluster.scale(workers)
                self._client = stack.enter_context(Client(cluster))
            if find_spec("bokeh"):
                logger.info("Dask's dashboard: %s", self._client.dashboard_link)
            if self._report:
                stack.enter_context(performance_report(filename=self._report))
            self._resources = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._resources.close()
        except Exception:
            if error[0] is None:
                raise
            logger.debug("Dask did not close in an orderly way", exc_info=True)  # the error under way says why

    def run(
        self, task: Task[Result], units: Sequence[int], report: Report, prepare: Callable[[], object] = noop
    ) -> Iterator[Outcome[Result]]:
        """See Executor.run."""
        return _Run(self._client, self._keep_workers, task, units, report, prepare).outcomes()


@dataclass
class _Worker:
    """A worker as the run sees it.

    Attributes:
        address: of its process; a process that takes its place has another one, or is not prepared.
        host: the machine's address.
        machine: the machine's name, once it is known.
        running: whether Dask would start a task there: it is not paused and not closing.
        state: "preparing", "fit" or "unfit".
        future: what it is at; None: idle.
        unit: the unit that it is at.
        since: when it last got work or reported progress.
    """

    address: str
    host: str
    machine: str
    running: bool = True
    state: str = "preparing"
    future: Any = None
    unit: _Unit | None = None
    since: float = 0.0


@dataclass
class _Unit:
    """A unit that is to be done, and the worker that it failed on."""

    number: int
    error: Exception | None = None
    failed_on: _Worker | None = None


class _Run(Generic[Result]):
    """One run on Dask: which workers are fit, who is at what, what is left.

    Units are handed out one by one to workers by name, so that it is known who failed over what; what Dask reports
    arrives in a queue, since it reports it from threads of its own.
    """

    def __init__(
        self,
        client: Any,
        keep_workers: Callable[[], object],
        task: Task[Result],
        units: Sequence[int],
        report: Report,
        prepare: Callable[[], object],
    ) -> None:
        self._client, self._keep_workers = client, keep_workers
        self._task, self._report, self._prepare = task, report, prepare
        self._name = uuid4().hex
        self._pending = deque(map(_Unit, units))
        self._left = len(units)
        self._ready: deque[Outcome[Result]] = deque()
        self._events: SimpleQueue[tuple[str, Any, Any]] = SimpleQueue()
        self._workers: dict[str, _Worker] = {}
        self._seen: bool | None = None  # whether any worker was there; None: nobody has looked
        self._awaited: list[tuple[str, float]] = []  # host and deadline, of workers in place of those that died
        self._deaths: Counter[str] = Counter()  # host -> workers in a row that died while they started
        self._unfit: dict[str, str] = {}  # machine -> reason

    def outcomes(self) -> Iterator[Outcome[Result]]:
        """The whole run."""
        topic = self._client.id  # a client's own topic: the scheduler deletes it when the client is gone
        self._client.subscribe_topic(topic, self._hear)
        next_look = 0.0
        try:
            while self._left:
                if monotonic() >= next_look:
                    self._look()
                    next_look = monotonic() + LOOK_SECONDS
                    self._require_workers()
                self._settle()
                self._hand_out()
                if self._ready:
                    self._left -= 1
                    yield self._ready.popleft()
                    continue
                try:
                    kind, subject, value = self._events.get(timeout=max(0.0, next_look - monotonic()))
                except Empty:
                    continue
                if kind == "frames":
                    if subject in self._workers:
                        self._workers[subject].since = monotonic()
                    self._report(value)
                elif subject.future is value:  # else it was withdrawn
                    self._finish(subject)
        finally:
            for worker in self._workers.values():
                self._withdraw(worker)
            if self._client.status == "running":
                self._client.unsubscribe_topic(topic)

    def _hear(self, event: tuple[float, Any]) -> None:
        if isinstance(event[1], (list, tuple)) and event[1][0] == self._name:  # Dask has events there as well
            self._events.put(("frames", *event[1][1:]))

    def _look(self) -> None:
        """Ask the scheduler who is there: note who joined, left, or stands still."""
        from distributed import TimeoutError

        self._keep_workers()
        try:
            if self._client.status != "running":
                raise self._scheduler_lost("the connection broke")
            identity = self._client.scheduler.identity
            info = self._client.sync(identity, n_workers=-1, callback_timeout=ANSWER_SECONDS)["workers"]
        except TimeoutError as error:
            raise self._scheduler_lost(f"no answer for {ANSWER_SECONDS:.0f} seconds") from error
        except OSError as error:
            raise self._scheduler_lost("the connection broke") from error
        for worker in [one for address, one in self._workers.items() if address not in info]:
            self._lose(worker)
        now = monotonic()
        for address, facts in info.items():
            if address not in self._workers:
                self._join(_Worker(address, facts["host"], facts["host"], since=now))
            worker = self._workers[address]
            running = facts["status"] == "running"
            if (running and worker.future is None) or worker.running != running:
                worker.since = now
            worker.running = running
            if worker.state == "unfit":
                continue
            if facts["status"] == "paused" and now - worker.since > PAUSED_SECONDS:
                self._give_up(worker, "Dask has paused it, since its memory is full")
            elif worker.state == "preparing" and now - worker.since > PREPARE_SECONDS:
                self._give_up(worker, f"it was not ready after {PREPARE_SECONDS:.0f} seconds")
        if not info and self._seen is None:
            logger.warning("the scheduler at %s has no workers yet: waiting for some", self._client.scheduler.address)
        self._seen = bool(self._seen or info)

    def _join(self, worker: _Worker) -> None:
        self._workers[worker.address] = worker
        for place, (host, _) in enumerate(self._awaited):
            if host == worker.host:
                del self._awaited[place]
                break
        if self._deaths[worker.host] >= DEATHS_AT_START:
            worker.state = "unfit"
        else:
            self._submit(worker, _prepare, self._name, self._prepare)

    def _submit(self, worker: _Worker, function: Callable[..., Any], *arguments: object) -> None:
        worker.since = monotonic()
        worker.future = self._client.submit(
            function, *arguments, workers=[worker.address], allow_other_workers=False, pure=False
        )
        worker.future.add_done_callback(lambda future: self._events.put(("done", worker, future)))

    def _withdraw(self, worker: _Worker) -> _Unit | None:
        """Take its work from a worker; returns the unit that it was at."""
        future, unit, worker.future, worker.unit = worker.future, worker.unit, None, None
        if future is not None:
            future.release()  # what nobody wants is not begun
        return unit

    def _lose(self, worker: _Worker) -> None:
        """A worker's process has died, or left."""
        del self._workers[worker.address]
        preparing = worker.state == "preparing"
        unit = self._withdraw(worker)
        if unit is not None:
            self._fail(unit, worker, WorkerDiedError("killed, or out of memory (fewer --workers help)"))
        if preparing:
            self._deaths[worker.host] += 1
            if self._deaths[worker.host] >= DEATHS_AT_START:
                self._note_unfit(worker.machine, "its workers die while they start, again and again")
                return
        if worker.state != "unfit":
            self._awaited.append((worker.host, monotonic() + RETURN_SECONDS))

    def _give_up(self, worker: _Worker, reason: str) -> None:
        """Give a worker no more units; the one that it was at goes to another, and counts as not begun."""
        worker.state = "unfit"
        unit = self._withdraw(worker)
        if unit is not None:
            self._pending.appendleft(unit)
        self._note_unfit(worker.machine, reason)

    def _note_unfit(self, machine: str, reason: str) -> None:
        if self._unfit.get(machine) != reason:
            logger.warning("%s gets no shards: %s", machine, reason)
        self._unfit[machine] = reason

    def _fail(self, unit: _Unit, worker: _Worker, error: Exception) -> None:
        """Try a unit again, or report it where it failed before."""
        if unit.failed_on is None:
            self._pending.appendleft(_Unit(unit.number, error, worker))
        else:
            self._ready.append(Outcome(unit.number, error=error, machine=worker.machine))

    def _finish(self, worker: _Worker) -> None:
        """Take what a worker has done."""
        from distributed import KilledWorker, TimeoutError

        future = worker.future
        value: Any = None
        error: Exception | None = None
        if future.cancelled():
            raise self._scheduler_lost("it has dropped its work")
        try:
            if future.status == "error":
                error = future.exception(timeout=ANSWER_SECONDS)
            else:
                value = future.result(timeout=ANSWER_SECONDS)
        except (TimeoutError, OSError) as lost:  # its process died when it had finished
            error = _ProcessGoneError(str(lost))
        if isinstance(error, (KilledWorker, _ProcessGoneError)):
            self._lose(worker)
            return
        unit, worker.unit, worker.future, worker.since = worker.unit, None, None, monotonic()
        if unit is None:
            worker.machine, reason = (worker.machine, _reason(error)) if error else value
            if reason:
                self._give_up(worker, reason)
            else:
                worker.state, worker.running = "fit", True
                self._deaths[worker.host] = 0
        elif error:
            self._fail(unit, worker, error)
        else:
            self._ready.append(Outcome(unit.number, value, machine=worker.machine))

    def _hand_out(self) -> None:
        """Give every worker that is fit and idle the first unit that it may try."""
        for worker in self._workers.values():
            if worker.state == "fit" and worker.running and worker.future is None:
                unit = next((one for one in self._pending if self._may_try(worker, one)), None)
                if unit is not None:
                    self._pending.remove(unit)
                    worker.unit = unit
                    self._submit(worker, _do, self._name, self._client.id, self._task, unit.number)

    def _may_try(self, worker: _Worker, unit: _Unit) -> bool:
        """Whether it did not fail here; and not on this machine, where there is another."""
        if unit.failed_on is None:
            return True
        others = self._others(unit.failed_on)
        elsewhere = [one for one in others if one.host != unit.failed_on.host]
        return any(worker is one for one in elsewhere or others)

    def _others(self, failed_on: _Worker) -> list[_Worker]:
        return [one for one in self._workers.values() if one.state != "unfit" and one is not failed_on]

    def _settle(self) -> None:
        """Report units that failed once, where no worker is left to try again."""
        for unit in [] if self._awaited else list(self._pending):
            if unit.failed_on is not None and not self._others(unit.failed_on):
                self._pending.remove(unit)
                self._ready.append(Outcome(unit.number, error=unit.error, machine=unit.failed_on.machine))

    def _require_workers(self) -> None:
        """
        Raises:
            SurroundingsError: nobody is left to do the work, and nobody will come.
        """
        self._awaited = [(host, deadline) for host, deadline in self._awaited if deadline > monotonic()]
        if self._awaited or not self._seen or any(worker.state != "unfit" for worker in self._workers.values()):
            return
        reasons = [f"{machine}: {reason}" for machine, reason in sorted(self._unfit.items())]
        raise SurroundingsError(
            f"no worker is left that can do the work ({'; '.join(reasons) or 'all have died'})",
            "",
            f"mend that; {RESUME}",
        )

    def _scheduler_lost(self, reason: str) -> SurroundingsError:
        address = self._client.scheduler.address if self._client.scheduler else "its address"
        return SurroundingsError(
            f"the Dask scheduler at {address} is lost ({reason})", "", f"see that it runs; {RESUME}"
        )


class WorkerDiedError(Exception):
    """A worker's process died over a unit."""


class _ProcessGoneError(Exception):
    """A worker's process died; another one may have its address."""


_prepared: set[str] = set()  # in a worker: names of the runs that it was prepared for


def _prepare(run: str, prepare: Callable[[], object]) -> tuple[str, str]:
    """Ready a worker process; returns the machine's name, and why it is unfit ("" where it is not)."""
    from distributed import get_worker

    os.environ[WORKER_VARIABLE] = worker_number(get_worker().name)
    try:
        prepare()
    except Exception as error:
        return platform.node(), _reason(error)
    _prepared.add(run)
    return platform.node(), ""


def _do(run: str, topic: str, task: Task[Result], unit: int) -> Result:
    from distributed import get_worker

    if run not in _prepared:
        raise _ProcessGoneError
    worker = get_worker()
    return task(unit, lambda frames: worker.log_event(topic, (run, worker.address, frames)))


def _reason(error: BaseException | None) -> str:
    return str(error) if isinstance(error, KeyReIDError) else f"{type(error).__name__}: {error}"


def worker_number(name: object) -> str:
    """The digits at the end of a worker's name: "1" of 1, "SLURMCluster-0-1" and "node7-1"; "0" without digits."""
    found = re.search(r"\d+$", str(name))
    return found.group() if found else "0"


def _count_workers(asked: int | None, cores: int, bytes_per_worker: int) -> int:
    """As many as asked for, or one per core, fewer where memory is short."""
    from distributed import system

    fitting = int(system.MEMORY_LIMIT * 0.95 / bytes_per_worker) if bytes_per_worker else asked or cores
    if fitting < (asked or 1):
        gib = 1 << 30
        raise SettingsError(
            f"{asked or 1} workers need {(asked or 1) * bytes_per_worker / gib:.1f} GiB of memory, and this machine "
            f"has {system.MEMORY_LIMIT / gib:.1f}",
            "",
            f"--workers {fitting}" if fitting else f"a worker needs {bytes_per_worker / gib:.1f} GiB",
        )
    return asked or min(cores, fitting)


@contextmanager
def _local_cluster(workers: int) -> Iterator[Any]:
    """Single-threaded processes that talk TLS with keys of this run, since any local user can reach their ports."""
    from distributed import LocalCluster

    try:
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            security=True,
            dashboard_address="127.0.0.1:0" if find_spec("bokeh") else None,
            silence_logs=logging.CRITICAL,
            config=NO_PAUSE,
        )
    except Exception as error:  # whatever a worker that dies makes of it
        raise SurroundingsError(
            f"the workers on this machine did not start ({_reason(error)})", "", f"fewer --workers may; {RESUME}"
        ) from error
    with cluster:
        yield cluster


@contextmanager
def _silenced() -> Iterator[None]:
    """Dask's log shows tracebacks of what ends in one sentence here; --debug lets it through.

    Afterwards the environment is as before, to which Dask's nannies add variables such as OMP_NUM_THREADS as well.
    """
    environment, levels = dict(os.environ), {name: logging.getLogger(name).level for name in DASK_LOGGERS}
    try:
        if not logger.isEnabledFor(logging.DEBUG):
            os.environ["DASK_LOGGING__DISTRIBUTED"] = "critical"  # for workers, which are new processes
            for name in levels:
                logging.getLogger(name).setLevel(logging.CRITICAL)
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)


def _connect(address: str | None, scheduler_file: str | None) -> Any:
    from distributed import Client, TimeoutError

    try:
        return Client(address=address, scheduler_file=scheduler_file, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError, ValueError) as error:
        raise SettingsError(
            f"no Dask scheduler answers at {address or scheduler_file} ({error})",
            "a running scheduler",
            "start one with `dask scheduler`, or leave the option out for workers on this machine",
        ) from error

"""Runs a task over units (shards): serially, which defines the meaning, or with Dask. The one importer of Dask."""

from __future__ import annotations

import logging
import os
import platform
import re
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Generic, TypeVar
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
DASK_LOGGERS = ("distributed", "distributed.client", "tornado.application")
# Workers keep nothing that could be spilled, and one that pauses for lack of memory never resumes; what uses more than
# its share is still terminated.
NO_PAUSE = {f"distributed.worker.memory.{what}": False for what in ("target", "spill", "pause")}

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Report = Callable[[int], None]  # a task calls it with the number of frames it has just finished
Task = Callable[[int, Report], Result]


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """How a unit ended."""

    unit: int
    result: Result | None = None  # None where the task failed
    error: Exception | None = None  # of the last try
    machine: str = ""  # host name of whoever tried last


def noop() -> None:
    """A `prepare` that does nothing."""


class Executor(ABC):
    """Something that runs tasks; a context manager, since workers must end."""

    @abstractmethod
    def run(
        self, task: Task[Result], units: Sequence[int], report: Report, prepare: Callable[[], object] = noop
    ) -> Iterator[Outcome[Result]]:
        """Try task(unit, report) for every unit; yield one outcome for each, in whatever order they finish.

        Args:
            prepare: called once in each worker, before its first unit; a worker where it fails gets none.

        Raises:
            SurroundingsError: no worker can do the work, or the scheduler is lost.
        """

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *error: object) -> None:
        return None


class SerialExecutor(Executor):
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


@dataclass(eq=False)
class DaskExecutor(Executor):
    """Dask workers: a local cluster of single-threaded processes, or a cluster that already runs.

    A unit that fails, or whose worker dies, is tried once more by another worker where there is one, on another machine
    where there is one. A worker does one unit at a time.
    """

    workers: int | None = None  # processes of the local cluster; None: one a core
    # A running scheduler instead, such as "tcp://host:8786", or the file that it wrote. Where nothing is given, Dask's
    # own setting counts (DASK_SCHEDULER_ADDRESS or its configuration files, which hold TLS settings as well).
    scheduler_address: str | None = None
    scheduler_file: str | None = None
    performance_report: str | None = None  # HTML file for Dask's report of the run
    bytes_per_worker: int = 0  # memory that a worker of the local cluster needs; 0: not checked
    _resources: ExitStack = field(init=False, repr=False, default_factory=ExitStack)
    _client: Any = field(init=False, repr=False, default=None)
    _keep_workers: Callable[[], object] = field(init=False, repr=False, default_factory=lambda: noop)

    def __enter__(self) -> DaskExecutor:
        import dask
        from distributed import Client, performance_report

        if self.performance_report and not find_spec("bokeh"):
            found = "a performance report was asked for, and bokeh is not installed"
            raise SettingsError(found, "", "pip install 'keyreid[clusters]'")
        address = self.scheduler_address
        if not address and not self.scheduler_file and self.workers is None:
            address = dask.config.get("scheduler-address", None)
        with ExitStack() as stack:
            stack.enter_context(_silenced())
            if address or self.scheduler_file:
                self._client = stack.enter_context(_connect(address, self.scheduler_file))
            else:
                workers = _count_workers(self.workers, self.bytes_per_worker)
                cluster = stack.enter_context(_local_cluster(workers))
                # Dask drops a worker that is not back in time; scale starts what is missing, mostly nothing
                self._keep_workers = lambda: cluster.scale(workers)
                self._client = stack.enter_context(Client(cluster))
            if find_spec("bokeh"):
                logger.info("Dask's dashboard: %s", self._client.dashboard_link)
            if self.performance_report:
                stack.enter_context(performance_report(filename=self.performance_report))
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
        return _Run(self._client, self._keep_workers, task, deque(units), report, prepare).outcomes()


@dataclass(eq=False)
class _Worker:
    """A worker as the run sees it."""

    address: str  # of its process; a process that takes its place has another one, or is not prepared
    host: str  # the machine's address
    machine: str  # the machine's name, once it is known
    state: str = "preparing"  # then "fit" or "unfit"
    running: bool = True  # Dask would start a task there: it is not paused and not closing
    future: Any = None  # what it is at; None: idle
    unit: int | None = None  # the unit that it is at; None while it is prepared
    joined: float = field(default_factory=monotonic)
    active: float = field(default_factory=monotonic)  # when it was last seen running, or reported progress


@dataclass(eq=False)
class _Run(Generic[Result]):
    """One run on Dask: which workers are fit, who is at what, what is left.

    Units are handed out one by one to workers by name, so that it is known who failed over what; what Dask reports,
    from threads of its own, becomes a call in a queue.
    """

    client: Any
    keep_workers: Callable[[], object]
    task: Task[Result]
    pending: deque[int]  # units; those that failed once, or were taken from a worker, first
    report: Report
    prepare: Callable[[], object]
    name: str = field(default_factory=lambda: uuid4().hex)
    failed: dict[int, tuple[_Worker, Outcome[Result]]] = field(default_factory=dict)  # unit -> how it failed first
    ready: deque[Outcome[Result]] = field(default_factory=deque)
    events: SimpleQueue[Callable[[], object]] = field(default_factory=SimpleQueue)
    workers: dict[str, _Worker] = field(default_factory=dict)  # by address
    most_workers: int = -1  # at any time; -1: nobody has looked
    return_deadline: float = 0.0  # of workers in place of those that died
    deaths: Counter[str] = field(default_factory=Counter)  # host -> workers in a row that died while they started
    unfit: dict[str, str] = field(default_factory=dict)  # machine -> reason

    def outcomes(self) -> Iterator[Outcome[Result]]:
        """The whole run."""
        topic = self.client.id  # a client's own topic: the scheduler deletes it when the client is gone
        self.client.subscribe_topic(topic, self.hear)
        left, next_look = len(self.pending), 0.0
        try:
            while left:
                if monotonic() >= next_look:
                    self.look()
                    next_look = monotonic() + LOOK_SECONDS
                self.hand_out()
                if self.ready:
                    left -= 1
                    yield self.ready.popleft()
                    continue
                with suppress(Empty):
                    self.events.get(timeout=max(0.0, next_look - monotonic()))()
        finally:
            for worker in self.workers.values():
                self.withdraw(worker)
            if self.client.status == "running":
                self.client.unsubscribe_topic(topic)

    def hear(self, event: tuple[float, Any]) -> None:
        if isinstance(event[1], (list, tuple)) and event[1][0] == self.name:  # Dask has events there as well
            self.events.put(partial(self.advance, *event[1][1:]))

    def advance(self, address: str, frames: int) -> None:
        if address in self.workers:
            self.workers[address].active = monotonic()
        self.report(frames)

    def look(self) -> None:
        """Ask the scheduler who is there: note who joined, left, or stands still.

        A SurroundingsError ends the run where nobody is left to do the work, and nobody will come.
        """
        self.keep_workers()
        workers = self.ask_scheduler()
        for worker in [one for address, one in self.workers.items() if address not in workers]:
            self.lose(worker)
        now = monotonic()
        for address, facts in workers.items():
            if address not in self.workers:
                self.workers[address] = _Worker(address, facts["host"], facts["host"])
                if self.deaths[facts["host"]] < DEATHS_AT_START:
                    self.submit(self.workers[address])
                else:
                    self.workers[address].state = "unfit"
            worker = self.workers[address]
            worker.running = facts["status"] == "running"
            if worker.running:
                worker.active = now
            elif worker.state != "unfit" and facts["status"] == "paused" and now - worker.active > PAUSED_SECONDS:
                self.give_up(worker, "Dask has paused it, since its memory is full")
            if worker.state == "preparing" and now - worker.joined > PREPARE_SECONDS:
                self.give_up(worker, f"it was not ready after {PREPARE_SECONDS:.0f} seconds")
        if not workers and self.most_workers < 0:
            logger.warning("the scheduler at %s has no workers yet: waiting for some", self.client.scheduler.address)
        self.most_workers = max(self.most_workers, len(workers))
        if self.most_workers and not self.awaits_return() and not self.others():
            reasons = "; ".join(f"{machine}: {reason}" for machine, reason in sorted(self.unfit.items()))
            found = f"no worker is left that can do the work ({reasons or 'all have died'})"
            raise SurroundingsError(found, "", f"mend that; {RESUME}")

    def ask_scheduler(self) -> dict[str, dict[str, Any]]:
        """What it knows about each worker, by address."""
        from distributed import TimeoutError

        try:
            if self.client.status != "running":
                raise OSError("the connection broke")
            identity = self.client.scheduler.identity
            return dict(self.client.sync(identity, n_workers=-1, callback_timeout=ANSWER_SECONDS)["workers"])
        except (OSError, TimeoutError) as error:
            raise self.scheduler_lost(error) from error

    def submit(self, worker: _Worker, unit: int | None = None) -> None:
        """Have a worker do a unit, or, without one, prepare for units."""
        call: tuple[Any, ...] = _prepare, self.name, self.prepare
        if unit is not None:
            call = _do, self.name, self.client.id, self.task, unit
        worker.unit = unit
        worker.future = self.client.submit(*call, workers=[worker.address], allow_other_workers=False, pure=False)
        worker.future.add_done_callback(lambda future: self.events.put(partial(self.finish, worker, future)))

    def withdraw(self, worker: _Worker) -> int | None:
        """Take its work from a worker; returns the unit that it was at."""
        future, unit, worker.future, worker.unit = worker.future, worker.unit, None, None
        if future is not None:
            future.release()  # what nobody wants is not started
        return unit

    def lose(self, worker: _Worker) -> None:
        """A worker's process has died, or left."""
        del self.workers[worker.address]
        unit = self.withdraw(worker)
        if unit is not None:
            self.fail(unit, worker, WorkerDiedError("killed, or out of memory (fewer --workers help)"))
        if worker.state == "preparing":
            self.deaths[worker.host] += 1
            if self.deaths[worker.host] >= DEATHS_AT_START:
                self.give_up(worker, "its workers die while they start, again and again")
        if worker.state != "unfit":
            self.return_deadline = monotonic() + RETURN_SECONDS

    def give_up(self, worker: _Worker, reason: str) -> None:
        """Give a worker no more units; the one that it was at goes to another, and counts as not started."""
        worker.state = "unfit"
        unit = self.withdraw(worker)
        if unit is not None:
            self.pending.appendleft(unit)
        if self.unfit.get(worker.machine) != reason:
            logger.warning("%s gets no shards: %s", worker.machine, reason)
        self.unfit[worker.machine] = reason

    def fail(self, unit: int, worker: _Worker, error: Exception) -> None:
        """Try a unit again, or report it where it failed before."""
        outcome: Outcome[Result] = Outcome(unit, error=error, machine=worker.machine)
        if unit in self.failed:
            self.ready.append(outcome)
        else:
            self.failed[unit] = worker, outcome
            self.pending.appendleft(unit)

    def finish(self, worker: _Worker, future: Any) -> None:
        """Take what a worker has done."""
        from distributed import KilledWorker, TimeoutError

        if worker.future is not future:
            return  # it was withdrawn
        if future.cancelled():
            raise self.scheduler_lost("it has dropped its work")
        try:
            error = future.exception(timeout=ANSWER_SECONDS) if future.status == "error" else None
            value: Any = None if error else future.result(timeout=ANSWER_SECONDS)
        except (TimeoutError, OSError) as lost:  # its process died when it had finished
            error = _ProcessGoneError(str(lost))
        if isinstance(error, (KilledWorker, _ProcessGoneError)):
            self.lose(worker)
            return
        unit = self.withdraw(worker)
        if unit is None:
            worker.machine, reason = (worker.machine, _reason(error)) if error else value
            if reason:
                self.give_up(worker, reason)
            else:
                worker.state, worker.running = "fit", True
                self.deaths[worker.host] = 0
        elif error:
            self.fail(unit, worker, error)
        else:
            self.ready.append(Outcome(unit, value, machine=worker.machine))

    def hand_out(self) -> None:
        """Give idle workers units that may be tried there; report those that nobody is left to try again."""
        for worker in self.workers.values():
            if worker.state == "fit" and worker.running and worker.future is None:
                unit = next((one for one in self.pending if worker in self.others(one)), None)
                if unit is not None:
                    self.pending.remove(unit)
                    self.submit(worker, unit)
        if len(self.others()) <= 1 and not self.awaits_return():
            for unit in [one for one in self.pending if one in self.failed and not self.others(one)]:
                self.pending.remove(unit)
                self.ready.append(self.failed[unit][1])

    def others(self, unit: int | None = None) -> list[_Worker]:
        """Workers that may try a unit when they are idle: where it failed, on other machines, or else on the same."""
        failed_on = self.failed[unit][0] if unit in self.failed else None
        others = [one for one in self.workers.values() if one.state != "unfit" and one is not failed_on]
        return [one for one in others if failed_on is not None and one.host != failed_on.host] or others

    def awaits_return(self) -> bool:
        """Whether a worker may still come in place of one that died."""
        return len(self.workers) < self.most_workers and monotonic() < self.return_deadline

    def scheduler_lost(self, reason: object) -> SurroundingsError:
        address = self.client.scheduler.address if self.client.scheduler else "its address"
        found = f"the Dask scheduler at {address} is lost ({reason})"
        return SurroundingsError(found, "", f"see that it runs; {RESUME}")


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


def _count_workers(asked: int | None, bytes_per_worker: int) -> int:
    """As many as asked for, or one per core, fewer where memory is short."""
    from dask.system import CPU_COUNT
    from distributed import system

    fitting = int(system.MEMORY_LIMIT * 0.95 / (bytes_per_worker or 1))
    needed = asked or 1
    if fitting < needed:
        need, have = needed * bytes_per_worker / (1 << 30), system.MEMORY_LIMIT / (1 << 30)
        found = f"{needed} workers need {need:.1f} GiB of memory, and this machine has {have:.1f}"
        raise SettingsError(found, "", f"--workers {fitting}" if fitting else "a machine with more memory")
    return asked or min(CPU_COUNT, fitting)


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
        found = f"the workers on this machine did not start ({_reason(error)})"
        raise SurroundingsError(found, "", f"fewer --workers may help; {RESUME}") from error
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
        found = f"no Dask scheduler answers at {address or scheduler_file} ({error})"
        remedy = "start one with `dask scheduler`, or leave the option out for workers on this machine"
        raise SettingsError(found, "a running scheduler", remedy) from error

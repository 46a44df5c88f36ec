"""Processes that work off tasks, and end by themselves when the process that started them is gone."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[int], None]
WORKER_NAME = "stvg-worker-"


class Workers(Generic[T, R]):
    """A number of processes that call a function; with one, this process does it itself.

    Not a pool of the standard library: its processes stay for ever when their parent is killed. Here each holds
    the only other end of a pipe to it, and ends when that closes.

    Args:
        function: `function(task, progress) -> result`, named at the top of a module; it calls `progress(n)` when
            n more pieces of the task are done.
        num_workers: at least 1.
    """

    def __init__(self, function: Callable[[T, Progress], R], num_workers: int) -> None:
        self._function = function
        self._num_workers = num_workers
        self._processes: dict[Connection, BaseProcess] = {}

    def __enter__(self) -> Workers[T, R]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for connection, process in self._processes.items():
            connection.close()
            if kind is not None:
                process.terminate()
        for process in self._processes.values():
            process.join()

    def run(self, tasks: Iterable[T], progress: Progress | None = None) -> Iterator[R]:
        """The results, in the order in which they are done; no more tasks are taken than there are workers.

        Raises:
            ChildProcessError: a worker died.
            Exception: whatever the function raises.
        """
        told = progress or _nothing
        if self._num_workers == 1:
            yield from (self._function(task, told) for task in tasks)
            return
        queue = iter(tasks)
        busy: set[Connection] = set()
        for task in queue:
            idle = self._idle(busy)
            idle.send(task)
            busy.add(idle)
            while len(busy) == self._num_workers:
                yield from self._results(busy, told)
        while busy:
            yield from self._results(busy, told)

    def _idle(self, busy: set[Connection]) -> Connection:
        """A worker that has nothing to do; it is started when it is first needed."""
        for connection in self._processes:
            if connection not in busy:
                return connection
        # Not forked: torch and FFmpeg hold threads, and a forked child would hold the ends of its siblings' pipes.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        name = f"{WORKER_NAME}{len(self._processes)}"
        process = context.Process(target=_work, args=(self._function, theirs), name=name, daemon=True)
        process.start()
        theirs.close()
        self._processes[ours] = process
        return ours

    def _results(self, busy: set[Connection], told: Progress) -> Iterator[R]:
        """Results of the workers that have something to say, which may be progress alone."""
        for connection in wait(list(busy)):
            assert isinstance(connection, Connection)
            try:
                kind, value = connection.recv()
            except (EOFError, ConnectionResetError):
                process = self._processes[connection]
                process.join()
                raise ChildProcessError(
                    f"a worker process died (exit code {process.exitcode}): run the same command again, or with "
                    "--workers 1 to see why"
                ) from None
            if kind == "progress":
                told(value)
                continue
            busy.discard(connection)
            if kind == "error":
                raise value
            yield value


def worker_number() -> int:
    """The number of this worker among those of its `Workers`, from 0; 0 in any other process."""
    name = multiprocessing.current_process().name
    return int(name.removeprefix(WORKER_NAME)) if name.startswith(WORKER_NAME) else 0


def _work(function: Callable[[Any, Progress], Any], connection: Connection) -> None:
    """The life of a worker: a task, its progress, its result or error, the next task, until nobody listens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the parent, which then closes the pipe
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            task = connection.recv()
            try:
                answer = "result", function(task, lambda count: connection.send(("progress", count)))
            except (BrokenPipeError, ConnectionResetError):
                return
            except Exception as error:
                answer = "error", error
            connection.send(answer)


def _nothing(count: int) -> None:
    """Progress that nobody wants to hear of."""

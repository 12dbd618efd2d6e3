"""The threads that `def` workflows run on: few, reused, and taken back from those that only wait."""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, Protocol

from refold.log.errors import RefoldError

DEFAULT_MAX_THREADS: Final = 256
"""A waiting thread costs 30 to 50 kB of memory; a run without one costs a replay when it is next told something."""


class Evictable(Protocol):
    """A run that waits on one of the threads and can do without."""

    def suspend(self) -> None:
        """Unwind the run's thread, which is free when this returns."""


class NoThreadFree(RefoldError):
    """All threads are taken by code that does not wait and can't be unwound."""


class ThreadSlots:
    """At most `max_threads` threads. Used by one thread at a time, the worker's; the threads are its own.

    Args:
        max_threads: Most threads at once, at least 1.
    """

    def __init__(self, max_threads: int = DEFAULT_MAX_THREADS) -> None:
        if max_threads < 1:
            raise ValueError(f"max_threads must be at least 1, and is {max_threads}")
        self._max_threads = max_threads
        self._idle: deque[_Thread] = deque()  # threads add themselves: a deque's append is atomic
        self._count = 0
        self._waiting: OrderedDict[Evictable, None] = OrderedDict()  # longest without a word first

    @property
    def count(self) -> int:
        """Threads that there are, busy, waiting or idle."""
        return self._count

    def run(self, job: Callable[[], None], done: Callable[[], None]) -> None:
        """Run `job` on a thread; then, with the thread free again, `done`, on it too.

        Takes the thread of the run that has waited longest where there is no other.

        Raises:
            NoThreadFree: Every thread is lost to code that never came back.
        """
        if not self._idle and self._count >= self._max_threads and self._waiting:
            next(iter(self._waiting)).suspend()
        if self._idle:
            thread = self._idle.popleft()
        elif self._count < self._max_threads:
            self._count += 1
            thread = _Thread(self._idle, self._count)
        else:
            raise NoThreadFree(
                f"all {self._max_threads} threads for `def` workflows are held by code that does not come back;"
                " see the log for which, and restart the worker"
            )
        thread.work(job, done)

    def waits(self, run: Evictable) -> None:
        """`run` holds a thread and waits to be told something."""
        self._waiting[run] = None

    def goes_on(self, run: Evictable) -> None:
        """`run` waits no longer, or holds no thread any more."""
        self._waiting.pop(run, None)

    def close(self) -> None:
        """Suspend all runs that wait, and end the threads."""
        while self._waiting:
            next(iter(self._waiting)).suspend()
        while self._idle:
            self._idle.popleft().end()


class _Thread:
    """One thread and the job that it is given."""

    def __init__(self, idle: "deque[_Thread]", number: int) -> None:
        self._idle = idle
        self._job: Callable[[], None] | None = None
        self._done: Callable[[], None] | None = None
        self._given = threading.Lock()
        self._given.acquire()
        # A daemon: the process may exit while workflows wait, whose code simply stops where it is.
        threading.Thread(target=self._loop, name=f"refold-workflow-{number}", daemon=True).start()

    def work(self, job: Callable[[], None], done: Callable[[], None]) -> None:
        self._job, self._done = job, done
        self._given.release()

    def end(self) -> None:
        self._job = None
        self._given.release()

    def _loop(self) -> None:
        while True:
            self._given.acquire()
            job, done = self._job, self._done
            if job is None or done is None:
                return
            self._job = self._done = None
            job()
            del job
            self._idle.append(self)  # before `done`: who hears of it may need the thread at once
            done()
            del done

"""One process of `refold check`: imports the app once, then reads and rehearses the shares that it is given.

What the app's code does may be anything, a loop without end too: so each run has a limit, and one that is over it takes
this process with it. The parent begins another, which leaves that run out (`services/checking.py`).
"""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final, NamedTuple

from refold.engine.blobs import Blobs
from refold.engine.callsite import running_source
from refold.engine.definitions import Catalogue
from refold.engine.histories import Share, read_ended, read_open
from refold.engine.rehearsal import Finding, History, Verdict, judged, rehearse
from refold.engine.runs import CodeRuns
from refold.engine.state import Status
from refold.engine.thread_slots import ThreadSlots
from refold.log.errors import RefoldError
from refold.log.protocol import Log
from refold.services.garbage import settle_garbage_collector
from refold.services.loading import load_workflows
from refold.services.opening import log_at, opened


class Which(NamedTuple):
    """Which open runs are rehearsed: None means all."""

    workflow: str | None = None
    status: frozenset[Status] | None = None

    def takes(self, history: History) -> bool:
        """Whether an open run is among them. One whose history is being copied has none yet to be rehearsed."""
        started, status = history.state.started, history.state.status
        if status is Status.COPYING or (self.status is not None and status not in self.status):
            return False
        return self.workflow is None or (started is not None and started.workflow == self.workflow)


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of work.

    Args:
        partition: A partition of the log.
        share: Its runs that are meant.
        ended: Runs of the share that have ended and are rehearsed as well.
        done: Runs that are not looked at any more.
    """

    partition: int
    share: Share
    ended: frozenset[str] = frozenset()
    done: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Duty:
    """What a process needs to know.

    Args:
        url: The log.
        targets: The app, as `refold worker` takes it.
        which: Which open runs.
        limit_s: Longest time for a run, in seconds.
    """

    url: str
    targets: tuple[str, ...]
    which: Which
    limit_s: float


class Read(NamedTuple):
    """So many records more were read."""

    records: int


class Found(NamedTuple):
    """So many runs are to be rehearsed in this unit."""

    runs: int


class Began(NamedTuple):
    """The rehearsal of a run begins: what is known of it, should it never end."""

    overdue: Finding


class Failed(NamedTuple):
    """Nothing can be checked, and why."""

    message: str


class Done(NamedTuple):
    """The unit is done."""


News = Read | Found | Began | Finding | Failed | Done
Tell = Callable[[News], None]


def serve(connection: Connection, duty: Duty) -> None:
    """The life of a process: units come in, news goes out, until nothing comes any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends this process
    logging.disable()  # what code logs as it is replayed, it logs for every one of thousands of runs
    silence = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):  # and so with what it prints
        os.dup2(silence, output)
    try:
        rehearsals = Rehearsals(duty, connection.send)
        while True:
            asyncio.run(rehearsals.work(connection.recv()))
            connection.send(Done())
    except EOFError:
        return
    except RefoldError as error:
        connection.send(Failed(str(error)))
    except Exception as error:  # noqa: BLE001 - nobody sees this process's own output
        connection.send(Failed(f"{type(error).__name__}: {error}"))


class Rehearsals:
    """The app, and what it is told.

    Args:
        duty: What to do.
        tell: Where the news goes.

    Raises:
        UsageError: The app can't be imported.
        DefinitionError: It has two workflows of one name and version.
    """

    def __init__(self, duty: Duty, tell: Tell) -> None:
        self._duty = duty
        self._tell = tell
        self._catalogue = Catalogue.of(load_workflows(duty.targets))
        self._overdue = Overdue(duty.limit_s, tell)
        settle_garbage_collector()

    async def work(self, unit: Unit) -> None:
        """Read a unit's runs and rehearse them, one after the other.

        Raises:
            LogError: The log can't be read, or a blob.
        """
        async with opened(log_at(self._duty.url, may_make=False)) as log:
            histories = await self._read(log, unit)
            self._tell(Found(len(histories)))
            blobs = Blobs.of(log)
            runs = CodeRuns(self._catalogue, "raise", ThreadSlots(), blobs)
            while histories:
                history = histories.pop()  # and its memory is free again
                self._overdue.begin(judged(history, Verdict.TOO_LONG))
                finding = rehearse(runs, history, blobs)
                self._overdue.end()
                self._tell(finding)

    async def _read(self, log: Log, unit: Unit) -> list[History]:
        def told(records: int) -> None:
            self._tell(Read(records))

        found = await read_open(log, unit.partition, unit.share, told)
        histories = [history for history in found if self._duty.which.takes(history)]
        if unit.ended:
            histories += await read_ended(log, unit.partition, unit.ended, told)
        if unit.done:
            histories = [h for h in histories if h.workflow_id not in unit.done]
        histories.reverse()
        return histories


LOOK_S: Final = 0.1
"""How often the time that a run takes is looked at."""


class Overdue:
    """Ends this process when a run takes too long, with a word about where its code is.

    Args:
        limit_s: Longest time, in seconds.
        tell: Where the word goes.
        code: The exit code with which it ends.
    """

    def __init__(self, limit_s: float, tell: Tell, code: int = 0) -> None:
        self._limit_s = limit_s
        self._tell = tell
        self._code = code
        self._began: tuple[float, Finding] | None = None
        threading.Thread(target=self._watch, name="refold-check-overdue", daemon=True).start()

    def begin(self, overdue: Finding) -> None:
        """A run's rehearsal begins. The parent hears of it as well, for code that lets no other thread run."""
        self._tell(Began(overdue))
        self._began = time.monotonic(), overdue

    def end(self) -> None:
        """It has ended."""
        self._began = None

    def _watch(self) -> None:
        while True:
            time.sleep(LOOK_S)
            began = self._began
            if began is not None and time.monotonic() - began[0] > self._limit_s:
                self._tell(overdue(began[1], self._limit_s, running_source()))
                os._exit(self._code)


def overdue(finding: Finding, limit_s: float, source: str | None) -> Finding:
    """What is said of a run that took too long."""
    message = (
        f"its code did not come to rest within {limit_s:g} s, and would hold up its worker: long work belongs in a"
        " step, and a loop has to wait for something"
    )
    return Finding(
        finding.workflow_id,
        finding.workflow,
        finding.version,
        finding.status,
        finding.told,
        Verdict.TOO_LONG,
        message,
        source,
    )

"""`refold check`, its work: which runs a log has, divided among processes, and what they report.

A process that dies with a run's code, or has to be killed for it, is replaced; the run is reported, and the rest of its
unit is done by the next one.
"""

import asyncio
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from random import Random
from typing import Final

from refold.engine.histories import Share, ended_ids
from refold.engine.rehearsal import Finding, Verdict
from refold.log.errors import RefoldError
from refold.services.check_process import (
    LOOK_S,
    Began,
    Done,
    Duty,
    Failed,
    Found,
    News,
    Read,
    Unit,
    Which,
    overdue,
    serve,
)
from refold.services.opening import opened, shared_log_at

GRACE_S: Final = 2.0
"""How much longer than a run's limit a process may say nothing before it is killed: it says so itself, unless the code
lets no other thread run."""


class CheckFailed(RefoldError):
    """The check could not be carried out."""


@dataclass(slots=True)
class Progress:
    """How far a check has come. `total` grows until every unit has been read."""

    records: int = 0
    total: int = 0
    done: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be checked.

    Args:
        units: The pieces of work.
        closed: How many runs that have ended are among them.
    """

    units: Sequence[Unit]
    closed: int


async def plan(url: str, which: Which, processes: int, closed: int, seed: int) -> Plan:
    """Divide a log's runs among processes, and draw a sample of those that have ended.

    Args:
        url: The log.
        which: Which runs.
        processes: How many processes there will be.
        closed: How many runs that have ended are rehearsed as well, if there are so many.
        seed: Of the draw.

    Raises:
        LogError: The log can't be read.
    """
    async with opened(shared_log_at(url, may_make=False)) as log:
        ended: dict[str, int] = {}
        if closed:
            for partition in range(log.partitions):
                ids = await ended_ids(log, partition, which.workflow)
                ended |= dict.fromkeys(ids, partition)
        drawn = Random(seed).sample(sorted(ended), min(closed, len(ended)))
        count = -(-processes // log.partitions)
        units = [
            Unit(
                partition,
                share,
                frozenset(id_ for id_ in drawn if ended[id_] == partition and share.has(id_)),
            )
            for partition in range(log.partitions)
            for share in (Share(number, count) for number in range(count))
        ]
    return Plan(units, len(drawn))


def check(
    duty: Duty, units: Sequence[Unit], processes: int, told: Callable[[Progress], None]
) -> list[Finding]:
    """Rehearse the runs of all units.

    Args:
        duty: What each process needs to know.
        units: The pieces of work.
        processes: How many work at once.
        told: Hears how far it has come, now and then.

    Raises:
        CheckFailed: A process could not do its work; the message says why.
    """
    team = _Team(duty, units, told)
    try:
        for _ in range(min(processes, len(units))):
            team.begin()
        while team.working:
            team.step()
    finally:
        team.end()
    return team.findings


@dataclass(slots=True)
class _Working:
    process: SpawnProcess
    unit: Unit
    heard_at: float
    found: int = 0
    began: Finding | None = None
    done: set[str] = field(default_factory=set[str])


class _Team:
    def __init__(self, duty: Duty, units: Sequence[Unit], told: Callable[[Progress], None]) -> None:
        self.findings: list[Finding] = []
        self.working: dict[Connection, _Working] = {}
        self._duty = duty
        self._units = deque(units)
        self._told = told
        self._progress = Progress()
        # A fork of a process with threads may hang, and each process imports the app anew anyway.
        self._context = multiprocessing.get_context("spawn")

    def begin(self) -> None:
        """Begin a process with the next unit."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=serve, args=(theirs, self._duty), daemon=True)
        process.start()
        theirs.close()
        unit = self._units.popleft()
        ours.send(unit)
        self.working[ours] = _Working(process, unit, time.monotonic())

    def step(self) -> None:
        """Hear what there is to be heard, and look after those who say nothing."""
        for connection in wait(list(self.working), timeout=LOOK_S):
            assert isinstance(connection, Connection)
            working = self.working[connection]
            try:
                while connection.poll():
                    self._hear(connection, working, connection.recv())
                    if connection not in self.working:
                        break
            except (EOFError, ConnectionResetError):
                self._replace(connection, working, lost=True)
        limit_s = self._duty.limit_s + GRACE_S
        for connection, working in list(self.working.items()):
            if working.began is not None and time.monotonic() - working.heard_at > limit_s:
                working.process.kill()
                self._take(working, overdue(working.began, self._duty.limit_s, None))
                self._replace(connection, working, lost=False)
        self._told(self._progress)

    def end(self) -> None:
        """Nobody works any more."""
        for connection, working in self.working.items():
            connection.close()
            working.process.kill()
            working.process.join()
        self.working.clear()

    def _hear(self, connection: Connection, working: _Working, news: News) -> None:
        working.heard_at = time.monotonic()
        match news:
            case Read():
                self._progress.records += news.records
            case Found():
                working.found = news.runs
                self._progress.total += news.runs
            case Began():
                working.began = news.overdue
            case Finding():
                self._take(working, news)
            case Failed():
                raise CheckFailed(f"the runs could not be checked: {news.message}")
            case Done() if self._units:
                working.unit, working.found, working.done = self._units.popleft(), 0, set()
                connection.send(working.unit)
            case Done():
                self._dismiss(connection, working)

    def _take(self, working: _Working, finding: Finding) -> None:
        working.began = None
        working.done.add(finding.workflow_id)
        self._progress.done += 1
        self.findings.append(finding)

    def _dismiss(self, connection: Connection, working: _Working) -> None:
        del self.working[connection]
        connection.close()  # it ends when it finds that nothing comes any more
        working.process.join()

    def _replace(self, connection: Connection, working: _Working, *, lost: bool) -> None:
        """The process has gone: another does what is left of its unit."""
        self._dismiss(connection, working)
        code = working.process.exitcode
        if lost and working.began is not None:
            message = f"its code ends the process that runs it, with exit code {code}"
            finding = replace(working.began, verdict=Verdict.UNEXPECTED, message=message)
            self._take(working, finding)
        if not working.done:
            raise CheckFailed(
                f"a process ended before it had checked anything, with exit code {code}"
            )
        self._progress.total -= working.found - len(working.done)  # the next one finds them again
        self._units.appendleft(replace(working.unit, done=working.unit.done | working.done))
        self.begin()


def planned(url: str, which: Which, processes: int, closed: int, seed: int) -> Plan:
    """`plan`, for those who have no event loop."""
    return asyncio.run(plan(url, which, processes, closed, seed))

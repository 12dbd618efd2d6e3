"""Alarms: as many are kept as are wanted, however many were set; and one of a former run rings for nobody."""

from collections.abc import Callable
from datetime import timedelta
from itertools import count

import pytest

from claimed import NOW, claimed
from refold import continue_as_new, receive, sleep, workflow, workflow_info
from refold.engine import open_runs
from refold.engine.active import OwnerSettings
from refold.engine.alarms import PRUNE_AT, Alarms, Wanted
from refold.engine.checkpoints import CheckpointSettings
from refold.engine.definitions import Catalogue
from refold.engine.owner import Owner
from refold.engine.runs import CodeRuns
from refold.engine.state import Status
from refold.engine.thread_slots import ThreadSlots
from refold.log.commands import Command, SendMessage, StartWorkflow, TerminateWorkflow

NEVER = CheckpointSettings()
DAY_US = 24 * 3600 * 1_000_000


def test_what_is_not_wanted_any_more_is_forgotten() -> None:
    """Given many alarms of which few are wanted, few are kept, and each of those rings, in order and once."""
    now = 0
    alarms = Alarms(lambda: now, lambda _, step, due_at: step % 1_000 == 0 and due_at == step)
    for step in range(10 * PRUNE_AT):
        alarms.set(step, 0, "run", step)
        alarms.set(step, 0, "run", step)  # its run is replayed
        alarms.set(step + 1, 0, "run", step)
    assert len(alarms) <= 2 * PRUNE_AT
    now = 100 * PRUNE_AT
    rung = iter(lambda: alarms.ring(now), None)
    assert [step for _, step, due_at in rung if step % 1_000 == 0 == due_at - step][:9] == [
        *range(0, 9_000, 1_000)
    ]


@workflow
async def patient() -> None:
    """Receives for ever, each time for a day at most, and begins anew before its history grows."""
    while workflow_info().history_length < 10:
        await receive("in", str, timeout=timedelta(days=1))
    continue_as_new()


@workflow
async def sleeper() -> None:
    await sleep(timedelta(days=100))


class Trial:
    """An owner, and a clock that a test moves."""

    def __init__(self, checkpoints: CheckpointSettings = NEVER) -> None:
        self.now = 0
        self.state, _ = claimed()
        runs = CodeRuns(Catalogue.of([patient, sleeper]), "raise", ThreadSlots(1))
        settings = OwnerSettings(worker="w", checkpoints=checkpoints)
        self.owner = Owner(0, self.state, settings, runs, lambda: 0.5, lambda: self.now)
        self._offsets = count()

    def tell(self, command: Command) -> None:
        """Have the owner handle a command, and make all that it writes durable."""
        self.owner.handle(next(self._offsets), command, NOW + self.now)
        self.tick()

    def tick(self) -> None:
        """Let the owner do what is due, until it rests."""
        while True:
            self.owner.tick(NOW + self.now)
            entries = self.owner.take_entries()
            if not entries:
                return
            first = self.owner.next_offset
            self.owner.acked(range(first, first + len(entries)))
            self.owner.take_effects()

    def start(self, name: str, due_at: int | None = None) -> None:
        """Start `run`."""
        self.tell(
            StartWorkflow(
                command_id="start",
                workflow_id="run",
                reply_to=None,
                requested_at=NOW,
                workflow=name,
                payload="{}",
                due_at=due_at,
            )
        )


def test_timeouts_that_are_not_needed_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a run that waits for many messages, each of which comes in time, its timeouts do not pile up."""
    made: list[Alarms] = []

    class Kept(Alarms):
        def __init__(self, elapsed: Callable[[], int], wanted: Wanted) -> None:
            super().__init__(elapsed, wanted)
            made.append(self)

    monkeypatch.setattr(open_runs, "Alarms", Kept)
    trial = Trial()
    trial.start("patient")
    for number in range(3 * PRUNE_AT):
        trial.tell(
            SendMessage(
                command_id=f"send-{number}",
                workflow_id="run",
                reply_to=None,
                requested_at=NOW,
                name="in",
                payload='"x"',
                message_id=f"m-{number}",
            )
        )
    assert trial.state.open["run"].status is Status.RUNNING
    assert [len(alarms) <= PRUNE_AT for alarms in made] == [True]
    trial.owner.abandon()


def test_the_deadline_of_a_former_run_is_not_that_of_the_next() -> None:
    """Given an id that is used again once it is forgotten, the deadline of its first run does not cancel the next."""
    trial = Trial(CheckpointSettings(min_bytes=0, max_closed=0))
    trial.start("sleeper", due_at=NOW + DAY_US)
    trial.tell(
        TerminateWorkflow(
            command_id="end", workflow_id="run", reply_to=None, requested_at=NOW, reason=None
        )
    )
    assert "run" not in trial.state.closed  # a checkpoint has forgotten it
    trial.start("sleeper")
    trial.now += 2 * DAY_US
    trial.tick()
    assert trial.state.open["run"].exchange.cancel is None
    trial.owner.abandon()

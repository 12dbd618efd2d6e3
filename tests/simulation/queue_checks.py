"""The invariant of queues, from the records alone: what a queue gives away is counted here anew, without the fold."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from tests.simulation.history import History, Problems

from refold.engine.state import Ended, Ticket
from refold.log.events import (
    Event,
    QueueSet,
    SlotGranted,
    SlotReleased,
    SlotRequested,
    WorkflowReopened,
    WorkflowStarted,
    WorkflowTerminated,
)
from refold.log.protocol import Record


@dataclass
class _Queue:
    """A queue as it is counted."""

    limit: int = 0
    highest: int = 0
    running: list[Ticket] = field(default_factory=list[Ticket])
    waiting: list[Ticket] = field(default_factory=list[Ticket])
    odd: list[Ticket] = field(default_factory=list[Ticket])
    given_at_us: dict[Ticket, int] = field(default_factory=dict[Ticket, int])

    def take(self, record: Record, event: QueueSet | SlotRequested | SlotReleased) -> None:
        """Take its next event, and give away what is free."""
        if isinstance(event, QueueSet):
            self.limit, self.highest = event.count, max(self.highest, event.count)
        elif isinstance(event, SlotRequested):
            self.waiting.append(Ticket(event.target_id, event.index))
        else:
            ticket = Ticket(event.target_id, event.index)
            held = self.running if ticket in self.running else self.waiting
            if ticket in held:
                held.remove(ticket)
            else:
                self.odd.append(ticket)
        while self.waiting and len(self.running) < self.limit:
            first = self.waiting.pop(0)
            self.running.append(first)
            self.given_at_us.setdefault(first, record.timestamp)  # a late repeat gets another


def invariant_12_a_queue_never_runs_more_than_its_limit(history: History) -> Problems:
    """A run of a queue begins only with a slot that the queue gave it, in its turn; no more have begun and not ended
    than its limit was; the slot of a run that has ended, however it did, is free again, and no other run's is.
    """
    audit, queues = history.audit, _queues(history)
    began, ended = _lives(history)
    released = _released(history)
    queued = {ticket.workflow_id for q in queues.values() for ticket in q.given_at_us}
    for begin in history.journal.begins:
        first_us = min(began.get(begin.workflow_id, {}).values(), default=begin.at_us + 1)
        if begin.workflow_id in queued and begin.at_us < first_us:
            yield f"{begin.workflow_id}/{begin.step} began before its run had a slot"
    for name, queue in queues.items():
        yield from (f"queue {name}: {ticket} gave back what it had not" for ticket in queue.odd)
        yield from _overlapping(name, queue, began, ended)
        for ticket in chain(queue.running, queue.waiting):
            again = (
                ticket in queue.waiting and ticket in released
            )  # a late repeat waits for its turn to be returned
            if ticket in ended and not again:
                yield f"queue {name}: {ticket} has ended, and its slot is not free"
    for workflow_id, slots in began.items():
        for position, at_us in slots.items():
            ticket = Ticket(workflow_id, position)
            given = [q.given_at_us[ticket] for q in queues.values() if ticket in q.given_at_us]
            if not given or at_us < given[0]:
                yield f"{ticket} began with a slot that nobody had given it"
            if ticket in released and released[ticket] < ended.get(ticket, 0):
                yield f"{ticket}: its slot was free before its end was in the log"
            if ticket in released and ticket not in ended and workflow_id not in audit.broken:
                yield f"{ticket}: its slot is free, and it goes on"


def _overlapping(
    name: str, queue: _Queue, began: dict[str, dict[int, int]], ended: dict[Ticket, int]
) -> Iterator[str]:
    """Whether more ran at once than the queue ever let."""
    moments: list[tuple[int, int, Ticket]] = []
    for ticket in queue.given_at_us:
        at_us = began.get(ticket.workflow_id, {}).get(ticket.position)
        if at_us is not None:
            moments.append((at_us, 1, ticket))
            if ticket in ended:
                moments.append((ended[ticket], -1, ticket))
    running = 0
    for _, step, ticket in sorted(moments):
        running += step
        if running > queue.highest:
            yield f"queue {name}: {running} ran at once when {ticket} began, of {queue.highest}"


def _queues(history: History) -> dict[str, _Queue]:
    queues: dict[str, _Queue] = {}
    for record, event in chain.from_iterable(history.audit.accepted):
        if isinstance(event, QueueSet | SlotRequested | SlotReleased):
            queues.setdefault(event.queue, _Queue()).take(record, event)
    return queues


def _released(history: History) -> dict[Ticket, int]:
    """When a slot was first free again."""
    released: dict[Ticket, int] = {}
    for record, event in chain.from_iterable(history.audit.accepted):
        if isinstance(event, SlotReleased):
            released.setdefault(Ticket(event.target_id, event.index), record.timestamp)
    return released


def _lives(history: History) -> tuple[dict[str, dict[int, int]], dict[Ticket, int]]:
    """When each run began with each of its slots, and when it ended."""
    began: dict[str, dict[int, int]] = {}
    ended: dict[Ticket, int] = {}
    asked: dict[str, Ticket] = {}
    for record, event in chain.from_iterable(history.audit.accepted):
        workflow_id = event.workflow_id or ""
        if isinstance(event, WorkflowStarted | WorkflowReopened) and _queue_of(event) is not None:
            asked[workflow_id] = Ticket(workflow_id, event.position or 0)
        elif isinstance(event, SlotGranted):
            began.setdefault(workflow_id, {})[event.index] = record.timestamp
        elif workflow_id in asked and isinstance(
            event, WorkflowTerminated if workflow_id in history.audit.broken else Ended
        ):
            ended[asked.pop(workflow_id)] = record.timestamp
    return began, ended


def _queue_of(event: Event) -> str | None:
    queue: str | None = getattr(event, "queue", None)
    return queue

"""Queues, as the owners of a queue's partition and of its runs' see them: who may run, and who waits.

A queue is folded on the partition of its name, where its slots are given away (`fold.py`, rule 13); its runs are on
partitions of their own. What goes between them goes as all that one workflow wants of another: posted once its event is
confirmed, perhaps twice, and whoever gets it twice knows.

    the run's owner                            the queue's owner
    WorkflowStarted ── RequestSlot ──────────► SlotRequested, and at once or when another ends:
    SlotGranted: it begins ◄──────────────── GrantSlot
    its end ─────────── ReleaseSlot ─────────► SlotReleased, and so the next is granted
    SlotReturned ─────── ReleaseSlot ────────► where a slot comes for a run that has ended

A run is counted from the event that grants its slot until the one that says that its end was heard of. So it begins
after it is counted and has ended before it is not, and no more of them run than are counted, whoever crashes where.
"""

import json
import logging

from refold.engine.answers import Answers, refused_reply, who
from refold.engine.ledger import Header, Ledger
from refold.engine.open_runs import OpenRuns
from refold.engine.queueing import check_concurrency, unknown_queue
from refold.engine.state import PartitionState, Ticket
from refold.log.commands import (
    GrantSlot,
    LookAtQueue,
    ReleaseSlot,
    Reply,
    RequestSlot,
    SetQueue,
)
from refold.log.errors import InvalidInput, UsageError
from refold.log.events import QueueSet, SlotReleased, SlotRequested, SlotReturned

QueueCommand = SetQueue | LookAtQueue | RequestSlot | ReleaseSlot | GrantSlot

logger = logging.getLogger("refold.worker")


class Queues:
    """What reaches one owner about queues and slots.

    Args:
        partition: Its partition's number.
        state: The partition's fold.
        ledger: Where events are recorded.
        open_runs: The runs.
        answers: How commands are answered.
    """

    def __init__(
        self,
        partition: int,
        state: PartitionState,
        ledger: Ledger,
        open_runs: OpenRuns,
        answers: Answers,
    ) -> None:
        self._partition = partition
        self._state = state
        self._ledger = ledger
        self._open = open_runs
        self._answers = answers

    def take(self, command: QueueCommand, now: int) -> None:
        """Consume a command."""
        match command:
            case SetQueue():
                self._set(command, now)
            case LookAtQueue():
                self._look(command)
            case RequestSlot():
                self._request(command, now)
            case ReleaseSlot():
                self._release(command, now)
            case GrantSlot():
                self._granted(command, now)

    def _set(self, command: SetQueue, now: int) -> None:
        """A limit."""
        name = command.workflow_id
        try:
            limit = check_concurrency(json.loads(command.payload)["concurrency"])
        except (UsageError, ValueError, TypeError, LookupError) as error:
            self._answers.refuse(command, InvalidInput(f"queue {name!r} was not set: {error}"), now)
            return
        sequence = self._ledger.record(
            QueueSet(
                **self._header(name, now),
                partition=self._partition,
                queue=name,
                count=limit,
                payload=json.dumps(who(command)),
            )
        )
        self._answers.accept(command, sequence)

    def _look(self, command: LookAtQueue) -> None:
        """How a queue stands. A refusal changes nothing, and is no event."""
        name = command.workflow_id
        queue = self._state.queues.get(name)
        if queue is None or queue.limit is None:
            reply = refused_reply(command, unknown_queue(name))
        else:
            numbers = {
                "concurrency": queue.limit,
                "running": len(queue.running),
                "waiting": len(queue.waiting),
            }
            reply = Reply(
                command_id=command.command_id,
                workflow_id=name,
                status="value",
                payload=json.dumps(numbers),
            )
        self._answers.give(command, self._ledger.made, reply)

    def _request(self, command: RequestSlot, now: int) -> None:
        """A run waits for a slot."""
        name, ticket = command.workflow_id, Ticket(command.parent_id, command.position)
        queue = self._state.queues.get(name)
        if queue is not None and (ticket in queue.running or ticket in queue.waiting):
            return  # a repeat
        if queue is None:
            logger.warning("workflow %r waits: %s", command.parent_id, unknown_queue(name))
        self._ledger.record(
            SlotRequested(
                **self._header(name, now),
                partition=self._partition,
                queue=name,
                target_id=ticket.workflow_id,
                index=ticket.position,
            )
        )

    def _release(self, command: ReleaseSlot, now: int) -> None:
        """A run needs its slot no more."""
        name, ticket = command.workflow_id, Ticket(command.parent_id, command.position)
        queue = self._state.queues.get(name)
        if queue is None or not (ticket in queue.running or ticket in queue.waiting):
            return  # a repeat
        self._ledger.record(
            SlotReleased(
                **self._header(name, now),
                partition=self._partition,
                queue=name,
                target_id=ticket.workflow_id,
                index=ticket.position,
            )
        )

    def _granted(self, command: GrantSlot, now: int) -> None:
        """A slot for a run of this partition."""
        active = self._open.find(command.workflow_id)
        if active is not None and active.state.ticket == command.position:
            if (
                active.state.waits and active.state.broken is None
            ):  # else a repeat, or it ends by being terminated
                self._open.granted(active, command.queue, now)
            return
        self._ledger.record(
            SlotReturned(
                **self._header(command.workflow_id, now),
                partition=self._partition,
                queue=command.queue,
                index=command.position,
            )
        )

    def _header(self, key: str, now: int) -> Header:
        return self._ledger.header(key, None, now)

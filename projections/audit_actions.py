"""What people did: each order to a run that its owner carried out, with who gave it, when and why.

An order is an event of the run that it was given to, so it stands in the same chain as everything else. An order that
was refused changed nothing, and is not told here.
"""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple, cast

from refold.log.codec import event_id_of
from refold.log.events import (
    AskReceived,
    Event,
    QueueSet,
    SubjectErased,
    Unreadable,
    WorkflowCancelRequested,
    WorkflowPaused,
    WorkflowReopened,
    WorkflowResumed,
    WorkflowRewound,
    WorkflowStarted,
    WorkflowTerminated,
)
from refold.log.protocol import Log
from refold.log.schedules import SCHEDULE
from refold.projections.feed import Logged, read_batches, start_of


class ActionName(StrEnum):
    """What people can order. `reopen` is what resume and rewind are to a run that had ended."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    TERMINATE = "terminate"
    REWIND = "rewind"
    REOPEN = "reopen"
    FORK = "fork"
    ERASE = "erase"
    SCHEDULE = "schedule"
    QUEUE = "queue"


class Action(NamedTuple):
    """One order, as its owner carried it out.

    Args:
        name: Which order.
        workflow_id: The run, or the queue; None for what is about a partition.
        at: When its owner carried it out, in microseconds since 1970-01-01 UTC.
        by: Who gave it; None where they did not say.
        why: The reason that they gave.
        detail: What else there is to say: the step that it is rewound to, the run that it is a fork of.
        partition: Where it stands.
        offset: And at which offset.
        event_id: The event.
    """

    name: ActionName
    workflow_id: str | None
    at: int
    by: str | None
    why: str | None
    detail: str
    partition: int
    offset: int
    event_id: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which orders are asked for; all that is given must hold.

    Args:
        names: Of these kinds; empty for any.
        workflow_id: To this run.
        by: By somebody whose name has this in it.
        since: At this time or later, in microseconds since 1970-01-01 UTC.
        before: Before this time.
    """

    names: frozenset[ActionName] = frozenset()
    workflow_id: str | None = None
    by: str | None = None
    since: int | None = None
    before: int | None = None

    def has(self, action: Action) -> bool:
        """Whether an order is asked for."""
        return (
            (not self.names or action.name in self.names)
            and self.workflow_id in (None, action.workflow_id)
            and (self.by is None or self.by in (action.by or ""))
            and (self.since is None or action.at >= self.since)
            and (self.before is None or action.at < self.before)
        )


async def read_actions(log: Log, wanted: Wanted) -> AsyncGenerator[Action, None]:
    """All orders that are asked for, partition after partition, in log order.

    Raises:
        LogError: The log can't be read.
    """
    id_ = wanted.workflow_id
    every = range(log.partitions) if id_ is None else (log.layout.place(id_),)
    for partition in every:
        start = await start_of(log, partition)
        async with aclosing(read_batches(log, partition, start, key=id_)) as batches:
            async for batch in batches:
                for logged in batch.logged:
                    action = action_of(logged)
                    if action is not None and wanted.has(action):
                        yield action


def action_of(logged: Logged) -> Action | None:
    """The order that an event says was carried out; None where it says no such thing."""
    told = _told(logged.event)
    if told is None or isinstance(logged.event, Unreadable):
        return None
    name, detail, who = told
    event = logged.event
    return Action(
        name,
        event.workflow_id,
        event.recorded_at,
        _text(who, "requested_by"),
        _text(who, "reason"),
        detail,
        logged.partition,
        logged.offset,
        event_id_of(event),
    )


_Told = tuple[ActionName, str, Mapping[str, Any]]


def _told(event: Event | Unreadable) -> _Told | None:
    if (schedule := _of_schedule(event)) is not None:
        return schedule
    match event:
        case WorkflowCancelRequested(name="request"):
            who = _who(event.payload)
            if who.get("requested_by") is None and event.parent_id is not None:
                who = {**who, "requested_by": f"workflow {event.parent_id}"}
            return ActionName.CANCEL, "", who
        case WorkflowPaused() | WorkflowResumed() | WorkflowTerminated():
            return _PLAIN[type(event)], "", _who(event.payload)
        case WorkflowRewound():
            return ActionName.REWIND, f"to before step {event.step}", _who(event.payload)
        case WorkflowReopened():
            whole = event.step is None
            detail = "all that is recorded stays" if whole else f"from step {event.step} on"
            return ActionName.REOPEN, detail, _who(event.detail)
        case WorkflowStarted(source_id=str(source)):
            upto = "" if event.step is None else f", up to before step {event.step}"
            return ActionName.FORK, f"of {source}{upto}", _who(event.detail)
        case SubjectErased() | QueueSet():
            return _of_partition(event)
        case _:
            return None


def _of_schedule(event: Event | Unreadable) -> tuple[ActionName, str, Mapping[str, Any]] | None:
    """An order to a schedule: a question to its own run, or that run's start, perhaps anew."""
    match event:
        case WorkflowStarted(workflow=workflow) if workflow == SCHEDULE and not event.source_id:
            who = _who(event.payload)
            return ActionName.SCHEDULE, f"made: {_when(who.get('schedule'))}", who
        case WorkflowReopened(workflow=workflow) if workflow == SCHEDULE and event.step is not None:
            made = _when(_who(event.payload).get("schedule"))
            return ActionName.SCHEDULE, f"made again: {made}", _who(event.detail)
        case AskReceived(name=topic) if topic == SCHEDULE:
            who = _who(event.payload)
            order = str(who.get("order", "an order that can't be read here"))
            return ActionName.SCHEDULE, f"set: {_when(who)}" if order == "set" else order, who
        case _:
            return None


def _when(holder: object) -> str:
    """What a schedule starts, and when; as far as that can be read without a key."""
    try:
        spec: Any = cast("Mapping[str, Any]", holder)["spec"]
        when = (
            f"every {spec['every']}"
            if spec["cron"] is None
            else f"{spec['cron']}, {spec['timezone']}"
        )
        return f"{spec['workflow']} ({when})"
    except (TypeError, KeyError):
        return "with what can't be read here"


def _of_partition(event: SubjectErased | QueueSet) -> _Told:
    who = _who(event.payload)
    if isinstance(event, QueueSet):
        return ActionName.QUEUE, f"{event.count:,} at once", who
    return ActionName.ERASE, f"{len(who.get('keys', ()))} keys", who


_PLAIN: Final[Mapping[type, ActionName]] = {
    WorkflowPaused: ActionName.PAUSE,
    WorkflowResumed: ActionName.RESUME,
    WorkflowTerminated: ActionName.TERMINATE,
}


def _who(text: str | None) -> Mapping[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}


def _text(who: Mapping[str, Any], name: str) -> str | None:
    found = who.get(name)
    return found if isinstance(found, str) else None

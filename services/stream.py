"""One workflow's events as they come: what is recorded already, then what is appended from now on."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from refold.engine.reader import near
from refold.log.accepted import Accepted
from refold.log.chain_walk import Beginning, beginning
from refold.log.events import Event, Unreadable, WorkflowStarted
from refold.log.protocol import Channel, Log, Record


async def follow(log: Log, workflow_id: str) -> AsyncGenerator[Event | Unreadable | None, None]:
    """The events of a run, from its first one on, for ever. Close the iterator to stop.

    A None stands between those that were there when it began and those that come: only then is an ending the last
    word, for a run that has ended may have been reopened.

    Args:
        log: An open log.
        workflow_id: The run; it need not exist yet.

    Raises:
        LogError: The log can't be read.
    """
    partition = log.layout.place(workflow_id)
    end = (await log.bounds(Channel.EVENTS, partition)).end
    close_by = await near(log, partition, workflow_id, end)
    start = close_by or await beginning(log, partition)
    accepted = Accepted(start.claim)
    past = [event async for event in _past(log, partition, workflow_id, start, end, accepted)]
    if close_by is not None and not (past and isinstance(past[0], WorkflowStarted)):
        start = await beginning(log, partition)
        accepted = Accepted(start.claim)
        past = [event async for event in _past(log, partition, workflow_id, start, end, accepted)]
    for one in past:
        yield one
    yield None
    async with aclosing(_tail(log, partition, end)) as records:
        async for record in records:
            if (event := _taken(record, workflow_id, accepted)) is not None:
                yield event


def _taken(record: Record, workflow_id: str, accepted: Accepted) -> Event | Unreadable | None:
    """The record's event where it is the run's and counts; others' are not even decoded."""
    if record.key not in {None, workflow_id}:
        return None
    event = accepted.take(record)
    return event if event is not None and event.workflow_id == workflow_id else None


async def _past(  # noqa: PLR0917 - what `follow` knows
    log: Log, partition: int, workflow_id: str, start: Beginning, end: int, accepted: Accepted
) -> AsyncGenerator[Event | Unreadable, None]:
    """What is there, by key: on SQLite that is an index, where a tail would wade through everybody's events."""
    batches = log.read(Channel.EVENTS, partition, start.offset, end, key=workflow_id)
    async for batch in batches:
        for record in batch:
            if (event := _taken(record, workflow_id, accepted)) is not None:
                yield event


async def _tail(log: Log, partition: int, start: int) -> AsyncGenerator[Record, None]:
    async for batch in log.tail(Channel.EVENTS, partition, start):
        for record in batch:
            yield record

"""One workflow's events as they come: what is recorded already, then what is appended from now on."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from refold.engine.reader import near
from refold.engine.state import NO_CLAIM
from refold.log.chain_walk import Beginning, beginning
from refold.log.codec import decode_event
from refold.log.events import Event, PartitionClaimed, Unreadable, WorkflowStarted
from refold.log.protocol import Channel, Log, Record


class StreamFilter:
    """Picks a stream's events out of its partition by the fold's rule: what a zombie wrote does not count.

    Args:
        workflow_id: The stream.
        claim: The claim that is current where the records begin.
    """

    def __init__(self, workflow_id: str, claim: int = NO_CLAIM) -> None:
        self.workflow_id = workflow_id
        self._claim = claim

    def take(self, record: Record) -> Event | Unreadable | None:
        """The record's event where it belongs to the stream and counts. Records come in offset order."""
        if record.key is not None and record.key != self.workflow_id:
            return None
        event = decode_event(record)
        if event.claim is not None and event.claim != self._claim:
            return None
        if isinstance(event, PartitionClaimed):
            self._claim = record.offset
        return event if event.workflow_id == self.workflow_id else None


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
    stream = StreamFilter(workflow_id, start.claim)
    past = [event async for event in _past(log, partition, stream, start, end)]
    if close_by is not None and not (past and isinstance(past[0], WorkflowStarted)):
        start = await beginning(log, partition)
        stream = StreamFilter(workflow_id, start.claim)
        past = [event async for event in _past(log, partition, stream, start, end)]
    for one in past:
        yield one
    yield None
    async with aclosing(_tail(log, partition, end)) as records:
        async for record in records:
            if (event := stream.take(record)) is not None:
                yield event


async def _past(
    log: Log, partition: int, stream: StreamFilter, start: Beginning, end: int
) -> AsyncGenerator[Event | Unreadable, None]:
    """What is there, by key: on SQLite that is an index, where a tail would wade through everybody's events."""
    batches = log.read(Channel.EVENTS, partition, start.offset, end, key=stream.workflow_id)
    async for batch in batches:
        for record in batch:
            if (event := stream.take(record)) is not None:
                yield event


async def _tail(log: Log, partition: int, start: int) -> AsyncGenerator[Record, None]:
    async for batch in log.tail(Channel.EVENTS, partition, start):
        for record in batch:
            yield record

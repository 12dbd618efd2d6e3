"""One workflow's events as they come: what is recorded already, then what is appended from now on."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from refold.engine.state import NO_CLAIM
from refold.log.chain_walk import beginning
from refold.log.codec import decode_event
from refold.log.events import Event, PartitionClaimed, Unreadable
from refold.log.protocol import Channel, Log, Record


class StreamFilter:
    """Picks a stream's events out of its partition by the fold's rule: what a zombie wrote does not count.

    Args:
        workflow_id: The stream.
        claim: The claim that is current where the records begin.
    """

    def __init__(self, workflow_id: str, claim: int = NO_CLAIM) -> None:
        self._workflow_id = workflow_id
        self._claim = claim

    def take(self, record: Record) -> Event | Unreadable | None:
        """The record's event where it belongs to the stream and counts. Records come in offset order."""
        if record.key is not None and record.key != self._workflow_id:
            return None
        event = decode_event(record)
        if event.claim is not None and event.claim != self._claim:
            return None
        if isinstance(event, PartitionClaimed):
            self._claim = record.offset
        return event if event.workflow_id == self._workflow_id else None


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
    start = await beginning(log, partition)
    stream = StreamFilter(workflow_id, start.claim)
    # The past by key: on SQLite that is an index, where a tail would wade through everybody's events.
    async for batch in log.read(Channel.EVENTS, partition, start.offset, end, key=workflow_id):
        for record in batch:
            if (event := stream.take(record)) is not None:
                yield event
    yield None
    async with aclosing(_tail(log, partition, end)) as records:
        async for record in records:
            if (event := stream.take(record)) is not None:
                yield event


async def _tail(log: Log, partition: int, start: int) -> AsyncGenerator[Record, None]:
    async for batch in log.tail(Channel.EVENTS, partition, start):
        for record in batch:
            yield record

"""Reading a workflow's stream from the log: what has been written, then live what comes, to the workflow's end.

Nobody is asked: the reader follows the events of the workflow's partition, in any process, also where no worker runs.
An event counts by the rule for zombies, with the claim carried over from what was there into what comes. An item that
a step has written stands there for each attempt that wrote it: a step writes at least once. Where an id was used again,
the stream is that of its last run.
"""

import types
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from refold.engine.blobs import IN_RECORDS, Blobs
from refold.engine.payload import PayloadType
from refold.engine.reader import beheaded, missing, near, read_partition
from refold.engine.state import Ended
from refold.log.accepted import Accepted
from refold.log.chain_walk import Beginning, beginning
from refold.log.events import (
    Event,
    StreamWritten,
    Unreadable,
    WorkflowReopened,
    WorkflowStarted,
)
from refold.log.protocol import Channel, Log, Record

T = TypeVar("T")


class StreamReader(Generic[T]):
    """One reading of a stream.

    Args:
        log: An open log.
        workflow_id: Whose stream it is.
        name: The stream's name.
        item_type: Type of an item.
        start: Index of the first item to give, from 0.
        blobs: Where large payloads are read.
    """

    def __init__(
        self,
        log: Log,
        workflow_id: str,
        name: str,
        item_type: object,
        start: int,
        *,
        blobs: Blobs = IN_RECORDS,
    ) -> None:
        self._blobs = blobs
        self._log = log
        self._workflow_id = workflow_id
        self._name = name
        self._next = start
        self._beginning = Beginning()
        self._accepted = Accepted()
        self._found = False
        self._is_whole = False
        self._ended = False
        items: object = types.GenericAlias(list, (object if item_type is Any else item_type,))
        what = f"items of stream {name!r} of workflow {workflow_id!r}"
        self._items: PayloadType[list[T]] = PayloadType.of(items, what)

    async def batches(self) -> AsyncGenerator[Sequence[T], None]:
        """Items in order, some at a time; ends when the workflow has ended.

        Raises:
            WorkflowNotFound: There is no such workflow.
            LogTrimmed: Items that are asked for were trimmed.
            PayloadError: An item does not fit the type, or its blob can't be had.
            BlobsUnavailable: The blob store can't be read now.
        """
        partition = self._log.layout.place(self._workflow_id)
        end = (await self._log.bounds(Channel.EVENTS, partition)).end
        close_by = await near(self._log, partition, self._workflow_id, end)
        starts = [] if close_by is None else [close_by]
        for start in (*starts, await beginning(self._log, partition)):
            async with aclosing(self._there(partition, start, end)) as there:
                async for items in there:
                    yield items
            if self._found:
                break
        else:
            await self._check_open(partition)
        coming = self._log.tail(Channel.EVENTS, partition, end)
        async with aclosing(coming):
            while not self._ended:
                for items in self._items_of(await anext(coming), to_end=True):
                    yield items

    async def _there(
        self, partition: int, start: Beginning, end: int
    ) -> AsyncGenerator[Sequence[T], None]:
        """The items between two offsets."""
        self._beginning, self._accepted = start, Accepted(start.claim)
        self._is_whole = start.offset == 0
        there = self._log.read(Channel.EVENTS, partition, start.offset, end, key=self._workflow_id)
        async with aclosing(there):
            async for records in there:
                for items in self._items_of(records):
                    yield items

    async def _check_open(self, partition: int) -> None:
        """No event of it is left: it may be a run that has been waiting since before the log was trimmed."""
        if self._beginning.offset > 0:
            state = await read_partition(self._log, partition, self._workflow_id)
            if self._workflow_id in state.open:
                return
        raise await missing(self._log, self._workflow_id, self._beginning)

    def _items_of(self, records: Sequence[Record], *, to_end: bool = False) -> "list[Sequence[T]]":
        batches: list[Sequence[T]] = []
        for record in records:
            if record.key is not None and record.key != self._workflow_id:
                continue
            event = self._accepted.take(record)
            if event is not None:
                batches.extend(self._take(event))
                if self._ended and to_end:
                    break
        return batches

    def _take(self, event: Event | Unreadable) -> "list[Sequence[T]]":
        """The items that an event brings; in one piece, if any."""
        self._found = self._found or isinstance(event, Unreadable) or event.position is not None
        if isinstance(event, Ended):
            self._ended = True
        elif isinstance(event, WorkflowReopened | WorkflowStarted):
            self._ended = False
            self._is_whole = self._is_whole or isinstance(event, WorkflowStarted)
        elif isinstance(event, StreamWritten) and event.name == self._name:
            after = event.index + event.count
            if event.index > self._next and not self._is_whole:
                raise beheaded(self._workflow_id, self._beginning)
            if after > self._next:
                payload = self._blobs.read(event.payload, self._items.what)
                items = self._items.decode(payload)[max(0, self._next - event.index) :]
                self._next = after
                return [items]
        return []

"""Following the log: `tail`, as an iterator over events, filtered, from anywhere, to the end or for ever.

    for logged in tail_sync("sqlite:///orders.db", since="start", follow=False, kind="step.failed"):
        print(logged.event.workflow_id, logged.event.error_message)

What there is already comes in the order in which the log took it in, over all partitions (`projections/merge.py`); then
what comes, as it comes. Zombies' events never come, and no event comes twice: `cursor` says where to go on.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Self

from refold.log.attributes import Tag
from refold.log.errors import UsageError
from refold.log.protocol import Channel, Log
from refold.log.urls import open_existing
from refold.projections.cursor import Cursor, Since, positions_at
from refold.projections.feed import (
    Logged,
    Position,
    follow_batches,
    read_batches,
    start_of,
)
from refold.projections.merge import Chunk, Taken, merged, taken_of
from refold.projections.sieve import Sieve

logger = logging.getLogger("refold.tail")


class Tail:
    """Events as they stand in the log, one after the other. Made by `tail`; close it, or use it in `async with`."""

    def __init__(self, log: str | Log, sieve: Sieve, since: Since, *, follow: bool) -> None:
        self._log = log
        self._sieve = sieve
        self._since: Since = since
        self._follow = follow
        self._chunks: AsyncGenerator[Chunk, None] | None = None
        self._loading: asyncio.Future[Chunk | None] | None = None
        self._positions: dict[int, Position] = {}
        self._chunk = Chunk((), {})
        self._next = 0

    def __aiter__(self) -> Self:
        """Itself."""
        return self

    async def __anext__(self) -> Logged:
        """The next event; waits for one where it follows the log.

        Raises:
            StopAsyncIteration: The end has come.
            UsageError: Where it should begin is not there.
            LogError: The log can't be read.
        """
        while (taken := self.pop()) is None:
            if not await self.load():
                raise StopAsyncIteration
        return taken

    def pop(self) -> Logged | None:
        """The next event of those that are loaded; None where there is none."""
        if self._next == len(self._chunk.taken):
            return None
        self._next += 1
        return self._chunk.taken[self._next - 1].logged

    async def load(self) -> bool:
        """Load the next events, perhaps none; False where the end has come. Raises as `__anext__`."""
        if self._chunks is None:
            self._chunks = self._read()
        self._positions = dict(self.cursor.positions)
        self._chunk, self._next = Chunk((), {}), 0
        if self._loading is None:
            self._loading = asyncio.ensure_future(anext(self._chunks, None))
        try:  # whoever gives up waiting loses nothing: the next call waits for the same
            chunk = await asyncio.shield(self._loading)
        finally:
            if self._loading.done():
                self._loading = None
        if chunk is not None:
            self._chunk = chunk
        return chunk is not None

    @property
    def cursor(self) -> Cursor:
        """Where to go on after the last event that was given, as `since` of another tail.

        It names no partition before the first event was asked for.
        """
        if self._next == len(self._chunk.taken):
            return Cursor({**self._positions, **self._chunk.positions})
        given = {t.logged.partition: t.position for t in self._chunk.taken[: self._next]}
        return Cursor({**self._positions, **given})

    async def aclose(self) -> None:
        """Stop; a log that was named by its URL is closed."""
        loading, self._loading = self._loading, None
        if loading is not None:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
        if self._chunks is not None:
            await self._chunks.aclose()

    async def __aenter__(self) -> Self:
        """Itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.aclose()

    async def _read(self) -> AsyncGenerator[Chunk, None]:
        if not isinstance(self._log, str):
            async with aclosing(self._chunks_of(self._log)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        log = open_existing(self._log)
        try:
            await log.open()
            async with aclosing(self._chunks_of(log)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            await log.close()

    async def _chunks_of(self, log: Log) -> AsyncGenerator[Chunk, None]:
        sieve, id_ = self._sieve, self._sieve.workflow_id
        wanted = range(log.partitions) if id_ is None else [log.layout.place(id_)]
        positions = await positions_at(log, self._since, wanted)
        if sieve.by_run:
            for partition, position in positions.items():
                await _learn(log, partition, position, sieve)
        self._positions = positions
        feeds = {
            partition: read_batches(
                log,
                partition,
                position,
                (await log.bounds(Channel.EVENTS, partition)).end,
                key=id_,
                wanted=sieve.wanted,
            )
            for partition, position in positions.items()
        }
        positions = dict(positions)
        async with aclosing(merged(feeds, positions, sieve.takes)) as chunks:
            async for chunk in chunks:
                positions.update(chunk.positions)
                yield chunk
        if self._follow:
            async with aclosing(_coming(log, positions, sieve)) as chunks:
                async for chunk in chunks:
                    yield chunk


class SyncTail:
    """`Tail` for plain code: a loop of its own carries it. Made by `tail_sync`; close it, or use it in `with`."""

    def __init__(self, tail: Tail) -> None:
        self._tail = tail
        self._runner: asyncio.Runner | None = None

    def __iter__(self) -> Self:
        """Itself."""
        return self

    def __next__(self) -> Logged:
        """The next event; see `Tail.__anext__`.

        Raises:
            StopIteration: The end has come, and all is closed.
            UsageError: An event loop runs here: use `tail`.
        """
        while (taken := self._tail.pop()) is None:
            if not self._load():
                self.close()
                raise StopIteration
        return taken

    def _load(self) -> bool:
        if self._runner is None:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                self._runner = asyncio.Runner()
            else:
                raise UsageError(
                    "tail_sync was used where an event loop runs, which it would block: use `async for` with tail"
                )
        try:
            return self._runner.run(self._tail.load())
        except BaseException:
            self.close()
            raise

    @property
    def cursor(self) -> Cursor:
        """See `Tail.cursor`."""
        return self._tail.cursor

    def close(self) -> None:
        """Stop; a log that was named by its URL is closed."""
        runner, self._runner = self._runner, None
        if runner is not None:
            with runner:
                runner.run(self._tail.aclose())

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


def tail(
    log: str | Log,
    *,
    since: Since | None = None,
    follow: bool = True,
    workflow_id: str | None = None,
    workflow: str | None = None,
    kind: str | Collection[str] = (),
    attributes: Mapping[str, Tag] | None = None,
) -> Tail:
    """Follow a log's events, to be used in `async for` or with `anext`.

    All filters that are given must hold. The parts of checkpoints are left out unless they are asked for by kind.

    Args:
        log: The log's URL, or an open log.
        since: Where to begin: "start", "now", a time, an offset for each partition, or another tail's cursor. Where not
            given, now if it follows, else the log's start.
        follow: Whether to wait for more at the end, for ever.
        workflow_id: Events of this run.
        workflow: Of runs of the workflow with this name. Runs whose start was trimmed are not found by it.
        kind: Of this kind, or these; `step` stands for all that begin with `step.`.
        attributes: Of runs that have these attributes when the event is recorded; as with `workflow`.

    Raises:
        UsageError: There is no such kind, or no run can have such attributes.
    """
    sieve = Sieve(
        workflow_id=workflow_id,
        workflow=workflow,
        kinds=[kind] if isinstance(kind, str) else kind,
        attributes=attributes,
    )
    start: Since = "now" if follow else "start"
    return Tail(log, sieve, start if since is None else since, follow=follow)


def tail_sync(
    log: str,
    *,
    since: Since | None = None,
    follow: bool = True,
    workflow_id: str | None = None,
    workflow: str | None = None,
    kind: str | Collection[str] = (),
    attributes: Mapping[str, Tag] | None = None,
) -> SyncTail:
    """Follow a log's events in plain code, to be used in `for` or with `next`.

    Arguments and errors are those of `tail`.
    """
    return SyncTail(
        tail(
            log,
            since=since,
            follow=follow,
            workflow_id=workflow_id,
            workflow=workflow,
            kind=kind,
            attributes=attributes,
        )
    )


async def _learn(log: Log, partition: int, position: Position, sieve: Sieve) -> None:
    """Tell a sieve of the runs that were started before a position."""
    start = await start_of(log, partition)
    if start.offset > 0:
        logger.warning(
            "runs of partition %d that were started before offset %d can't be found by their workflow or attributes: "
            "their starts were trimmed. Name the archive that has them",
            partition,
            start.offset,
        )
    if start.offset >= position.offset:
        return
    async for batch in read_batches(
        log, partition, start, position.offset, wanted=sieve.telling, key=sieve.workflow_id
    ):
        for logged in batch.logged:
            sieve.learn(logged.event)


async def _coming(
    log: Log, positions: Mapping[int, Position], sieve: Sieve
) -> AsyncGenerator[Chunk, None]:
    """What is appended from some positions on, in the order in which it is seen."""
    queue = asyncio.Queue[Chunk | BaseException](maxsize=2 * len(positions))

    async def follow(partition: int, position: Position) -> None:
        try:
            feed = follow_batches(log, partition, position, wanted=sieve.wanted)
            async with aclosing(feed) as batches:
                async for batch in batches:
                    taken: list[Taken] = taken_of(batch, position.claim, sieve.takes)
                    position = batch.position
                    await queue.put(Chunk(taken, {partition: position}))
        except Exception as error:  # noqa: BLE001 - raised where the events are asked for
            await queue.put(error)

    tasks = [asyncio.ensure_future(follow(p, position)) for p, position in positions.items()]
    try:
        while True:
            chunk = await queue.get()
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

"""A worker that begins again from the log takes commands up where the log says, not where it was itself."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from log_backend import PATIENCE_S
from refold import Engine, step, workflow
from refold.engine.worker import wall_clock
from refold.log.codec import encode_command
from refold.log.commands import StartWorkflow
from refold.log.errors import AppendUnknown, LogCorrupt
from refold.log.memory import MemoryLog, MemoryStore
from refold.log.protocol import Bounds, Channel, Entry, Listener, Membership, Record

LONG_US = 60_000_000

HELD = threading.Event()


@step
async def hold() -> None:
    HELD.set()
    await asyncio.Event().wait()


@workflow
async def holds() -> None:
    await hold()


@workflow
async def says(text: str) -> str:
    return text


class Hearing:
    """A listener that notes when commands are delivered; the rest is another's.

    Args:
        listener: The other one.
    """

    def __init__(self, listener: Listener) -> None:
        self.delivered = asyncio.Event()
        self._listener = listener
        self.assigned, self.revoking, self.revoked = (
            listener.assigned,
            listener.revoking,
            listener.revoked,
        )

    def deliver(self, partition: int, records: Sequence[Record]) -> None:
        """Pass them on."""
        self._listener.deliver(partition, records)
        self.delivered.set()


class InDoubt(MemoryLog):
    """A log that does not take in one start, and says that it may have; a command comes while its user recovers.

    Args:
        store: Where the records are.
    """

    hearing: Hearing

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store=store)
        self.now_us = wall_clock()
        self.has_come = threading.Event()
        self._failed = self._claimed = False

    def clock(self) -> int:
        """The wall clock that the engine is to use."""
        return self.now_us

    async def join(self, worker: str, listener: Listener, pool: str | None = None) -> Membership:
        """Join, and hear what is delivered."""
        self.hearing = Hearing(listener)
        return await super().join(worker, self.hearing, pool)

    async def append(
        self, channel: Channel, partition: int, entries: Sequence[Entry], *, lazily: bool = False
    ) -> Sequence[int]:
        """Append all but the first event of the run `first`."""
        if channel is Channel.EVENTS and not self._failed and entries[0].key == "first":
            self._failed = True
            self.now_us += LONG_US  # so that the log is asked before the step is begun again
            raise AppendUnknown("the network went away")
        self._claimed = self._failed and channel is Channel.EVENTS
        return await super().append(channel, partition, entries, lazily=lazily)

    async def bounds(self, channel: Channel, partition: int) -> Bounds:
        """The bounds; the first time that an owner asks who has recovered, not before the next command has come."""
        if channel is Channel.EVENTS and self._claimed:
            self._claimed = False
            self.hearing.delivered.clear()
            start = StartWorkflow(
                command_id="c",
                workflow_id="second",
                reply_to=None,
                requested_at=self.now_us,
                workflow="says",
                payload='{"text": "2"}',
            )
            await super().append(Channel.COMMANDS, partition, [encode_command(start)])
            await self.hearing.delivered.wait()
            self.has_come.set()
        return await super().bounds(channel, partition)


def test_a_command_that_comes_while_it_recovers_does_not_overtake_one_in_doubt() -> None:
    """Given an acknowledged start whose event was not written, when the next start comes during recovery, both run."""
    HELD.clear()
    log = InDoubt(MemoryStore(partitions=1))
    with Engine(log, workflows=[holds, says], clock=log.clock) as engine:
        engine.start(holds, id="holds")
        assert HELD.wait(PATIENCE_S)
        first = engine.start(says, "1", id="first", confirm=False)
        assert log.has_come.wait(PATIENCE_S)
        assert first.result(PATIENCE_S) == "1"
        assert engine.handle("second", says).result(PATIENCE_S) == "2"


class Compacted(MemoryLog):
    """A log whose first command is gone before anybody has consumed it."""

    def __init__(self) -> None:
        super().__init__(store=MemoryStore(partitions=1), rebalance_s=0.01)

    async def join(self, worker: str, listener: Listener, pool: str | None = None) -> Membership:
        """Join with a listener that is not told of the first command."""
        self.listener, self.deliver = listener, listener.deliver
        listener.deliver = self.without_the_first  # type: ignore[method-assign]  # of this one worker
        self.membership = await super().join(worker, listener, pool)
        return self.membership

    def without_the_first(self, partition: int, records: Sequence[Record]) -> None:
        """Deliver what is left, or wait for more."""
        rest = [record for record in records if record.offset > 0]
        if rest:
            self.deliver(partition, rest)
        else:
            self.membership.follow(partition, 1)


def test_commands_that_are_gone_halt_the_partition() -> None:
    """Given a command that is gone from the log, the next is not consumed: who waits is told which is missing."""
    with Engine(Compacted(), workflows=[says]) as engine:
        engine.start(says, "gone", id="gone", confirm=False)
        with pytest.raises(LogCorrupt, match="offset 0 to 0 are gone"):
            engine.start(says, "next", id="next", confirm=False).result(PATIENCE_S)

"""The log: three channels of partitioned, append-only records behind one protocol.

Promises of every backend (one contract suite holds them all to it, tests/contract):

1. `append` returns when the records are durable (fsync; acks=all), with their offsets, in the order given.
   The records of one `append` need not be contiguous: somebody else's may stand between.
2. Two `append` calls to one partition that are made one after the other keep that order in the log, also
   while the first is in flight. If one fails with `AppendUnknown`, those made after it fail as well.
3. `RecordTooLarge` and `LogUnavailable` mean that nothing of the batch was written. `AppendUnknown` means that
   any prefix of it may have been.
4. Offsets of a partition rise; for a log that only refold writes to they are 0, 1, 2, ... with no gap.
5. `read` sees all records that were durable when it was called, in offset order.
6. Appends that arrive while a batch is in flight form the next batch (group commit). The queue is bounded:
   `append` waits for room, it never drops.
7. What is read is what was written, byte for byte. Headers keep their order.
8. Records are deleted from a partition's beginning only (`trim`; of replies, also by age). Reading events or commands
   from before the first that is left raises `LogTrimmed`, and never gives a part in place of the whole.

Logs move bytes; `log/codec.py` gives the bytes their meaning.
"""

import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from refold.log.errors import UsageError
from refold.log.layout import Layout

MIN_TAKEOVER_S = 2.0
"""No log gives the partitions of a worker that has fallen silent to another sooner than this, in seconds. Workers
rest on it: see `engine/proof.py`."""


_GROUP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
WORKERS = "workers"
"""The group that `Log.join` enters; for a pool's partitions its name follows after a dot."""


def check_group(group: str) -> None:
    """Refuse what can't name a group of readers.

    Raises:
        UsageError: With the rule.
    """
    if group.partition(".")[0] == WORKERS or not _GROUP.fullmatch(group):
        raise UsageError(
            f"{group!r} can't name a group of readers: use letters, digits, '.', '_' and '-', at most 100 characters, "
            "and not 'workers'"
        )


def workers_of(pool: str | None) -> str:
    """The group of the workers that share the partitions of a pool, or the common ones."""
    return WORKERS if pool is None else f"{WORKERS}.{pool}"


class Channel(StrEnum):
    """The three kinds of record, each in topics or tables of its own so that access can be granted apart."""

    EVENTS = "events"
    COMMANDS = "commands"
    REPLIES = "replies"


class Entry(NamedTuple):
    """A record to be appended: key (workflow id; None for the partition's own), bytes, headers."""

    key: str | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class Record(NamedTuple):
    """A record as it stands in the log. `timestamp` is the log's own: microseconds since 1970-01-01 UTC."""

    offset: int
    timestamp: int
    key: str | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class Bounds(NamedTuple):
    """`start`: the first offset that is still there. `end`: the offset that the next record will get."""

    start: int
    end: int


class Backlog(NamedTuple):
    """Commands of a partition: those before offset `done` are worked through, `end` is that of the next to come."""

    done: int
    end: int


class Listener(Protocol):
    """What a worker is told by its membership. Called on the event loop that `join` was called on; must not block."""

    def revoking(self, partition: int) -> None:
        """`revoked` follows. Called on any thread, before somebody else can be told that `partition` is theirs: no step
        may begin from now on, however late the event loop hears of it, unless the partition is offered.
        """

    def assigned(self, partition: int) -> None:
        """This worker should own `partition` from now on: fold it, claim it, then `follow` its commands."""

    def revoked(self, partition: int, lost: bool) -> None:
        """This worker should give `partition` up; `lost` where another may own it already.

        Commands are delivered on until the partition is released, unless it is lost. It may be assigned again before.
        """

    def deliver(self, partition: int, records: Sequence[Record]) -> None:
        """Commands of `partition`, at least one, in offset order, once for each `follow`."""


class Membership(Protocol):
    """A worker's place in the group that shares the partitions. It says who *should* own; claims say who does."""

    def follow(self, partition: int, offset: int) -> None:
        """Ask for the next commands of `partition` from `offset` on: one `deliver` when there are any.

        A new `follow` for the partition replaces the one before. Asking again only when the last batch has been
        worked through is what keeps the queue bounded.
        """

    def skip(self, partition: int, offset: int) -> None:
        """Commands of `partition` before `offset` have been consumed already: they may be delivered, and need not."""

    def release(self, partition: int) -> None:
        """Nothing more of `partition` is done here: somebody else may have it. Stops deliveries."""

    @property
    def waits_for_release(self) -> bool:
        """Whether nobody else gets a partition that was revoked before it is released."""
        ...

    @property
    def alone(self) -> bool:
        """Whether it is certain that nobody else is there to take a partition."""
        ...

    @property
    def understands_offers(self) -> bool:
        """Whether every other member asks for a partition that was offered (`PartitionOffered`) before it takes it.

        Not so while one of them is of a release that can't read offers: those are not to be written then.
        """
        ...

    def offered(self, partition: int) -> None:
        """Whoever is told from now on that `partition` is theirs finds in the log that it was offered."""

    async def retire(self) -> bool:
        """Have the group give all partitions to others; until they are released, commands are delivered on.

        Returns:
            Whether others may take them over now; if not, nothing was done.
        """
        ...

    async def worked_through(self) -> Mapping[int, Backlog]:
        """For each partition of the group, others' as well: how far its commands are worked through, and their end.

        As owners have told the group, a second or so ago. A partition of which nothing is known is left out, and all
        are where a dead worker is missed at once.

        Raises:
            LogUnavailable: The group can't be asked now.
        """
        ...

    async def deserted(self) -> None:
        """After `retire`: wait until nobody is left in the group who could take a partition over."""

    async def leave(self) -> None:
        """Leave the group: all partitions are free for others at once."""


class ShareListener(Protocol):
    """What a reader is told by its share. Called on the event loop that `share` was called on; must not block."""

    def assigned(self, partition: int) -> None:
        """This reader should take in the events of `partition` from now on."""

    def revoked(self, partition: int, lost: bool) -> None:
        """This reader should stop doing so, then `release` it; `lost` where another may have begun already."""


class Share(Protocol):
    """A reader's place in a group that shares the partitions of events: who *should* take in which.

    For a moment two may think that they should. Whoever writes what follows from events must find that out where it
    writes (`projections/target.py`).
    """

    def done(self, partition: int, offset: int) -> None:
        """The events of `partition` before `offset` are taken in. For tools that show lag; never read here."""

    def release(self, partition: int) -> None:
        """Nothing more of `partition` is done here: somebody else may have it."""

    async def leave(self) -> None:
        """Leave the group: all partitions are free for others at once."""


class Log(Protocol):
    """A namespace's log. Opened once, used from one event loop (the loop that `open` ran on)."""

    @property
    def namespace(self) -> str:
        """Name of the namespace, for messages."""
        ...

    @property
    def partitions(self) -> int:
        """Number of partitions; fixed when the namespace was made. Known after `open`."""
        ...

    @property
    def layout(self) -> Layout:
        """What the partitions are for, and so which of them an id belongs to; fixed likewise. Known after `open`."""
        ...

    @property
    def max_record_bytes(self) -> int:
        """Largest key + value + headers that `append` takes, in bytes."""
        ...

    async def open(self) -> None:
        """Connect and check (exists, ours, known format, partition count and ids as recorded)."""

    async def close(self) -> None:
        """Wait for appends in flight, then let go of everything."""

    async def append(
        self,
        channel: Channel,
        partition: int,
        entries: Sequence[Entry],
        *,
        lazily: bool = False,
    ) -> Sequence[int]:
        """Append in order; return each entry's offset once all are durable.

        Args:
            channel: Which kind of record.
            partition: Which partition.
            entries: The records.
            lazily: Return already when readers see the records. They may be lost in a crash of the machine, but only
                together with everything that was appended after them, by anyone, to any partition. For what can be
                appended again from other records: a log in one file spares its fsync; others pay no attention.
        """
        ...

    def read(
        self,
        channel: Channel,
        partition: int,
        start: int,
        stop: int | None = None,
        *,
        key: str | None = None,
    ) -> AsyncGenerator[Sequence[Record], None]:
        """Batches from offset `start` up to (without) `stop`; without it, up to the end as of the first batch.

        With `key`, only records of that key and records without any key (claims) are given.
        """
        ...

    def tail(
        self, channel: Channel, partition: int, start: int
    ) -> AsyncGenerator[Sequence[Record], None]:
        """Batches from `start` on, for ever: waits at the end for more. Close the iterator to stop."""
        ...

    async def bounds(self, channel: Channel, partition: int) -> Bounds:
        """First offset and end of a partition, now."""
        ...

    async def offset_at(self, channel: Channel, partition: int, time: int) -> int:
        """Offset of the first record that the log took in at a time or later; where there is none, the end as of now.

        The log's own times rise with the offsets. Where its clock was set back, the answer is one of several that are
        as right.

        Args:
            channel: Which kind of record.
            partition: Which partition.
            time: Microseconds since 1970-01-01 UTC, compared with `Record.timestamp`.
        """
        ...

    async def trim(self, channel: Channel, partition: int, before: int) -> None:
        """Delete a partition's records before an offset, for ever. Those from it on are not touched.

        When this returns, `bounds` begins at `before` or later. It asks nobody whether they are still needed: see
        `engine/trimming.py`.

        Args:
            channel: Which kind of record.
            partition: Which partition.
            before: Offset of the first record to keep. What was trimmed before is no error.

        Raises:
            UsageError: There is no record at `before` or after it: the last one always stays, for its offset says
                where the next one goes. Nothing was deleted.
            LogUnavailable: The log can't be reached, or this user may not delete. Some may have been deleted.
        """

    async def bookmark(self, partition: int) -> int | None:
        """Offset of the last checkpoint noted by `set_bookmark`: a hint, None where there is none."""
        ...

    async def set_bookmark(self, partition: int, offset: int) -> None:
        """Note where the last checkpoint of `partition` is."""

    async def join(self, worker: str, listener: Listener, pool: str | None = None) -> Membership:
        """Enter the group of workers that share the partitions of a pool, or the common ones."""
        ...

    async def share(self, group: str, reader: str, listener: ShareListener) -> Share:
        """Enter a group of readers that share the partitions' events; each group has all of them.

        Args:
            group: Its name: letters, digits, `.`, `_` and `-`, and not "workers".
            reader: This reader's name, for people.
            listener: Told of partitions.

        Raises:
            UsageError: The group can't have that name.
            LogError: As `join`.
        """
        ...

    async def listen(self, client_id: str, deliver: Callable[[Sequence[Record]], None]) -> None:
        """From when this returns until `close`, call `deliver` on this loop with replies whose key is `client_id`.

        Replies are appended to partition `partition_of(client_id, log.partitions)`, with the client's id as key.
        """

"""What every log promises of trimming (promise 8 of log/protocol.py), held on each backend by the same cases."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing

import pytest

from log_backend import PATIENCE_S, LogBackend, opened, records_of
from refold.log.errors import LogTrimmed, UsageError
from refold.log.protocol import Bounds, Channel, Entry, Log, Record

KEPT = [Channel.EVENTS, Channel.COMMANDS]
MANY = 10_000
"""More than two segments of a SQLite log's index of keys."""


def run(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(2 * PATIENCE_S):
            await scenario()

    asyncio.run(bounded())


async def filled(log: Log, channel: Channel, count: int, partition: int = 0) -> None:
    """Append records 0, 1, 2, ... under three keys in turn."""
    entries = [Entry(f"k{n % 3}", str(n).encode(), (("n", b"%d" % n),)) for n in range(count)]
    for first in range(0, count, 1_000):
        await log.append(channel, partition, entries[first : first + 1_000])


def numbers(records: Sequence[Record]) -> list[int]:
    return [int(record.value) for record in records]


@pytest.mark.parametrize("channel", KEPT)
def test_what_is_before_an_offset_goes_and_the_rest_stays(
    backend: LogBackend, channel: Channel
) -> None:
    """Given ten records, trimming before 4 leaves 4 to 9 as they were, and the next one gets offset 10."""

    async def scenario() -> None:
        async with opened(backend) as log:
            await filled(log, channel, 10)
            before = await records_of(log, channel)
            await log.trim(channel, 0, 4)
            assert await log.bounds(channel, 0) == Bounds(4, 10)
            assert await records_of(log, channel, start=4) == before[4:]
            assert await records_of(log, channel, start=4, key="k1") == before[4::3]
            assert list(await log.append(channel, 0, [Entry("k", b"10")])) == [10]
        async with opened(backend) as log:  # as another process would find it
            assert await log.bounds(channel, 0) == Bounds(4, 11)
            assert numbers(await records_of(log, channel, start=4)) == list(range(4, 11))

    run(scenario)


@pytest.mark.parametrize("channel", KEPT)
@pytest.mark.parametrize("key", [None, "k1"])
def test_a_read_from_before_the_beginning_is_refused(
    backend: LogBackend, channel: Channel, key: str | None
) -> None:
    """Given a trimmed partition, a read from what is gone raises and gives nothing, also of one key."""

    async def scenario() -> None:
        async with opened(backend) as log:
            await filled(log, channel, 10)
            await log.trim(channel, 0, 4)
            with pytest.raises(LogTrimmed, match=r"before offset 4 was trimmed.*--archive"):
                await records_of(log, channel, start=3, key=key)
            with pytest.raises(LogTrimmed):
                async with aclosing(log.tail(channel, 0, 3)) as tail:
                    await anext(tail)

    run(scenario)


def test_partitions_and_channels_are_trimmed_apart(backend: LogBackend) -> None:
    """Given records everywhere, trimming one partition of the events leaves all others whole."""

    async def scenario() -> None:
        async with opened(backend) as log:
            for channel in KEPT:
                for partition in (0, 1):
                    await filled(log, channel, 5, partition)
            await log.trim(Channel.EVENTS, 1, 3)
            assert await log.bounds(Channel.EVENTS, 1) == Bounds(3, 5)
            for channel, partition in [
                (Channel.EVENTS, 0),
                (Channel.COMMANDS, 0),
                (Channel.COMMANDS, 1),
            ]:
                assert numbers(await records_of(log, channel, partition)) == list(range(5))

    run(scenario)


def test_trimming_again_or_less_is_no_error(backend: LogBackend) -> None:
    """Given a partition that was trimmed before 6, trimming before 6, 2 and 0 changes nothing."""

    async def scenario() -> None:
        async with opened(backend) as log:
            await filled(log, Channel.EVENTS, 8)
            for before in (6, 6, 2, 0):
                await log.trim(Channel.EVENTS, 0, before)
                assert await log.bounds(Channel.EVENTS, 0) == Bounds(6, 8)

    run(scenario)


@pytest.mark.parametrize("before", [8, 9, 1_000])
def test_the_last_record_stays(backend: LogBackend, before: int) -> None:
    """Given eight records, trimming before offset 8 or any later one is refused, and all are still there."""

    async def scenario() -> None:
        async with opened(backend) as log:
            await filled(log, Channel.EVENTS, 8)
            with pytest.raises(UsageError, match="end before offset 8, and the last record stays"):
                await log.trim(Channel.EVENTS, 0, before)
            assert numbers(await records_of(log, Channel.EVENTS)) == list(range(8))
            await log.trim(Channel.EVENTS, 0, 7)
            assert await log.bounds(Channel.EVENTS, 0) == Bounds(7, 8)

    run(scenario)


def test_an_empty_partition_has_nothing_to_trim(backend: LogBackend) -> None:
    """Given no records, trimming before offset 0 does nothing, and before 1 is refused."""

    async def scenario() -> None:
        async with opened(backend) as log:
            await log.trim(Channel.EVENTS, 0, 0)
            with pytest.raises(UsageError):
                await log.trim(Channel.EVENTS, 0, 1)
            assert list(await log.append(Channel.EVENTS, 0, [Entry("k", b"0")])) == [0]

    run(scenario)


def test_a_long_partition_is_trimmed_while_others_append(backend: LogBackend) -> None:
    """Given many records, trimming most of them while more are appended loses none of those that stay."""

    async def scenario() -> None:
        async with opened(backend) as log:
            await filled(log, Channel.EVENTS, MANY)
            late = [
                log.append(Channel.EVENTS, 0, [Entry("k1", str(n).encode())])
                for n in range(MANY, MANY + 50)
            ]
            await asyncio.gather(log.trim(Channel.EVENTS, 0, MANY - 500), *late)
            assert await log.bounds(Channel.EVENTS, 0) == Bounds(MANY - 500, MANY + 50)
            rest = numbers(await records_of(log, Channel.EVENTS, start=MANY - 500))
            assert rest == list(range(MANY - 500, MANY + 50))
            of_key = numbers(await records_of(log, Channel.EVENTS, start=MANY - 500, key="k1"))
            assert of_key == [n for n in rest if n % 3 == 1 or n >= MANY]

    run(scenario)

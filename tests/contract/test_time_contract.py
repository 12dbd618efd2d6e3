"""What every log promises of times: `offset_at` finds where a time begins, held on each backend by the same cases."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

import pytest

from log_backend import PATIENCE_S, LogBackend, opened, records_of
from refold.log.archive_disk import Disk
from refold.log.archive_writer import ArchiveSettings, writing
from refold.log.archived import ArchivedLog
from refold.log.codec import GENESIS, encode_event
from refold.log.events import PartitionClaimed
from refold.log.protocol import Channel, Entry, Log, Record

KEPT = [Channel.EVENTS, Channel.COMMANDS]
FAR = 4_000_000_000_000_000
"""A time in the year 2096, in microseconds since 1970-01-01 UTC."""


def run(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(2 * PATIENCE_S):
            await scenario()

    asyncio.run(bounded())


async def filled(log: Log, channel: Channel) -> list[Record]:
    """Append to partition 0 until its records have four different times, some of them several records."""
    records: list[Record] = []
    while len({record.timestamp for record in records}) < 4:
        await log.append(channel, 0, [Entry("k", b"first"), Entry("k", b"second")])
        records = await records_of(log, channel)
    return records


def first_at(records: Sequence[Record], time: int) -> int:
    """What `offset_at` must answer."""
    after = records[-1].offset + 1
    return next((record.offset for record in records if record.timestamp >= time), after)


def times_of(records: Sequence[Record]) -> list[int]:
    """The records' own times, those just before and after them, and some far away."""
    times = {record.timestamp for record in records}
    return sorted({0, FAR, *times, *(t - 1 for t in times), *(t + 1 for t in times)})


@pytest.mark.parametrize("channel", KEPT)
def test_a_time_leads_to_the_first_record_that_is_not_earlier(
    backend: LogBackend, channel: Channel
) -> None:
    """Given records of several times, each time leads to the first record of it or later, and a late one to the end."""

    async def scenario() -> None:
        async with opened(backend) as log:
            records = await filled(log, channel)
            for time in times_of(records):
                assert await log.offset_at(channel, 0, time) == first_at(records, time)

    run(scenario)


def test_of_an_empty_partition_every_time_is_the_end(backend: LogBackend) -> None:
    """Given nothing, any time leads to offset 0."""

    async def scenario() -> None:
        async with opened(backend) as log:
            assert await log.offset_at(Channel.EVENTS, 1, 0) == 0
            assert await log.offset_at(Channel.EVENTS, 1, FAR) == 0

    run(scenario)


@pytest.mark.parametrize("channel", KEPT)
def test_of_a_trimmed_partition_early_times_are_its_beginning(
    backend: LogBackend, channel: Channel
) -> None:
    """Given records of which the first were trimmed, times before the cut lead to where it begins now."""

    async def scenario() -> None:
        async with opened(backend) as log:
            records = (await filled(log, channel))[3:]
            await log.trim(channel, 0, 3)
            for time in times_of(records):
                assert await log.offset_at(channel, 0, time) == first_at(records, time)

    run(scenario)


def test_what_was_trimmed_is_found_in_the_archive(backend: LogBackend, tmp_path: Path) -> None:
    """Given a log whose first records are in its archive, every time leads to where it led before the trim."""

    async def scenario() -> None:
        async with opened(backend) as log:
            records: list[Record] = []
            claim = -1
            while len({record.timestamp for record in records}) < 4:
                entry, _ = encode_event(_claim(claim), GENESIS)
                (claim,) = await log.append(Channel.EVENTS, 0, [entry])
                records = await records_of(log, Channel.EVENTS)
            cut = len(records) // 2
            place = str(tmp_path / "old")
            with writing(place, log, ArchiveSettings("avro", file_records=3), Disk()) as writer:
                await writer.add(log, 0, len(records), lambda _, __: None)
            await log.trim(Channel.EVENTS, 0, cut)
        async with opened(_Archived(backend, place)) as log:
            for time in times_of(records):
                assert await log.offset_at(Channel.EVENTS, 0, time) == first_at(records, time)

    run(scenario)


class _Archived:
    """The backend's logs, each with an archive."""

    def __init__(self, backend: LogBackend, place: str) -> None:
        self.name = backend.name
        self._backend = backend
        self._place = place

    def log(self, *, queue_entries: int | None = None) -> Log:
        return ArchivedLog(self._backend.log(queue_entries=queue_entries), self._place)


def _claim(before: int) -> PartitionClaimed:
    return PartitionClaimed(
        workflow_id=None,
        position=None,
        recorded_at=1,
        claim=before,
        command=-1,
        posted=0,
        worker="w",
        partition=0,
    )

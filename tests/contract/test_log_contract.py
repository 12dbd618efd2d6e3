"""What every log promises (the numbers are those of log/protocol.py), held on each backend by the same cases."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import cast

import pytest

from log_backend import PATIENCE_S, LogBackend, opened, records_of
from refold.log.errors import LogUnavailable, PayloadError, RecordTooLarge, UsageError
from refold.log.partitioner import partition_of
from refold.log.protocol import Bounds, Channel, Entry, Log, Record

CHANNELS = list(Channel)


def entries_of(*values: str, key: str | None = "k") -> list[Entry]:
    return [Entry(key, value.encode()) for value in values]


def values_of(records: Sequence[Record]) -> list[str]:
    return [record.value.decode() for record in records]


def run(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(2 * PATIENCE_S):
            await scenario()

    asyncio.run(bounded())


def tail_of(
    log: Log, channel: Channel, partition: int, start: int
) -> aclosing[AsyncGenerator[Sequence[Record], None]]:
    """A tail that is closed at the end of its block."""
    return aclosing(log.tail(channel, partition, start))


async def take(tail: AsyncIterator[Sequence[Record]], count: int) -> list[Record]:
    """The next `count` records of a tail."""
    taken: list[Record] = []
    while len(taken) < count:
        taken += await anext(tail)
    return taken


class TestAppend:
    @pytest.mark.parametrize("channel", CHANNELS)
    def test_offsets_are_in_the_order_given(self, backend: LogBackend, channel: Channel) -> None:
        """(1, 4) Given an empty channel, appends return 0, 1, 2, ... and reading gives them in that order."""

        async def scenario() -> None:
            async with opened(backend) as log:
                first = await log.append(channel, 0, entries_of("a", "b"))
                second = await log.append(channel, 0, entries_of("c"))
                assert [*first, *second] == [0, 1, 2]
                assert values_of(await records_of(log, channel)) == ["a", "b", "c"]

        run(scenario)

    def test_partitions_and_channels_count_apart(self, backend: LogBackend) -> None:
        """(4) Given records elsewhere, each partition of each channel begins at 0 and holds its own only."""

        async def scenario() -> None:
            async with opened(backend) as log:
                for channel in CHANNELS:
                    for partition in (0, 1):
                        offsets = await log.append(
                            channel, partition, entries_of(f"{channel}-{partition}")
                        )
                        assert list(offsets) == [0]
                for channel in CHANNELS:
                    for partition in (0, 1):
                        found = values_of(await records_of(log, channel, partition))
                        assert found == [f"{channel}-{partition}"]

        run(scenario)

    def test_nothing_appended_is_nothing_written(self, backend: LogBackend) -> None:
        """(1) An append of no entries returns no offsets and leaves the end where it was."""

        async def scenario() -> None:
            async with opened(backend) as log:
                assert list(await log.append(Channel.EVENTS, 0, [])) == []
                assert await log.bounds(Channel.EVENTS, 0) == Bounds(0, 0)

        run(scenario)

    def test_appended_records_survive_the_log_object(self, backend: LogBackend) -> None:
        """(1) Given a log that was closed, another one over the same namespace reads what it wrote."""

        async def scenario() -> None:
            async with opened(backend) as log:
                await log.append(Channel.EVENTS, 1, entries_of("a", "b"))
            async with opened(backend) as log:
                assert values_of(await records_of(log, Channel.EVENTS, 1)) == ["a", "b"]
                assert list(await log.append(Channel.EVENTS, 1, entries_of("c"))) == [2]

        run(scenario)

    def test_lazy_appends_are_read_in_order_with_the_others(self, backend: LogBackend) -> None:
        """(2, 5) Given lazy appends among others, readers see all at once, in order, and a later log object too."""

        async def scenario() -> None:
            async with opened(backend) as log:
                for number in range(6):
                    entries = entries_of(str(number))
                    await log.append(Channel.COMMANDS, 0, entries, lazily=number % 3 > 0)
                    records = await records_of(log, Channel.COMMANDS, 0)
                    assert values_of(records) == [str(n) for n in range(number + 1)]
            async with opened(backend) as log:
                records = await records_of(log, Channel.COMMANDS, 0)
                assert values_of(records) == [str(n) for n in range(6)]

        run(scenario)

    def test_appends_made_one_after_another_keep_their_order(self, backend: LogBackend) -> None:
        """(2, 6) Given many appends at once, their order in the log is that of the calls."""

        async def scenario() -> None:
            async with opened(backend) as log:
                calls = [
                    log.append(Channel.EVENTS, 0, entries_of(f"{n}a", f"{n}b")) for n in range(300)
                ]
                results = await asyncio.gather(*calls)
                found = values_of(await records_of(log, Channel.EVENTS))
                assert found == [f"{n}{half}" for n in range(300) for half in "ab"]
                assert [list(offsets) for offsets in results] == [
                    [2 * n, 2 * n + 1] for n in range(300)
                ]

        run(scenario)

    def test_a_full_queue_makes_appends_wait_and_drops_none(self, backend: LogBackend) -> None:
        """(6) Given a queue of 4 entries, 200 appends at once are all written, in order."""

        async def scenario() -> None:
            async with opened(backend, queue_entries=4) as log:
                calls = [
                    log.append(Channel.EVENTS, n % 2, entries_of(str(n), f"{n}+"))
                    for n in range(200)
                ]
                await asyncio.gather(*calls)
                for partition in (0, 1):
                    found = values_of(await records_of(log, Channel.EVENTS, partition))
                    assert found[::2] == [str(n) for n in range(partition, 200, 2)]
                    assert found[1::2] == [f"{n}+" for n in range(partition, 200, 2)]

        run(scenario)

    def test_an_append_larger_than_the_queue_goes_through(self, backend: LogBackend) -> None:
        """(6) Given a queue of 4 entries, one append of 50 is written whole."""

        async def scenario() -> None:
            async with opened(backend, queue_entries=4) as log:
                await log.append(Channel.EVENTS, 0, entries_of(*map(str, range(50))))
                assert values_of(await records_of(log, Channel.EVENTS)) == [
                    str(n) for n in range(50)
                ]

        run(scenario)

    def test_two_log_objects_interleave_without_loss(self, backend: LogBackend) -> None:
        """(1, 2, 4) Given two writers to one partition, each keeps its order, and offsets have no gap or repeat."""

        async def write(log: Log, name: str) -> list[int]:
            results: list[int] = []
            for n in range(60):
                results += await log.append(Channel.COMMANDS, 0, entries_of(f"{name}{n}"))
            return results

        async def scenario() -> None:
            async with opened(backend) as one, opened(backend) as two:
                ones, twos = await asyncio.gather(write(one, "x"), write(two, "y"))
                assert sorted(ones + twos) == list(range(120))
                found = await records_of(two, Channel.COMMANDS)
                assert [r.offset for r in found] == list(range(120))
                assert [v for v in values_of(found) if v[0] == "x"] == [f"x{n}" for n in range(60)]
                assert [v for v in values_of(found) if v[0] == "y"] == [f"y{n}" for n in range(60)]
                assert [found[offset].value for offset in ones] == [
                    f"x{n}".encode() for n in range(60)
                ]

        run(scenario)

    def test_a_cancelled_append_harms_no_other(self, backend: LogBackend) -> None:
        """Given appends of which every other is cancelled, the rest are written, in order, with their offsets."""

        async def scenario() -> None:
            async with opened(backend, queue_entries=4) as log:
                tasks = [
                    asyncio.create_task(log.append(Channel.EVENTS, 0, entries_of(str(n))))
                    for n in range(40)
                ]
                await asyncio.sleep(0)
                for task in tasks[::2]:
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                found = await records_of(log, Channel.EVENTS)
                kept = [int(value) for value in values_of(found)]
                assert kept == sorted(kept)
                for n in range(1, 40, 2):
                    offsets = cast("Sequence[int]", results[n])
                    assert found[offsets[0]].value == str(n).encode()
                (offset,) = await log.append(Channel.EVENTS, 0, entries_of("after"))
                assert offset == len(found)

        run(scenario)

    def test_a_record_over_the_limit_is_refused_whole(self, backend: LogBackend) -> None:
        """(3) Given a batch with one record over the limit, nothing of it is written, and the log goes on."""

        async def scenario() -> None:
            async with opened(backend) as log:
                large = Entry("k", b"x" * log.max_record_bytes)
                with pytest.raises(RecordTooLarge, match="limit"):
                    await log.append(Channel.EVENTS, 0, [*entries_of("a"), large])
                assert await log.bounds(Channel.EVENTS, 0) == Bounds(0, 0)
                assert list(await log.append(Channel.EVENTS, 0, entries_of("b"))) == [0]

        run(scenario)

    def test_a_record_of_just_the_limit_is_taken(self, backend: LogBackend) -> None:
        """(7) Given key, value and headers that add up to the limit, the record is written and read back whole."""

        async def scenario() -> None:
            async with opened(backend) as log:
                value = bytes(range(256)) * (log.max_record_bytes // 256 + 1)
                entry = Entry("k" * 10, value[: log.max_record_bytes - 16], (("name", b"12"),))
                await log.append(Channel.EVENTS, 0, [entry])
                (record,) = await records_of(log, Channel.EVENTS)
                assert (record.key, record.value, record.headers) == entry

        run(scenario)

    def test_a_key_without_utf8_form_is_refused(self, backend: LogBackend) -> None:
        """(3) Given a key with a lone surrogate, nothing is written, and the log goes on."""

        async def scenario() -> None:
            async with opened(backend) as log:
                with pytest.raises(PayloadError, match="UTF-8"):
                    await log.append(Channel.EVENTS, 0, entries_of("a", key="order-\ud800"))
                assert list(await log.append(Channel.EVENTS, 0, entries_of("b"))) == [0]

        run(scenario)

    def test_a_partition_that_does_not_exist_is_refused(self, backend: LogBackend) -> None:
        """Given two partitions, the third and the one before the first are an error that names the number."""

        async def scenario() -> None:
            async with opened(backend) as log:
                assert log.partitions == 2
                for partition in (2, -1):
                    with pytest.raises(UsageError, match=str(partition)):
                        await log.append(Channel.EVENTS, partition, entries_of("a"))

        run(scenario)

    def test_a_big_batch_keeps_its_order(self, backend: LogBackend) -> None:
        """(1, 7) Given 5,000 records in one append, all are there, in order, at the offsets returned."""

        async def scenario() -> None:
            async with opened(backend) as log:
                entries = [Entry(f"wf-{n % 7}", str(n).encode() * 20) for n in range(5_000)]
                offsets = await log.append(Channel.EVENTS, 1, entries)
                found = await records_of(log, Channel.EVENTS, 1)
                assert list(offsets) == [record.offset for record in found]
                assert [record.value for record in found] == [entry.value for entry in entries]

        run(scenario)


class TestRead:
    @pytest.mark.parametrize(
        "key",
        [None, "", "order-42", "заказ 注文 🧾", "a\x00b", "'; DROP TABLE events; --", "x" * 2_000],
    )
    def test_keys_come_back_as_they_were(self, backend: LogBackend, key: str | None) -> None:
        """(7) Given any text as key, or none, the record has the same one, and nothing is confused with none."""

        async def scenario() -> None:
            async with opened(backend) as log:
                await log.append(Channel.EVENTS, 0, [Entry(key, b"v"), Entry("other", b"w")])
                found = await records_of(log, Channel.EVENTS)
                assert [record.key for record in found] == [key, "other"]
                assert [
                    record.key for record in await records_of(log, Channel.EVENTS, key="other")
                ] == ([None, "other"] if key is None else ["other"])

        run(scenario)

    def test_headers_keep_order_and_bytes(self, backend: LogBackend) -> None:
        """(7) Given headers with a repeated name, empty and binary values, they come back in order."""
        headers = (("b", b"\x00\xff\n"), ("a", b""), ("b", b"2"), ("ключ", "знач".encode()))

        async def scenario() -> None:
            async with opened(backend) as log:
                await log.append(Channel.COMMANDS, 0, [Entry("k", b"", headers), Entry("k", b"v")])
                first, second = await records_of(log, Channel.COMMANDS)
                assert (first.value, first.headers) == (b"", headers)
                assert (second.value, second.headers) == (b"v", ())

        run(scenario)

    def test_timestamps_are_the_logs_own(self, backend: LogBackend) -> None:
        """Given two appends, their records carry microseconds that are of this century and don't go back."""

        async def scenario() -> None:
            async with opened(backend) as log:
                await log.append(Channel.EVENTS, 0, entries_of("a"))
                await log.append(Channel.EVENTS, 0, entries_of("b"))
                first, second = await records_of(log, Channel.EVENTS)
                assert 1_600_000_000_000_000 < first.timestamp <= second.timestamp
                assert second.timestamp < 4_000_000_000_000_000

        run(scenario)

    @pytest.mark.parametrize(
        ("start", "stop", "expected"),
        [
            (0, None, range(10)),
            (4, None, range(4, 10)),
            (4, 7, range(4, 7)),
            (0, 1, range(1)),
            (7, 1_000, range(7, 10)),
            (10, None, range(0)),
            (5, 5, range(0)),
            (6, 3, range(0)),
        ],
    )
    def test_ranges_include_start_and_exclude_stop(
        self, backend: LogBackend, start: int, stop: int | None, expected: range
    ) -> None:
        """(5) Given 10 records, a range gives those from start up to stop, and never waits for more."""

        async def scenario() -> None:
            async with opened(backend) as log:
                await log.append(Channel.EVENTS, 0, entries_of(*map(str, range(10))))
                found = await records_of(log, Channel.EVENTS, 0, start, stop)
                assert [record.offset for record in found] == list(expected)

        run(scenario)

    def test_an_empty_partition_reads_as_nothing(self, backend: LogBackend) -> None:
        """(5) Given no records, read ends at once, with a key as well."""

        async def scenario() -> None:
            async with opened(backend) as log:
                assert await records_of(log, Channel.EVENTS) == []
                assert await records_of(log, Channel.EVENTS, key="k") == []

        run(scenario)

    def test_reading_ends_at_the_end_as_of_its_first_batch(self, backend: LogBackend) -> None:
        """(5) Given records that are appended while one reads, read ends all the same, before them."""

        async def scenario() -> None:
            async with opened(backend) as log:
                await log.append(Channel.EVENTS, 0, entries_of(*map(str, range(3_000))))
                found: list[Record] = []
                async for batch in log.read(Channel.EVENTS, 0, 0):
                    found += batch
                    await log.append(Channel.EVENTS, 0, entries_of("later"))
                assert [record.offset for record in found] == list(range(3_000))

        run(scenario)

    @pytest.mark.parametrize("channel", [Channel.EVENTS, Channel.COMMANDS])
    def test_a_key_gives_its_stream_and_the_keyless(
        self, backend: LogBackend, channel: Channel
    ) -> None:
        """(5) Given 9,000 records, a key gives its own and those without a key, in order, from start to stop."""

        def key_of(n: int) -> str | None:
            if n % 1_500 == 7:
                return None
            return "rare" if n in {3, 4_095, 4_096, 8_999} else f"wf-{n % 5}"

        def wanted(key: str, start: int, stop: int) -> list[int]:
            return [n for n in range(start, stop) if key_of(n) in {key, None}]

        async def scenario() -> None:
            async with opened(backend) as log:
                entries = [Entry(key_of(n), str(n).encode()) for n in range(9_000)]
                for part in range(0, 9_000, 1_800):
                    await log.append(channel, 1, entries[part : part + 1_800])
                for key, start, stop in (
                    ("rare", 0, 9_000),
                    ("rare", 4, 4_096),
                    ("rare", 4_096, 8_999),
                    ("wf-2", 100, 6_000),
                    ("nobody", 0, 9_000),
                ):
                    found = await records_of(log, channel, 1, start, stop, key=key)
                    assert [record.offset for record in found] == wanted(key, start, stop)
                    assert all(record.value == str(record.offset).encode() for record in found)

        run(scenario)

    def test_a_key_is_found_from_another_log_object(self, backend: LogBackend) -> None:
        """(5) Given two writers of one stream, either reads all of it by its key."""

        async def scenario() -> None:
            async with opened(backend) as one, opened(backend) as two:
                for n in range(6):
                    log = one if n % 2 else two
                    await log.append(
                        Channel.EVENTS, 0, [Entry("mine", str(n).encode()), Entry(f"x{n}", b"")]
                    )
                for log in (one, two):
                    found = await records_of(log, Channel.EVENTS, key="mine")
                    assert values_of(found) == [str(n) for n in range(6)]

        run(scenario)

    def test_bounds_tell_start_and_end(self, backend: LogBackend) -> None:
        """Given three records, start is the first one's offset and end is the next one's."""

        async def scenario() -> None:
            async with opened(backend) as log:
                await log.append(Channel.EVENTS, 1, entries_of("a", "b", "c"))
                assert await log.bounds(Channel.EVENTS, 1) == Bounds(0, 3)
                assert await log.bounds(Channel.EVENTS, 0) == Bounds(0, 0)

        run(scenario)


class TestTail:
    def test_a_tail_gives_what_is_there_and_what_comes(self, backend: LogBackend) -> None:
        """Given records before and after it begins, a tail gives all from its start on, once and in order."""

        async def scenario() -> None:
            async with opened(backend) as log:
                await log.append(Channel.EVENTS, 0, entries_of("a", "b", "c"))
                async with tail_of(log, Channel.EVENTS, 0, 1) as tail:
                    assert values_of(await take(tail, 2)) == ["b", "c"]
                    waiting = asyncio.create_task(take(tail, 2))
                    await asyncio.sleep(0)
                    await log.append(Channel.EVENTS, 0, entries_of("d"))
                    await log.append(Channel.EVENTS, 0, entries_of("e"))
                    assert values_of(await waiting) == ["d", "e"]

        run(scenario)

    def test_a_tail_sees_another_log_objects_records(self, backend: LogBackend) -> None:
        """Given a tail that waits at the end, what another log object appends arrives."""

        async def scenario() -> None:
            async with (
                opened(backend) as one,
                opened(backend) as two,
                tail_of(one, Channel.EVENTS, 0, 0) as tail,
            ):
                waiting = asyncio.create_task(take(tail, 3))
                await asyncio.sleep(0)
                for value in ("a", "b", "c"):
                    await two.append(Channel.EVENTS, 0, entries_of(value))
                assert values_of(await waiting) == ["a", "b", "c"]

        run(scenario)

    def test_a_tail_waits_for_its_own_partition_only(self, backend: LogBackend) -> None:
        """Given records of other partitions and channels, a tail gives none of them."""

        async def scenario() -> None:
            async with opened(backend) as log, tail_of(log, Channel.EVENTS, 0, 0) as tail:
                waiting = asyncio.create_task(take(tail, 1))
                await log.append(Channel.EVENTS, 1, entries_of("other partition"))
                await log.append(Channel.COMMANDS, 0, entries_of("other channel"))
                await log.append(Channel.EVENTS, 0, entries_of("mine"))
                assert values_of(await waiting) == ["mine"]

        run(scenario)

    def test_a_tail_from_beyond_the_end_waits_for_its_offset(self, backend: LogBackend) -> None:
        """Given a tail that begins at the end, it gives nothing older."""

        async def scenario() -> None:
            async with opened(backend) as log:
                await log.append(Channel.EVENTS, 0, entries_of("a", "b"))
                async with tail_of(log, Channel.EVENTS, 0, 2) as tail:
                    waiting = asyncio.create_task(take(tail, 1))
                    await asyncio.sleep(0)
                    await log.append(Channel.EVENTS, 0, entries_of("c"))
                    (record,) = await waiting
                    assert (record.offset, record.value) == (2, b"c")

        run(scenario)

    def test_a_tail_ends_with_an_error_when_its_log_is_closed(self, backend: LogBackend) -> None:
        """Given a tail that waits, closing the log ends it, so that nobody waits for ever."""

        async def scenario() -> None:
            async with opened(backend) as log, tail_of(log, Channel.EVENTS, 0, 0) as tail:
                waiting = asyncio.create_task(take(tail, 1))
                await asyncio.sleep(0)
                await log.close()
                with pytest.raises(LogUnavailable, match="closed"):
                    await waiting

        run(scenario)


class TestBookmark:
    def test_a_bookmark_is_none_until_it_is_set(self, backend: LogBackend) -> None:
        """Given a fresh namespace there is none; the last one set is what anybody gets, partition by partition."""

        async def scenario() -> None:
            async with opened(backend) as log:
                assert await log.bookmark(0) is None
                await log.set_bookmark(0, 17)
                await log.set_bookmark(0, 42)
                await log.set_bookmark(1, 3)
                assert await log.bookmark(0) == 42
            async with opened(backend) as log:
                assert await log.bookmark(0) == 42
                assert await log.bookmark(1) == 3

        run(scenario)


class TestListen:
    def test_a_listener_hears_its_own_replies_from_now_on(self, backend: LogBackend) -> None:
        """Given replies before, after and to others, a client hears exactly those after and to itself, in order."""

        async def scenario() -> None:
            async with opened(backend) as log, opened(backend) as worker:
                partition = partition_of("client-1", log.partitions)
                await worker.append(Channel.REPLIES, partition, entries_of("old", key="client-1"))
                heard: list[Record] = []
                complete = asyncio.Event()

                def deliver(records: Sequence[Record]) -> None:
                    heard.extend(records)
                    if len(heard) >= 50:
                        complete.set()

                await log.listen("client-1", deliver)
                for n in range(50):
                    await worker.append(
                        Channel.REPLIES,
                        partition,
                        [Entry("client-2", b"not mine"), Entry("client-1", str(n).encode())],
                    )
                await complete.wait()
                assert values_of(heard) == [str(n) for n in range(50)]

        run(scenario)

    def test_replies_from_the_same_log_object_are_heard(self, backend: LogBackend) -> None:
        """Given a client and a worker over one log object, the reply arrives."""

        async def scenario() -> None:
            async with opened(backend) as log:
                heard: asyncio.Queue[Sequence[Record]] = asyncio.Queue()
                await log.listen("me", heard.put_nowait)
                partition = partition_of("me", log.partitions)
                await log.append(Channel.REPLIES, partition, entries_of("hello", key="me"))
                assert values_of(await heard.get()) == ["hello"]

        run(scenario)


class TestLifecycle:
    def test_close_waits_for_appends_in_flight(self, backend: LogBackend) -> None:
        """Given appends in flight, close lets them finish: each one that returned offsets is in the log."""

        async def scenario() -> None:
            log = backend.log(queue_entries=4)
            await log.open()
            tasks = [
                asyncio.create_task(log.append(Channel.EVENTS, 0, entries_of(str(n))))
                for n in range(30)
            ]
            await asyncio.sleep(0)
            await log.close()
            results = await asyncio.gather(*tasks)
            assert [offset for offsets in results for offset in offsets] == list(range(30))
            async with opened(backend) as again:
                found = values_of(await records_of(again, Channel.EVENTS))
                assert found == [str(n) for n in range(30)]

        run(scenario)

    def test_a_closed_log_refuses_clearly(self, backend: LogBackend) -> None:
        """Given a closed log, appending, reading and asking are refused with LogUnavailable that says why."""

        async def scenario() -> None:
            async with opened(backend) as log:
                await log.append(Channel.EVENTS, 0, entries_of("a"))
            with pytest.raises(LogUnavailable, match="closed"):
                await log.append(Channel.EVENTS, 0, entries_of("b"))
            with pytest.raises(LogUnavailable, match="closed"):
                await records_of(log, Channel.EVENTS)
            with pytest.raises(LogUnavailable, match="closed"):
                await log.bounds(Channel.EVENTS, 0)
            with pytest.raises(LogUnavailable, match="closed"):
                await log.bookmark(0)
            async with opened(backend) as again:
                assert values_of(await records_of(again, Channel.EVENTS)) == ["a"]

        run(scenario)

    def test_closing_twice_is_no_error(self, backend: LogBackend) -> None:
        """Given a closed log, or one that was never opened, close does nothing."""

        async def scenario() -> None:
            never_opened = backend.log()
            await never_opened.close()
            async with opened(backend) as log:
                await log.close()
                await log.close()

        run(scenario)

    def test_a_log_that_is_not_open_says_so(self, backend: LogBackend) -> None:
        """Given a log before open, an append is refused and says what to do."""

        async def scenario() -> None:
            with pytest.raises(LogUnavailable, match="open"):
                await backend.log().append(Channel.EVENTS, 0, entries_of("a"))

        run(scenario)

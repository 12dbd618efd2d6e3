"""MemoryStore and MemoryLog, where they have more to say than the contract of all logs."""

import asyncio
import gc
import threading
from pathlib import Path

import pytest

from log_backend import Worker, records_of
from refold.log.errors import LogMismatch, LogUnavailable
from refold.log.memory import MemoryLog, MemoryStore, named_store
from refold.log.protocol import Channel, Entry, Log
from refold.log.sqlite import SqliteLog


def entries_of(*values: str) -> list[Entry]:
    return [Entry("k", value.encode()) for value in values]


class TestMemoryStore:
    def test_it_needs_no_event_loop(self) -> None:
        """Given a store, records are appended and read by plain calls, with the injected clock's times."""
        times = iter([100, 200])
        store = MemoryStore(partitions=2, now_us=lambda: next(times))
        assert store.append(Channel.EVENTS, 1, entries_of("a", "b")) == range(2)
        assert store.append(Channel.EVENTS, 1, entries_of("c")) == range(2, 3)
        found = store.read(Channel.EVENTS, 1, 1)
        assert [(r.offset, r.timestamp, r.value) for r in found] == [(1, 100, b"b"), (2, 200, b"c")]
        assert store.end(Channel.EVENTS, 1) == 3
        assert store.end(Channel.EVENTS, 0) == 0

    @pytest.mark.parametrize(
        ("start", "stop", "limit", "expected"),
        [
            (0, None, None, "abcd"),
            (1, 3, None, "bc"),
            (1, None, 2, "bc"),
            (0, 1, 5, "a"),
            (4, None, 1, ""),
        ],
    )
    def test_reading_is_bounded_by_stop_and_limit(
        self, start: int, stop: int | None, limit: int | None, expected: str
    ) -> None:
        """Given four records, stop and limit each end the reading, whichever comes first."""
        store = MemoryStore()
        store.append(Channel.COMMANDS, 0, entries_of(*"abcd"))
        found = store.read(Channel.COMMANDS, 0, start, stop, limit)
        assert "".join(record.value.decode() for record in found) == expected

    def test_a_partition_has_one_holder(self) -> None:
        """Given a partition that one member holds, another gets it only after the first has let go or departed."""
        store, one, two = MemoryStore(), object(), object()
        assert store.acquire("workers", 0, one)
        assert not store.acquire("workers", 0, two)
        store.release("workers", 0, two)
        assert not store.acquire("workers", 0, two)
        store.release("workers", 0, one)
        assert store.acquire("workers", 0, two)
        store.depart(two)
        assert store.acquire("workers", 0, one)

    def test_no_partitions_is_refused(self) -> None:
        """Given a number of partitions below one, no store is made."""
        with pytest.raises(LogMismatch, match="at least one"):
            MemoryStore(partitions=0)


class TestNamedStore:
    def test_one_name_is_one_store(self) -> None:
        """Given two logs of one name, they share records; another name does not."""
        store = named_store("shared", 3)
        assert named_store("shared") is store
        assert named_store("shared", 3) is store
        assert named_store("other") is not store

    def test_another_number_of_partitions_is_refused(self) -> None:
        """Given a store with 3 partitions in use, asking for 4 under its name says what it has."""
        store = named_store("three", 3)
        with pytest.raises(LogMismatch, match=f"{store.partitions} partition"):
            named_store("three", 4)

    def test_a_store_goes_with_its_last_log(self) -> None:
        """Given a name that no log uses any more, the next one begins empty."""
        named_store("gone").append(Channel.EVENTS, 0, entries_of("a"))
        gc.collect()
        assert named_store("gone").end(Channel.EVENTS, 0) == 0


class TestMemoryLog:
    def test_appends_of_another_threads_loop_wake_a_tail(self) -> None:
        """Given two logs on two event loops over one store, what one appends reaches the other's tail."""
        store = MemoryStore()

        def write() -> None:
            async def append() -> None:
                log = MemoryLog(store=store)
                await log.open()
                await log.append(Channel.EVENTS, 0, entries_of("from afar"))
                await log.close()

            asyncio.run(append())

        async def scenario() -> bytes:
            log = MemoryLog(store=store)
            await log.open()
            first = asyncio.ensure_future(anext(log.tail(Channel.EVENTS, 0, 0)))
            await asyncio.sleep(0)
            thread = threading.Thread(target=write)
            thread.start()
            async with asyncio.timeout(60):
                (record,) = await first
            thread.join()
            await log.close()
            return record.value

        assert asyncio.run(scenario()) == b"from afar"

    def test_direct_appends_to_the_store_are_seen(self) -> None:
        """Given a store that a simulator writes to, a log over it reads the same records."""

        async def scenario() -> list[bytes]:
            log = MemoryLog()
            await log.open()
            log.store.append(Channel.COMMANDS, 0, entries_of("a", "b"))
            found = await records_of(log, Channel.COMMANDS)
            await log.close()
            return [record.value for record in found]

        assert asyncio.run(scenario()) == [b"a", b"b"]

    def test_a_released_partition_goes_to_the_one_who_waits(self) -> None:
        """Given one partition and two workers, the second gets it when the first releases it."""

        async def scenario() -> None:
            log = MemoryLog(rebalance_s=0.005)
            await log.open()
            one, two = Worker("one"), Worker("two")
            first = await one.join(log)
            await two.join(log)
            assert (one.owned, two.owned) == ({0}, set())
            first.release(0)
            async with asyncio.timeout(60):
                await two.until(lambda: two.owned == {0})
            await log.close()

        asyncio.run(scenario())

    @pytest.mark.parametrize("kind", ["memory", "sqlite"])
    def test_a_log_is_opened_once(self, tmp_path: Path, kind: str) -> None:
        """Given an open or closed log, opening it again is refused: it would have two writers."""
        log: Log = MemoryLog() if kind == "memory" else SqliteLog(tmp_path / "log.db")

        async def scenario() -> None:
            await log.open()
            with pytest.raises(LogUnavailable, match="opened before"):
                await log.open()
            await log.close()
            with pytest.raises(LogUnavailable, match="opened before"):
                await log.open()

        asyncio.run(scenario())

    def test_a_listener_that_fails_does_not_end_the_looking(self) -> None:
        """Given a listener that raises when it is told, the member still takes what becomes free later."""

        class Clumsy(Worker):
            failures = 1

            def assigned(self, partition: int) -> None:
                if self.failures:
                    self.failures -= 1
                    raise RuntimeError("clumsy")
                super().assigned(partition)

        async def scenario() -> None:
            log = MemoryLog(partitions=2, rebalance_s=0.005)
            await log.open()
            worker = Clumsy("clumsy")
            with pytest.raises(RuntimeError, match="clumsy"):
                await worker.join(log)
            async with asyncio.timeout(60):
                await worker.until(lambda: worker.owned == {1})
            await log.close()

        asyncio.run(scenario())

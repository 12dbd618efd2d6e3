"""SqliteLog where it has more to say than the contract of all logs: group commit, failures, and what they leave."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest

from log_backend import PATIENCE_S, Worker, records_of
from refold.log import sqlite_writer
from refold.log.errors import LogUnavailable
from refold.log.file_lock import FileLock, PartitionFiles
from refold.log.protocol import Bounds, Channel, Entry
from refold.log.sqlite import SqliteLog, SqliteSettings
from refold.log.sqlite_file import open_file
from refold.log.sqlite_writer import Append, Cell, Outcome, SqliteWriter


def entries_of(*values: str, key: str = "k") -> list[Entry]:
    return [Entry(key, value.encode()) for value in values]


@asynccontextmanager
async def opened(log: SqliteLog) -> AsyncGenerator[SqliteLog]:
    async with asyncio.timeout(PATIENCE_S):
        await log.open()
        try:
            yield log
        finally:
            await log.close()


def writer_of(log: SqliteLog) -> sqlite3.Connection:
    """The connection that writes, to look at it or to make trouble."""
    file = log._file  # pyright: ignore[reportPrivateUsage]
    assert file is not None
    return file.writer


@contextmanager
def lock_held(path: Path) -> Generator[None]:
    """Somebody else holds the log's write lock."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


class Warned(logging.Handler):
    """Lets an event loop wait for a warning of another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(logging.WARNING)
        self.loop = loop
        self.seen = asyncio.Event()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()
        self.loop.call_soon_threadsafe(self.seen.set)


class TestGroupCommit:
    def test_appends_in_flight_share_a_transaction(self, tmp_path: Path) -> None:
        """Given 500 appends at once, they cost a few transactions and not 500."""

        async def scenario() -> int:
            async with opened(SqliteLog(tmp_path / "log.db")) as log:
                statements: list[str] = []
                writer_of(log).set_trace_callback(statements.append)
                await asyncio.gather(
                    *(log.append(Channel.EVENTS, 0, entries_of(str(n))) for n in range(500))
                )
                writer_of(log).set_trace_callback(None)
                return statements.count("COMMIT")

        assert 1 <= asyncio.run(scenario()) <= 50

    def test_partitions_and_channels_share_a_transaction(self, tmp_path: Path) -> None:
        """Given appends to all channels and partitions and a bookmark at once, all are there after."""

        async def scenario() -> None:
            async with opened(SqliteLog(tmp_path / "log.db", 3)) as log:
                await asyncio.gather(
                    log.set_bookmark(2, 99),
                    *(
                        log.append(channel, partition, entries_of(f"{n}"))
                        for n in range(20)
                        for channel in Channel
                        for partition in range(3)
                    ),
                )
                assert await log.bookmark(2) == 99
                for channel in Channel:
                    for partition in range(3):
                        found = await records_of(log, channel, partition)
                        assert [r.value for r in found] == [str(n).encode() for n in range(20)]

        asyncio.run(scenario())

    def test_timestamps_come_from_the_clock(self, tmp_path: Path) -> None:
        """Given an injected clock, records carry its time."""

        async def scenario() -> list[int]:
            log = SqliteLog(tmp_path / "log.db", now_us=lambda: 1_234_567)
            async with opened(log):
                await log.append(Channel.EVENTS, 0, entries_of("a"))
                return [r.timestamp for r in await records_of(log, Channel.EVENTS)]

        assert asyncio.run(scenario()) == [1_234_567]

    def test_streams_are_noted_by_segment(self, tmp_path: Path) -> None:
        """Given 10,000 events of 10 workflows, the key index has an entry for each workflow and segment only."""
        path = tmp_path / "log.db"

        async def scenario() -> None:
            async with opened(SqliteLog(path)) as log:
                for part in range(0, 10_000, 1_000):
                    batch = [Entry(f"wf-{n % 10}", b"v") for n in range(part, part + 1_000)]
                    await log.append(Channel.EVENTS, 0, batch)

        asyncio.run(scenario())
        with closing(sqlite3.connect(path)) as connection:
            count = connection.execute("SELECT count(*) FROM event_keys").fetchone()
        assert count == (10 * 3,)  # 10,000 offsets begin three segments of 4,096


class TestOtherWriters:
    def test_an_own_transaction_notices_them_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Given a log that never looks by itself, its next append finds what others wrote and wakes its tails."""
        monkeypatch.setattr(sqlite_writer, "MIN_POLL_S", 3_600.0)
        path = tmp_path / "log.db"

        async def scenario() -> None:
            async with opened(SqliteLog(path)) as log, opened(SqliteLog(path)) as other:
                tail = log.tail(Channel.EVENTS, 0, 0)
                waiting = asyncio.ensure_future(anext(tail))
                await asyncio.sleep(0)
                await log.append(Channel.COMMANDS, 0, entries_of("the look when it began is over"))
                await other.append(Channel.EVENTS, 0, entries_of("theirs"))
                await log.append(Channel.COMMANDS, 0, entries_of("mine"))
                assert [record.value for record in await waiting] == [b"theirs"]
                await tail.aclose()

        asyncio.run(scenario())


class TestFailure:
    def test_a_full_disk_refuses_and_writes_nothing(self, tmp_path: Path) -> None:
        """Given no room, an append and those behind it fail with the reason; with room again, the log goes on."""

        async def scenario() -> None:
            settings = SqliteSettings(queue_entries=2)
            async with opened(SqliteLog(tmp_path / "log.db", settings=settings)) as log:
                await log.append(Channel.EVENTS, 0, entries_of("before"))
                pages = writer_of(log).execute("PRAGMA page_count").fetchone()[0]
                writer_of(log).execute(f"PRAGMA max_page_count = {pages}")
                results = await asyncio.gather(
                    log.append(Channel.EVENTS, 0, [Entry("k", b"x" * 500_000)]),
                    *(log.append(Channel.EVENTS, 0, entries_of(str(n))) for n in range(10)),
                    return_exceptions=True,
                )
                assert [type(result) for result in results] == [LogUnavailable] * 11
                assert "disk is full" in str(results[0])
                assert await log.bounds(Channel.EVENTS, 0) == Bounds(0, 1)
                assert await records_of(log, Channel.EVENTS, key="k") == await records_of(
                    log, Channel.EVENTS
                )
                writer_of(log).execute("PRAGMA max_page_count = 1000000")
                assert list(await log.append(Channel.EVENTS, 0, entries_of("after"))) == [1]

        asyncio.run(scenario())

    def test_streams_are_whole_after_a_failure(self, tmp_path: Path) -> None:
        """Given a batch that was rolled back, the same key appended again is found by its key."""

        async def scenario() -> None:
            async with opened(SqliteLog(tmp_path / "log.db")) as log:
                await log.append(Channel.EVENTS, 0, entries_of("a", key="other"))
                pages = writer_of(log).execute("PRAGMA page_count").fetchone()[0]
                writer_of(log).execute(f"PRAGMA max_page_count = {pages}")
                with pytest.raises(LogUnavailable):
                    await log.append(Channel.EVENTS, 0, [Entry("mine", b"x" * 500_000)])
                writer_of(log).execute("PRAGMA max_page_count = 1000000")
                await log.append(Channel.EVENTS, 0, entries_of("b", key="mine"))
                found = await records_of(log, Channel.EVENTS, key="mine")
                assert [(r.offset, r.value) for r in found] == [(1, b"b")]

        asyncio.run(scenario())

    def test_what_a_failed_transaction_knew_is_forgotten(self, tmp_path: Path) -> None:
        """Given a transaction whose later part fails, its earlier part leaves no offset and no key behind."""
        path = tmp_path / "log.db"

        async def scenario() -> None:
            async with opened(SqliteLog(path)) as log:
                await log.append(Channel.EVENTS, 0, entries_of("a", key="other"))
                pages = writer_of(log).execute("PRAGMA page_count").fetchone()[0]
                with lock_held(path):  # what is appended meanwhile is one transaction
                    writer_of(log).execute(f"PRAGMA max_page_count = {pages}")
                    tasks = [
                        asyncio.create_task(append)
                        for append in (
                            log.append(Channel.REPLIES, 0, entries_of("first in the queue")),
                            log.append(Channel.EVENTS, 0, entries_of("small", key="mine")),
                            log.append(Channel.COMMANDS, 0, [Entry("k", b"x" * 500_000)]),
                        )
                    ]
                    await asyncio.sleep(0)
                results = await asyncio.gather(*tasks, return_exceptions=True)
                assert [type(result) for result in results[1:]] == [LogUnavailable] * 2
                writer_of(log).execute("PRAGMA max_page_count = 1000000")
                assert list(await log.append(Channel.EVENTS, 0, entries_of("b", key="mine"))) == [1]
                found = await records_of(log, Channel.EVENTS, key="mine")
                assert [(r.offset, r.value) for r in found] == [(1, b"b")]

        asyncio.run(scenario())

    def test_what_was_sent_before_the_failure_was_heard_fails_too(self, tmp_path: Path) -> None:
        """Given a failure that the sender has not heard of yet, what it sends fails; what it sends after does not."""
        loop = asyncio.new_event_loop()
        reports: asyncio.Queue[Outcome] = asyncio.Queue()
        file = open_file(tmp_path / "log.db", 1)
        writer = SqliteWriter(
            file.writer,
            tmp_path / "log.db",
            reports.put_nowait,
            loop,
            now_us=int,
            reply_retention_us=0,
        )

        def send(generation: int, value: bytes) -> Outcome:
            cells: list[Cell] = ["k", value, b""]
            writer.submit(Append(loop.create_future(), generation, Channel.EVENTS, 0, cells, 1))
            return loop.run_until_complete(asyncio.wait_for(reports.get(), PATIENCE_S))

        file.writer.execute("PRAGMA max_page_count = 1")
        writer.start()
        with closing(loop), closing(file.reader), closing(file.writer):
            assert "disk is full" in str(send(0, b"x" * 500_000).error)
            file.writer.execute("PRAGMA max_page_count = 1000000")
            assert "waited behind it" in str(send(0, b"late").error)
            assert send(1, b"after").offsets == [range(1)]
            writer.stop()

    def test_a_cancelled_append_that_waits_for_room_is_not_written(self, tmp_path: Path) -> None:
        """Given a full queue, an append that is cancelled while it waits for room leaves nothing behind."""
        path = tmp_path / "log.db"

        async def scenario() -> None:
            async with opened(SqliteLog(path, settings=SqliteSettings(queue_entries=1))) as log:
                with lock_held(path):
                    first, second, third = (
                        asyncio.create_task(log.append(Channel.EVENTS, 0, entries_of(value)))
                        for value in ("first", "second", "third")
                    )
                    await asyncio.sleep(0)
                    second.cancel()
                    await asyncio.sleep(0)
                assert [list(await first), list(await third)] == [[0], [1]]
                found = await records_of(log, Channel.EVENTS)
                assert [record.value for record in found] == [b"first", b"third"]

        asyncio.run(scenario())

    def test_a_lock_held_by_others_makes_appends_wait(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Given another process that holds the write lock, an append waits, says so, and is written after."""
        monkeypatch.setattr(sqlite_writer, "BUSY_WARNING_S", 0.0)
        path = tmp_path / "log.db"

        async def scenario() -> None:
            async with opened(SqliteLog(path)) as log:
                warning = Warned(asyncio.get_running_loop())
                monkeypatch.setattr(sqlite_writer.logger, "handlers", [warning])
                with lock_held(path):
                    appending = asyncio.create_task(
                        log.append(Channel.EVENTS, 0, entries_of("patient"))
                    )
                    await warning.seen.wait()
                    assert "appends wait" in warning.text
                    assert not appending.done()
                assert list(await appending) == [0]

        asyncio.run(scenario())

    @pytest.mark.parametrize("replaced", [False, True])
    def test_a_file_that_is_gone_takes_no_more_appends(
        self, tmp_path: Path, replaced: bool
    ) -> None:
        """Given a log deleted or replaced while open, appends are refused: they would be lost with the old file."""
        path = tmp_path / "log.db"

        async def scenario() -> None:
            async with opened(SqliteLog(path)) as log:
                await log.append(Channel.EVENTS, 0, entries_of("a"))
                path.rename(tmp_path / "moved.db")
                if replaced:
                    async with opened(SqliteLog(path)):
                        pass
                with pytest.raises(LogUnavailable, match="deleted or replaced"):
                    await log.append(Channel.EVENTS, 0, entries_of("b"))

        asyncio.run(scenario())


class TestReplies:
    def test_old_replies_go_and_offsets_go_on(self, tmp_path: Path) -> None:
        """Given replies past their time, they are deleted as new ones come, but never their count."""
        clock = [0]

        async def scenario() -> None:
            log = SqliteLog(tmp_path / "log.db", 2, now_us=lambda: clock[0])
            async with opened(log):
                await log.append(Channel.REPLIES, 0, entries_of(*["old"] * 1_500))
                await log.append(Channel.REPLIES, 1, entries_of("of another partition"))
                clock[0] = 601_000_000
                offsets = await log.append(Channel.REPLIES, 0, entries_of(*["new"] * 1_000))
                assert list(offsets) == list(range(1_500, 2_500))
                assert await log.bounds(Channel.REPLIES, 0) == Bounds(1_500, 2_500)
                assert await log.bounds(Channel.REPLIES, 1) == Bounds(0, 1)
                found = await records_of(log, Channel.REPLIES)
                assert {record.value for record in found} == {b"new"}

        asyncio.run(scenario())

    def test_the_last_reply_stays(self, tmp_path: Path) -> None:
        """Given only replies past their time, the last one is kept: it says what the next one's offset is."""
        clock = [0]

        async def scenario() -> None:
            path = tmp_path / "log.db"
            async with opened(SqliteLog(path, 2, now_us=lambda: clock[0])) as log:
                await log.append(Channel.REPLIES, 0, entries_of("a", "b"))
                clock[0] = 601_000_000
                await log.append(Channel.REPLIES, 1, entries_of(*["new"] * 1_000))
                await log.append(Channel.REPLIES, 1, entries_of("newer"))
                assert (await log.bounds(Channel.REPLIES, 0)).end == 2
            async with opened(SqliteLog(path)) as log:
                assert list(await log.append(Channel.REPLIES, 0, entries_of("c"))) == [2]

        asyncio.run(scenario())


class TestReading:
    def test_large_records_come_in_small_batches(self, tmp_path: Path) -> None:
        """Given 300 records of 100 kB, no batch holds all of them, and all come."""

        async def scenario() -> list[int]:
            async with opened(SqliteLog(tmp_path / "log.db")) as log:
                for _ in range(30):
                    await log.append(Channel.EVENTS, 0, [Entry("k", b"x" * 100_000)] * 10)
                plain = [len(batch) async for batch in log.read(Channel.EVENTS, 0, 0)]
                keyed = [len(batch) async for batch in log.read(Channel.EVENTS, 0, 0, key="k")]
                assert sum(keyed) == 300
                return plain

        batches = asyncio.run(scenario())
        assert sum(batches) == 300
        assert max(batches) <= 50

    def test_an_open_read_does_not_pin_the_journal(self, tmp_path: Path) -> None:
        """Given a reader that stopped half-way, what others write can still be folded into the file."""
        path = tmp_path / "log.db"

        async def scenario() -> tuple[int, int, int]:
            async with opened(SqliteLog(path)) as log:
                for _ in range(10):
                    await log.append(Channel.EVENTS, 0, [Entry("k", b"x" * 100_000)] * 10)
                reading = log.read(Channel.EVENTS, 0, 0)
                await anext(reading)
                await log.append(Channel.EVENTS, 0, entries_of("more"))
                with closing(sqlite3.connect(path)) as other:
                    row: tuple[int, int, int] = other.execute(
                        "PRAGMA wal_checkpoint(FULL)"
                    ).fetchone()
                    return row

        busy, in_journal, folded = asyncio.run(scenario())
        assert busy == 0
        assert in_journal == folded


class TestLocks:
    def test_a_lock_excludes_its_own_process(self, tmp_path: Path) -> None:
        """Given a lock that one object holds, another object in the same process does not get it until it is freed."""
        one, two = FileLock(tmp_path / "a.lock"), FileLock(tmp_path / "a.lock")
        with closing(one), closing(two):
            assert one.acquire()
            assert one.acquire()
            assert not two.acquire()
            one.close()
            assert two.acquire()

    def test_the_dead_are_not_counted(self, tmp_path: Path) -> None:
        """Given a member's file that nobody locks, it is not counted, and removed."""
        (tmp_path / "member-dead.lock").touch()
        with closing(PartitionFiles(tmp_path)) as one, closing(PartitionFiles(tmp_path)) as two:
            assert one.members() == two.members() == 2
            assert not (tmp_path / "member-dead.lock").exists()
            two.close()
            assert one.members() == 1

    def test_three_members_share_four_partitions(self, tmp_path: Path) -> None:
        """Given three workers, no partition has two of them, none has none, and nobody has more than two."""

        async def scenario() -> None:
            path = tmp_path / "log.db"
            settings = SqliteSettings(rebalance_s=0.005)
            async with (
                opened(SqliteLog(path, 4, settings)) as a,
                opened(SqliteLog(path, 4, settings)) as b,
                opened(SqliteLog(path, 4, settings)) as c,
            ):
                workers = [Worker(name) for name in "abc"]
                for worker, log in zip(workers, (a, b, c), strict=True):
                    await worker.join(log)
                await workers[0].until(lambda: len(workers[0].owned) == 2)
                await workers[1].until(lambda: len(workers[1].owned) == 2)
                owned = [worker.owned for worker in workers]
                assert sorted(partition for own in owned for partition in own) == [0, 1, 2, 3]
                assert max(len(own) for own in owned) == 2

        asyncio.run(scenario())

    def test_a_worker_that_joins_has_free_partitions_at_once(self, tmp_path: Path) -> None:
        """Given free partitions, they are assigned before join returns: nobody waits for a timer."""

        async def scenario() -> None:
            async with opened(SqliteLog(tmp_path / "log.db", 3)) as log:
                worker = Worker("one")
                await worker.join(log)
                assert worker.owned == {0, 1, 2}

        asyncio.run(scenario())

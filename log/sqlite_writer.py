"""The writing side of a SqliteLog: one thread, one connection, one fsync for all that is waiting.

While a transaction is on its way to the disk, appends gather; the next transaction takes them all (group commit). An
append alone costs an fsync and two hand-offs between threads; a thousand together cost hardly more.

Rows go in by statements of 2^k rows, not one at a time: `sqlite3` lets go of the GIL for every statement, and
with a busy event loop each return costs up to a switch interval of 5 ms (500 rows: 700 ms by `executemany`, 20 ms so).

The thread also looks for what other processes wrote, with `PRAGMA data_version`, which changes exactly
when another connection commits: in every transaction anyway, and from time to time while somebody waits for records.
"""

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

from refold.log.errors import AppendUnknown, LogError, LogUnavailable
from refold.log.protocol import Channel
from refold.log.sqlite_file import OFFSET_BITS, SEGMENT_BITS, primary_code, start_name, translate

logger = logging.getLogger(__name__)

Cell = str | bytes | int | None

BUSY_WARNING_S = 10.0
"""A lock that another process has held for so long is worth a line in the log."""

MIN_POLL_S, MAX_POLL_S = 0.001, 0.005
"""Looks for other processes' records: soon after something happened, 200 times a second when all is quiet. That costs
one or two per cent of a core, and lets a reader of a stream see an item after 5 ms rather than 12."""

MAX_CHUNK_ROWS = 512
"""Rows in the longest INSERT: five variables each, far under SQLite's 32,766."""

TRIM_EVERY, TRIM_ROWS = 1000, 2000
"""After so many replies, so many old ones go: twice as fast as they come, and never a long transaction."""


@dataclass(slots=True, eq=False)
class Append:
    """Rows for one partition, as a flat list of key, value, headers, key, value, headers, ..."""

    future: asyncio.Future[Sequence[int]]
    generation: int
    channel: Channel
    partition: int
    cells: list[Cell]
    size: int
    lazily: bool = False


@dataclass(slots=True, eq=False)
class Bookmark:
    """A bookmark to be set."""

    future: asyncio.Future[Sequence[int]]
    generation: int
    partition: int
    offset: int
    size: int = 0


@dataclass(slots=True, eq=False)
class Trim:
    """Records to be deleted, from `start` up to `stop`, all of them in one segment."""

    future: asyncio.Future[Sequence[int]]
    generation: int
    channel: Channel
    partition: int
    start: int
    stop: int
    size: int = 0


Work = Append | Bookmark | Trim


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of some works: offsets for each, or one error for all (then there is at least one work).

    `foreign` tells whether others wrote meanwhile; it may come without any work.
    """

    works: Sequence[Work]
    offsets: Sequence[Sequence[int]]
    error: LogError | None = None
    foreign: bool = False


class SqliteWriter:
    """The thread that writes.

    Args:
        connection: For this thread alone.
        path: The log's file, for messages.
        report: Called on `loop` with each outcome.
        loop: The log's event loop.
        now_us: Clock for the records' timestamps.
        reply_retention_us: Age at which replies may go.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        report: Callable[[Outcome], None],
        loop: asyncio.AbstractEventLoop,
        *,
        now_us: Callable[[], int],
        reply_retention_us: int,
    ) -> None:
        self._connection = connection
        self._path = path
        self._report = report
        self._loop = loop
        self._now_us = now_us
        self._transaction = _Transaction(connection, reply_retention_us)
        self._identity = _identity(path)
        self._condition = threading.Condition()
        self._waiting: list[Work] = []
        self._watching = False
        self._stopping = False
        self._poll_s = MIN_POLL_S
        self._failed_generation = -1
        self._syncs = True
        self._thread = threading.Thread(
            target=self._run, name=f"refold-sqlite-{path.name}", daemon=True
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, work: Work) -> None:
        """Hand over a work; works are written in the order of their submission."""
        with self._condition:
            self._waiting.append(work)
            self._condition.notify()

    def watch(self, active: bool) -> None:
        """Look for other processes' records, or cease to."""
        with self._condition:
            self._watching = active
            self._condition.notify()

    def stop(self) -> None:
        """Write what is waiting, then end the thread. Blocks until it has ended."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while (works := self._take()) is not None:
            if works:
                self._poll_s = MIN_POLL_S
                self._write(works)
            else:
                self._look()

    def _take(self) -> list[Work] | None:
        """What is waiting; an empty list when it is time to look for others' records; None for the end."""
        with self._condition:
            if not self._waiting and not self._stopping:
                self._condition.wait(self._poll_s if self._watching else None)
            works, self._waiting = self._waiting, []
            return None if self._stopping and not works else works

    def _look(self) -> None:
        try:
            foreign = self._transaction.foreign()
        except sqlite3.Error as error:
            logger.warning("can't look for other processes' records in %s: %s", self._path, error)
            foreign = False
        if foreign:
            self._poll_s = MIN_POLL_S
            self._tell(Outcome((), (), foreign=True))
        else:
            self._poll_s = min(MAX_POLL_S, self._poll_s * 1.5)

    def _write(self, works: list[Work]) -> None:
        if works[0].generation <= self._failed_generation:
            works = self._reject_late(works)
        if not works:
            return
        committing = False
        try:
            self._check_file()
            self._sync(not all(isinstance(work, Append) and work.lazily for work in works))
            self._begin()
            offsets, foreign = self._transaction.fill(works, self._now_us())
            committing = True
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._fail(works, self._meaning(error, committing), error)
        except LogError as error:
            self._fail(works, error, error.__cause__)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            problem = LogUnavailable(
                f"can't append to the log {self._path}: {error!r}. Nothing was written"
            )
            self._fail(works, problem, error)
        else:
            self._tell(Outcome(works, offsets, foreign=foreign))

    def _reject_late(self, works: list[Work]) -> list[Work]:
        """Refuse what was submitted before its sender could hear of an earlier failure (promise 2)."""
        late = [work for work in works if work.generation <= self._failed_generation]
        error = LogUnavailable(
            f"an earlier append to the log {self._path} failed, and this one waited behind it. Nothing was written"
        )
        self._tell(Outcome(late, (), error))
        return works[len(late) :]

    def _check_file(self) -> None:
        """Refuse to write into a file that has no name any more: SQLite would not notice, and all would be lost."""
        if _identity(self._path) != self._identity:
            raise LogUnavailable(
                f"the log {self._path} was deleted or replaced while it was open. Nothing was written: put the file "
                "back, or open the new one"
            )

    def _sync(self, wanted: bool) -> None:
        """Whether the next commit is to be on the disk when it returns."""
        if wanted is not self._syncs:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if wanted else 'NORMAL'}")
            self._syncs = wanted

    def _begin(self) -> None:
        """Begin a transaction; wait for other processes as long as it takes.

        Our own short pauses instead of SQLite's busy handler: that one soon sleeps 25 ms and more at a time, and a
        client would starve beside a busy worker.
        """
        pause_s, started = 0.0002, time.monotonic()
        warned_at = started
        while True:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if primary_code(error) != sqlite3.SQLITE_BUSY:
                    raise
                now = time.monotonic()
                if now - warned_at > BUSY_WARNING_S:
                    warned_at = now
                    logger.warning(
                        "another process has held the write lock of %s for %.0f s; appends wait for it",
                        self._path,
                        now - started,
                    )
                time.sleep(pause_s)
                pause_s = min(0.005, pause_s * 1.3)
            else:
                return

    def _meaning(self, error: sqlite3.Error, committing: bool) -> LogError:
        if committing and primary_code(error) == sqlite3.SQLITE_IOERR:
            # The frames may be in the file though their fsync failed: a crash now could bring them back.
            return AppendUnknown(
                f"the disk failed while records were made durable in the log {self._path} ({error}). They may or may "
                "not be in it: check the disk, open the log again, and read"
            )
        return translate(error, self._path, "append to")

    def _fail(self, works: list[Work], problem: LogError, cause: BaseException | None) -> None:
        self._transaction.forget()
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            logger.exception("rollback failed in the log %s", self._path)
        problem.__cause__ = cause
        self._failed_generation = max(work.generation for work in works)
        # Others may have written what this transaction saw and then forgot: have everybody look.
        self._tell(Outcome(works, (), problem, foreign=True))

    def _tell(self, outcome: Outcome) -> None:
        try:
            self._loop.call_soon_threadsafe(self._report, outcome)
        except RuntimeError:
            logger.debug("the event loop of the log %s was closed before its log", self._path)


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file stands under the name; None for none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - half the time of Path.stat, and this is done for every transaction
    except OSError:
        return None
    return found.st_dev, found.st_ino


class _Transaction:
    """What is known between transactions, and the statements in one."""

    def __init__(self, connection: sqlite3.Connection, reply_retention_us: int) -> None:
        self._connection = connection
        self._reply_retention_us = reply_retention_us
        self._version = self._data_version()
        self._ends: dict[tuple[Channel, int], int] = {}
        self._segments: dict[
            int, tuple[int, set[Cell]]
        ] = {}  # partition -> newest segment, keys noted in it
        self._replies = 0
        self._statements: dict[tuple[str, int], str] = {}

    def foreign(self) -> bool:
        """Whether another connection has committed since the last call; what was known of ends is void then."""
        version = self._data_version()
        changed = version != self._version
        if changed:
            self._version = version
            self._ends.clear()
        return changed

    def forget(self) -> None:
        """The transaction was undone: know nothing."""
        self._ends.clear()
        self._segments.clear()

    def fill(self, works: list[Work], now_us: int) -> tuple[list[Sequence[int]], bool]:
        """Write all works. Returns each one's offsets, and whether others have written since the last time."""
        foreign = self.foreign()
        offsets: list[Sequence[int]] = []
        runs: dict[tuple[Channel, int], tuple[int, list[Cell]]] = {}
        for work in works:
            if isinstance(work, Bookmark):
                self._connection.execute(
                    "INSERT OR REPLACE INTO bookmarks VALUES (?, ?)", (work.partition, work.offset)
                )
                offsets.append(())
                continue
            if isinstance(work, Trim):
                self._trim(work)
                offsets.append(())
                continue
            place = (work.channel, work.partition)
            run = runs.get(place)
            if run is None:
                run = runs[place] = (self._end(*place), [])
            first = run[0] + len(run[1]) // 3
            run[1].extend(work.cells)
            offsets.append(range(first, first + len(work.cells) // 3))
        for (channel, partition), (first, cells) in runs.items():
            self._insert(channel, partition, first, cells, now_us)
        if self._replies >= TRIM_EVERY:
            self._trim_replies(now_us)
        return offsets, foreign

    def _data_version(self) -> int:
        version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        return version

    def _end(self, channel: Channel, partition: int) -> int:
        end = self._ends.get((channel, partition))
        if end is None:
            low = partition << OFFSET_BITS
            row = self._connection.execute(
                f"SELECT id FROM {channel} WHERE id >= ? AND id < ? ORDER BY id DESC LIMIT 1",  # noqa: S608
                (low, low + (1 << OFFSET_BITS)),
            ).fetchone()
            end = 0 if row is None else row[0] - low + 1
        return end

    def _insert(
        self, channel: Channel, partition: int, first: int, cells: list[Cell], now_us: int
    ) -> None:
        rows = len(cells) // 3
        base = partition << OFFSET_BITS | first
        ids = range(base, base + rows)
        columns = (ids, repeat(now_us, rows), cells[::3], cells[1::3], cells[2::3])
        self._execute(
            f"INSERT INTO {channel} VALUES",
            list(chain.from_iterable(zip(*columns, strict=True))),
            5,
        )
        self._ends[channel, partition] = first + rows
        if channel is Channel.EVENTS:
            self._note_keys(partition, base, cells[::3])
        elif channel is Channel.REPLIES:
            self._replies += rows

    def _execute(self, insert: str, cells: list[Cell], width: int) -> None:
        """Insert rows of `width` cells by statements of 2^k rows; there are few of them, so SQLite keeps them all."""
        rows = len(cells) // width
        done = 0
        while done < rows:
            chunk = min(MAX_CHUNK_ROWS, 1 << ((rows - done).bit_length() - 1))
            statement = self._statements.get((insert, chunk))
            if statement is None:
                row = f"({','.join('?' * width)})"
                statement = f"{insert} {','.join([row] * chunk)}"
                self._statements[insert, chunk] = statement
            self._connection.execute(statement, cells[width * done : width * (done + chunk)])
            done += chunk

    def _note_keys(self, partition: int, base: int, keys: list[Cell]) -> None:
        """Note which segments hold which keys; each key once a segment, as far as we remember."""
        done = 0
        while done < len(keys):
            segment = (base + done) >> SEGMENT_BITS
            chunk = ((segment + 1) << SEGMENT_BITS) - (base + done)
            known = self._segments.get(partition)
            if known is None or known[0] != segment:
                known = self._segments[partition] = (segment, set[Cell]())
            seen = known[1]
            fresh = set(keys[done : done + chunk]) - seen
            fresh.discard(None)
            seen.update(fresh)
            # Sorted: neighbours in the tree are written together. OR IGNORE: another owner may have noted it.
            keyed = zip(sorted(fresh, key=str), repeat(segment, len(fresh)), strict=True)
            noted = list(chain.from_iterable(keyed))
            self._execute("INSERT OR IGNORE INTO event_keys VALUES", noted, 2)
            done += chunk

    def _trim(self, work: Trim) -> None:
        """Delete records, and what is noted of the keys of a segment that ends with them."""
        base = work.partition << OFFSET_BITS
        first, stop = base + work.start, base + work.stop
        if work.channel is Channel.EVENTS and stop & ((1 << SEGMENT_BITS) - 1) == 0:
            self._connection.execute(
                "DELETE FROM event_keys WHERE segment = ? AND key IN (SELECT key FROM events WHERE id >= ? AND id < ?)",
                (first >> SEGMENT_BITS, first, stop),
            )
        self._connection.execute(
            f"DELETE FROM {work.channel} WHERE id >= ? AND id < ?",  # noqa: S608
            (first, stop),
        )
        self._connection.execute(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)",
            (start_name(work.channel, work.partition), str(work.stop)),
        )

    def _trim_replies(self, now_us: int) -> None:
        """Delete old replies, but never a partition's last: its offset says where the next one goes."""
        self._replies = 0
        for channel, partition in tuple(self._ends):
            if channel is Channel.REPLIES:
                low = partition << OFFSET_BITS
                self._connection.execute(
                    "DELETE FROM replies WHERE timestamp < ? AND id IN "
                    "(SELECT id FROM replies WHERE id >= ? AND id < ? ORDER BY id LIMIT ?)",
                    (
                        now_us - self._reply_retention_us,
                        low,
                        low + self._ends[channel, partition] - 1,
                        TRIM_ROWS,
                    ),
                )

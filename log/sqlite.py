"""The log in one SQLite file: the embedded default, durable and shared by all processes of one machine.

Writing goes through a thread of its own (`log/sqlite_writer.py`), reading happens on the event loop in batches of
about a millisecond. Partitions are shared by lock files beside the log (`log/file_lock.py`), which the kernel frees
when their holder dies. Don't fork a process while it has a log open: neither SQLite nor threads survive that.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from refold.log.blob_directory import DirectoryBlobs
from refold.log.blobs import BlobStore
from refold.log.errors import LogError, LogMismatch, LogUnavailable
from refold.log.file_lock import PartitionFiles
from refold.log.findings import Examination
from refold.log.layout import Layout
from refold.log.local import (
    DEFAULT_MAX_RECORD_BYTES,
    DEFAULT_REBALANCE_S,
    Fetched,
    LocalLog,
    wall_clock_us,
)
from refold.log.protocol import Bounds, Channel, Entry
from refold.log.sqlite_doctor import examine
from refold.log.sqlite_file import SEGMENT_BITS, OpenFile, locks_directory, open_file
from refold.log.sqlite_queue import WriteQueue
from refold.log.sqlite_reader import SqliteReader, pack_headers
from refold.log.sqlite_writer import Append, Bookmark, Cell, Outcome, SqliteWriter, Trim


@dataclass(frozen=True, slots=True)
class SqliteSettings:
    """What can be set.

    Args:
        max_record_bytes: Largest key + value + headers, in bytes.
        queue_entries: Appends wait while so many records are on their way to the disk.
        queue_bytes: Appends wait while so many bytes are on their way to the disk.
        rebalance_s: Seconds between two looks for free partitions.
        reply_retention_s: Seconds after which a reply may be deleted.
    """

    max_record_bytes: int = DEFAULT_MAX_RECORD_BYTES
    queue_entries: int = 20_000
    queue_bytes: int = 32_000_000
    rebalance_s: float = DEFAULT_REBALANCE_S
    reply_retention_s: float = 600.0


class SqliteLog(LocalLog):
    """A log in a SQLite file.

    Args:
        path: The file; made by `open` where it is missing. Must be on a local disk.
        partitions: How many it must have; None for as many as it has, or 1 where it is made.
        settings: Limits and times.
        now_us: Clock for the records' timestamps, in microseconds since 1970-01-01 UTC.
        blobs: Where large payloads are kept; in the directory `<path>.blobs` where not given.
        pools: Each pool that it must have with the number of its own partitions, beside those; None for whatever pools
            it has, or for none where it is made.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        partitions: int | None = None,
        settings: SqliteSettings = SqliteSettings(),
        *,
        now_us: Callable[[], int] = wall_clock_us,
        blobs: BlobStore | None = None,
        pools: tuple[tuple[str, int], ...] | None = None,
    ) -> None:
        self._path = Path(path)
        self._blobs = DirectoryBlobs(f"{self._path}.blobs") if blobs is None else blobs
        super().__init__(str(self._path), settings.max_record_bytes, settings.rebalance_s)
        self._wanted = partitions, pools
        self._settings = settings
        self._now_us = now_us
        self._file: OpenFile | None = None
        self._identity: tuple[int, int] | None = None  # device and inode of the file that is open
        self._reader: SqliteReader | None = None
        self._queue: WriteQueue | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def blobs(self) -> BlobStore:
        """Where large payloads are kept."""
        return self._blobs

    @property
    def identity(self) -> str:
        """A name that no other namespace has, for archives; known after `open`."""
        return "" if self._file is None else self._file.namespace_id

    @property
    def layout(self) -> Layout:
        """What the partitions are for."""
        if self._file is None:
            raise LogUnavailable(f"log {self._path} is not open yet: `await log.open()` first")
        return self._file.layout

    async def open(self) -> None:
        """Open the file, or make it, and check that it is ours and as asked for.

        Raises:
            LogMismatch: It is no refold log, of a newer format, or has other partitions.
            LogCorrupt: It is damaged.
            LogUnavailable: It can't be read, written or made.
        """
        self._check_new()
        self._file = await asyncio.to_thread(open_file, self._path, *self._wanted)
        self._identity = _identity(self._path)
        self._reader = SqliteReader(self._file.reader, self._path)
        writer = SqliteWriter(
            self._file.writer,
            self._path,
            self._written,
            asyncio.get_running_loop(),
            now_us=self._now_us,
            reply_retention_us=int(self._settings.reply_retention_s * 1_000_000),
        )
        self._queue = WriteQueue(writer, self._settings.queue_entries, self._settings.queue_bytes)
        writer.start()
        self._opened()

    async def close(self) -> None:
        """Wait for appends in flight, free the partitions, fold SQLite's journal back into the file."""
        if not await self._closing() or self._file is None or self._queue is None:
            return
        await self._queue.drained()
        await asyncio.to_thread(_close, self._queue.writer, self._file)

    async def check(self) -> Mapping[int, LogError]:
        """See `Checked.check`: the file is where it was opened, not deleted, moved or replaced under us."""
        if self._identity == _identity(self._path):
            return {}
        error = LogMismatch(
            f"the log {self._path} was deleted, moved or replaced while it was open: what is written now is lost when"
            " this process ends. Stop all its workers, put the file back, then start them again"
        )
        return dict.fromkeys(range(self.partitions), error)

    async def examine(self) -> Examination:
        """See `Examined.examine`."""
        return await asyncio.to_thread(examine, self._path)

    async def append(
        self,
        channel: Channel,
        partition: int,
        entries: Sequence[Entry],
        *,
        lazily: bool = False,
    ) -> Sequence[int]:
        """Append in order; return each entry's offset once all are on the disk.

        A transaction that holds nothing but lazy appends is committed without an fsync: the next one that has others
        brings it to the disk, for SQLite's journal is a sequence, of which a crash of the machine leaves a prefix.

        Raises:
            RecordTooLarge: An entry is over the limit; nothing was written.
            LogUnavailable: The file can't be written now; nothing was written.
            AppendUnknown: The disk failed in the last moment; read the log to know.
        """
        self._check(partition)
        cells: list[Cell] = []
        size = 0
        for entry in entries:
            size += self._check_size(channel, partition, entry)
            key, value, headers = entry
            cells += (key, value, pack_headers(headers) if headers else b"")
        if not cells:
            return ()
        future, generation = self._open_queue.slot()
        self._open_queue.put(Append(future, generation, channel, partition, cells, size, lazily))
        return await future

    async def bookmark(self, partition: int) -> int | None:
        """Offset of the last checkpoint noted by `set_bookmark`."""
        self._check(partition)
        return self._open_reader.bookmark(partition)

    async def set_bookmark(self, partition: int, offset: int) -> None:
        """Note where the last checkpoint of `partition` is."""
        self._check(partition)
        future, generation = self._open_queue.slot()
        self._open_queue.put(Bookmark(future, generation, partition, offset))
        await future

    def _fetch(
        self, channel: Channel, partition: int, start: int, stop: int | None, key: str | None
    ) -> Fetched:
        return self._open_reader.fetch(channel, partition, start, stop, key)

    def _bounds(self, channel: Channel, partition: int) -> Bounds:
        return self._open_reader.bounds(channel, partition)

    async def _trim(self, channel: Channel, partition: int, start: int, before: int) -> None:
        """A segment at a time, so that what others append waits for one of them at most.

        The pages become free within the file, for what is appended next; the file does not shrink by itself.
        """
        while start < before:
            stop = min(before, ((start >> SEGMENT_BITS) + 1) << SEGMENT_BITS)
            future, generation = self._open_queue.slot()
            self._open_queue.put(Trim(future, generation, channel, partition, start, stop))
            await future
            start = stop

    @property
    def _open_reader(self) -> SqliteReader:
        if self._reader is None:
            raise LogUnavailable(f"log {self._path} is not open")
        return self._reader

    @property
    def _open_queue(self) -> WriteQueue:
        if self._queue is None:
            raise LogUnavailable(f"log {self._path} is not open")
        return self._queue

    def _locks(self, group: str, member: str) -> PartitionFiles:
        directory = locks_directory(self._path, group)
        try:
            return PartitionFiles(directory)
        except OSError as error:
            raise LogUnavailable(
                f"{member} can't make lock files in {directory}: {error.strerror}. Check that "
                "this user may write there"
            ) from error

    def _watching(self, active: bool) -> None:
        if self._queue is not None:
            self._queue.writer.watch(active)

    def _written(self, outcome: Outcome) -> None:
        self._open_queue.settle(outcome)
        if outcome.foreign:
            self._signals.notify_all()
        elif outcome.error is None:
            places = {(w.channel, w.partition) for w in outcome.works if isinstance(w, Append)}
            for channel, partition in places:
                self._signals.notify(channel, partition)


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has the name now; None where there is none. A `stat` only: see `check_header` on opening it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _close(writer: SqliteWriter, file: OpenFile) -> None:
    writer.stop()
    file.reader.close()
    try:
        # Other processes may go on: what they don't hold back is folded in now, the rest when the last one closes.
        file.writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
    except sqlite3.Error:
        pass  # the journal stays beside the file, and nothing is lost by that
    finally:
        file.writer.close()

"""The file of a SqliteLog: what is in it, how it is made and checked, and what SQLite's errors mean.

    meta                namespace id, number of partitions, pools, time of making; where trimmed partitions begin
    events, commands,   one row a record; id = partition << 44 | offset, so that a partition is one stretch of the
    replies             B-tree, appends go to its end, and a range of offsets is a range of ids
    event_keys          which segments (4096 offsets) hold events of a key
    bookmarks           where each partition's last checkpoint is

An index with an entry for every event would have its leaves all over the file: 29k rows/s where the bare table
takes 240k (600,000 events, 1,000 workflows at a time, random ids). With an entry for every key and segment it is
100k and more, and a stream is still found by reading a few segments of 4096 rows.
"""

import json
import os
import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from refold.log.errors import LogCorrupt, LogError, LogMismatch, LogUnavailable
from refold.log.file_lock import FileLock, wait_for
from refold.log.layout import Layout, in_words
from refold.log.protocol import WORKERS, Channel

APPLICATION_ID = 0x52464C44
"""ASCII "RFLD" at offset 68 of the file: `file(1)` and we can tell a refold log from other databases."""

FORMAT = 2
"""The newest `user_version` that this release knows. Older files are read, newer ones refused."""

_WITHOUT_POOLS = 1
"""`user_version` of a file without pools: releases that know of none, and would misplace what is theirs, can use it."""

OFFSET_BITS = 44
"""17 trillion records a partition, and half a million partitions, in SQLite's 63 bits."""

OFFSET_MASK = (1 << OFFSET_BITS) - 1
SEGMENT_BITS = 12

MAX_PARTITIONS = 1024
"""Far above what one file can use; a typing error in a URL should not make a million lock files."""

_RECORDS = (
    "CREATE TABLE {} (id INTEGER PRIMARY KEY, timestamp INTEGER NOT NULL, key TEXT, "
    "value BLOB NOT NULL, headers BLOB NOT NULL)"
)

_SCHEMA = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    _RECORDS.format("events"),
    _RECORDS.format("commands"),
    _RECORDS.format("replies"),
    "CREATE TABLE event_keys (key TEXT, segment INTEGER, PRIMARY KEY (key, segment)) WITHOUT ROWID",
    "CREATE INDEX events_without_key ON events (id) WHERE key IS NULL",
    "CREATE TABLE bookmarks (partition INTEGER PRIMARY KEY, offset INTEGER NOT NULL)",
)

_ENTRY_BUSY_S = 30.0
"""How long `open` waits for another process that is making the file or recovers it after a crash."""

_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY: "another process holds its lock",
    sqlite3.SQLITE_LOCKED: "another connection holds its lock",
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_READONLY: "it can't be written; check the permissions of the file and its directory",
    sqlite3.SQLITE_CANTOPEN: "it can't be opened; check the permissions of the file and its directory",
    sqlite3.SQLITE_PERM: "access is denied; check the permissions of the file and its directory",
    sqlite3.SQLITE_IOERR: "the disk failed; check the disk and the system's log",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
    sqlite3.SQLITE_INTERRUPT: "the operation was interrupted",
}


class OpenFile(NamedTuple):
    """A checked file. `writer` is for one thread of its own, `reader` for the event loop's."""

    writer: sqlite3.Connection
    reader: sqlite3.Connection
    namespace_id: str
    layout: Layout


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code of `error`; SQLITE_ERROR where Python made it up itself."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF


def translate(error: sqlite3.Error, path: Path, doing: str) -> LogError:
    """The error of our own tree that says what `error` means.

    Args:
        error: What SQLite raised.
        path: The log's file.
        doing: What was tried, e.g. "append to".
    """
    code = primary_code(error)
    reason = _UNAVAILABLE.get(code)
    if reason is not None:
        return LogUnavailable(f"can't {doing} the log {path}: {reason} ({error})")
    if code in _CORRUPT:
        return LogCorrupt(
            f"can't {doing} the log {path}: the file is damaged ({error}). Restore it from a backup, or rescue what "
            "can be read with `sqlite3 FILE .recover`"
        )
    return LogCorrupt(
        f"can't {doing} the log {path}: its tables are not what refold made ({error}). Restore it from a backup"
    )


@contextmanager
def translated(path: Path, doing: str) -> Generator[None]:
    """Raise SQLite's errors as our own."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, path, doing) from error


def start_name(channel: Channel, partition: int) -> str:
    """The name in `meta` of the offset where a trimmed partition begins: rows before it were not lost."""
    return f"start/{channel}/{partition}"


def locks_directory(path: Path, group: str = WORKERS) -> Path:
    """The directory of a group's lock files, in that beside the log's file."""
    directory = path.with_name(path.name + ".locks")
    return directory if group == WORKERS else directory / group


def open_file(
    path: Path, partitions: int | None, pools: tuple[tuple[str, int], ...] | None = None
) -> OpenFile:
    """Open the file, making it where it is missing or empty. What is not ours is left as it is.

    Args:
        path: The file.
        partitions: How many common ones it must have; None for as many as it has, or 1 where it is made.
        pools: Which pools it must have; None for those that it has, or none where it is made.

    Raises:
        LogMismatch: it is no refold log, of a newer format, or has other partitions.
        LogCorrupt: it is one and damaged.
        LogUnavailable: it can't be read, written or made.
    """
    try:
        _make_if_missing(path, Layout(1 if partitions is None else partitions, pools or ()))
    except OSError as error:
        raise LogUnavailable(
            f"can't open the log {path}: {error.strerror or error}. Check that its directory exists and that this "
            "user may write there"
        ) from error
    connections: list[sqlite3.Connection] = []
    try:
        with translated(path, "open"):
            connections.append(_connect(path))
            connections.append(_connect(path))
            meta = dict(connections[0].execute("SELECT name, value FROM meta"))
            # Reading never tells that the file can't be written, and BEGIN IMMEDIATE only reads where it can't be:
            # better now, by a write that changes nothing, than at the first append.
            connections[0].execute("DELETE FROM meta WHERE 0")
            # The writer waits by itself, with shorter pauses than SQLite's (see SqliteWriter); a reader meets a lock
            # only while another process recovers the file or closes it, and should not stop the loop for long.
            connections[0].execute("PRAGMA busy_timeout = 0")
            connections[1].execute("PRAGMA busy_timeout = 5000")
        return OpenFile(
            connections[0],
            connections[1],
            meta.get("namespace_id", ""),
            _layout(path, meta, partitions, pools),
        )
    except BaseException:
        for connection in connections:
            connection.close()
        raise


def layout_of(path: Path, meta: dict[str, str]) -> Layout:
    """The partitions that a file says it has.

    Raises:
        LogCorrupt: It does not say.
    """
    text = meta.get("partitions", "")
    if not text.isdecimal() or not 1 <= int(text) <= MAX_PARTITIONS:
        raise LogCorrupt(
            f"the log {path} does not say how many partitions it has. Restore it from a backup"
        )
    own = tuple((str(name), int(count)) for name, count in json.loads(meta.get("pools", "[]")))
    return Layout(int(text) - sum(count for _, count in own), own)


def _layout(
    path: Path,
    meta: dict[str, str],
    partitions: int | None,
    pools: tuple[tuple[str, int], ...] | None,
) -> Layout:
    there = layout_of(path, meta)
    wanted = Layout(
        there.common if partitions is None else partitions,
        there.pools if pools is None else pools,
    )
    if wanted != there:
        raise LogMismatch(
            f"the log {path} was made with {in_words(there)}; asked for was {in_words(wanted)}. That is fixed: "
            "leave it out to take what is there, or use another file"
        )
    return there


def _connect(path: Path) -> sqlite3.Connection:
    """A connection to a file of ours, with manual transactions, and commits that are on the disk when they return."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",  # rw, not rwc: a file that has gone is not quietly made anew
        uri=True,
        timeout=_ENTRY_BUSY_S,
        isolation_level=None,
        check_same_thread=False,  # made on one thread, then used by one other alone
        cached_statements=256,
    )
    try:
        check_header(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(
            "PRAGMA fullfsync = ON"
        )  # macOS: through the drive's cache; elsewhere nothing
    except BaseException:
        connection.close()
        raise
    return connection


def check_header(connection: sqlite3.Connection, path: Path) -> None:
    """Tell whether the file is ours, before anything is written to it.

    SQLite reads the header for us. If the file was opened and closed here, the locks would be gone that other logs
    of this process hold on it, for POSIX frees them with the first descriptor that is closed ("How To Corrupt An
    SQLite Database File", 2.2). The next process to leave would then take itself for the last one and remove the
    file's WAL, and what the logs here append after that, and acknowledge, would be lost.
    """
    try:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (found,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        if primary_code(error) != sqlite3.SQLITE_NOTADB:
            raise
        raise LogMismatch(
            f"{path} is not a refold log: it is no SQLite file. It was left as it is; name another file"
        ) from error
    if application_id != APPLICATION_ID:
        raise LogMismatch(
            f"{path} is not a refold log: it is a SQLite file of another program. It was left as it is; "
            "name another file"
        )
    if found > FORMAT:
        raise LogMismatch(
            f"the log {path} has format {found}, and this release of refold knows formats up to {FORMAT}. "
            "It was left as it is; upgrade refold"
        )


def _make_if_missing(path: Path, layout: Layout) -> None:
    if not _is_missing(path):
        return
    if layout.common < 1 or layout.partitions > MAX_PARTITIONS:
        raise LogMismatch(
            f"a log has from 1 to {MAX_PARTITIONS} partitions, not {in_words(layout)}"
        )
    directory = locks_directory(path)
    directory.mkdir(exist_ok=True)
    with closing(FileLock(directory / "make.lock")) as lock:
        wait_for(lock, _ENTRY_BUSY_S)
        if _is_missing(path):
            _make(path, layout)


def _is_missing(path: Path) -> bool:
    """Whether there is nothing in the file; an empty one is what `tempfile` hands out."""
    try:
        return path.stat().st_size == 0
    except FileNotFoundError:
        return True


def _make(path: Path, layout: Layout) -> None:
    """Make the whole file under another name, then give it its own: nobody ever sees half of it."""
    draft = path.with_name(f"{path.name}.draft-{os.getpid()}")
    try:
        with translated(path, "make"):
            _write_draft(draft, layout)
        draft.replace(path)
        _sync_directory(path.parent)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _write_draft(draft: Path, layout: Layout) -> None:
    draft.unlink(missing_ok=True)  # a process of our number that died here
    meta = {
        "namespace_id": str(uuid4()),
        "partitions": str(layout.partitions),
        "created_at": str(time.time_ns() // 1000),
    }
    if layout.pools:
        meta["pools"] = json.dumps(layout.pools)
    with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT if layout.pools else _WITHOUT_POOLS}")
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        connection.execute("COMMIT")


def _sync_directory(directory: Path) -> None:
    """Make the new name as durable as the file."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

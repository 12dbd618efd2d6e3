"""Projections in SQLite: a directory beside the log, a file for each projection.

    orders.db.views/
        revenue.db -> revenue.2.db    what readers open: the tables that are current
        revenue.2.db                  ... which is this file
        revenue.3.db                  being filled, by a new version or a rebuild; the link follows when it is whole
        revenue.lock                  held for the moment in which files are made or the link is moved

Files and not tables of one file: a projection's writes wait for no other's, one that is broken harms no other, and
what is replaced goes away whole. WAL, so that readers never wait. A transaction is not forced to the disk: what a crash
of the machine takes away takes its position with it, and is read again.
"""

import os
import sqlite3
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from refold.log.file_lock import FileLock, wait_for
from refold.projections.feed import Position
from refold.projections.projection import Dialect, Projection, Transaction, Value
from refold.projections.store import Identity, Store, written
from refold.projections.target import TargetMismatch, TargetUnavailable

_BUSY_S = 30.0
"""Another process's write of one batch takes a fraction of a second."""
_CACHE_KIB = 64 * 1024
"""Inner pages of a million runs' indexes; SQLite's usual 2 MB would have them read again and again."""


class SqliteStore(Store):
    """A projection's tables in a SQLite file.

    Args:
        projection: What is kept.
        identity: Of which log.
        directory: Where the files are; made where it is missing.
        rebuild: Fill new tables beside those that are there, though they are of the same version.
    """

    def __init__(
        self,
        projection: Projection,
        identity: Identity,
        directory: Path,
        *,
        rebuild: bool = False,
    ) -> None:
        super().__init__(projection, identity)
        self._files = ViewFiles(directory, projection.name)
        self._rebuild = rebuild
        self._connection: sqlite3.Connection | None = None
        self._path: Path | None = None

    def open(self) -> None:
        """See `Target`."""
        with self._translated(), self._files.locked():
            self._path = self._chosen()
            self._connection = _connect(self._path)

    def close(self) -> None:
        """See `Target`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def switch(self) -> None:
        """See `Store`."""
        path, files = self._path, self._files
        with self._translated(), files.locked():
            old = files.current()
            if path is None or old == path:
                return
            if old is not None:
                with closing(_connect(old)) as connection:
                    connection.execute(
                        "UPDATE refold_projection SET replaced = ?", (self.projection.version,)
                    )
            files.point_to(path)
            for other in files.all():
                if other != path:
                    files.remove(other)

    def _chosen(self) -> Path:
        """The file to go on with: that of this version, else a new one."""
        files, version = self._files, self.projection.version
        current = files.current()
        found = {path: self._version(path) for path in files.all()}
        newest = max(found, key=files.number, default=None)
        if current is not None and found.get(current) == version and not self._rebuild:
            return current
        if newest is not None and found[newest] > version:
            raise self._newer(str(newest), found[newest])
        if newest is not None and newest != current and found[newest] == version:
            return newest  # what a former process has begun
        path = files.next()
        self._make(path)
        if current is None:
            files.point_to(path)
        return path

    def _version(self, path: Path) -> int:
        with closing(_connect(path)) as connection:
            try:
                version, log = connection.execute(
                    "SELECT version, log FROM refold_projection"
                ).fetchone()
            except (sqlite3.DatabaseError, TypeError) as error:
                raise TargetMismatch(
                    f"{path} is no projection's file, or is damaged ({error}): delete it to have it filled anew"
                ) from error
        self._check_is_of(str(path), log)
        return int(version)

    def _make(self, path: Path) -> None:
        """Whole, or not at all: under another name until it has its tables."""
        draft = path.with_suffix(".draft")
        self._files.remove(draft)
        with closing(_connect(draft)) as connection:
            connection.execute("BEGIN")
            try:
                self._fill_in(_SqliteTransaction(connection))
            except sqlite3.OperationalError as error:
                if not _is_its_own(error):
                    raise
                raise self._not_made(error) from error
            connection.execute("COMMIT")
        draft.rename(path)

    def _transaction(self) -> Generator[Transaction, None, None]:
        assert self._connection is not None, "open() first"
        connection = self._connection
        with self._translated():
            connection.execute("BEGIN IMMEDIATE")
        try:
            yield _SqliteTransaction(connection)
        except BaseException as error:
            connection.rollback()
            if isinstance(error, sqlite3.OperationalError) and not _is_its_own(error):
                raise self._unavailable(error) from error
            raise
        with self._translated():
            connection.commit()

    def _locked(
        self, transaction: Transaction, partitions: Sequence[int]
    ) -> Mapping[int, Position]:
        rows = transaction.query("SELECT partition, next_offset, claim FROM refold_positions")
        return written(rows)

    @contextmanager
    def _translated(self) -> Generator[None, None, None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> TargetUnavailable:
        return TargetUnavailable(
            f"the projection {self.name!r} can't be kept in {self._files.directory}: {error}. Check that this user "
            "may write there and that the disk has room"
        )


def _is_its_own(error: sqlite3.OperationalError) -> bool:
    """Whether an error is the statement's, and neither the disk's nor the file's."""
    return error.sqlite_errorcode == sqlite3.SQLITE_ERROR


class ViewFiles:
    """The files of one projection.

    Args:
        directory: Where they are.
        name: The projection's.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self._name = name

    @property
    def link(self) -> Path:
        """What readers open."""
        return self.directory / f"{self._name}.db"

    @contextmanager
    def locked(self) -> Generator[None, None, None]:
        """Nobody else makes files or moves the link inside the block. The directory is made."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with closing(FileLock(self.directory / f"{self._name}.lock")) as lock:
            wait_for(lock, _BUSY_S)
            yield

    def current(self) -> Path | None:
        """The file that the link names; None where there is none."""
        try:
            return self.directory / self.link.readlink()
        except FileNotFoundError:
            return None

    def all(self) -> list[Path]:
        """Every file with tables, current or not."""
        found = self.directory.glob(f"{self._name}.*.db")
        return [path for path in found if path.name.split(".")[1].isdecimal()]

    def number(self, path: Path) -> int:
        """Which file it is, counted from 1."""
        return int(path.name.split(".")[1])

    def next(self) -> Path:
        """A file that is not there yet."""
        number = max(map(self.number, self.all()), default=0) + 1
        return self.directory / f"{self._name}.{number}.db"

    def point_to(self, path: Path) -> None:
        """Move the link, in one moment for everybody."""
        draft = self.link.with_suffix(".link")
        draft.unlink(missing_ok=True)
        draft.symlink_to(path.name)
        draft.replace(self.link)

    def remove(self, path: Path) -> None:
        """Delete a file and what SQLite keeps beside it. Whoever has it open can go on reading."""
        for suffix in ("", "-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


class _SqliteTransaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @property
    def dialect(self) -> Dialect:
        return "sqlite"

    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> None:
        self._connection.execute(sql, parameters)

    def execute_many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        self._connection.executemany(sql, rows)

    def query(self, sql: str, parameters: Sequence[Value] = ()) -> Sequence[tuple[Any, ...]]:
        return self._connection.execute(sql, parameters).fetchall()


def names_in(directory: Path) -> list[str]:
    """The projections that are kept in a directory, in order."""
    return sorted(path.stem for path in directory.glob("*.db") if path.is_symlink())


def positions_in(directory: Path, name: str) -> Mapping[int, Position]:
    """How far each partition is in a projection, as its readers see it.

    Raises:
        TargetUnavailable: It can't be read.
    """
    link = ViewFiles(directory, name).link
    try:
        with closing(open_for_reading(link)) as connection:
            rows = connection.execute("SELECT partition, next_offset, claim FROM refold_positions")
            return written(rows.fetchall())
    except (sqlite3.Error, OSError) as error:
        raise TargetUnavailable(f"{link} can't be read: {error}") from error


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that can't write; to be used by one thread at a time.

    Raises:
        sqlite3.OperationalError: The file is not there.
    """
    uri = f"file:{quote(os.fspath(path.resolve()))}?mode=ro"
    connection = sqlite3.connect(
        uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
    )
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return connection

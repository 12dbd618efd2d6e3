"""Opening a SqliteLog's file: what is made, what is refused, and that what is refused stays as it was."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from log_backend import records_of
from refold.log.errors import LogCorrupt, LogError, LogMismatch, LogUnavailable
from refold.log.layout import Layout
from refold.log.protocol import Channel, Entry
from refold.log.sqlite import SqliteLog
from refold.log.sqlite_file import FORMAT, open_file


def make(path: Path, partitions: int | None = None, records: int = 0) -> None:
    """A log in that file, closed, with so many events in partition 0."""

    async def scenario() -> None:
        log = SqliteLog(path, partitions)
        await log.open()
        await log.append(Channel.EVENTS, 0, [Entry(f"wf-{n}", b"v" * 500) for n in range(records)])
        await log.close()

    asyncio.run(scenario())


def read_all(path: Path) -> int:
    """How many events can be read from partition 0."""

    async def scenario() -> int:
        log = SqliteLog(path)
        await log.open()
        try:
            return len(await records_of(log, Channel.EVENTS))
        finally:
            await log.close()

    return asyncio.run(scenario())


def refusal_of(path: Path, partitions: int | None = None) -> LogError:
    """The error with which opening is refused."""
    with pytest.raises(LogError) as caught:
        make(path, partitions)
    return caught.value


OPEN = """
import asyncio, sys
from refold.log.errors import LogError
from refold.log.sqlite import SqliteLog

try:
    asyncio.run(SqliteLog(sys.argv[1]).open())
except LogError as error:
    print(type(error).__name__, error)
"""

# Root writes read-only files by a capability (Linux), which no program has that is started after its removal. Another
# user id would do as well, but might not reach the interpreter, the packages and the temporary directory.
WITHOUT_ROOTS_POWER = """
import ctypes, os, sys
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1
ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def refusal_as_an_ordinary_user(path: Path) -> tuple[str, str]:
    """Kind and message of the error with which opening is refused to whom permissions bind, as they don't bind root."""
    launcher = ["-c", WITHOUT_ROOTS_POWER] if os.geteuid() == 0 else []
    command = [sys.executable, *launcher, "-c", OPEN, str(path)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert said, "the log was opened"
    kind, _, message = said.partition(" ")
    return kind, message


class TestMaking:
    def test_a_missing_file_is_made(self, tmp_path: Path) -> None:
        """Given no file, opening makes one with the number of partitions asked for, and nothing half-made beside it."""
        path = tmp_path / "new.db"
        make(path, 3)
        assert path.read_bytes()[68:72] == b"RFLD"
        assert sorted(p.name for p in tmp_path.iterdir()) == ["new.db", "new.db.locks"]
        with pytest.raises(LogMismatch, match=r"made with 3 partitions; asked for was 4"):
            make(path, 4)

    def test_a_file_with_pools_is_not_opened_by_releases_that_know_of_none(
        self, tmp_path: Path
    ) -> None:
        """Given a new file with pools, it has a format that older releases refuse; one without has theirs."""
        for pools, expected in ((), 1), ((("gpu", 2),), FORMAT):
            path = tmp_path / f"{len(pools)}.db"
            file = open_file(path, 3, pools)
            assert file.layout == Layout(3, pools)
            assert file.reader.execute("PRAGMA user_version").fetchone() == (expected,)
            file.writer.close()
            file.reader.close()
        with pytest.raises(LogMismatch, match="made with 3 partitions, and 2 of pool gpu; asked"):
            open_file(tmp_path / "1.db", 3, ())

    def test_an_empty_file_is_taken(self, tmp_path: Path) -> None:
        """Given an empty file, as tempfile makes them, it becomes a log of one partition."""
        path = tmp_path / "empty.db"
        path.touch()
        make(path, records=5)
        assert read_all(path) == 5

    def test_many_at_once_make_one_log(self, tmp_path: Path) -> None:
        """Given 8 threads that open the same missing file at the same time, all get the same log."""
        path = tmp_path / "race.db"
        with ThreadPoolExecutor(8) as pool:
            opened = list(pool.map(open_file, [path] * 8, [None] * 8))
        for file in opened:
            file.reader.close()
            file.writer.close()
        assert len({file.namespace_id for file in opened}) == 1

    def test_a_log_is_opened_again_with_what_it_has(self, tmp_path: Path) -> None:
        """Given a log with records, opening it without a number of partitions finds them."""
        path = tmp_path / "kept.db"
        make(path, 2, records=10)
        assert read_all(path) == 10

    def test_commits_are_synced(self, tmp_path: Path) -> None:
        """Given an open log, its connection writes ahead and syncs with every commit."""
        file = open_file(tmp_path / "sync.db", None)
        with closing(file.reader), closing(file.writer) as writer:
            assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert writer.execute("PRAGMA synchronous").fetchone() == (2,)


class TestRefusing:
    def test_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        """Given a text file, it is refused by name and stays as it was."""
        path = tmp_path / "notes.txt"
        path.write_text("dear diary\n" * 50)
        error = refusal_of(path)
        assert isinstance(error, LogMismatch)
        assert "notes.txt is not a refold log" in str(error)
        assert path.read_text() == "dear diary\n" * 50

    def test_a_database_of_another_program(self, tmp_path: Path) -> None:
        """Given a SQLite file of somebody else, it is refused and not one byte changes."""
        path = tmp_path / "other.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE customers (name TEXT)")
        before = path.read_bytes()
        error = refusal_of(path)
        assert isinstance(error, LogMismatch)
        assert "another program" in str(error)
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["other.db"]

    def test_a_newer_format(self, tmp_path: Path) -> None:
        """Given a log of a later release, it is refused and the error says to upgrade."""
        path = tmp_path / "newer.db"
        make(path)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
        error = refusal_of(path)
        assert isinstance(error, LogMismatch)
        assert f"format {FORMAT + 1}" in str(error)
        assert "upgrade" in str(error)

    def test_a_missing_directory(self, tmp_path: Path) -> None:
        """Given a path into a directory that does not exist, nothing is made and the error says what to check."""
        error = refusal_of(tmp_path / "nowhere" / "log.db")
        assert isinstance(error, LogUnavailable)
        assert "directory exists" in str(error)
        assert list(tmp_path.iterdir()) == []

    def test_a_directory(self, tmp_path: Path) -> None:
        """Given a directory instead of a file, it is refused."""
        error = refusal_of(tmp_path)
        assert isinstance(error, LogUnavailable)
        assert str(tmp_path) in str(error)

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")
    def test_a_directory_that_cannot_be_written(self) -> None:
        """Given a directory in which nobody may make files, not even root, the error names the path."""
        error = refusal_of(Path("/proc/refold.db"))
        assert isinstance(error, LogUnavailable)
        assert "/proc/refold.db" in str(error)

    def test_a_read_only_file(self, tmp_path: Path) -> None:
        """Given a log that this user may only read, opening says so, not the first append."""
        path = tmp_path / "readonly.db"
        make(path)
        path.chmod(0o444)
        kind, message = refusal_as_an_ordinary_user(path)
        assert kind == "LogUnavailable"
        assert "permissions" in message

    @pytest.mark.parametrize("partitions", [0, -1, 100_000])
    def test_an_impossible_number_of_partitions(self, tmp_path: Path, partitions: int) -> None:
        """Given no file and a number of partitions that makes no sense, nothing is made."""
        error = refusal_of(tmp_path / "log.db", partitions)
        assert isinstance(error, LogMismatch)
        assert str(partitions) in str(error)
        assert list(tmp_path.iterdir()) == []


class TestDamage:
    def test_overwritten_pages_are_called_damage(self, tmp_path: Path) -> None:
        """Given a log whose pages were overwritten, reading says that the file is damaged and names it."""
        path = tmp_path / "damaged.db"
        make(path, records=2_000)
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(size // 4)
            file.write(b"\xa5" * (size // 2))
        with pytest.raises(LogCorrupt, match=r"damaged\.db"):
            read_all(path)

    def test_a_file_cut_off_is_called_damage(self, tmp_path: Path) -> None:
        """Given a log of which only the first half is left, opening or reading says so."""
        path = tmp_path / "cut.db"
        make(path, records=2_000)
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(LogCorrupt, match=r"cut\.db"):
            read_all(path)

    @pytest.mark.parametrize("offset", [0, 700, 1_999])
    def test_a_deleted_row_is_missed(self, tmp_path: Path, offset: int) -> None:
        """Given a log from which somebody deleted a row (not the last), reading names the missing offset."""
        path = tmp_path / "gap.db"
        make(path, records=2_001)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("DELETE FROM events WHERE id = ?", (offset,))
        with pytest.raises(LogCorrupt, match=f"lack offset {offset}:"):
            read_all(path)

    @pytest.mark.parametrize(
        "headers", [b"\x00", b"\x00\x01\x00\x00\x00\xffa", b"\x00\x01\x00\x00\x00\x00\xff"]
    )
    def test_damaged_headers_are_named(self, tmp_path: Path, headers: bytes) -> None:
        """Given headers that were cut off or are no UTF-8, reading says after which offset."""
        path = tmp_path / "headers.db"
        make(path, records=3)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE events SET headers = ? WHERE id = 1", (headers,))
        with pytest.raises(LogCorrupt, match="after offset 0"):
            read_all(path)

    def test_missing_tables_are_named(self, tmp_path: Path) -> None:
        """Given a log whose events table was dropped, reading says that the tables are not ours."""
        path = tmp_path / "tables.db"
        make(path, records=3)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("DROP TABLE events")
        with pytest.raises(LogCorrupt, match="tables are not what refold made"):
            read_all(path)

    @pytest.mark.parametrize("text", ["", "two", "0", "-3", "1000000000"])
    def test_a_lost_number_of_partitions_is_damage(self, tmp_path: Path, text: str) -> None:
        """Given a log that does not say sensibly how many partitions it has, it is refused."""
        path = tmp_path / "meta.db"
        make(path)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE meta SET value = ? WHERE name = 'partitions'", (text,))
        assert isinstance(refusal_of(path), LogCorrupt)

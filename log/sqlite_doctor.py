"""What `refold doctor` looks at in a SQLite log: its file, the disk below it, and who holds which partition.

The file is only looked at through SQLite: opening and closing it otherwise would free the locks that a log of this very
process may hold on it ("How To Corrupt An SQLite Database File", 2.2).
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from refold.log.errors import LogError
from refold.log.file_lock import is_held
from refold.log.findings import Examination, Finding, fail, ok, warn
from refold.log.protocol import workers_of
from refold.log.sqlite_file import check_header, layout_of, locks_directory, translated

NETWORK_TYPES = frozenset(
    {
        *(
            "9p",
            "afs",
            "beegfs",
            "ceph",
            "cifs",
            "davfs",
            "fuse.glusterfs",
            "fuse.s3fs",
            "fuse.sshfs",
            "gfs2",
        ),
        *("glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb3", "smbfs"),
    }
)
"""File systems where neither SQLite's locks nor ours can be trusted between machines."""
FLEETING_TYPES = frozenset({"tmpfs", "ramfs"})
FREE_WARN_BYTES = 1 << 30
FREE_FAIL_BYTES = 64 << 20
"""SQLite's journal alone grows to megabytes under load; a full disk refuses every append."""
JOURNAL_WARN_BYTES = 256 << 20
CHECKED_MAX_BYTES = 4 << 30
"""`quick_check` reads the whole file, some 500 MB a second: above this it would be an ill-mannered question."""


def examine(path: Path) -> Examination:
    """Look at the file and what is around it. Blocks."""
    if not path.exists():
        advice = (
            "check the path; `refold run` or `refold worker` make a new log where there is none"
        )
        return Examination([fail("file", f"there is no file {path}", advice)], readable=False)
    findings = [*_access(path), *_file_system(path), *_space(path)]
    try:
        with (
            translated(path, "examine"),
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection,
        ):
            check_header(connection, path)
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            findings += _inside(connection, path, mode)
            layout = layout_of(path, dict(connection.execute("SELECT name, value FROM meta")))
    except LogError as error:
        findings.append(fail("file", str(error), "put the right file there, or a backup of it"))
        return Examination(findings, readable=False)
    holders: dict[int, str] = {}
    for pool in (None, *(name for name, _ in layout.pools)):
        locks, partitions = locks_directory(path, workers_of(pool)), layout.of(pool)
        held = [p for p in partitions if is_held(locks / f"partition-{p}.lock")]
        findings += _members(locks, pool, len(held), len(partitions))
        holders |= dict.fromkeys(held, "")
    return Examination(findings, holders, readable=mode == "wal")  # to open it would set the mode


def _access(path: Path) -> Iterator[Finding]:
    refused = [
        str(place) for place in (path, path.absolute().parent) if not os.access(place, os.W_OK)
    ]
    if refused:
        advice = "run as the user who owns them: a worker and a client write both"
        yield fail("file", f"this user may not write {' and '.join(refused)}", advice)
    else:
        yield ok("file", f"{path}, {_bytes(path.stat().st_size)}")
    journal = path.with_name(path.name + "-wal")
    size = journal.stat().st_size if journal.exists() else 0
    if size > JOURNAL_WARN_BYTES:
        yield warn(
            "journal",
            f"SQLite's journal has grown to {_bytes(size)}: a reader holds it back",
            "end processes that have kept the file open for long; the last to close folds it in",
        )


def _file_system(path: Path) -> Iterator[Finding]:
    kind = file_system_of(path.absolute())
    if kind is None:
        return
    if kind in NETWORK_TYPES:
        yield fail(
            "disk",
            f"the file is on a network file system ({kind}), which does not keep locks between machines: two workers"
            " could both own a partition, and the file could be damaged",
            "move it to a local disk, or use Kafka for several machines",
        )
    elif kind in FLEETING_TYPES:
        yield warn(
            "disk", f"the file is in memory ({kind}): a reboot loses it", "move it to a disk"
        )
    else:
        yield ok("disk", f"a local file system ({kind})")


def file_system_of(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """The type of the file system that a path is on; None where this system does not tell.

    Args:
        path: An absolute path.
        mounts: Linux's list of what is mounted where.
    """
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return None
    places = [
        (_unescaped(fields[1]), fields[2]) for line in lines if len(fields := line.split()) > 2
    ]
    resolved = path.resolve()
    around = [(place, kind) for place, kind in places if resolved.is_relative_to(place)]
    # The longest is the innermost; of two on one place, the later hides the earlier.
    return (
        max(enumerate(around), key=lambda item: (len(item[1][0]), item[0]))[1][1]
        if around
        else None
    )


def _unescaped(field: str) -> str:
    for escape, sign in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(escape, sign)
    return field


def _space(path: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(path.absolute().parent).free
    advice = "free some space, or move the log to a larger disk: a full one refuses every append"
    if free < FREE_FAIL_BYTES:
        yield fail("space", f"{_bytes(free)} are free", advice)
    elif free < FREE_WARN_BYTES:
        yield warn("space", f"{_bytes(free)} are free", advice)
    else:
        yield ok("space", f"{_bytes(free)} are free")


def _inside(connection: sqlite3.Connection, path: Path, mode: str) -> Iterator[Finding]:
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if mode != "wal":
        yield warn(
            "journal",
            f"the journal's mode is {mode}: readers and the writer would wait for each other",
            "it is set to WAL again at the next `refold worker`",
        )
    else:
        yield ok("journal", f"WAL, each append synced (synchronous=FULL), format {found}")
    size = path.stat().st_size
    if size > CHECKED_MAX_BYTES:
        yield ok(
            "content", f"not checked, for its size: `sqlite3 {path} 'PRAGMA quick_check'` does"
        )
        return
    problems = [text for (text,) in connection.execute("PRAGMA quick_check(3)")]
    if problems == ["ok"]:
        yield ok("content", f"SQLite {sqlite3.sqlite_version} finds no damage (quick_check)")
    else:
        yield fail(
            "content",
            f"the file is damaged: {'; '.join(problems)}",
            "stop all workers, keep a copy, restore a backup or `sqlite3 FILE .recover`; look at the disk",
        )


def _members(locks: Path, pool: str | None, held: int, partitions: int) -> Iterator[Finding]:
    living = sum(is_held(member) for member in locks.glob("member-*.lock"))
    whose, option = ("", "") if pool is None else (f" of pool {pool}", f"--pool {pool} ")
    if living == 0:
        yield warn(
            "workers",
            f"no worker{whose} is there",
            f"start one: `refold worker {option}MODULE --url ...`",
        )
    else:
        yield ok("workers", f"{living}{whose} there, {held} of {partitions} partitions are held")


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"

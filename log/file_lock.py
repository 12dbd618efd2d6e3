"""Locks on files that the kernel frees when their holder dies, by SIGKILL too; and partitions shared by them.

`flock` belongs to the open file, not to the process, so two logs in one process exclude each other as two processes do
(`fcntl` locks would not). It does not hold across machines on every network file system, and SQLite's own locks don't
either: a SqliteLog belongs on a local disk.
"""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from refold.log.errors import LogUnavailable


class FileLock:
    """An exclusive lock on a file, which is made where it is missing and never removed here."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Try to take the lock, without waiting. True if it is held now, also when it was before."""
        if self._descriptor is not None:
            return True
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def close(self) -> None:
        """Free the lock if it is held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class UseLock:
    """A lock on a file, made where it is missing: many hold it to use something, and one alone to change it."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def try_alone(self) -> bool:
        """Whether nobody else holds it now, and nobody can until `use` or `close`. What was held before is let go."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def use(self) -> None:
        """Hold it with others. Blocks while somebody has it alone."""
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def close(self) -> None:
        """Let it go; once."""
        os.close(self._descriptor)


def wait_for(lock: FileLock, timeout_s: float) -> None:
    """Take a lock that is only ever held for a moment. Blocks.

    Raises:
        LogUnavailable: It was not free within `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    while not lock.acquire():
        if time.monotonic() > deadline:
            raise LogUnavailable(
                f"another process has held {lock.path} for {timeout_s:.0f} s: is it stuck?"
            )
        time.sleep(0.005)


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock on `path`. A look takes a shared lock, so looks don't disturb each other."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


class PartitionFiles:
    """One member's locks: a file for each partition, and one that says by its lock that the member lives.

    Args:
        directory: Where the lock files are; made where it is missing.

    Raises:
        OSError: The directory or a file in it can't be made.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._locks: dict[int, FileLock] = {}
        self._alive = FileLock(directory / f"member-{uuid4().hex}.lock")
        # Only a look in the very moment between making and locking can be in the way; then the name is new anyway.
        while not self._alive.acquire():
            self._alive = FileLock(directory / f"member-{uuid4().hex}.lock")

    def acquire(self, partition: int) -> bool:
        """Try to take a partition; True if it is this member's now."""
        lock = FileLock(self._directory / f"partition-{partition}.lock")
        if partition in self._locks or not lock.acquire():
            return partition in self._locks
        self._locks[partition] = lock
        return True

    def release(self, partition: int) -> None:
        """Free a partition."""
        lock = self._locks.pop(partition, None)
        if lock is not None:
            lock.close()

    def members(self) -> int:
        """Number of living members, this one among them. The files of dead ones are removed."""
        living = 0
        for path in self._directory.glob("member-*.lock"):
            if is_held(path):
                living += 1
            else:
                path.unlink(missing_ok=True)
        return max(1, living)

    def close(self) -> None:
        """Free everything; this member is one no longer."""
        for partition in tuple(self._locks):
            self.release(partition)
        with suppress(OSError):  # whoever counts next removes it
            self._alive.path.unlink(missing_ok=True)
        self._alive.close()

"""The files of seals and of keys: read whole, added to by one line that is on the disk before anybody is told."""

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from refold.log.errors import LogCorrupt, LogMismatch, LogUnavailable, UsageError
from refold.log.file_lock import FileLock
from refold.projections.seal import (
    PublicKey,
    Seal,
    SealKey,
    read_key,
    read_public_key,
    read_seals,
    sound_seals,
)

PUBLIC_SUFFIX = ".pub"


def write_keys(path: Path, key: SealKey) -> Path:
    """Write a new key to a file that only its owner can read, and its public half beside it; returns where that is.

    Raises:
        UsageError: One of the files is there already, or can't be written.
    """
    public = path.with_name(path.name + PUBLIC_SUFFIX)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        with os.fdopen(os.open(path, flags, 0o600), "w") as file:
            file.write(key.pem())
        with os.fdopen(os.open(public, flags, 0o644), "w") as file:
            file.write(key.public.pem())
    except FileExistsError as error:
        raise UsageError(
            f"{error.filename} is there already: a key is never overwritten. Give another name"
        ) from error
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}") from error
    return public


def key_at(path: Path) -> SealKey:
    """The private key in a file.

    Raises:
        UsageError: It can't be read, or is no such key.
    """
    return read_key(_bytes_of(path), str(path))


def public_key_at(path: Path) -> PublicKey:
    """The public key in a file.

    Raises:
        UsageError: It can't be read, or is no such key.
    """
    return read_public_key(_bytes_of(path), str(path))


def seals_at(path: Path, keys: Sequence[PublicKey], *, may_be_missing: bool = False) -> list[Seal]:
    """All seals in a file, verified; none of one that is not there yet, where that may be.

    Raises:
        UsageError: The file can't be read.
        LogError: As `read_seals`.
    """
    if may_be_missing and not path.exists():
        return []
    return read_seals(_text_of(path), keys, str(path))


def sound_seals_at(
    path: Path, keys: Sequence[PublicKey]
) -> tuple[list[Seal], LogMismatch | LogCorrupt | None]:
    """The seals in a file up to the first that is not right, and what is wrong with it.

    Raises:
        UsageError: The file can't be read.
    """
    return sound_seals(_text_of(path), keys, str(path))


def _text_of(path: Path) -> str:
    try:
        return _bytes_of(path).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a file of seals: {error}") from error


@contextmanager
def adding_to(path: Path) -> Generator[None, None, None]:
    """Keep others from adding to a file of seals inside the block: a seal names the one before it.

    Raises:
        LogUnavailable: Somebody else adds to it.
        UsageError: The file can't be written.
    """
    lock = FileLock(path.with_name(path.name + ".lock"))
    try:
        if not lock.acquire():
            raise LogUnavailable(
                f"another process seals into {path}: one at a time, or another file"
            )
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.close()


def add(path: Path, seal: Seal) -> None:
    """Add a seal to its file.

    Raises:
        LogUnavailable: The file can't be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        with os.fdopen(descriptor, "ab") as file:
            file.write(f"{seal.line}\n".encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise LogUnavailable(f"{path} can't be written: {error.strerror}") from error


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error

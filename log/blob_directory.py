"""Blobs as files in a directory: beside a SQLite log, or on a file system that all workers and clients share.

`<directory>/ab/abcdef...` holds the blob with that SHA-256. A blob is written to a temporary file beside its place,
fsynced, renamed, and the directories that name it are fsynced: whatever stands under a digest is whole. A blob that is
there already is touched, which says that somebody is about to name it in a record.

The collector deletes by renaming first and looking at the time after: of a blob that is touched meanwhile either the
writer finds it gone and writes it again, or the collector finds it young and puts it back.
"""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from refold.log.blobs import Stored
from refold.log.errors import BlobsUnavailable

_TEMPORARY: Final = ".tmp-"
_CONDEMNED: Final = ".gone-"
_DIGEST_CHARS: Final = 64
_LOOKS: Final = 3
_LOOK_AGAIN_S: Final = 0.01
"""A blob that the collector has just taken and puts back is away for microseconds."""


class DirectoryBlobs:
    """A directory of blobs. It is made when the first blob is put.

    Args:
        directory: Where.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = Path(directory)
        self._known: set[Path] = set()  # parts whose own entries are durable

    @property
    def url(self) -> str:
        """Where it is."""
        return self._directory.absolute().as_uri()

    @property
    def directory(self) -> Path:
        """The directory."""
        return self._directory

    def path(self, digest: str) -> Path:
        """The file of a blob."""
        return self._directory / digest[:2] / digest

    def put(self, digest: str, data: bytes) -> None:
        """Keep a blob; durable when this returns."""
        path = self.path(digest)
        try:
            if not _touched(path, len(data)):
                self._write(path, data)
            self._sync(path.parent)
        except OSError as error:
            raise self._unavailable("written", error) from error

    def get(self, digest: str) -> bytes | None:
        """A blob's bytes; None where there is none."""
        path = self.path(digest)
        try:
            for look in range(_LOOKS):
                if look:
                    time.sleep(_LOOK_AGAIN_S)
                with suppress(FileNotFoundError):
                    return path.read_bytes()
                if not path.parent.exists():
                    return None
        except OSError as error:
            raise self._unavailable("read", error) from error
        return None

    def stored(self) -> Iterator[Stored]:
        """All blobs."""
        for path in self._files():
            if len(path.name) == _DIGEST_CHARS:
                with suppress(FileNotFoundError):  # deleted meanwhile
                    found = path.stat()
                    yield Stored(path.name, found.st_size, found.st_mtime)

    def delete(self, digest: str, before: float) -> bool:
        """Delete a blob unless it was put at `before` or later."""
        path = self.path(digest)
        condemned = path.with_name(f"{_CONDEMNED}{digest}")
        try:
            if path.stat().st_mtime >= before:
                return False
            path.rename(condemned)
            if condemned.stat().st_mtime >= before:
                condemned.rename(path)
                return False
            condemned.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._unavailable("cleared", error) from error
        return True

    def delete_leftovers(self, before: float) -> int:
        """Delete what writers and collectors that died before `before` have left.

        A blob that a collector had taken is put back where nobody has written it again: it may have become young.
        """
        deleted = 0
        try:
            for path in self._files():
                if path.name.startswith(_TEMPORARY) and path.stat().st_mtime < before:
                    path.unlink(missing_ok=True)
                    deleted += 1
                elif path.name.startswith(_CONDEMNED):
                    with suppress(FileExistsError):
                        path.with_name(path.name.removeprefix(_CONDEMNED)).hardlink_to(path)
                    path.unlink(missing_ok=True)
                    deleted += 1
        except OSError as error:
            raise self._unavailable("cleared", error) from error
        return deleted

    def _write(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def _sync(self, part: Path) -> None:
        """Make the names on the way to a blob durable.

        Also where it was there: whoever made it may not have come to this yet.
        """
        _sync_directory(part)
        if part not in self._known:
            _sync_directory(self._directory)
            _sync_directory(self._directory.parent)
            self._known.add(part)

    def _files(self) -> Iterator[Path]:
        try:
            for part in sorted(self._directory.glob("[0-9a-f][0-9a-f]")):
                yield from sorted(part.iterdir())
        except OSError as error:
            raise self._unavailable("read", error) from error

    def _unavailable(self, what: str, error: OSError) -> BlobsUnavailable:
        return BlobsUnavailable(
            f"the blob store {self.url} can't be {what} now ({error}): it needs a directory that this process may "
            "read and write, with room on its disk"
        )


def _touched(path: Path, size: int) -> bool:
    """Make a blob young that is there; False where there is none, or one that was cut off by a damaged disk."""
    try:
        os.utime(path)
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

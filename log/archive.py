"""An archive of a log's events: a directory of files, read.

    manifest.json                                               what is there (`archive_manifest.py`)
    events/partition=0/00000000000000000000-00000000000000249999.parquet
    events/partition=0/00000000000000250000-...

Every record of each partition is in it as it stood in the log, from the archive's first offset on and without a gap:
the raw truth, with what former owners wrote in vain. Files are never changed. `archive_writer.py` writes them.
"""

import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol, runtime_checkable
from urllib.parse import unquote, urlsplit

from refold.log.archive_avro import AvroFiles
from refold.log.archive_manifest import NAME, ArchivedFile, Manifest, read_manifest
from refold.log.archive_rows import FileFormat
from refold.log.errors import LogCorrupt, LogMismatch, LogUnavailable, UsageError
from refold.log.protocol import Bounds, Log, Record

FORMATS: Final = ("parquet", "avro")


@runtime_checkable
class Identified(Protocol):
    """A log that can be told from others of its name."""

    @property
    def identity(self) -> str:
        """A name that no other log has. Known after `open`."""
        ...


def identity_of(log: Log) -> str:
    """What tells a log from others of its name; empty where nothing does."""
    return log.identity if isinstance(log, Identified) else ""


def archive_path(place: str) -> Path:
    """The directory that a path or a file URL names.

    Raises:
        UsageError: It is neither.
    """
    if "://" not in place:
        if not place:
            raise UsageError("an archive is named by a directory or by file:///DIRECTORY")
        return Path(place)
    parts = urlsplit(place)
    path = unquote(parts.path)
    if parts.scheme != "file" or parts.netloc or parts.query or parts.fragment or not path:
        raise UsageError(
            f"{place!r} does not name an archive: give a directory, or its URL as in file:///var/lib/refold/archive"
        )
    return Path(path)


def format_of(suffix: str) -> FileFormat:
    """The format `parquet` or `avro`.

    Raises:
        UsageError: There is no such format, or the extra that it needs is missing.
    """
    if suffix == "avro":
        return AvroFiles()
    if suffix != "parquet":
        raise UsageError(f"an archive's format is {' or '.join(FORMATS)}, not {suffix!r}")
    try:
        from refold.log.archive_parquet import ParquetFiles  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            "Parquet needs pyarrow: pip install 'refold[parquet]', or choose --format avro, which needs nothing more"
        ) from error
    return ParquetFiles()


class Archive:
    """An archive that is there. Every method blocks.

    Args:
        place: Its directory, or that directory's file URL.

    Raises:
        LogUnavailable: It is not there, or can't be read.
        LogCorrupt: Its manifest was damaged.
        LogMismatch: A newer release wrote it.
        UsageError: `place` names no directory.
    """

    def __init__(self, place: str) -> None:
        self.directory = archive_path(place)
        self._verified: set[str] = set()
        self.manifest = self._manifest()

    def __repr__(self) -> str:
        return f"<archive {self.directory}>"

    def reload(self) -> None:
        """See what was archived since. Raises as the class."""
        self.manifest = self._manifest()

    def _manifest(self) -> Manifest:
        path = self.directory / NAME
        with _read_errors(path, "there is no archive, or it can't be read"):
            text = path.read_text(encoding="utf-8")
        return read_manifest(text, str(path))

    def bounds(self, partition: int) -> Bounds:
        """What is archived of a partition; (0, 0) for nothing."""
        return self.manifest.bounds(partition)

    def check_is_of(self, log: Log) -> None:
        """Check that it is the archive of this log.

        Raises:
            LogMismatch: It is another log's.
        """
        of = self.manifest
        if (of.identity, of.partitions) != (identity_of(log), log.partitions):
            raise LogMismatch(
                f"the archive {self.directory} is of {of.namespace!r} with {of.partitions} partition(s) and the id "
                f"{of.identity or 'unknown'}, not of {log.namespace!r} with {log.partitions} and the id "
                f"{identity_of(log) or 'unknown'}: name the archive of this log, or another directory"
            )

    def read(
        self, partition: int, start: int, stop: int | None = None, *, key: str | None = None
    ) -> Iterator[Sequence[Record]]:
        """Records from offset `start` up to (without) `stop`, or all that are archived.

        With `key`, only records of that key and records without any key are given, as by `Log.read`. A file is
        verified before the first record of it is given.

        Raises:
            LogCorrupt: A file is missing, or is not what was written.
            LogUnavailable: It can't be read.
            UsageError: It is in a format whose extra is missing.
        """
        for file in self.manifest.of(partition):
            if file.end <= start or (stop is not None and file.start >= stop):
                continue
            self.verify_once(file)
            for batch in self.records(file):
                wanted = [
                    record
                    for record in batch
                    if record.offset >= start
                    and (stop is None or record.offset < stop)
                    and (key is None or record.key is None or record.key == key)
                ]
                if wanted:
                    yield wanted

    def offset_at(self, partition: int, time: int) -> int | None:
        """Offset of the first archived record whose log's time is `time` (microseconds since 1970-01-01 UTC) or later.

        Returns:
            None where all that are archived are earlier.

        Raises:
            LogError: As `read`.
        """
        for file in self.manifest.of(partition):
            if file.last_timestamp >= time:
                for batch in self.read(partition, file.start, file.end):
                    for record in batch:
                        if record.timestamp >= time:
                            return record.offset
        return None

    def verify_once(self, file: ArchivedFile) -> None:
        """Check that a file is what was written, unless this object has done so before. Raises as `read`."""
        if file.sha256 in self._verified:
            return
        path = self.directory / file.path
        with _read_errors(path, "it is missing from its archive, or can't be read"):
            size = path.stat().st_size
            with path.open("rb") as opened:
                sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        if (size, sha256) != (file.size, file.sha256):
            raise LogCorrupt(
                f"{path} is not what was archived: it has {size:,} bytes and the SHA-256 {sha256}, not "
                f"{file.size:,} bytes and {file.sha256}. Restore it from a backup"
            )
        self._verified.add(file.sha256)

    def records(self, file: ArchivedFile) -> Iterator[Sequence[Record]]:
        """All records of a file, in order, as they are there. Raises as `read`."""
        path = self.directory / file.path
        format_ = format_of(file.suffix)
        with (
            _read_errors(path, "it is missing from its archive, or can't be read"),
            path.open("rb") as opened,
        ):
            try:
                yield from format_.read(opened)
            except LogCorrupt as error:
                raise LogCorrupt(
                    f"{path} can't be read: {error}. Restore it from a backup"
                ) from error


@contextmanager
def _read_errors(path: Path, told: str) -> Generator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise LogUnavailable(
            f"{path}: {told}. Check the name of the archive, and that it is mounted here"
        ) from error
    except OSError as error:
        raise LogUnavailable(f"{path}: {told} ({error.strerror or error})") from error

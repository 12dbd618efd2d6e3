"""Writing an archive: events go on where the archive ends, file by file, each whole or not there at all.

The order of a file: written under another name, brought to the disk, read back and compared record by record with what
was read from the log, given its name, named in the manifest. Whoever dies on the way leaves a file that the manifest
does not name; the next writer removes it and begins there again. One writer works at a time.
"""

import hashlib
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, replace
from io import BufferedRandom
from pathlib import Path
from typing import Final

from refold.log.archive import Archive, archive_path, format_of, identity_of
from refold.log.archive_disk import Disk
from refold.log.archive_manifest import NAME, ArchivedFile, Manifest
from refold.log.archive_rows import FileFormat, RecordDigest, Row, RowWriter, columns_of
from refold.log.chain_walk import Beginning, ChainWalk, beginning
from refold.log.codec import decode_event
from refold.log.errors import LogCorrupt, LogMismatch, LogUnavailable, UsageError
from refold.log.file_lock import FileLock
from refold.log.protocol import Channel, Log, Record

_FOLDER: Final = "events"
_UNFINISHED: Final = ".unfinished"
_LOCK: Final = "writer.lock"
_NAME: Final = re.compile(r"[0-9]{20}-[0-9]{20}\.(parquet|avro)(\.unfinished)?")

Told = Callable[[int, int], None]
"""Told a partition, and how many more of its records are archived."""


@dataclass(frozen=True, slots=True)
class ArchiveSettings:
    """How an archive is written.

    Args:
        format: `parquet` or `avro`.
        file_records: Records after which a file is full.
        file_bytes: Bytes of values after which a file is full.
    """

    format: str = "parquet"
    file_records: int = 250_000
    file_bytes: int = 256_000_000


class ArchiveWriter:
    """Adds to an archive. Make it with `writing`.

    Args:
        archive: The archive.
        settings: See there.
        disk: Where the files go.
    """

    def __init__(self, archive: Archive, settings: ArchiveSettings, disk: Disk) -> None:
        self.archive = archive
        self._settings = settings
        self._format = format_of(settings.format)
        self._disk = disk

    async def start_of(self, log: Log, partition: int) -> Beginning:
        """From where the next file goes on.

        Raises:
            LogCorrupt: The log begins after the end of the archive, or ends before it.
            LogError: The log can't be read.
        """
        bounds = await log.bounds(Channel.EVENTS, partition)
        files = self.archive.manifest.of(partition)
        if not files:
            return await beginning(log, partition)
        last = files[-1]
        if not bounds.start <= last.end <= bounds.end:
            raise LogCorrupt(
                f"the archive {self.archive.directory} ends before offset {last.end} of partition {partition}, and the "
                f"log has offsets {bounds.start} to {bounds.end - 1}: they do not meet. Archive into another directory,"
                " and find out who deleted what was between them"
            )
        chain = None if last.chain_after is None else bytes.fromhex(last.chain_after)
        return Beginning(last.end, last.claim_after, chain)

    async def add(self, log: Log, partition: int, stop: int, told: Told) -> None:
        """Archive a partition's events up to (without) `stop`, from where the archive ends.

        Raises:
            LogCorrupt: The chain does not hold, or a file that was written can't be read back: what was archived
                before stays.
            LogUnavailable: The log or the disk can't be used.
            LogError: The log can't be read.
        """
        start = await self.start_of(log, partition)
        walk = ChainWalk(partition, start.claim, start.chain)
        file: _File | None = None
        end = start.offset
        try:
            async with aclosing(log.read(Channel.EVENTS, partition, end, stop)) as batches:
                async for batch in batches:
                    told(partition, len(batch))
                    records = batch
                    while records:
                        file = file or self._begin(partition, end, walk)
                        room = self._settings.file_records - file.digest.count
                        file.take(records[:room])
                        end = records[:room][-1].offset + 1
                        records = records[room:]
                        if self._is_full(file):
                            self._finish(file, end)
                            file = None
            if file is not None:
                self._finish(file, stop)
                file = None
        except OSError as error:
            raise _of_disk(self.archive.directory, error) from error
        finally:
            if file is not None:
                file.abandon()

    def _is_full(self, file: "_File") -> bool:
        settings = self._settings
        return file.digest.count >= settings.file_records or file.value_bytes >= settings.file_bytes

    def _begin(self, partition: int, start: int, walk: ChainWalk) -> "_File":
        folder = self.archive.directory / _FOLDER / f"partition={partition}"
        path = folder / f"{start:020}-{start:020}.{self._format.suffix}{_UNFINISHED}"
        opened = self._disk.create(path)
        return _File(path, opened, self._format.writer(opened), walk, start)

    def _finish(self, file: "_File", end: int) -> None:
        """Have a file on the disk, read it back, give it its name, and name it in the manifest."""
        disk, opened = self._disk, file.opened
        file.writer.finish()
        disk.sync(opened)
        entry = file.entry(end, self._format.suffix)
        _check_read_back(file, self._format)
        opened.close()
        disk.rename(file.path, self.archive.directory / entry.path)
        manifest = self.archive.manifest
        manifest = replace(manifest, files=(*manifest.files, entry))
        write_manifest(self.archive.directory, manifest, disk)
        self.archive.manifest = manifest


class _File:
    """A file that is being written."""

    def __init__(
        self, path: Path, opened: BufferedRandom, writer: RowWriter, walk: ChainWalk, start: int
    ) -> None:
        self.path = path
        self.opened = opened
        self.writer = writer
        self.digest = RecordDigest()
        self.value_bytes = 0
        self._walk = walk
        self._start = start
        self._before = walk.claim, walk.chain
        self._times = [0, 0]

    def take(self, records: Sequence[Record]) -> None:
        """Add records."""
        rows: list[Row] = []
        for record in records:
            event = decode_event(record)
            rows.append(Row(record, self._walk.take(record, event), columns_of(event)))
            self.digest.take(record)
            self.value_bytes += len(record.value)
        if self.digest.count == len(records):
            self._times[0] = records[0].timestamp
        self._times[1] = records[-1].timestamp
        self.writer.write(rows)

    def entry(self, end: int, suffix: str) -> ArchivedFile:
        """What the manifest says of it, once it is whole."""
        self.opened.seek(0)
        sha256 = hashlib.file_digest(self.opened, "sha256").hexdigest()
        claim, chain = self._before
        walk = self._walk
        return ArchivedFile(
            partition=walk.partition,
            start=self._start,
            end=end,
            suffix=suffix,
            count=self.digest.count,
            first_timestamp=self._times[0],
            last_timestamp=self._times[1],
            size=self.opened.tell(),
            sha256=sha256,
            records=self.digest.hex(),
            claim_before=claim,
            claim_after=walk.claim,
            chain_before=None if chain is None else chain.hex(),
            chain_after=None if walk.chain is None else walk.chain.hex(),
        )

    def abandon(self) -> None:
        """It will not be finished; the next writer removes it."""
        with suppress(Exception):  # whatever a half-written file still has to say
            self.opened.close()


def _check_read_back(file: _File, format_: FileFormat) -> None:
    found = RecordDigest()
    with file.path.open("rb") as opened:
        for batch in format_.read(opened):
            for record in batch:
                found.take(record)
    if (found.count, found.hex()) != (file.digest.count, file.digest.hex()):
        raise LogCorrupt(
            f"{file.path} does not read back as what was written to it: check the disk, and archive again"
        )


@contextmanager
def writing(
    place: str, log: Log, settings: ArchiveSettings, disk: Disk | None = None
) -> Generator[ArchiveWriter]:
    """The archive of an open log, to be added to inside the block; made where there is none.

    Args:
        place: Its directory, or that directory's file URL.
        log: The log.
        settings: How it is written.
        disk: Where the files go; the file system where not given.

    Raises:
        LogMismatch: The archive there is another log's, or the directory has event files and no manifest.
        LogUnavailable: Another process writes to it, or the disk can't be used.
        LogCorrupt: Its manifest was damaged.
        UsageError: `place` names no directory, or an extra is missing.
    """
    disk = disk or Disk()
    directory = archive_path(place)
    format_of(settings.format)
    if directory.is_file():
        raise UsageError(f"{directory} is a file, and an archive is a directory: name another")
    try:
        disk.make_directory(directory)
        lock = FileLock(directory / _LOCK)
        if not lock.acquire():
            raise LogUnavailable(
                f"another process writes to the archive {directory}: wait until it is done"
            )
    except OSError as error:
        raise _of_disk(directory, error) from error
    try:
        archive = _opened(directory, log, disk)
        yield ArchiveWriter(archive, settings, disk)
    finally:
        lock.close()


def _opened(directory: Path, log: Log, disk: Disk) -> Archive:
    try:
        if not (directory / NAME).exists():
            if any((directory / _FOLDER).rglob("*")):
                raise LogMismatch(
                    f"{directory} has event files and no {NAME}: restore that from a backup, or name another directory"
                )
            made = Manifest(log.namespace, identity_of(log), log.partitions, pools=log.layout.pools)
            write_manifest(directory, made, disk)
        archive = Archive(str(directory))
        archive.check_is_of(log)
        _remove_leftovers(archive, disk)
    except OSError as error:
        raise _of_disk(directory, error) from error
    return archive


def write_manifest(directory: Path, manifest: Manifest, disk: Disk) -> None:
    """Replace the manifest, all at once."""
    draft = directory / f"{NAME}{_UNFINISHED}"
    with disk.create(draft) as file:
        file.write(manifest.to_json().encode())
        disk.sync(file)
    disk.rename(draft, directory / NAME)


def _remove_leftovers(archive: Archive, disk: Disk) -> None:
    """Delete what writers that died have left: files of ours that the manifest does not name."""
    named = {archive.directory / file.path for file in archive.manifest.files}
    for path in (archive.directory / _FOLDER).glob("partition=*/*"):
        if path not in named and _NAME.fullmatch(path.name):
            disk.remove(path)


def _of_disk(directory: Path, error: OSError) -> LogUnavailable:
    return LogUnavailable(
        f"the archive {directory} can't be written: {error.strerror or error}. What was archived before is whole; free "
        "some space or mend the disk, then archive again"
    )

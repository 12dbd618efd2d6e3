"""Sinks that are files: what all of them have in common, and their manifest.

    _manifest.json   {"format": 1, ..., "positions": {"0": [offset, claim]}, "files": [{"path", "rows", "bytes"}], ...}

The manifest is the one truth: its rename is the moment at which rows and positions are saved, together. What is on the
disk and not in it (or beyond the bytes that it names) was being written when a process died, and goes when the target
is opened again, or written by somebody else.

Several processes may have a target open, and share the log's partitions. One of them writes at a time: the lock is held
for a write, and the kernel frees it when its holder dies. The lock's file has something in it while a write is under
way, so the next one knows that there is something to clean up.
"""

import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

from refold.log.archive_disk import Disk
from refold.log.errors import LogUnavailable
from refold.log.file_lock import FileLock, wait_for
from refold.projections.feed import Position
from refold.projections.sink_note import Found, Note
from refold.projections.target import PositionMoved, Step, TargetMismatch, TargetUnavailable

PATIENCE_S: Final = 60.0
"""How long to wait while another process writes: the merge of a day's files takes some seconds."""
_UNFINISHED: Final = ".new"


@dataclass(frozen=True, slots=True)
class SinkFile:
    """A file with rows.

    Args:
        path: Where it is, beside the manifest.
        rows: How many rows it has.
        bytes: How long it is.
    """

    path: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SinkManifest:
    """What a sink of files has.

    Args:
        id: The target's own.
        positions: How far each partition has come.
        files: The files.
        next: Number of the next file.
    """

    id: str
    positions: Mapping[int, Position]
    files: tuple[SinkFile, ...] = ()
    next: int = 0


class ManifestFile:
    """The manifest on the disk, and the lock of whoever may write it.

    Args:
        path: The manifest.
        lock: The file that is locked.
        note: Of the log whose events these are.
        disk: Where the files go.
        patience_s: How long to wait while another process writes, in seconds.
    """

    def __init__(
        self, path: Path, lock: Path, note: Note, disk: Disk, patience_s: float = PATIENCE_S
    ) -> None:
        self.path = path
        self._patience_s = patience_s
        self._lock = FileLock(lock)
        self._note = note
        self._disk = disk
        self._manifest: SinkManifest | None = None

    @property
    def manifest(self) -> SinkManifest:
        """What was last saved."""
        assert self._manifest is not None, "the target is open"
        return self._manifest

    @property
    def group(self) -> str:
        """The group of those that share the partitions for this target."""
        return Found(self.manifest.id, {}).group

    @contextmanager
    def locked(self) -> Generator[bool, None, None]:
        """The lock, held inside the block, and what is saved, read anew; made where nothing is. Blocks.

        Yields:
            Whether whoever had it before died with it, or failed: what that left is to be cleaned up.

        Raises:
            TargetUnavailable: Another process has it for too long, or the disk does not let us.
            TargetMismatch: The target is another log's, of a newer release, or damaged.
        """
        with disk_errors(self.path.parent):
            self._disk.make_directory(self.path.parent)
            try:
                wait_for(self._lock, self._patience_s)
            except LogUnavailable as error:
                raise TargetUnavailable(str(error)) from error
            try:
                interrupted = self._lock.path.stat().st_size > 0
                self._lock.path.write_text(f"{os.getpid()}\n")
                if not self.path.exists():
                    self.save(SinkManifest(Note.new_id(), {}))
                self.reload()
                yield interrupted
                os.truncate(self._lock.path, 0)
            finally:
                self._lock.close()

    def reload(self) -> SinkManifest:
        """Read what is saved, which another process may have changed. Raises as `locked`."""
        with disk_errors(self.path.parent):
            self._manifest = self._read(self.path.read_text(encoding="utf-8"))
        return self._manifest

    def check(self, steps: Mapping[int, Step]) -> None:
        """Check that steps begin where the target is.

        Raises:
            PositionMoved: They do not.
        """
        for partition, step in steps.items():
            found = self.manifest.positions.get(partition)
            if found != step.before:
                raise PositionMoved(
                    f"{self.path.parent} has come to {found} of partition {partition}, not to {step.before}"
                )

    def moved(self, steps: Mapping[int, Step]) -> SinkManifest:
        """The manifest with the positions after `steps`."""
        after = {partition: step.after for partition, step in steps.items()}
        return replace(self.manifest, positions={**self.manifest.positions, **after})

    def save(self, manifest: SinkManifest) -> None:
        """Put a manifest in the place of the last one, whole or not at all. Raises `OSError`."""
        whole = {
            **self._note.to_dict(manifest.id),
            "positions": {str(number): list(at) for number, at in manifest.positions.items()},
            "files": [
                {"path": file.path, "rows": file.rows, "bytes": file.bytes}
                for file in manifest.files
            ],
            "next": manifest.next,
        }
        new = self.path.with_name(f".{self.path.name}{_UNFINISHED}")
        with self._disk.create(new) as file:
            file.write(json.dumps(whole, indent=1).encode() + b"\n")
            self._disk.sync(file)
        self._disk.rename(new, self.path)
        self._manifest = manifest

    def _read(self, text: str) -> SinkManifest:
        found = self._note.found_in(text, str(self.path))
        try:
            whole = cast("dict[str, Any]", json.loads(text))
            return SinkManifest(
                found.id,
                {int(number): Position(*at) for number, at in whole["positions"].items()},
                tuple(SinkFile(**file) for file in whole["files"]),
                whole["next"],
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise TargetMismatch(
                f"{self.path} is damaged ({error!r}): restore it from a backup, or remove the target to write it anew"
            ) from error


@contextmanager
def disk_errors(place: Path) -> Generator[None, None, None]:
    """Turn what the disk says into a `TargetUnavailable`."""
    try:
        yield
    except OSError as error:
        raise TargetUnavailable(
            f"{place} can't be written: {error.strerror or error}. What was saved before is whole; mend it, and begin "
            "again"
        ) from error

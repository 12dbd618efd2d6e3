"""Events as JSON Lines: one file that grows, one object a line. Null columns are left out.

    events.jsonl    events.jsonl.manifest.json    events.jsonl.lock

Exactly once: lines are appended and brought to the disk, then the manifest says how long the file is. A file that is
longer when it is opened was being written when a process died, and is cut back to what the manifest says. Whoever
follows the file while it grows may read such lines before; the same events come again, with the same `event_id`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BufferedRandom
from pathlib import Path
from typing import Any, Final

from refold.log.archive_disk import Disk
from refold.log.event_columns import ELEMENTS, Kind
from refold.projections.feed import Logged, Position
from refold.projections.sink_files import ManifestFile, SinkFile
from refold.projections.sink_note import Note
from refold.projections.sink_rows import Columns, moment
from refold.projections.store import Identity
from refold.projections.target import Step, TargetMismatch

_WRITTEN_OTHERWISE: Final = frozenset(
    {Kind.TIME, Kind.BYTES, Kind.DIGEST, Kind.DECIMAL, Kind.TIMES, Kind.DECIMALS}
)
_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def json_value(kind: Kind, value: Any) -> object:
    """A column's value as JSON has it: times in ISO 8601, bytes in hex, decimals as text, which rounds nothing."""
    match kind:
        case Kind.TIMES | Kind.DECIMALS:
            return [None if one is None else json_value(ELEMENTS[kind], one) for one in value]
        case Kind.DECIMAL:
            return format(value, "f")
        case Kind.TIME:
            return f"{moment(value).isoformat(timespec='microseconds')[: -len('+00:00')]}Z"
        case Kind.BYTES | Kind.DIGEST:
            return value.hex()
        case _:
            return value


def json_rows(columns: Columns, logged: Sequence[Logged]) -> Sequence[dict[str, object]]:
    """Events as JSON objects, null columns left out."""
    rows: list[dict[str, object]] = [{} for _ in logged]
    values = columns.of(logged)
    for name, kind in columns.kinds.items():
        plain = kind not in _WRITTEN_OTHERWISE
        for row, value in zip(rows, values[name], strict=True):
            if value is not None:
                row[name] = value if plain else json_value(kind, value)
    return rows


class JsonLinesTarget:
    """A JSON Lines file. See `Target`.

    Args:
        path: The file.
        source: The log.
        columns: The table's columns.
        disk: Where the files go.
    """

    def __init__(
        self, path: Path, source: Identity, columns: Columns, disk: Disk | None = None
    ) -> None:
        self._path = path
        self._columns = columns
        self._disk = disk or Disk()
        self._saved = ManifestFile(
            path.with_name(f"{path.name}.manifest.json"),
            path.with_name(f"{path.name}.lock"),
            Note(source, columns.kinds),
            self._disk,
        )

    @property
    def name(self) -> str:
        """See `Target`."""
        return f"jsonl {self._path}"

    @property
    def group(self) -> str:
        """The group of those that share the partitions for this file; known once it is open."""
        return self._saved.group

    def open(self) -> None:
        """See `Target`; cuts off what a process that died had not yet saved."""
        if self._path.exists() and not self._saved.path.exists():
            raise TargetMismatch(
                f"there is a file {self._path}, and no {self._saved.path.name} beside it that says whose: name "
                "another file, or remove it"
            )
        with self._saved.locked(), self._opened() as file:
            file.truncate()
            self._disk.sync(file)

    def positions(self) -> Mapping[int, Position]:
        """See `Target`."""
        return self._saved.reload().positions

    def write(self, logged: Sequence[Logged], steps: Mapping[int, Step]) -> None:
        """See `Target`."""
        text = "".join(f"{_encode(row)}\n" for row in json_rows(self._columns, logged)).encode()
        with self._saved.locked():
            self._saved.check(steps)
            before = self._entry()
            with self._opened() as file:
                file.write(text)
                file.truncate()
                self._disk.sync(file)
            entry = SinkFile(self._path.name, before.rows + len(logged), before.bytes + len(text))
            self._saved.save(replace(self._saved.moved(steps), files=(entry,)))

    def close(self) -> None:
        """See `Target`."""

    def _entry(self) -> SinkFile:
        files = self._saved.manifest.files
        return files[0] if files else SinkFile(self._path.name, 0, 0)

    def _opened(self) -> BufferedRandom:
        """The file, at the end of what is saved."""
        saved = self._entry().bytes
        if saved == 0 and not self._path.exists():
            self._disk.create(self._path).close()
            self._disk.sync_directory(self._path.parent)
        size = self._path.stat().st_size if self._path.exists() else 0
        if size < saved:
            raise TargetMismatch(
                f"{self._path} has {size:,} bytes, and {saved:,} were saved: somebody cut it. Restore it from a "
                "backup, or remove it with its manifest to write it anew"
            )
        file = self._path.open("r+b")
        file.seek(saved)
        return file

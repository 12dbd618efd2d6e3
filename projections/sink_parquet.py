"""Events as Parquet files by day: a directory that DuckDB, Spark, polars and others read as one partitioned table.

    _manifest.json   _writer.lock   day=2026-11-28/part-00000000.parquet   day=2026-11-29/part-00000001.parquet

Each write adds a file for each day (UTC) on which its events were recorded, under a hidden name; the manifest names
the files and the positions; then they get their names. So nobody who lists `*.parquet` sees a row that is not saved.
A process that dies on the way leaves files that the next one removes, or gives their names.

Small files are merged: 16 of a size class into one of the next (a log-structured merge, O'Neil 1996), so a row is
written again a few times in its life and a day has few files. For a moment the merged file and those that it replaces
are there together: whoever must not see a row twice then reads the files that the manifest names, or drops repeats by
`event_id`.

Needs pyarrow: the extra `parquet`.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from refold.log.archive_disk import Disk
from refold.projections.feed import Logged, Position
from refold.projections.sink_arrow import schema_of, table_of
from refold.projections.sink_files import ManifestFile, SinkFile, SinkManifest
from refold.projections.sink_note import Note
from refold.projections.sink_rows import Columns, day_of
from refold.projections.store import Identity
from refold.projections.target import Step, TargetMismatch, TargetUnavailable

MERGE: Final = 16
"""Files of a size class that become one of the next."""
SMALLEST_ROWS: Final = 1_000
"""Files up to here are one size class, whatever they have: a sink that follows writes as little as comes."""
WHOLE_ROWS: Final = 1_000_000
"""A file of so many rows stays as it is: some 100 MB, which engines read well."""
_GROUP_ROWS: Final = 100_000
"""Rows in a row group of a merged file: what is held in memory, and what a query reads at a time."""
_NAME: Final = re.compile(r"\.?part-[0-9]{8,}\.parquet(\.new)?")


class ParquetTarget:
    """A directory of Parquet files. See `Target`.

    Args:
        directory: Made where it is missing.
        source: The log.
        columns: The table's columns.
        disk: Where the files go.
        merges: Whether a write merges what there is too much of; else `merge` does.
    """

    def __init__(
        self,
        directory: Path,
        source: Identity,
        columns: Columns,
        disk: Disk | None = None,
        *,
        merges: bool = True,
    ) -> None:
        self._directory = directory
        self._merges = merges
        self._columns = columns
        self._schema = schema_of(columns.kinds)
        self._disk = disk or Disk()
        self._saved = ManifestFile(
            directory / "_manifest.json",
            directory / "_writer.lock",
            Note(source, columns.kinds),
            self._disk,
        )

    @property
    def name(self) -> str:
        """See `Target`."""
        return f"parquet {self._directory}"

    @property
    def group(self) -> str:
        """The group of those that share the partitions for this directory; known once it is open."""
        return self._saved.group

    def files(self) -> Sequence[Path]:
        """Those that have its rows, by what was saved last, by whomever. Raises as `compact`."""
        with self._saved.locked() as interrupted:
            if interrupted:
                self._settle()
            return [self._directory / file.path for file in self._saved.manifest.files]

    def open(self) -> None:
        """See `Target`; ends what a process that died had begun."""
        if self._directory.is_file():
            raise TargetMismatch(
                f"{self._directory} is a file, and Parquet needs a directory: name another"
            )
        if _is_taken(self._directory) and not self._saved.path.exists():
            raise TargetMismatch(
                f"{self._directory} is not empty, and has no _manifest.json that says whose it is: name another "
                "directory"
            )
        with self._saved.locked():
            self._settle()

    def positions(self) -> Mapping[int, Position]:
        """See `Target`."""
        return self._saved.reload().positions

    def write(self, logged: Sequence[Logged], steps: Mapping[int, Step]) -> None:
        """See `Target`; then merges what there is too much of."""
        days: dict[str, list[Logged]] = defaultdict(list)
        for one in logged:
            days[f"day={day_of(one)}"].append(one)
        tables = {day: table_of(self._columns, rows) for day, rows in sorted(days.items())}
        with self._saved.locked() as interrupted:
            if interrupted:
                self._settle()
            self._saved.check(steps)
            moved = self._saved.moved(steps)
            files = [
                self._file(day, moved.next + number, [table])
                for number, (day, table) in enumerate(tables.items())
            ]
            self._save(
                replace(moved, files=(*moved.files, *files), next=moved.next + len(files)), files
            )
            if self._merges:
                self._merge_classes(tables)

    def merge(self) -> None:
        """Merge what there is too much of. Raises as `compact`."""
        with self._saved.locked():
            self._merge_classes(sorted({_day(file) for file in self._saved.manifest.files}))

    def compact(self) -> None:
        """Merge the files of every day as far as they go.

        Raises:
            TargetUnavailable: The disk does not let us. What was saved stays.
        """
        with self._saved.locked():
            for day in sorted({_day(file) for file in self._saved.manifest.files}):
                self._merge(day, lambda files: files if len(files) > 1 else [], any_size=True)

    def close(self) -> None:
        """See `Target`."""

    def _merge_classes(self, days: Iterable[str]) -> None:
        for day in days:
            self._merge(day, lambda files: files[: MERGE if len(files) >= MERGE else 0])

    def _merge(
        self,
        day: str,
        choose: Callable[[list[SinkFile]], list[SinkFile]],
        *,
        any_size: bool = False,
    ) -> None:
        """Merge what `choose` takes of the files of each size class, until it takes none."""
        while True:
            classes: dict[int, list[SinkFile]] = defaultdict(list)
            for file in self._saved.manifest.files:
                if _day(file) == day and file.rows < WHOLE_ROWS:
                    classes[0 if any_size else _class(file.rows)].append(file)
            chosen = next((found for files in classes.values() if (found := choose(files))), None)
            if chosen is None:
                return
            before = self._saved.manifest
            merged = self._file(day, before.next, self._tables(chosen))
            files = [merged if file is chosen[0] else file for file in before.files]
            rest = tuple(file for file in files if file not in chosen)
            self._save(replace(before, files=rest, next=before.next + 1), [merged])
            for file in chosen:
                self._disk.remove(self._directory / file.path)

    def _tables(self, files: Iterable[SinkFile]) -> Iterable[pa.Table]:
        """What files have, in row groups; columns that came later are null."""
        rows: list[pa.RecordBatch] = []
        count = 0
        for file in files:
            path = self._directory / file.path
            try:
                with pq.ParquetFile(path) as parquet:
                    for batch in parquet.iter_batches(_GROUP_ROWS):
                        rows.append(batch)
                        count += len(batch)
                        if count >= _GROUP_ROWS:
                            yield self._table(rows)
                            rows, count = [], 0
            except pa.ArrowException as error:
                raise TargetUnavailable(
                    f"{path} can't be read, to merge it with others: {error}. Restore it from a backup"
                ) from error
        if rows:
            yield self._table(rows)

    def _table(self, batches: Iterable[pa.RecordBatch]) -> pa.Table:
        tables = [pa.Table.from_batches([batch]) for batch in batches]
        return pa.concat_tables(
            [self._schema.empty_table(), *tables], promote_options="default"
        ).select(self._schema.names)

    def _file(self, day: str, number: int, tables: Iterable[pa.Table]) -> SinkFile:
        """Write a file under its hidden name."""
        path = PurePosixPath(day, f"part-{number:08}.parquet")
        rows = 0
        with self._disk.create(_hidden(self._directory / path)) as file:
            with pq.ParquetWriter(file, self._schema, compression="zstd") as writer:
                for table in tables:
                    writer.write_table(table)
                    rows += table.num_rows
            self._disk.sync(file)
            return SinkFile(str(path), rows, file.tell())

    def _save(self, manifest: SinkManifest, files: Iterable[SinkFile]) -> None:
        """The moment at which they count; then they get their names."""
        for file in files:
            self._disk.sync_directory((self._directory / file.path).parent)
        self._saved.save(manifest)
        for file in files:
            self._disk.rename(_hidden(self._directory / file.path), self._directory / file.path)

    def _settle(self) -> None:
        """Give files of the manifest their names, and remove what it does not name."""
        named = {self._directory / file.path for file in self._saved.manifest.files}
        for path in named:
            if not path.exists():
                if not _hidden(path).exists():
                    raise TargetMismatch(
                        f"{path} is missing: restore it from a backup, or remove {self._directory} to write it anew"
                    )
                self._disk.rename(_hidden(path), path)
        for path in self._directory.glob("day=*/*"):
            if _NAME.fullmatch(path.name) and path not in named:
                self._disk.remove(path)


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _day(file: SinkFile) -> str:
    return file.path.partition("/")[0]


def _class(rows: int) -> int:
    size = 0
    while rows > SMALLEST_ROWS:
        rows //= MERGE
        size += 1
    return size


def _is_taken(directory: Path) -> bool:
    return directory.is_dir() and any(
        path.name not in {"_writer.lock", "._manifest.json.new"} for path in directory.iterdir()
    )

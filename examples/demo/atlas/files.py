"""Files that are whole or absent, and on the disk before the step that wrote them is recorded.

The log says that a step is done; what the step did must then outlive the machine as well. A step that was
killed half-way runs again and finds either the old file or none, never half of one. The draft that it left
behind has a fixed name, so that the next run takes it over and nothing is left at the end.
"""

import csv
import gzip
import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from atlas.model import WrittenFile


def write_durably(directory: Path, name: str, data: bytes) -> WrittenFile:
    """Write a file below `directory` in one move: as a draft, fsync, rename, fsync of the folder."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return WrittenFile(name, len(data), hashlib.sha256(data).hexdigest())


def compressed(data: bytes) -> bytes:
    """Compress by gzip, no time and no name inside: the same data give the same bytes at every run."""
    return gzip.compress(data, compresslevel=9, mtime=0)


def csv_bytes(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> bytes:
    """A CSV file with a header."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8")

"""What an archive says of itself: `manifest.json`, written anew after each file, and last.

    {"format": 1, "namespace": ..., "identity": ..., "partitions": 2, "files": [{...}, ...]}

A file that the manifest does not name is no part of the archive: whoever wrote it died before it was whole and read
back. `identity` is the id of the topic of events, or of the SQLite file's namespace: another log that happens to have
the same name is told apart by it.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Final, cast

from refold.log.errors import LogCorrupt, LogMismatch
from refold.log.protocol import Bounds

FORMAT: Final = 1
NAME: Final = "manifest.json"


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """One file: the events of a partition from `start` up to (without) `end`.

    Args:
        partition: The partition.
        start: First offset that it covers.
        end: Offset to go on from: `start` of the next file.
        suffix: Its format: `parquet` or `avro`.
        count: How many records it has.
        first_timestamp: The log's time of its first record, microseconds since 1970-01-01 UTC.
        last_timestamp: Of its last one.
        size: Its length in bytes.
        sha256: Its SHA-256, in hex.
        records: Digest of its records as they stood in the log, in hex (`RecordDigest`).
        claim_before: The claim that is current at `start`; -1 before any.
        claim_after: At `end`.
        chain_before: Head of the chain at `start`, in hex; null where what is before was never archived.
        chain_after: At `end`.
    """

    partition: int
    start: int
    end: int
    suffix: str
    count: int
    first_timestamp: int
    last_timestamp: int
    size: int
    sha256: str
    records: str
    claim_before: int
    claim_after: int
    chain_before: str | None
    chain_after: str | None

    @property
    def path(self) -> PurePosixPath:
        """Where it is, within the archive: the folder is what query engines take for a column."""
        name = f"{self.start:020}-{self.end - 1:020}.{self.suffix}"
        return PurePosixPath("events", f"partition={self.partition}", name)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive holds.

    Args:
        namespace: Name of the log.
        identity: What tells that log from others of its name.
        partitions: Number of its partitions.
        files: The files, those of a partition in order and without a gap.
        pools: Which of the partitions are of a pool of workflows, as `Layout` has it.
    """

    namespace: str
    identity: str
    partitions: int
    files: tuple[ArchivedFile, ...] = ()
    pools: tuple[tuple[str, int], ...] = ()

    def of(self, partition: int) -> list[ArchivedFile]:
        """The files of a partition, in order."""
        return [file for file in self.files if file.partition == partition]

    def bounds(self, partition: int) -> Bounds:
        """What is archived of a partition; (0, 0) for nothing."""
        files = self.of(partition)
        return Bounds(files[0].start, files[-1].end) if files else Bounds(0, 0)

    def to_json(self) -> str:
        """As text."""
        files = [{"path": str(file.path), **asdict(file)} for file in self.files]
        whole = {
            "format": FORMAT,
            "namespace": self.namespace,
            "identity": self.identity,
            "partitions": self.partitions,
            "pools": self.pools,
            "files": files,
        }
        return json.dumps(whole, indent=1) + "\n"


def read_manifest(text: str, where: str) -> Manifest:
    """What `Manifest.to_json` wrote.

    Args:
        text: The text.
        where: Where it is from, for messages.

    Raises:
        LogMismatch: A newer release wrote it.
        LogCorrupt: It is something else, or was changed.
    """
    try:
        whole = cast("dict[str, Any]", json.loads(text))
        if whole["format"] > FORMAT:
            raise LogMismatch(
                f"{where} has format {whole['format']}, and this release of refold knows formats up to {FORMAT}: "
                "upgrade refold"
            )
        files = [
            ArchivedFile(**{name: value for name, value in file.items() if name != "path"})
            for file in whole["files"]
        ]
        pools = tuple((str(name), int(count)) for name, count in whole.get("pools", ()))
        manifest = Manifest(
            whole["namespace"], whole["identity"], whole["partitions"], tuple(files), pools
        )
        gap = _gap(files)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LogCorrupt(
            f"{where} is not the manifest of an archive ({error!r}): restore it from a backup"
        ) from error
    if gap is not None:
        raise LogCorrupt(f"{where} lacks {gap}: restore it from a backup")
    return manifest


def _gap(files: Iterable[ArchivedFile]) -> str | None:
    """Events between two files of a partition, or what the chain does not lead over."""
    last: dict[int, ArchivedFile] = {}
    for file in files:
        before = last.get(file.partition)
        last[file.partition] = file
        if before is None:
            continue
        if before.end != file.start:
            return (
                f"events {before.end} to {file.start - 1} of partition {file.partition} "
                f"(between {before.path.name} and {file.path.name})"
            )
        if (before.claim_after, before.chain_after) != (file.claim_before, file.chain_before):
            return f"the chain between {before.path.name} and {file.path.name}"
    return None

"""Verifying a namespace: every partition is walked, over log and archive, and held against the seals.

A seal that does not fit is told with the range in which the difference lies: from the last seal that fits to this one.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

from refold.log.archived import ArchivedLog
from refold.log.chain_walk import beginning
from refold.log.errors import LogCorrupt, LogMismatch, LogTrimmed
from refold.log.protocol import Channel, Log, Record
from refold.projections.audit_tree import Tree
from refold.projections.audit_walk import Finding, Standing, Walk
from refold.projections.seal import Seal

Told = Callable[[int], None]
"""Told how many more records have been looked at."""


@dataclass(frozen=True, slots=True)
class PartitionReport:
    """What was found in a partition.

    Args:
        partition: Its number.
        start: The first offset that was looked at; over 0 where what is before was trimmed and is in no archive.
        standing: How the partition stands at its end, or where the walk stopped.
        sealed: Before which offset seals have confirmed it; 0 for nowhere.
        findings: What is not as it was written, the first one first; empty for nothing.
    """

    partition: int
    start: int
    standing: Standing
    sealed: int = 0
    findings: Sequence[Finding] = ()


@dataclass(slots=True)
class _Auditor:
    """A walk, and the seals that it has yet to come to."""

    walk: Walk
    seals: list[tuple[int, Standing]] = field(default_factory=list[tuple[int, Standing]])
    sealed: int = 0
    adopts: bool = (
        False  # the beginning was trimmed: counts and tree are taken from the first seal met
    )

    def take(self, records: Sequence[Record]) -> bool:
        """Take records in turn; seals are looked at where they stand. Returns whether the walk goes on."""
        walk, at = self.walk, 0
        while at < len(records) and not walk.broken:
            self.pass_seals()
            upto = len(records)
            if self.seals:
                upto = min(upto, at + max(1, self.seals[0][1].end - walk.end))
            for record in records[at:upto]:
                walk.take(record)
            at = upto
        return not walk.broken

    def pass_seals(self) -> None:
        """Compare with the seals of just this offset."""
        walk = self.walk
        while self.seals and not walk.broken and self.seals[0][1].end <= walk.end:
            sealed_at, sealed = self.seals.pop(0)
            if sealed.end < walk.end:
                continue  # before the beginning of what is left
            self._compare(sealed_at, sealed)

    def _compare(self, sealed_at: int, sealed: Standing) -> None:
        walk = self.walk
        stands = walk.standing()
        if self.adopts:
            self.adopts = False
            walk.events, walk.stale, walk.foreign = sealed.events, sealed.stale, sealed.foreign
            walk.tree = Tree(sealed.events, sealed.peaks)
            stands = sealed._replace(claim=stands.claim, chain=stands.chain or sealed.chain)
            walk.chain = stands.chain
        if stands == sealed:
            self.sealed = sealed.end
            if sealed.foreign:  # whoever sealed it was told of them
                walk.findings = [one for one in walk.findings if one.kind != "foreign"]
            return
        ours, theirs = stands._asdict(), sealed._asdict()
        names = [name for name in ours if ours[name] != theirs[name]]
        walk.stop(
            Finding(
                "seal",
                self.sealed,
                None,
                f"history between offsets {self.sealed} and {sealed.end - 1} is not what was sealed at "
                f"{_time(sealed_at)}: it hangs together, so it was written anew, or is another log's",
                _told(theirs, names),
                _told(ours, names),
            )
        )

    def finish(self) -> None:
        """The partition's end: whatever is sealed beyond it is gone."""
        self.pass_seals()
        if self.walk.broken or not self.seals:
            return
        sealed_at, sealed = self.seals[0]
        end = self.walk.end
        self.walk.stop(
            Finding(
                "seal",
                end,
                None,
                f"the log was cut off: it ends before offset {end}, and was sealed up to {sealed.end - 1} at "
                f"{_time(sealed_at)}",
                f"offset {sealed.end - 1}",
                "nothing",
            )
        )


async def verify_partition(
    log: Log, partition: int, seals: Sequence[Seal] = (), told: Told = lambda _: None
) -> PartitionReport:
    """Verify a partition up to its end as of now.

    Args:
        log: An open log; an `ArchivedLog`, to walk over its archive as well.
        partition: Which one.
        seals: Verified seals of this namespace, in order (`check_are_of`).
        told: Told how far it has come.

    Raises:
        LogCorrupt: The beginning is gone, and there is no checkpoint to begin with.
        LogError: The log can't be read.
    """
    there = await beginning(log, partition)
    start = Standing(there.offset, there.claim, there.chain)
    auditor = _Auditor(
        Walk(partition, start, Tree() if seals else None),
        [(seal.sealed_at, seal.partitions[partition]) for seal in seals],
        adopts=bool(seals) and there.offset > 0,
    )
    await _walk(log, auditor, told)
    auditor.finish()
    walk = auditor.walk
    findings = tuple(walk.findings)
    return PartitionReport(partition, there.offset, walk.standing(), auditor.sealed, findings)


async def stand_of(
    log: Log, partition: int, start: Standing, told: Told = lambda _: None
) -> tuple[Standing, Sequence[Finding]]:
    """How a partition stands now, to be sealed; walked from where it was sealed last.

    Args:
        log: An open log, or an `ArchivedLog`.
        partition: Which one.
        start: How it was sealed last, from where it is walked.
        told: Told how far it has come.

    Returns:
        How it stands, and what was found on the way that does not break the chain.

    Raises:
        LogCorrupt: It is not what was written: there is nothing to be sealed.
        LogTrimmed: What was written since the last seal has been trimmed, or all of the beginning for a first one.
        LogError: The log can't be read.
    """
    bounds = await log.bounds(Channel.EVENTS, partition)
    if bounds.start > start.end:
        raise LogTrimmed(
            f"partition {partition} of {log.namespace!r} begins at offset {bounds.start}, and it is sealed up to "
            f"{start.end}: what stood between can't be sealed any more. Name its archive with --archive DIR"
        )
    if bounds.end < start.end:
        raise LogCorrupt(
            f"partition {partition} of {log.namespace!r} ends before offset {bounds.end} and was sealed up to "
            f"{start.end}: it was cut off. Nothing was sealed; verify it with `refold audit verify --seals`"
        )
    auditor = _Auditor(Walk(partition, start, Tree(start.events, start.peaks)))
    await _walk(log, auditor, told)
    walk = auditor.walk
    if walk.broken:
        found = walk.findings[0]
        raise LogCorrupt(
            f"partition {partition} of {log.namespace!r} is not what was written, at offset {found.offset} "
            f"({found.event_id or 'no event'}): {found.told}. Nothing was sealed"
        )
    return walk.standing(), walk.findings


def check_are_of(seals: Sequence[Seal], log: Log, identity: str) -> None:
    """Check that seals are of an open log.

    Raises:
        LogMismatch: They are another namespace's.
    """
    for seal in seals[:1]:
        if (seal.identity, len(seal.partitions)) != (identity, log.partitions):
            raise LogMismatch(
                f"the seals are of {seal.namespace!r} with {len(seal.partitions)} partition(s) and the id "
                f"{seal.identity or 'unknown'}, not of {log.namespace!r} with {log.partitions} and the id "
                f"{identity or 'unknown'}: the log was replaced by another one, or these are another log's seals"
            )


# Reading ----------------------------------------------------------------------------------------------------


async def _walk(log: Log, auditor: _Auditor, told: Told) -> None:
    """Take all records from where a walk stands; what can't be read ends it."""
    walk = auditor.walk
    partition = walk.partition
    stop = (await log.bounds(Channel.EVENTS, partition)).end
    while walk.end < stop and not walk.broken:
        try:
            async with aclosing(log.read(Channel.EVENTS, partition, walk.end, stop)) as batches:
                async for batch in batches:
                    goes_on = auditor.take(batch)
                    told(len(batch))
                    if not goes_on:
                        return
            if (
                walk.end < stop and not walk.broken
            ):  # pragma: no branch - a log that gives less than it has
                walk.stop(
                    Finding(
                        "missing",
                        walk.end,
                        None,
                        "the record is missing",
                        f"offset {walk.end}",
                        "nothing",
                    )
                )
        except LogTrimmed:
            raise
        except LogCorrupt as error:
            await _take_what_can_be_read(log, auditor, error)


async def _take_what_can_be_read(log: Log, auditor: _Auditor, error: LogCorrupt) -> None:
    """A batch can't be read: go on up to the record at fault, so that what stands before it is verified as well."""
    walk = auditor.walk
    before = walk.end
    archived = await _archived(log, walk.partition, walk.end)
    if archived is not None:
        try:
            async for batch in archived:
                auditor.take(batch)
        except LogCorrupt as worse:
            error = worse
        if not walk.broken:  # its events are right, and something else in the file is not
            walk.stop(Finding("unreadable", before, None, str(error)))
        return
    try:
        while not walk.broken and walk.end - before < ONE_BY_ONE:
            batches = log.read(Channel.EVENTS, walk.partition, walk.end, walk.end + 1)
            async with aclosing(batches):
                async for batch in batches:
                    auditor.take(batch)
    except LogCorrupt as found:
        walk.stop(Finding("unreadable", walk.end, None, str(found)))


ONE_BY_ONE = 1_000
"""Records that are read singly after a batch that could not be: more than a batch of any log has."""


async def _archived(
    log: Log, partition: int, offset: int
) -> AsyncGenerator[Sequence[Record], None] | None:
    """The records of the archive's file that has an offset, from it on, whatever has become of the file."""
    if not isinstance(log, ArchivedLog) or log.archive is None:
        return None
    own = await log.inner.bounds(Channel.EVENTS, partition)
    archive = log.archive
    file = next(
        (one for one in archive.manifest.of(partition) if one.start <= offset < one.end), None
    )
    if file is None or offset >= own.start:
        return None

    async def read() -> AsyncGenerator[Sequence[Record], None]:
        batches = iter(archive.records(file))
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            yield [record for record in batch if record.offset >= offset]

    return read()


def _time(microseconds: int) -> str:
    return f"{datetime.fromtimestamp(microseconds / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _told(values: dict[str, object], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {_plain(values[name])}" for name in names)


def _plain(value: object) -> str:
    match value:
        case bytes():
            return value.hex()
        case tuple():
            return " ".join(_plain(one) for one in cast("tuple[object, ...]", value))
        case _:
            return str(value)

"""Verifying a namespace: every partition is walked, over log and archive, and held against the seals.

A history that is not the one that was sealed is told with the range in which the two part: from the last mark of a
seal that fits (`seal.py`) to the first that does not.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple, cast

from refold.log.archive_log import ArchiveLog
from refold.log.archived import ArchivedLog
from refold.log.chain_walk import beginning
from refold.log.errors import LogCorrupt, LogMismatch, LogTrimmed
from refold.log.protocol import Channel, Log, Record
from refold.projections.audit_tree import Tree, mark_of
from refold.projections.audit_walk import Finding, Standing, Walk, said_id
from refold.projections.seal import Seal, next_mark

Told = Callable[[int], None]
"""Told how many more records have been looked at."""

MARK_EVERY: Final = 16
"""Events between two marks of a seal, where nobody says otherwise: a byte and a third for each event."""
_NEVER: Final = sys.maxsize


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


class Stood(NamedTuple):
    """How a partition stands, to be sealed.

    Args:
        standing: How it stands.
        findings: What was found on the way that does not break the chain.
        marks: Of its tree, one after each so many events since it was sealed last.
    """

    standing: Standing
    findings: Sequence[Finding]
    marks: bytes


@dataclass(slots=True)
class _Auditor:
    """A walk, and the seals that it has yet to come to."""

    walk: Walk
    seals: list[Seal] = field(default_factory=list[Seal])
    sealed: int = 0
    adopts: bool = (
        False  # the beginning was trimmed: counts and tree are taken from the first seal met
    )
    every: int = 0  # marks are made, and none compared
    made: bytearray = field(default_factory=bytearray)
    _fits: tuple[int, int] = (0, 0)  # offset and events up to which it is what was sealed
    _grew: Iterator[tuple[int, bytes]] = field(default_factory=lambda: iter(()))
    _due: int = _NEVER  # after so many events the next mark is made or compared
    _mark: bytes = b""
    _start: int = 0

    def __post_init__(self) -> None:
        self._start = self.walk.end
        self._fits = self.walk.end, self.walk.events
        self._expect()

    def take(self, records: Sequence[Record]) -> bool:
        """Take records in turn; seals are looked at where they stand. Returns whether the walk goes on."""
        walk, at = self.walk, 0
        while at < len(records) and not walk.broken:
            self.pass_seals()
            upto = len(records)
            if self.seals:
                upto = min(upto, at + max(1, self._next().end - walk.end))
            for record in records[at:upto]:
                if walk.take(record) and walk.events >= self._due:
                    self._pass_mark(record)
            at = upto
        return not walk.broken

    def pass_seals(self) -> None:
        """Compare with the seals of just this offset."""
        walk = self.walk
        while self.seals and not walk.broken and self._next().end <= walk.end:
            if self._next().end == walk.end:  # else before the beginning of what is left
                self._compare()
            self.seals.pop(0)
            self._expect()

    def _next(self) -> Standing:
        return self.seals[0].partitions[self.walk.partition]

    def _expect(self) -> None:
        """Look out for the marks up to the next seal."""
        walk = self.walk
        if self.every:
            self._due = next_mark(walk.events, self.every)
            return
        known = self.seals and not self.adopts
        self._grew = self.seals[0].grew(walk.partition, walk.events) if known else iter(())
        self._due, self._mark = next(self._grew, (_NEVER, b""))

    def _pass_mark(self, record: Record) -> None:
        """Make or compare the mark that is due after an event."""
        walk = self.walk
        mark = mark_of(walk.tree.peaks if walk.tree else ())
        if self.every:
            self.made += mark
            self._due += self.every
            return
        if mark != self._mark:
            self._differs(record, mark)
            return
        self._fits = walk.end, walk.events
        while self._due <= walk.events:
            self._due, self._mark = next(self._grew, (_NEVER, b""))

    def _differs(self, record: Record, mark: bytes) -> None:
        """Some event since the last mark that fits is not the one that was sealed."""
        walk, (start, events) = self.walk, self._fits
        sealed_at = f"what was sealed at {_time(self.seals[0].sealed_at)}"
        anew = "the chain holds, so history was written anew from there on, or is another log's"
        expected, found = f"mark {self._mark.hex()}", f"mark {mark.hex()}"
        if walk.events == events + 1:
            told = f"it is not {sealed_at}: {anew}"
            at, event_id = record.offset, said_id(record)
        else:
            told = f"of offsets {start} to {record.offset}, some are not {sealed_at}: {anew}"
            at, event_id = start, None
        walk.stop(Finding("seal", at, event_id, told, expected, found))

    def _compare(self) -> None:
        walk, seal, sealed = self.walk, self.seals[0], self._next()
        stands = walk.standing()
        if self.adopts:
            self.adopts = False
            walk.events, walk.stale, walk.foreign = sealed.events, sealed.stale, sealed.foreign
            walk.tree = Tree(sealed.events, sealed.peaks)
            stands = sealed._replace(claim=stands.claim, chain=stands.chain or sealed.chain)
            walk.chain = stands.chain
        if stands == sealed:
            self.sealed = sealed.end
            self._fits = sealed.end, sealed.events
            if sealed.foreign:  # whoever sealed it was told of them
                walk.findings = [one for one in walk.findings if one.kind != "foreign"]
            return
        # Where the tree is the same, a record differs that does not count: it may be anywhere since the last seal.
        start = self.sealed if stands.peaks == sealed.peaks else self._fits[0]
        ours, theirs = stands._asdict(), sealed._asdict()
        names = [name for name in ours if ours[name] != theirs[name]]
        walk.stop(
            Finding(
                "seal",
                start,
                None,
                f"history between offsets {start} and {sealed.end - 1} is not what was sealed at "
                f"{_time(seal.sealed_at)}: it hangs together, so it was written anew, or is another log's",
                _told(theirs, names),
                _told(ours, names),
            )
        )

    @property
    def confirmed(self) -> int:
        """Before which offset it is what was sealed, by seals and by their marks; 0 for nowhere."""
        return self._fits[0] if self._fits[0] > self._start else self.sealed

    def finish(self, *, whole: bool) -> None:
        """The partition's end; whatever is sealed beyond it is gone, where the log is whole."""
        self.pass_seals()
        if self.walk.broken or not self.seals or not whole:
            return
        seal, sealed = self.seals[0], self._next()
        end = self.walk.end
        self.walk.stop(
            Finding(
                "seal",
                end,
                None,
                f"the log was cut off: it ends before offset {end}, and was sealed up to {sealed.end - 1} at "
                f"{_time(seal.sealed_at)}; up to offset {self._fits[0] - 1} it is what was sealed",
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
        seals: Verified seals of this namespace, in order (`check_are_of`); of an archive alone, also beyond its end.
        told: Told how far it has come.

    Raises:
        LogError: The log can't be read.
    """
    try:
        there = await beginning(log, partition)
    except LogCorrupt as error:  # it is gone, and there is no checkpoint to begin with
        first = (await log.bounds(Channel.EVENTS, partition)).start
        gone = Finding("missing", 0, None, str(error), "offset 0", f"offset {first}")
        return PartitionReport(partition, first, Standing(first), 0, [gone])
    start = Standing(there.offset, there.claim, there.chain)
    auditor = _Auditor(
        Walk(partition, start, Tree() if seals else None),
        list(seals),
        adopts=bool(seals) and there.offset > 0,
    )
    await _walk(log, auditor, told)
    auditor.finish(whole=not isinstance(log, ArchiveLog))
    walk = auditor.walk
    findings = tuple(walk.findings)
    return PartitionReport(partition, there.offset, walk.standing(), auditor.confirmed, findings)


async def stand_of(
    log: Log,
    partition: int,
    start: Standing,
    told: Told = lambda _: None,
    every: int = MARK_EVERY,
) -> Stood:
    """How a partition stands now, to be sealed; walked from where it was sealed last.

    Args:
        log: An open log, or an `ArchivedLog`.
        partition: Which one.
        start: How it was sealed last, from where it is walked.
        told: Told how far it has come.
        every: Events between two marks.

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
    walk = Walk(partition, start, Tree(start.events, start.peaks))
    auditor = _Auditor(walk, every=every)
    await _walk(log, auditor, told)
    if walk.broken:
        found = walk.findings[0]
        raise LogCorrupt(
            f"partition {partition} of {log.namespace!r} is not what was written, at offset {found.offset} "
            f"({found.event_id or 'no event'}): {found.told}. Nothing was sealed"
        )
    return Stood(walk.standing(), walk.findings, bytes(auditor.made))


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

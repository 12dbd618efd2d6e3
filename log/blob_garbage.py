"""Which blobs a log names, whether they are all there and whole, and what to do with those that nothing names.

Rules of the collector:

1. Whatever looks like a reference, anywhere in the bytes of a record, keeps its blob: also in a copied history, in a
   checkpoint, in an event of a newer release.
2. Commands are read before events: a command that is consumed meanwhile has its reference in an event that is read
   after it.
3. A blob that was put less than the grace period ago is kept: whoever puts one names it soon after. So is one that is
   put again while the collector is at work.
4. Each delete stands for itself. A collector that dies has deleted some blobs that nothing names, and no other.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from refold.log.blobs import (
    REFERENCE,
    REFERENCE_CHARS,
    BlobStore,
    Reference,
    Stored,
    fetch,
    reference_in,
)
from refold.log.codec import decode_command, decode_event
from refold.log.envelope import HEADER, envelope_in
from refold.log.errors import BlobCorrupt, BlobMissing, UsageError
from refold.log.events import CheckpointPart, HistoryCopied
from refold.log.protocol import Channel, Log, Record

MIN_GRACE_S: Final = 3600.0
"""Least age of a blob that may be deleted: far longer than from a put to the append of what names it, with clocks that
differ."""
_AT_ONCE: Final = 8

_IN_BYTES: Final = re.compile(REFERENCE.pattern.encode())
_IN_JSON: Final = re.compile(rf'(?<!\\)"(?:{HEADER})?({REFERENCE.pattern})"')
"""A string that is a reference: in a user's own text, which stands as a string in that JSON, its quotes are escaped."""

_CHECKPOINT_PART: Final = ("kind", CheckpointPart.kind.encode())

Told = Callable[[str, int, int], None]
"""Told what is done, how much of it and how much there is."""


def nobody(what: str, done: int, of: int) -> None:
    """Nobody is told."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collector did.

    Args:
        stored: Blobs in the store.
        named: Blobs that records name, and that are there.
        young: Blobs that nothing names, too young to be deleted.
        deleted: Blobs deleted; with `dry_run`, those that would be.
        deleted_bytes: Their size.
        leftovers: Half-written files deleted.
    """

    stored: int
    named: int
    young: int
    deleted: int
    deleted_bytes: int
    leftovers: int


@dataclass(frozen=True, slots=True)
class Damage:
    """A blob that is missing or damaged; `where` names the record that holds its reference."""

    where: str
    error: BlobMissing | BlobCorrupt


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found: blobs named, their bytes, and what is wrong."""

    named: int
    size: int
    damages: Sequence[Damage]


async def collect(
    logs: Sequence[Log],
    store: BlobStore,
    *,
    grace_s: float,
    now: float,
    dry_run: bool = False,
    certain: bool = False,
    told: Told = nobody,
) -> Collected:
    """Delete the blobs that nothing names.

    Args:
        logs: Open logs: all that use the store.
        store: The store.
        grace_s: How long ago a blob was put at least, in seconds.
        now: Seconds since 1970-01-01 UTC, by the clock of the store.
        dry_run: Delete nothing, only say what would be.
        certain: Go on also where the logs name none of the store's blobs, or have been trimmed and their archive is
            not read.
        told: Hears how it goes on.

    Raises:
        UsageError: The grace period is too short, or something speaks against it (`certain`).
        LogError: A log can't be read, or the store can't be reached.
    """
    if grace_s < MIN_GRACE_S:
        raise UsageError(
            f"a blob is put before the record that names it, so only blobs older than {MIN_GRACE_S / 3600:g} h may be "
            f"deleted, not {grace_s:g} s"
        )
    if not certain:
        for log in logs:
            await _require_whole(log)
    before = now - grace_s
    leftovers = 0 if dry_run else await asyncio.to_thread(store.delete_leftovers, before)
    named: set[str] = set()
    for log in logs:
        named |= await _digests(log, told)
    stored: list[Stored] = await asyncio.to_thread(lambda: list(store.stored()))
    there = {blob.digest for blob in stored}
    garbage = [blob for blob in stored if blob.digest not in named and blob.put_at < before]
    if garbage and not named & there and not certain:
        raise UsageError(
            f"{store.url} has {len(stored):,} blobs, and nothing in this log names any of them: it seems to belong to "
            "another log, so nothing was deleted. If it does not, say so with --all"
        )
    deleted = deleted_bytes = 0
    for done, blob in enumerate(garbage, 1):
        if dry_run or await asyncio.to_thread(store.delete, blob.digest, before):
            deleted, deleted_bytes = deleted + 1, deleted_bytes + blob.size
        told("deleting", done, len(garbage))
    return Collected(
        len(stored),
        len(named & there),
        len(there - named) - len(garbage),
        deleted,
        deleted_bytes,
        leftovers,
    )


async def verify(log: Log, store: BlobStore, told: Told = nobody) -> Verified:
    """Whether every blob that a log names is there and whole. Reads all of them.

    Raises:
        LogError: The log can't be read, or the store can't be reached.
    """
    named: dict[Reference, str] = {}
    async for channel, partition, record in _records(log, told):
        for reference in _payloads_of(channel, record):
            place = f"{channel} of partition {partition}, offset {record.offset}"
            of = f" (workflow {record.key!r})" if record.key is not None else ""
            named.setdefault(reference, place + of)
    damages: list[Damage] = []
    done = 0
    room = asyncio.Semaphore(_AT_ONCE)

    async def check(reference: Reference, where: str) -> None:
        nonlocal done
        async with room:
            try:
                await asyncio.to_thread(fetch, store, reference, f"payload in {where}")
            except (BlobMissing, BlobCorrupt) as error:
                damages.append(Damage(where, error))
        done += 1
        told("verifying", done, len(named))

    await asyncio.gather(*(check(*found) for found in named.items()))
    damages.sort(key=lambda damage: damage.where)
    return Verified(len(named), sum(reference.size for reference in named), damages)


async def _require_whole(log: Log) -> None:
    for partition in range(log.partitions):
        start = (await log.bounds(Channel.EVENTS, partition)).start
        if start > 0:
            raise UsageError(
                f"the first {start:,} events of partition {partition} of {log.namespace!r} were trimmed, and the blobs "
                "that they name would be deleted: give their archive by --archive, or say by --all that they may go"
            )


async def _digests(log: Log, told: Told) -> set[str]:
    """Digests of all that may be references in a log (rule 1)."""
    digests: set[str] = set()
    tail = ""
    async for _, _, record in _records(log, told):
        digests.update(found[1].decode() for found in _IN_BYTES.finditer(record.value))
        if _CHECKPOINT_PART in record.headers:  # its text may be cut in the midst of a reference
            part = decode_event(record)
            if isinstance(part, CheckpointPart):
                seam = tail + part.payload[:REFERENCE_CHARS]
                digests.update(found[1] for found in REFERENCE.finditer(seam))
                tail = part.payload[-REFERENCE_CHARS:]
    return digests


async def _records(log: Log, told: Told) -> AsyncGenerator[tuple[Channel, int, Record], None]:
    """All commands, then all events (rule 2)."""
    places = [(c, p) for c in (Channel.COMMANDS, Channel.EVENTS) for p in range(log.partitions)]
    bounds = [await log.bounds(channel, partition) for channel, partition in places]
    total = sum(bound.end - bound.start for bound in bounds)
    done = 0
    for (channel, partition), bound in zip(places, bounds, strict=True):
        async for batch in log.read(channel, partition, bound.start):
            for record in batch:
                yield channel, partition, record
            done += len(batch)
            told("reading", done, max(done, total))


def _payloads_of(channel: Channel, record: Record) -> Iterable[Reference]:
    """The references that are payloads in a record."""
    if _IN_BYTES.search(record.value) is None:  # nearly always
        return ()
    read = decode_event(record) if channel is Channel.EVENTS else decode_command(record)
    if isinstance(read, HistoryCopied | CheckpointPart):
        return [Reference(found[2], int(found[3])) for found in _IN_JSON.finditer(read.payload)]
    texts = (getattr(read, "payload", None), getattr(read, "message", None))
    return [
        reference
        for text in texts
        if isinstance(text, str) and (reference := _reference_of(text)) is not None
    ]


def _reference_of(text: str) -> Reference | None:
    """The reference that a payload is, or that is the body of its envelope."""
    envelope = envelope_in(text)
    return reference_in(text if envelope is None else envelope.body)

"""`refold doctor`'s examination: the log's surroundings first, then what stands in it. Nothing is changed.

Around the log (servers, files, settings, who is there): `log/kafka_doctor.py`, `log/sqlite_doctor.py`. In it, here:
who claims each partition and is there, how far checkpoints and projections are behind, what waits for a person, and the
clock.
"""

import platform
import sqlite3
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from pathlib import Path

from refold.engine.migration_marks import why_moved
from refold.engine.reader import read_all
from refold.log.codec import decode_event
from refold.log.errors import LogError, LogUnavailable, UsageError
from refold.log.events import CheckpointBegun, PartitionClaimed, PartitionHandedOver
from refold.log.findings import Examined, Finding, fail, ok, warn
from refold.log.protocol import Bounds, Channel, Log, Record
from refold.projections.places import default_place
from refold.projections.sqlite_store import names_in, positions_in
from refold.projections.target import TargetError
from refold.services.opening import opened
from refold.services.spans import MICROSECONDS, clock

WINDOW = 1_000
"""Events of a partition that are read to find its claim: every event says under which claim it was written."""
UNMARKED_MAX = 200_000
"""Events since the last checkpoint that a recovery folds in a second or two."""
FOLDED_MAX = 100_000
"""Events in all that are folded to count what is parked: a second's work."""
AHEAD_S = 5.0
"""A record that is newer than this machine's time by more says that one of the clocks is wrong."""
BEHIND_MAX = 1_000
"""Records that a projection may be behind: it takes in ten times as many in a second, where somebody keeps it."""

_EXTRAS = {
    "crc32c": "checksums in C; without it Python computes them, at a fraction of the speed",
    "lz4": "reads and writes lz4",
    "zstandard": "reads and writes zstd",
}


@dataclass(frozen=True, slots=True)
class Claim:
    """Who claims a partition.

    Args:
        worker: The worker's name.
        at: When, microseconds since 1970-01-01 UTC.
        given_up: Whether it has handed the partition over since.
    """

    worker: str
    at: int
    given_up: bool


async def diagnose(log: Log) -> list[Finding]:
    """Examine a log that is not open, and open it if that makes sense.

    Raises:
        UsageError: There is nothing to examine about a log of this kind.
    """
    if not isinstance(log, Examined):
        raise UsageError(f"{log.namespace} has nothing that could be examined: it is memory alone")
    around = await log.examine()
    findings = [*versions(), *around.findings]
    if not around.readable:
        return findings
    try:
        async with opened(log):
            findings += await _within(log, around.holders)
    except LogError as error:
        findings.append(fail("log", str(error), "mend what is said above first"))
    return findings


def versions() -> Iterator[Finding]:
    """What this process runs on. Workers may run on something else."""
    yield ok(
        "versions",
        f"refold {_version('refold')}, Python {platform.python_version()}, kafka-python {_version('kafka-python')},"
        f" SQLite {sqlite3.sqlite_version}",
    )
    missing = [name for name in _EXTRAS if find_spec(name) is None]
    if "crc32c" in missing:
        yield warn("versions", f"crc32c is missing: {_EXTRAS['crc32c']}", "pip install crc32c")
    optional = [name for name in missing if name != "crc32c"]
    if optional:
        told = ", ".join(f"{name} ({_EXTRAS[name]})" for name in optional)
        yield ok("versions", f"not installed, and needed only where it is used: {told}")


def _version(package: str) -> str:
    try:
        return installed_version(package)
    except PackageNotFoundError:
        return "(not installed)"


async def _within(log: Log, holders: Mapping[int, str] | None) -> list[Finding]:
    bounds = {p: await log.bounds(Channel.EVENTS, p) for p in range(log.partitions)}
    findings: list[Finding] = []
    looks: Sequence[Callable[[], Awaitable[list[Finding]]]] = (
        lambda: _claims(log, bounds, holders),
        lambda: _checkpoints(log, bounds),
        lambda: _parked(log, bounds),
        lambda: _projections(log, bounds),
    )
    for look in looks:
        try:
            findings += await look()
        except LogUnavailable as error:
            told = f"events can't be read: {error}"
            findings.append(warn("log", told, "ask as a user who may read events"))
            break
        except LogError as error:
            # One damaged partition should not hide what is known of the others.
            findings.append(fail("log", str(error), "mend what is said above first"))
    return findings


async def _claims(
    log: Log, bounds: Mapping[int, Bounds], holders: Mapping[int, str] | None
) -> list[Finding]:
    recent = {p: await _recent(log, p, place) for p, place in bounds.items()}
    claims = {p: await _claim(log, p, place.start, recent[p]) for p, place in bounds.items()}
    return [*claim_findings(claims, holders), *_ahead(recent.values())]


async def _recent(log: Log, partition: int, bounds: Bounds) -> Sequence[Record]:
    start = max(bounds.start, bounds.end - WINDOW)
    batches = log.read(Channel.EVENTS, partition, start, bounds.end)
    return [record async for batch in batches for record in batch]


async def _claim(log: Log, partition: int, first: int, recent: Sequence[Record]) -> Claim | None:
    """The current claim, from the last events. None where nobody has ever claimed the partition, or its claim is gone.

    That an event carries a claim proves the claim was accepted; the last such one counts. A claim that nothing has
    followed yet was accepted if it knew of that one.
    """
    current, given_up = -1, False
    claimed: dict[int, PartitionClaimed] = {}
    for record in recent:
        event = decode_event(record)
        if isinstance(event, PartitionClaimed):
            claimed[record.offset] = event
            if event.claim >= current:
                current, given_up = record.offset, False
        elif event.claim is not None and event.claim >= current:
            current, given_up = event.claim, isinstance(event, PartitionHandedOver)
    if current not in claimed and current >= first:
        async for batch in log.read(Channel.EVENTS, partition, current, current + 1):
            event = decode_event(batch[0])
            if isinstance(event, PartitionClaimed):
                claimed[current] = event
    claim = claimed.get(current)
    return None if claim is None else Claim(claim.worker, claim.recorded_at, given_up)


def claim_findings(
    claims: Mapping[int, Claim | None], holders: Mapping[int, str] | None
) -> Iterator[Finding]:
    """Compare who claims the partitions with who is there.

    Args:
        claims: Each partition's claim; None where there is none.
        holders: As in `Examination`.
    """
    by_worker: dict[tuple[str, str], list[int]] = defaultdict(list)
    for partition, claim in claims.items():
        by_worker[
            "" if claim is None else claim.worker, _standing(partition, claim, holders)
        ].append(partition)
    for (worker, standing), partitions in sorted(by_worker.items()):
        since = max((c.at for p in partitions if (c := claims[p]) is not None), default=0)
        who = f"{_listed(partitions)} by {worker!r}, since {clock(since)}"
        if (moved := why_moved(worker)) is not None:
            told, _, advice = moved.partition(": ")
            yield warn("claims", f"{_listed(partitions)}: each {told}", advice)
            continue
        match standing:
            case "unclaimed":
                yield ok("claims", f"{_listed(partitions)}: nobody has claimed them yet")
            case "given up":
                yield ok("claims", f"{who}; handed over in order, free for the next worker")
            case "held":
                yield ok("claims", who)
            case "unknown":
                yield ok("claims", f"{who}; whether it is there can't be told")
            case "gone" if not holders:
                yield ok(
                    "claims", f"{who}, who is not there any more"
                )  # as nobody is, which was said
            case "gone":
                yield warn(
                    "claims",
                    f"{who}, who is not there any more: its runs stand still",
                    "start a worker: it takes them over",
                )
            case other:
                yield warn(
                    "claims",
                    f"{who}, but they are given to {other!r}, who has not claimed them",
                    "ask again in some seconds; if it stays so, look at that worker's log: it can't take them up",
                )


def _standing(partition: int, claim: Claim | None, holders: Mapping[int, str] | None) -> str:
    """How a claim stands: one word, or the name of who should have the partition instead."""
    if claim is None:
        return "unclaimed"
    if holders is None:
        return "unknown"
    holder = holders.get(partition)
    if holder is None:
        return "given up" if claim.given_up else "gone"
    # In a group, a worker goes by its client id, which ends with its name.
    is_its = holder in {"", claim.worker} or holder.endswith(f"-{claim.worker}")
    return "held" if is_its and not claim.given_up else holder or "a process that has just come"


async def _checkpoints(log: Log, bounds: Mapping[int, Bounds]) -> list[Finding]:
    findings: list[Finding] = []
    behind: dict[int, int] = {}
    for partition, (start, end) in bounds.items():
        bookmark = await log.bookmark(partition)
        behind[partition] = end - (start if bookmark is None else bookmark)
        if start > (bookmark or 0):
            findings.append(
                fail(
                    "history",
                    f"the first {start:,} events of partition {partition} are gone, and no checkpoint stands after them"
                    f" (last one: {'none' if bookmark is None else bookmark})",
                    "restore the log from a backup; find out who deleted them",
                )
            )
        elif bookmark is not None and not await _is_checkpoint(log, partition, bookmark, end):
            findings.append(
                warn(
                    "checkpoints",
                    f"the bookmark of partition {partition} leads to offset {bookmark:,}, where no checkpoint is:"
                    " recovery folds all of the history",
                    "nothing: the next checkpoint mends it",
                )
            )
    most = max(behind, key=lambda partition: behind[partition])
    if behind[most] > UNMARKED_MAX:
        findings.append(
            warn(
                "checkpoints",
                f"{behind[most]:,} events of partition {most} stand after its last checkpoint: taking it up takes long",
                "see that a worker runs which writes checkpoints, and look at its log",
            )
        )
    elif not findings:
        findings.append(
            ok(
                "checkpoints",
                f"at most {behind[most]:,} events to fold where a partition is taken up",
            )
        )
    return findings


async def _is_checkpoint(log: Log, partition: int, offset: int, end: int) -> bool:
    if offset >= end:
        return False
    async for batch in log.read(Channel.EVENTS, partition, offset, offset + 1):
        return isinstance(decode_event(batch[0]), CheckpointBegun)
    return False


def _ahead(recent: Iterable[Sequence[Record]]) -> Iterator[Finding]:
    last = max((records[-1].timestamp for records in recent if records), default=0)
    ahead_s = last / MICROSECONDS - time.time()
    if ahead_s > AHEAD_S:
        yield warn(
            "clock",
            f"the last event is {ahead_s:.0f} s ahead of this machine's clock: one of the two is wrong",
            "let all machines follow a time server (NTP)",
        )


async def _parked(log: Log, bounds: Mapping[int, Bounds]) -> list[Finding]:
    if any(start > 0 for start, _ in bounds.values()):
        return [ok("runs", "not counted: the beginning of the history is not here any more")]
    events = sum(end for _, end in bounds.values())
    if events > FOLDED_MAX:
        return [
            ok("runs", f"not counted: {events:,} events; `refold list --status parked` counts them")
        ]
    infos = await read_all(log)
    parked = [info for info in infos if info.status == "parked"]
    running = sum(info.status == "running" for info in infos)
    if not parked:
        return [ok("runs", f"{len(infos):,} in all, {running:,} running, none waits for a person")]
    return [
        warn(
            "runs",
            f"{len(parked):,} of {len(infos):,} are parked, as {parked[0].workflow_id!r}: {parked[0].reason}",
            "`refold list --status parked`, mend the cause, then `refold resume`",
        )
    ]


async def _projections(log: Log, bounds: Mapping[int, Bounds]) -> list[Finding]:
    """How far those are that are kept beside the log; elsewhere nobody knows of them here."""
    place = default_place(log)
    findings: list[Finding] = []
    if place is None:
        return []
    for name in names_in(Path(place)):
        try:
            positions = positions_in(Path(place), name)
        except TargetError as error:
            findings.append(
                fail("projections", f"{name}: {error}", f"delete it, and `refold project {name}`")
            )
            continue
        ahead = {p: positions[p].offset if p in positions else 0 for p in bounds}
        behind = sum(max(0, bounds[p].end - offset) for p, offset in ahead.items())
        if behind > BEHIND_MAX:
            told = f"{name} is {behind:,} records behind: it has stopped, or nobody keeps it"
            advice = (
                "look for PROJECTION STOPPED in what its process says, or start `refold project`"
            )
            findings.append(warn("projections", told, advice))
        else:
            findings.append(ok("projections", f"{name} is {behind:,} records behind"))
    return findings


def _listed(partitions: Sequence[int]) -> str:
    """Partitions as a person would say them: 0-3, 7."""
    runs: list[list[int]] = []
    for partition in partitions:
        if runs and runs[-1][-1] == partition - 1:
            runs[-1].append(partition)
        else:
            runs.append([partition])
    said = ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
    return f"partition {said}" if len(partitions) == 1 else f"partitions {said}"

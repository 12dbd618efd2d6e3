"""Checking an audit report with nothing but the report, and the reader's own copy of a public key."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from refold.log.codec import decode_event, event_id_of, link
from refold.log.errors import LogCorrupt, LogMismatch
from refold.log.event_head import BODY, CHAINED
from refold.log.events import Unreadable
from refold.log.protocol import Record
from refold.projections.audit_report import AuditReport, Proved
from refold.projections.audit_tree import HASH_BYTES, leaf, proven
from refold.projections.seal import PublicKey, Seal, read_seal

Verdict = Literal["verified", "consistent", "altered"]


class Checked(NamedTuple):
    """What a report is worth.

    Args:
        verdict: `verified`: every event was sealed, by a key that the reader gave. `consistent`: nothing is wrong, and
            not all of that is so. `altered`: it is not what was recorded.
        wrong: What is wrong, in words, event by event.
        sealed: How many of its events were sealed by a key that the reader gave.
        seal: The seal; None where there is none, or it can't be trusted.
    """

    verdict: Verdict
    wrong: Sequence[str]
    sealed: int
    seal: Seal | None


def check_report(report: AuditReport, keys: Sequence[PublicKey]) -> Checked:
    """Check a report.

    Args:
        report: The report.
        keys: Public keys that the reader trusts; none to check no more than that its events fit together.
    """
    wrong = [*_events(report)]
    if not report.events:
        wrong.append("it has no events")
    seal, sealed = None, 0
    if report.seal is not None and keys:
        try:
            seal = read_seal(report.seal, keys, "its seal")
        except (LogCorrupt, LogMismatch) as error:
            wrong.append(str(error))
        else:
            sealed = sum(
                one.offset < seal.partitions[report.partition].end for one in report.events
            )
            wrong += _sealed(report, seal)
    if wrong:
        return Checked("altered", wrong, 0, None)
    whole = seal is not None and sealed == len(report.events)
    return Checked("verified" if whole else "consistent", (), sealed, seal)


def _events(report: AuditReport) -> Iterator[str]:
    """What is wrong with the events, each by itself and one after the other."""
    last: Proved | None = None
    next_position = None
    for one in report.events:
        event = decode_event(_record(one, report))
        where = f"the event at offset {one.offset}"
        if isinstance(event, Unreadable):
            yield f"{where} can't be read: {event.reason}"
            continue
        where += f" ({event_id_of(event)})"
        if len(one.before) != HASH_BYTES or link(one.before, one.value[CHAINED:]) != event.chain:
            yield f"{where} is not what its chain was made over: it, or the chain, was changed"
        elif None not in (next_position, event.position) and next_position != event.position:
            yield f"{where} does not have the position {next_position}, which comes next"
        elif last is not None and one.offset <= last.offset:
            yield f"{where} stands before the one that it follows"
        elif last is not None and _parted(last, one):
            yield f"{where} does not follow from the event just before it"
        last = one
        if event.position is not None:  # a refused order has none
            next_position = event.position + 1


def _parted(one: Proved, other: Proved) -> bool:
    """Whether two events that stand side by side are not linked."""
    return other.offset == one.offset + 1 and other.before != one.value[BODY:CHAINED]


def _sealed(report: AuditReport, seal: Seal) -> Iterator[str]:
    stands = seal.partitions[report.partition]
    if seal.identity != report.identity:
        yield f"its seal is of the namespace {seal.namespace!r} with the id {seal.identity}, not of its own"
    sealed = [one for one in report.events if one.offset < stands.end]
    leaves = {one.number: leaf(_record(one, report)) for one in sealed}
    if len(leaves) != len(sealed) or not proven(stands.events, stands.peaks, leaves, report.proof):
        yield (
            "its seal does not have these events at these places: at least one of them was changed, moved or made up"
        )


def _record(one: Proved, report: AuditReport) -> Record:
    return Record(one.offset, one.timestamp, report.workflow_id, one.value)

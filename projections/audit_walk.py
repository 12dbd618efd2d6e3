"""Walking a partition with suspicion: every record is looked at, and the first that is not what was written is named.

What has to hold, record by record:

1. Offsets have no gap. One that is missing was removed.
2. Key and headers say what the body says.
3. An event that counts (written under the current claim) continues the chain of the event before that counts.
4. A record that does not count, since its owner had been overtaken, continues the chain of that owner. So an event
   can't be made to look like one of those.
5. A claim's chain covers the claim, and it names this partition.
6. Positions in a workflow's stream have no gap and no repeat.
7. Nothing else is there: what no owner wrote was inserted.

A chain proves nothing against whoever writes all of it anew from some event on, or cuts off its end. Against that there
are seals (`seal.py`), which say how a partition stood.
"""

from hashlib import blake2b
from typing import Final, Literal, NamedTuple, NoReturn

from refold.log.chain_walk import NO_CLAIM
from refold.log.codec import GENESIS, decode_event, kind_of, link, link_claim, verify, verify_event
from refold.log.event_head import BODY, CHAINED, Head, head_of
from refold.log.events import Event, OwnEvent, PartitionClaimed, Unreadable
from refold.log.protocol import Record
from refold.projections.audit_tree import Tree, leaf

MAX_FINDINGS: Final = 100
"""Findings that are kept of a partition: the first ones. A person needs one, and a flood of garbage has no end."""


Kind = Literal["chain", "headers", "missing", "foreign", "stale", "position", "unreadable", "seal"]


class Finding(NamedTuple):
    """What is not as it was written.

    Args:
        kind: What sort of thing it is.
        offset: Where it stands in the partition.
        event_id: The event there, by what it says of itself; None where it says nothing.
        told: What is wrong, in words.
        expected: What should be there.
        found: What is there.
    """

    kind: Kind
    offset: int
    event_id: str | None
    told: str
    expected: str = ""
    found: str = ""


class _BrokenError(Exception):
    """The walk ends here."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.told)
        self.finding = finding


class Standing(NamedTuple):
    """How a partition stands before an offset: all that later records rest on.

    Args:
        end: The offset.
        claim: The current claim.
        chain: Head of the chain; None where it is not known, because the beginning was trimmed.
        events: Those that count.
        stale: Records of owners that had been overtaken.
        foreign: Records that no owner wrote.
        peaks: Of the tree over the events that count (`audit_tree.py`).
    """

    end: int = 0
    claim: int = NO_CLAIM
    chain: bytes | None = GENESIS
    events: int = 0
    stale: int = 0
    foreign: int = 0
    peaks: tuple[bytes, ...] = ()


class Walk:
    """One walk over a partition.

    Args:
        partition: Its number.
        start: How it stands where the walk begins.
        tree: Counts the events and adds them up; None where nobody asks for that.

    Attributes:
        findings: What was found, in the order of offsets.
        broken: Whether the walk can't go on.
    """

    def __init__(self, partition: int, start: Standing, tree: Tree | None = None) -> None:
        self.partition = partition
        self.findings: list[Finding] = []
        self.broken = False
        self.tree = tree
        self.end, self.claim, self.chain, self.events, self.stale, self.foreign, _ = start
        self._start = start.end
        self._chains: dict[
            int, bytes
        ] = {}  # of former owners, by claim: as far as they have written
        self._positions: dict[str, int] = {}  # the last of each stream

    def standing(self) -> Standing:
        """How the partition stands now."""
        peaks = () if self.tree is None else self.tree.peaks
        return Standing(
            self.end, self.claim, self.chain, self.events, self.stale, self.foreign, peaks
        )

    def take(self, record: Record) -> bool:
        """Take the next record; returns whether it counts. Does nothing once the walk is broken."""
        if self.broken:
            return False
        try:
            counts = self._take(record)
        except _BrokenError as error:
            self.stop(error.finding)
            return False
        self.end += 1
        if counts:
            self.events += 1
            if self.tree is not None:
                self.tree.add(leaf(record))
        return counts

    def stop(self, finding: Finding) -> None:
        """End the walk with a finding."""
        self._find(finding)
        self.broken = True

    def _take(self, record: Record) -> bool:
        if record.offset != self.end:
            self._missing(record.offset)
        head = head_of(record)
        if head is None:
            return self._take_slowly(record)
        if head.claim != self.claim:
            return self._take_stale(record, head.claim)
        return self._continue(record, head)

    def _find(self, finding: Finding) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)

    def _continue(self, record: Record, head: Head) -> bool:
        value, chain = record.value, self.chain
        written = value[BODY:CHAINED]
        if chain is not None:
            computed = blake2b(chain + value[CHAINED:], digest_size=len(GENESIS)).digest()
            if computed != written:
                self._breaks(record, computed)
        self.chain = written
        self._check_position(record, head)
        return True

    def _check_position(self, record: Record, head: Head) -> None:
        key, position = record.key or "", head.position
        last = self._positions.get(key)
        self._positions[key] = position
        begins = head.kind == b"workflow.started"
        if last is None:
            if begins or self._start:
                return
            told, expected = "a stream does not begin with a start", "workflow.started"
        elif position == last + 1 or (begins and position > last):  # its id had been forgotten
            return
        else:
            told = "positions of a workflow's stream do not follow each other"
            expected = f"position {last + 1}"
        found = f"position {position}, {head.kind.decode(errors='replace')}"
        self._find(Finding("position", record.offset, said_id(record), told, expected, found))

    def _take_slowly(self, record: Record) -> bool:
        """Events of the partition itself, and everything that is not right."""
        event = decode_event(record)
        if isinstance(event, Unreadable):
            return self._take_unreadable(record, event)
        if isinstance(event, OwnEvent) and event.partition != self.partition:
            mine, its = f"partition {self.partition}", f"partition {event.partition}"
            told = "it is another partition's"
            raise _BrokenError(Finding("chain", record.offset, said_id(record), told, mine, its))
        if isinstance(event, PartitionClaimed):
            return self._take_claim(record, event)
        if event.claim != self.claim:
            return self._take_stale(record, event.claim)
        if self.chain is not None and not verify_event(event, record, self.chain):
            self._breaks(record, link(self.chain, record.value[CHAINED:]))
        self.chain = event.chain
        return True

    def _take_claim(self, record: Record, event: PartitionClaimed) -> bool:
        sound = verify_event(event, record, GENESIS)
        if event.claim != self.claim:
            self.stale += 1
            if self._was_owned(record, event.claim) and not sound:
                self._odd(record, GENESIS)
            return False
        if not sound:
            self._breaks(record, link(GENESIS, record.value[CHAINED:]))
        if self.chain is not None:
            self._chains[self.claim] = self.chain
            self.chain = link_claim(self.chain, event.chain)
        self.claim = record.offset
        return True

    def _take_stale(self, record: Record, claim: int) -> Literal[False]:
        """A record of a former owner: it goes on from what that owner had written."""
        self.stale += 1
        before = self._chains.get(claim)
        if self._was_owned(record, claim) and before is not None:
            if not verify(record, before):
                self._odd(record, before)
            self._chains[claim] = record.value[BODY:CHAINED]
        return False

    def _was_owned(self, record: Record, claim: int) -> bool:
        """Whether a claim may once have been the current one; it is told where it was not."""
        if claim in self._chains or 0 <= claim < self._start:
            return True
        told = "it names a claim that was never the partition's"
        expected, found = f"claim {self.claim}, or a former one", f"claim {claim}"
        self._find(Finding("stale", record.offset, said_id(record), told, expected, found))
        return False

    def _odd(self, record: Record, before: bytes) -> None:
        told = "it does not count, and the former owner that it names did not write it as it stands"
        computed = link(before, record.value[CHAINED:])
        self._find(_chains_differ("stale", record, told, computed))

    def _take_unreadable(self, record: Record, event: Unreadable) -> bool:
        value = record.value
        kind: Kind = "foreign"
        told = f"no owner wrote this record: {event.reason}"
        counts = False
        if event.claim is not None and event.claim != self.claim:
            kind = "stale"
            told = f"it does not count, and can't be read: {event.reason}"
            self.stale += 1
        elif self.chain is not None and link(self.chain, value[CHAINED:]) == value[BODY:CHAINED]:
            kind = "unreadable"
            told = f"an owner wrote it, and it can't be read: {event.reason}. A newer release may"
            self.chain = value[BODY:CHAINED]
            counts = True
        else:
            self.foreign += 1
        self._find(
            Finding(kind, record.offset, said_id(record), told, "an event", "something else")
        )
        return counts

    def _breaks(self, record: Record, computed: bytes) -> NoReturn:
        """An event that counts does not continue the chain, or its headers or key were changed."""
        if computed == record.value[BODY:CHAINED]:
            told = "its key or headers are not what its body says"
            said = _body_says(record), _says(record)
            raise _BrokenError(Finding("headers", record.offset, said_id(record), told, *said))
        told = "it is not what was written after the event before it: it was changed, or one before it was removed"
        head = head_of(record)
        last = self._positions.get(record.key or "")
        if head is not None and last is not None and head.position != last + 1:
            told += f" (position {head.position} of its stream comes after position {last})"
        raise _BrokenError(_chains_differ("chain", record, told, computed))

    def _missing(self, offset: int) -> NoReturn:
        last = offset - 1
        told = "the record is missing" if last <= self.end else f"records up to {last} are missing"
        words = f"offset {self.end}", f"offset {offset}"
        raise _BrokenError(Finding("missing", self.end, None, told, *words))


def said_id(record: Record) -> str | None:
    """The event_id that a record's headers give."""
    return next(
        (value.decode(errors="replace") for name, value in record.headers if name == "event_id"),
        None,
    )


def _chains_differ(kind: Kind, record: Record, told: str, computed: bytes) -> Finding:
    written = record.value[BODY:CHAINED]
    expected, found = f"chain {computed.hex()}", f"chain {written.hex()}"
    return Finding(kind, record.offset, said_id(record), told, expected, found)


def _says(record: Record) -> str:
    return f"kind {kind_of(record)}, event_id {said_id(record)}, key {record.key}"


def _body_says(record: Record) -> str:
    event: Event | Unreadable = decode_event(record)
    if isinstance(event, Unreadable):
        return f"what its body says ({event.reason})"
    return f"kind {event.kind}, workflow {event.workflow_id}, position {event.position}"

"""The report of one run: its events as they stand in the log, byte for byte, with the proof that they do.

For each event: where it stands, the log's time of it, its bytes, the chain before it, and its number among the
partition's events that count. With a seal there is a proof (`audit_tree.py`) that just these leaves are in the tree
that the seal signs. What follows from that: whoever holds the private key stated that these events stood there,
counted, and had not been changed. What does not: that no event of the run came after the last one here.

Without a seal, events are shown to fit together and no more: whoever makes a report could make up all of it.
"""

import json
from base64 import b64decode, b64encode
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, cast

from refold.log.archive import identity_of
from refold.log.chain_walk import beginning
from refold.log.errors import LogCorrupt, LogMismatch, LogTrimmed, WorkflowNotFound
from refold.log.protocol import Channel, Log, Record
from refold.projections.audit import Told
from refold.projections.audit_tree import Tree
from refold.projections.audit_walk import Standing, Walk
from refold.projections.seal import PublicKey, Seal

FORMAT: Final = "refold audit report 1"


class Proved(NamedTuple):
    """An event of a report.

    Args:
        offset: Where it stands.
        timestamp: When the log took it in, by the log: microseconds since 1970-01-01 UTC.
        number: Its number among the events of the partition that count.
        before: Chain of the event before that counts.
        value: The record's value.
    """

    offset: int
    timestamp: int
    number: int
    before: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class AuditReport:
    """A report.

    Args:
        namespace: Name of the log.
        identity: What tells it from others of its name.
        workflow_id: The run.
        partition: Its partition.
        made_at: When the report was made, by its maker's clock: microseconds since 1970-01-01 UTC.
        events: The run's events that count.
        seal: The line of a seal; None for none.
        public_key: The key that verifies it, for the reader to compare with their own copy: 32 bytes in hex.
        proof: Hashes that lead from the sealed events to the seal.
    """

    namespace: str
    identity: str
    workflow_id: str
    partition: int
    made_at: int
    events: tuple[Proved, ...]
    seal: str | None = None
    public_key: str | None = None
    proof: tuple[bytes, ...] = ()

    def to_json(self) -> str:
        """As text, the same for the same report."""
        events = [
            {**one._asdict(), "before": one.before.hex(), "value": b64encode(one.value).decode()}
            for one in self.events
        ]
        told = {
            "format": FORMAT,
            "namespace": self.namespace,
            "identity": self.identity,
            "workflow_id": self.workflow_id,
            "partition": self.partition,
            "made_at": self.made_at,
            "events": events,
            "seal": self.seal,
            "public_key": self.public_key,
            "proof": [one.hex() for one in self.proof],
        }
        return json.dumps(told)


def read_report(text: str, where: str) -> AuditReport:
    """What `AuditReport.to_json` wrote.

    Args:
        text: The text.
        where: Where it is from, for messages.

    Raises:
        LogMismatch: Another release wrote it.
        LogCorrupt: It is something else, or was damaged.
    """
    try:
        told = cast("dict[str, Any]", json.loads(text))
        if told["format"] != FORMAT:
            raise LogMismatch(
                f"{where} has a format that this release does not know: upgrade refold"
            )
        return AuditReport(
            namespace=str(told["namespace"]),
            identity=str(told["identity"]),
            workflow_id=str(told["workflow_id"]),
            partition=int(told["partition"]),
            made_at=int(told["made_at"]),
            events=tuple(map(_event_of, told["events"])),
            seal=_optional(told["seal"]),
            public_key=_optional(told["public_key"]),
            proof=tuple(map(bytes.fromhex, told["proof"])),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LogCorrupt(f"{where} is not an audit report ({error!r})") from error


def _event_of(told: dict[str, Any]) -> Proved:
    return Proved(
        offset=int(told["offset"]),
        timestamp=int(told["timestamp"]),
        number=int(told["number"]),
        before=bytes.fromhex(told["before"]),
        value=b64decode(told["value"], validate=True),
    )


def _optional(value: object) -> str | None:
    return None if value is None else str(value)


@dataclass(slots=True)
class _Collected:
    """The events of one run, out of a walk over its partition."""

    walk: Walk
    workflow_id: str
    sealed: Standing | None
    events: list[Proved] = field(default_factory=list[Proved])
    proof: tuple[bytes, ...] = ()

    def take(self, record: Record) -> None:
        walk, tree = self.walk, self.walk.tree
        before, index = walk.chain, walk.events
        ours = record.key == self.workflow_id
        if ours and tree is not None:
            tree.want(index)
        if not walk.take(record):
            if ours and tree is not None:
                tree.forget(index)
        elif ours and before is not None:
            self.events.append(Proved(record.offset, record.timestamp, index, before, record.value))
        self.at_seal()

    def at_seal(self) -> None:
        """Where the partition was sealed, the tree is the one that the seal signs."""
        walk, tree = self.walk, self.walk.tree
        if self.sealed is None or tree is None or walk.end != self.sealed.end:
            return
        if walk.standing() != self.sealed:
            raise LogCorrupt(
                f"partition {walk.partition} is not what was sealed: there is no report. Verify it with "
                "`refold audit verify --seals`"
            )
        self.proof = tuple(tree.proof())
        walk.tree = None


async def make_report(
    log: Log,
    workflow_id: str,
    made_at: int,
    seal: tuple[Seal, PublicKey] | None = None,
    told: Told = lambda _: None,
) -> AuditReport:
    """The report of a run. All of its partition is verified on the way.

    Args:
        log: An open log; an `ArchivedLog`, where some of it was trimmed.
        workflow_id: The run.
        made_at: The time, microseconds since 1970-01-01 UTC.
        seal: A verified seal of this namespace, best the last one, and the key that verified it.
        told: Told how many more records have been looked at.

    Raises:
        WorkflowNotFound: It has no events.
        LogCorrupt: The partition is not what was written or sealed.
        LogTrimmed: Some of the partition was trimmed.
        LogError: The log can't be read.
    """
    partition = log.layout.place(workflow_id)
    if (await beginning(log, partition)).offset:
        raise LogTrimmed(
            f"the beginning of partition {partition} of {log.namespace!r} was trimmed, and a report needs all of it: "
            "name its archive with --archive DIR"
        )
    sealed = None if seal is None else seal[0].partitions[partition]
    walk = Walk(partition, Standing(), None if sealed is None else Tree())
    found = _Collected(walk, workflow_id, sealed)
    found.at_seal()
    async with aclosing(log.read(Channel.EVENTS, partition, 0)) as batches:
        async for batch in batches:
            for record in batch:
                found.take(record)
            told(len(batch))
    _check(walk, log.namespace, found)
    return AuditReport(
        namespace=log.namespace,
        identity=identity_of(log),
        workflow_id=workflow_id,
        partition=partition,
        made_at=made_at,
        events=tuple(found.events),
        seal=None if seal is None else seal[0].statement,
        public_key=None if seal is None else seal[1].raw.hex(),
        proof=found.proof,
    )


def _check(walk: Walk, namespace: str, found: _Collected) -> None:
    first = next((one for one in walk.findings if one.kind != "foreign"), None)
    if first is not None:
        raise LogCorrupt(
            f"partition {walk.partition} of {namespace!r} is not what was written, at offset {first.offset} "
            f"({first.event_id or 'no event'}): {first.told}. There is no report; see `refold audit verify`"
        )
    if walk.tree is not None:
        raise LogCorrupt(
            f"partition {walk.partition} of {namespace!r} ends before offset {walk.end}, and was sealed beyond that: "
            "it was cut off. There is no report; see `refold audit verify`"
        )
    if not found.events:
        raise WorkflowNotFound(f"no run has the id {found.workflow_id!r}: check the id")

"""Digest of a partition's state, comparable between all readers on all backends."""

import hashlib
import json
from collections.abc import Iterable

from refold.engine.operations import Emitted, Outcome
from refold.engine.state import Exchange, PartitionState
from refold.log.commands import Command
from refold.log.events import (
    Event,
)


def digest(state: PartitionState) -> str:
    """Digest of a whole partition's state, hex: equal for every reader that folded the same records."""
    hasher = hashlib.blake2b(digest_size=32)
    for line in _canonical(state):
        hasher.update(json.dumps(line, separators=(",", ":"), sort_keys=True).encode())
        hasher.update(b"\n")
    return hasher.hexdigest()


def _canonical(state: PartitionState) -> Iterable[list[object]]:
    yield [state.claim, state.owner, state.command, state.posted, state.chain.hex()]
    for command in state.outbox:
        yield _flat(command)
    for workflow_id, run in sorted(state.open.items()):
        yield [
            workflow_id,
            _flat(run.started),
            run.position,
            run.status,
            run.updated_at,
            run.first_started_at,
            run.input_digest.hex() if run.input_digest is not None else None,
            run.next_step,
            [run.numbering.base, *run.numbering.jumps],
            [_flat(outcome) for outcome in run.outcomes],
            sorted((n, a.name, a.failed, a.started_at, a.due_at) for n, a in run.attempts.items()),
            sorted((n, _flat(timer)) for n, timer in run.timers.items()),
            _exchanged(run.exchange),
            _flat(run.parked),
            run.broken,
        ]
    for workflow_id, closed in sorted(state.closed.items()):
        yield [
            workflow_id,
            closed.workflow,
            closed.version,
            closed.input_digest.hex(),
            closed.status,
            closed.position,
            closed.started_at,
            closed.ended_at,
            closed.parent_id,
            closed.parent_step,
            closed.attributes,
        ]


def _exchanged(exchange: Exchange) -> list[object]:
    return [
        sorted((n, _flat(sent)) for n, sent in exchange.requests.items()),
        sorted((n, _flat(child)) for n, child in exchange.children.items()),
        sorted((key, _flat(value)) for key, value in exchange.values.items()),
        sorted(exchange.streams.items()),
        list(exchange.seen),
        list(exchange.asked),
        [(key, _flat(answer)) for key, answer in exchange.answers.items()],
        sorted(exchange.patches),
        exchange.tags,
        _flat(exchange.cancel),
        exchange.parts,
        exchange.copied,
    ]


def _flat(value: Outcome | Event | Command | None) -> list[object]:
    """An event or command as a list of its values, without its chain: that is set on events which were read, and not
    on the owner's own; the state's head of the chain stands for all of them.
    """
    if value is None:
        return []
    if isinstance(value, Emitted):
        return list(value)
    names = [name for base in type(value).__mro__ for name in getattr(base, "__slots__", ())]
    return [value.kind, *(getattr(value, name) for name in names if name != "chain")]

"""Digest of a partition's state, comparable between all readers on all backends."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Final

from refold.engine.operations import Emitted, Outcome
from refold.engine.state import Closed, Exchange, PartitionState, Queue, WorkflowState
from refold.log.commands import COMMAND_CLASSES, Command
from refold.log.events import EVENT_CLASSES, Event

_to_json: Final = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode
_CHAIN: Final = frozenset({"chain"})
_PLACED: Final = frozenset({"chain", "claim", "command", "posted", "partition"})
"""Fields that say where in the log an event stands, and not what happened."""


def _getter(cls: type[object], without: frozenset[str]) -> Callable[[object], tuple[object, ...]]:
    """Reads the fields of a class; each has several."""
    names = [name for base in cls.__mro__ for name in getattr(base, "__slots__", ())]
    return attrgetter(*(name for name in names if name not in without))


_FIELDS: Final[Mapping[frozenset[str], Mapping[type, Callable[[object], tuple[object, ...]]]]] = {
    without: {cls: _getter(cls, without) for cls in (*EVENT_CLASSES, *COMMAND_CLASSES)}
    for without in (_CHAIN, _PLACED)
}
_AT_OFFSET: Final = re.compile(r"at offset \d+")


def digest(state: PartitionState) -> str:
    """Digest of a whole partition's state, hex: equal for every reader that folded the same records."""
    hasher = hashlib.blake2b(digest_size=32)
    for line in _canonical(state):
        hasher.update(_text(line))
        hasher.update(b"\n")
    return hasher.hexdigest()


def run_digest(run: WorkflowState) -> bytes:
    """Digest (16 bytes) of an open run, the same wherever its stream is copied to.

    It leaves out what a copy can't share with its original: of each event the claim that it was written under, the
    last command consumed and the count of commands posted; and the offset of a record that can't be read.
    """
    line = _run(run, _PLACED)
    if run.broken is not None:
        line[-1] = _AT_OFFSET.sub("at an offset", run.broken)
    return _hash16(line)


def closed_digest(closed: Closed) -> bytes:
    """The same of a run that has ended."""
    return _hash16(_closed(closed))


def queue_values(queue: Queue) -> list[object]:
    """What a queue is: who has a slot stands in no order, who waits for one does."""
    return [queue.limit, sorted(queue.running), list(queue.waiting)]


def event_text(event: Event) -> bytes:
    """What an event says, as bytes to be hashed: the same wherever it is copied to."""
    return _text(_flat(event, _PLACED))


def _hash16(line: list[object]) -> bytes:
    return hashlib.blake2b(_text(line), digest_size=16).digest()


def _text(line: list[object]) -> bytes:
    return _to_json(line).encode()


def _canonical(state: PartitionState) -> Iterable[list[object]]:
    yield [state.claim, state.owner, state.command, state.posted, state.chain.hex()]
    yield [
        state.floor,
        state.forgotten_before,
        sorted([*key, *h] for key, h in state.handed.items()),
        *([state.offered_until] if state.offered_until else ()),
    ]
    for command in state.outbox:
        yield _flat(command)
    for name, queue in sorted(state.queues.items()):
        yield [name, *queue_values(queue)]
    for workflow_id, run in sorted(state.open.items()):
        yield [workflow_id, *_run(run, _CHAIN)]
    for workflow_id, closed in sorted(state.closed.items()):
        yield [workflow_id, *_closed(closed)]


def _run(run: WorkflowState, without: frozenset[str]) -> list[object]:
    def flat(value: Outcome | Event | None) -> list[object]:
        return _flat(value, without)

    return [
        flat(run.started),
        run.position,
        run.status,
        run.updated_at,
        run.first_started_at,
        run.input_digest.hex() if run.input_digest is not None else None,
        run.next_step,
        [run.numbering.base, *run.numbering.jumps],
        [flat(outcome) for outcome in run.outcomes],
        sorted((n, a.name, a.failed, a.started_at, a.due_at) for n, a in run.attempts.items()),
        sorted((n, flat(timer)) for n, timer in run.timers.items()),
        _exchanged(run.exchange, flat),
        flat(run.parked),
        run.ticket,
        run.waits,
        run.broken,
    ]


def _closed(closed: Closed) -> list[object]:
    return [
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
        closed.queue,
    ]


def _exchanged(exchange: Exchange, flat: Callable[[Event | None], list[object]]) -> list[object]:
    return [
        sorted((n, flat(sent)) for n, sent in exchange.requests.items()),
        sorted((n, flat(child)) for n, child in exchange.children.items()),
        sorted((key, flat(value)) for key, value in exchange.values.items()),
        sorted(exchange.streams.items()),
        list(exchange.seen),
        list(exchange.asked),
        [(key, flat(answer)) for key, answer in exchange.answers.items()],
        sorted(exchange.patches),
        exchange.tags,
        flat(exchange.cancel),
        exchange.parts,
        exchange.copied,
    ]


def _flat(
    value: Outcome | Event | Command | None, without: frozenset[str] = _CHAIN
) -> list[object]:
    """An event or command as a list of its values, without its chain: that is set on events which were read, and not
    on the owner's own; the state's head of the chain stands for all of them.
    """
    if value is None:
        return []
    if isinstance(value, Emitted):
        return list(value)
    return [value.kind, *_FIELDS[without][type(value)](value)]

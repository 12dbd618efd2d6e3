"""Whether a copied namespace is what its source is: the target is read anew, folded, and compared by digests.

What differs by design, and is left out: of each event the claim that it was written under, the last command consumed,
the count of commands posted, its chain (and of a refusal the partition's number); of a run that is broken by a record
that can't be read, the record's offset.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from refold.engine.digest import closed_digest, digest, queue_values, run_digest
from refold.engine.fold import evolve
from refold.engine.migration_copy import (
    CommandCopy,
    Filling,
    Plan,
    Told,
    command_content,
    content,
    is_copied,
)
from refold.engine.recovery import recover
from refold.engine.state import PartitionState
from refold.log.codec import decode_event
from refold.log.errors import LogCorrupt, LogMismatch
from refold.log.events import PartitionClaimed
from refold.log.layout import Layout
from refold.log.protocol import Channel, Log

SHOWN: Final = 5
"""Runs that differ and are named: one is mostly enough to find the cause, and all would fill the screen."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What was compared, and is equal.

    Args:
        open: Runs that go on.
        closed: Runs that have ended and are remembered.
        events: Events that were copied.
        digests: Digest of each of the target's partitions.
    """

    open: int
    closed: int
    events: int
    digests: tuple[str, ...]


async def verify_events(
    target: Log,
    fillings: Sequence[Filling],
    layout: Layout,
    sources: Sequence[PartitionState],
    told: Told,
) -> Verified:
    """Read the target's events and compare them with what was copied, and their fold with the source's.

    Args:
        target: The target.
        fillings: Its partitions, as they were filled.
        layout: The source's partitions.
        sources: Their folds.
        told: Is told how many records were read.

    Raises:
        LogCorrupt: They differ.
        LogMismatch: Somebody else has claimed a partition meanwhile.
        LogError: The target can't be read.
    """

    def home(workflow_id: str) -> PartitionState:
        return sources[layout.place(workflow_id)]

    opened = ended = copied = queues = 0
    digests: list[str] = []
    for filling in fillings:
        where = f"partition {filling.partition} of {target.namespace!r}"
        state = await _read_back(target, filling, where, told)
        different = [*_different(state, home)]
        if different:
            raise _unequal(f"{len(different)} runs or queues in {where}, {_named(different)}")
        digests.append(digest(state))
        recovered = await recover(target, filling.partition)
        await recovered.go_on(target, filling.partition)
        if digest(recovered.state) != digests[-1]:
            raise _unequal(f"{where} as it is recovered from its checkpoint")
        opened += len(state.open)
        ended += sum(id_ in home(id_).closed for id_ in state.closed)
        copied += filling.count
        queues += len(state.queues)
    expected = (
        sum(len(s.open) for s in sources),
        sum(len(s.closed) for s in sources),
        sum(len(s.queues) for s in sources),
    )
    if (opened, ended, queues) != expected:
        raise _unequal(
            f"the target has {opened} open and {ended} ended runs and {queues} queues, the source {expected[0]},"
            f" {expected[1]} and {expected[2]}; the target"
        )
    return Verified(opened, ended, copied, tuple(digests))


async def _read_back(log: Log, filling: Filling, where: str, told: Told) -> PartitionState:
    state = PartitionState()
    hasher = hashlib.blake2b(digest_size=32)
    async for batch in log.read(Channel.EVENTS, filling.partition, 0):
        for record in batch:
            event = decode_event(record)
            if event.claim in {None, state.claim} and is_copied(event):
                hasher.update(content(event, record))
            evolve(state, event, record.offset)
        told(len(batch))
    if state.claim != filling.state.claim:
        raise LogMismatch(
            f"{where} was claimed by {state.owner!r} while it was filled: see that no other migration runs, then run it"
            " again; it goes on where it stopped"
        )
    if hasher.digest() != filling.hasher.digest():
        raise _unequal(f"the events of {where}")
    if digest(state) != digest(filling.state):
        raise _unequal(f"the fold of {where}")
    return state


def _different(state: PartitionState, home: Callable[[str], PartitionState]) -> Iterator[str]:
    """Runs and queues of a target's partition that stand otherwise in the source. A run that had been forgotten there
    alone may be remembered here: nothing is forgotten before every partition of the source has.
    """
    for workflow_id, run in state.open.items():
        original = home(workflow_id).open.get(workflow_id)
        if original is None or run_digest(original) != run_digest(run):
            yield workflow_id
    for workflow_id, closed in state.closed.items():
        there = home(workflow_id)
        ended = there.closed.get(workflow_id)
        if ended is None:
            if workflow_id in there.open or closed.ended_at >= there.forgotten_before:
                yield workflow_id
        elif closed_digest(ended) != closed_digest(closed):
            yield workflow_id
    for name, queue in state.queues.items():
        of_source = home(name).queues.get(name)
        if of_source is None or queue_values(of_source) != queue_values(queue):
            yield name


async def verify_commands(target: Log, commands: CommandCopy) -> None:
    """Read the target's commands and compare them with what was copied.

    Raises:
        LogCorrupt: They differ.
        LogError: The target can't be read.
    """
    for partition, (count, expected) in enumerate(
        zip(commands.counts, commands.hashers, strict=True)
    ):
        hasher = hashlib.blake2b(digest_size=32)
        found = 0
        async for batch in target.read(Channel.COMMANDS, partition, 0):
            for record in batch:
                found += 1
                hasher.update(command_content(record))
        if found != count or hasher.digest() != expected.digest():
            raise _unequal(
                f"the commands of partition {partition} of {target.namespace!r} ({found}, of {count} copied)"
            )


async def require_closed(source: Log, plan: Plan, worker: str) -> int:
    """See that nobody has claimed the source since it was closed.

    Returns:
        How many commands have come to it since: nobody will answer them.

    Raises:
        LogMismatch: Somebody has.
        LogError: The source can't be read.
    """
    late = 0
    for partition, cut in enumerate(plan.cuts):
        async for batch in source.read(Channel.EVENTS, partition, cut.events):
            for event in map(decode_event, batch):
                if isinstance(event, PartitionClaimed) and event.claim == cut.events - 1:
                    raise LogMismatch(
                        f"partition {partition} of {source.namespace!r} was claimed by {event.worker!r} after"
                        f" {worker!r} had closed it, and may have changed: is that worker of an older release? Stop it,"
                        " then migrate into a fresh namespace"
                    )
        late += (await source.bounds(Channel.COMMANDS, partition)).end - cut.commands
    return late


def _named(workflow_ids: Sequence[str]) -> str:
    more = len(workflow_ids) - SHOWN
    shown = ", ".join(map(repr, workflow_ids[:SHOWN]))
    return f"{shown} and {more} more," if more > 0 else f"{shown},"


def _unequal(what: str) -> LogCorrupt:
    return LogCorrupt(
        f"{what} is not what the source has, so the target is not released to workers. Nothing is lost: the source is"
        " as it was; `refold migrate SOURCE TARGET --abandon` opens it again. Please report this"
    )

"""What of a partition may be deleted for ever, and why not more.

Rules for events; what is left must be able to say everything by itself that is not history:

1. Only what is before a checkpoint that recovery uses: the bookmark leads to it, it is whole, and the state that it
   holds is the one that the events fold to (their digests are compared; a bookmark is a hint and a checkpoint a cache,
   and here they would become all that is left).
2. Only what is archived and was read back (`archived`).
3. Only what is old enough: records from the first that is too young on are kept, whatever their checkpoint.
4. A log is cut where a whole checkpoint begins, so that its first event says by whom and upon what it was written, and
   the next trimming has something to fold on from. That checkpoint is compared with the fold as well.

Commands go up to the last one that was consumed when the checkpoint of rule 1 began, and that one stays.
"""

from contextlib import aclosing
from dataclasses import dataclass, field

from refold.engine.digest import digest
from refold.engine.fold import evolve
from refold.engine.recovery import checkpoint_at
from refold.engine.state import PartitionState
from refold.log.chain_walk import beginning
from refold.log.codec import claim_of, decode_event, kind_of
from refold.log.errors import LogCorrupt
from refold.log.events import CheckpointBegun, CheckpointCompleted, PartitionClaimed
from refold.log.protocol import Bounds, Channel, Log


@dataclass(frozen=True, slots=True)
class Trim:
    """What may be deleted of a partition.

    Args:
        partition: Its number.
        events: What it has of events now.
        events_before: Events before this offset may go; `events.start` for none.
        commands: What it has of commands now.
        commands_before: Commands before this offset may go.
        reasons: What was found, and why not more, in words.
    """

    partition: int
    events: Bounds
    events_before: int
    commands: Bounds
    commands_before: int
    reasons: tuple[str, ...] = field(default=())

    @property
    def empty(self) -> bool:
        """Whether nothing may go."""
        nothing = self.events_before <= self.events.start
        return nothing and self.commands_before <= self.commands.start


async def age_limit(log: Log, channel: Channel, partition: int, before_us: int | None) -> int:
    """Offset of the first record that is too young.

    Args:
        log: An open log.
        channel: Which kind of record.
        partition: Which partition.
        before_us: Records of this time and later are too young, microseconds since 1970-01-01 UTC; None for none.
    """
    if before_us is None:
        return (await log.bounds(channel, partition)).end
    return await log.offset_at(channel, partition, before_us)


async def plan(log: Log, partition: int, *, before_us: int | None, archived: int) -> Trim:
    """What of a partition may be deleted. Changes nothing; folds all that the log has before its checkpoint.

    Args:
        log: An open log, without its archive.
        partition: Which partition.
        before_us: What has this time or a later one is kept, microseconds since 1970-01-01 UTC; None keeps nothing for
            its age.
        archived: Events before this offset are archived, and were read back.

    Raises:
        LogError: The log can't be read.
    """
    events = await log.bounds(Channel.EVENTS, partition)
    commands = await log.bounds(Channel.COMMANDS, partition)
    keep = Trim(partition, events, events.start, commands, commands.start)
    bookmark = await log.bookmark(partition)
    if bookmark is None:
        return _kept(keep, "no checkpoint has been written yet, so that everything is needed")
    if bookmark < events.start:
        return _kept(keep, f"the last checkpoint began at offset {bookmark}, which is gone")
    young = await age_limit(log, Channel.EVENTS, partition, before_us)
    try:
        points = await _whole_checkpoints(log, partition, bookmark)
        cut = max([p for p in points if p <= min(archived, young)], default=None)
        command = await _verified(log, partition, bookmark, cut)
    except LogCorrupt as error:
        return _kept(keep, f"its checkpoints can't be relied upon: {error}", "nothing goes")
    reasons = [f"the last checkpoint begins at offset {bookmark} and is what the events fold to"]
    if archived < bookmark:
        reasons.append(f"events from offset {archived} on are not archived")
    if young < bookmark:
        reasons.append(f"events from offset {young} on are too young")
    if cut is None or cut <= events.start:
        reasons.append("no other whole checkpoint begins before that, so that no events go")
    else:
        reasons.append(f"events before offset {cut} may go: a whole checkpoint begins there")
    young_commands = await age_limit(log, Channel.COMMANDS, partition, before_us)
    commands_before = max(commands.start, min(command, young_commands, commands.end - 1))
    reasons.append(
        f"commands before offset {commands_before} may go: they were consumed before that checkpoint"
    )
    return Trim(
        partition,
        events,
        events.start if cut is None else cut,
        commands,
        commands_before,
        tuple(reasons),
    )


async def trim(log: Log, planned: Trim) -> None:
    """Delete what was planned. Repeating it is no error.

    Raises:
        LogUnavailable: The log can't be reached; some may be deleted.
    """
    partition = planned.partition
    if planned.events_before > planned.events.start:
        await log.trim(Channel.EVENTS, partition, planned.events_before)
    if planned.commands_before > planned.commands.start:
        await log.trim(Channel.COMMANDS, partition, planned.commands_before)


async def _whole_checkpoints(log: Log, partition: int, last: int) -> list[int]:
    """Where whole checkpoints begin, of those after the log's own beginning, up to that at `last`.

    From the headers, since all is read: what is chosen among them is compared with the fold later.
    """
    start = await beginning(log, partition)
    claim, begun = start.claim, dict[str, int]()
    found: list[int] = [last]
    async with aclosing(log.read(Channel.EVENTS, partition, start.offset, last)) as batches:
        async for batch in batches:
            for record in batch:
                kind = kind_of(record)
                if claim_of(record) != claim:
                    continue
                if kind == PartitionClaimed.kind:
                    claim, begun = record.offset, {}
                elif kind == CheckpointBegun.kind and record.offset > start.offset:
                    event = decode_event(record)
                    if isinstance(event, CheckpointBegun):
                        begun[event.name] = record.offset
                elif kind == CheckpointCompleted.kind:
                    event = decode_event(record)
                    if isinstance(event, CheckpointCompleted) and event.name in begun:
                        found.append(begun.pop(event.name))
    return found


async def _verified(log: Log, partition: int, last: int, cut: int | None) -> int:
    """Compare the checkpoints at `last` and `cut` with the fold; returns the last command consumed before `last`.

    Raises:
        LogCorrupt: One can't be restored, or holds another state.
    """
    start = (await log.bounds(Channel.EVENTS, partition)).start
    state, position = PartitionState(), 0
    if start > 0:
        state, position = await checkpoint_at(log, partition, start), start + 1
    for offset in sorted({last if cut is None else cut, last}):
        async with aclosing(log.read(Channel.EVENTS, partition, position, offset + 1)) as batches:
            async for batch in batches:
                for record in batch:
                    evolve(state, decode_event(record), record.offset)
        position = offset + 1
        held = await checkpoint_at(log, partition, offset)
        if digest(held) != digest(state):
            raise LogCorrupt(
                f"the state that the checkpoint at offset {offset} holds is not the one that the events fold to"
            )
    return state.command


def _kept(keep: Trim, *reasons: str) -> Trim:
    return Trim(
        keep.partition,
        keep.events,
        keep.events_before,
        keep.commands,
        keep.commands_before,
        reasons,
    )

"""Moving a namespace to another log or another number of partitions: closed, copied, verified, released.

    look      what is in the target: nothing, or a migration from this very source that is not complete
    close     each partition of the source is claimed under a name that no worker claims over (`migration_marks.py`):
              its owner is fenced in that moment, and whoever comes later is told where it went
    copy      events, then commands (`migration_copy.py`); the plan stands in the target before anything else
    verify    the target is read anew and compared by digests (`migration_check.py`)
    release   each partition of the target is claimed under a name that workers may claim over

A migration that stops anywhere is run again and goes on: the source stays closed, what is in the target is counted,
and the rest of the same sequence is appended. Nobody else works in either meanwhile. Until the first partition is
released it can be given up (`abandon`), which opens the source again.

The source's chain does not go on in the target, whose events have claims and offsets of its own. But its head, at the
offset at which it was closed, stands in the first event of each partition of the target, and so under that chain:
whoever has the source, or an archive of it, can prove that it is what was copied.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from refold.engine.checkpoint import Snapshot
from refold.engine.checkpoints import part_chars
from refold.engine.claim import claim
from refold.engine.digest import digest
from refold.engine.migration_blobs import BlobCopy
from refold.engine.migration_check import require_closed, verify_commands, verify_events
from refold.engine.migration_copy import (
    CommandCopy,
    Cut,
    Filling,
    Plan,
    copy_events,
    is_of_sequence,
    own,
)
from refold.engine.migration_marks import ABANDONED, CLOSED, FILLING, RELEASED
from refold.engine.recovery import Folded, recover
from refold.engine.state import PartitionState
from refold.log.accepted import Accepted
from refold.log.blobs import blobs_of
from refold.log.errors import LogMismatch, LogTrimmed
from refold.log.events import (
    CheckpointBegun,
    CheckpointCompleted,
    CheckpointPart,
    PartitionClaimed,
    PartitionMigrated,
)
from refold.log.findings import Examined
from refold.log.protocol import Channel, Log
from refold.log.trimmed import ARCHIVE_ADVICE

MICROSECONDS: Final = 1_000_000

Progress = Callable[[str, int, int], None]
"""Is told what is done, how many records of it are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is to be moved.

    Args:
        partitions: Of the source.
        open: Runs that go on.
        closed: Runs that have ended and are remembered.
        events: Records in the source's events.
        commands: Commands that wait there.
        unposted: Commands of workflows to others that are not known to have been posted.
        holders: Who works on it, by partition; empty where nobody does, or where that can't be told.
        moved_to: Where it has been closed for; None where it has not.
    """

    partitions: int
    open: int
    closed: int
    events: int
    commands: int
    unposted: int
    holders: dict[int, str]
    moved_to: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """What a migration came to.

    Args:
        source, target: Their names.
        source_partitions, target_partitions: How many they have.
        open: Runs that go on in the target.
        closed: Runs that have ended and are remembered.
        events: Events that were copied and compared.
        commands: Commands that wait in the target.
        blobs: Large payloads that were put into the target's store.
        blobs_missing: References to those that the source's store has lost, or has damaged.
        late: Commands that came to the source after it was closed: nobody answers them.
        resumed: Whether an earlier try was gone on with.
        complete_before: Whether there was nothing left to do.
        chains: Head of the chain of each of the source's partitions, hex.
        digests: Digest of each of the target's partitions; empty where `complete_before`.
    """

    source: str
    target: str
    source_partitions: int
    target_partitions: int
    open: int
    closed: int
    events: int
    commands: int
    blobs: int
    blobs_missing: tuple[str, ...]
    late: int
    resumed: bool
    complete_before: bool
    chains: tuple[str, ...]
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """What a partition of the target holds.

    Args:
        owner: Who holds its current claim; empty where it is untouched.
        plan: The payload of the event that began to fill it.
        done: How many events of the copier's sequence are there.
    """

    owner: str
    plan: str | None
    done: int


class Migration:
    """One namespace on its way to another.

    Args:
        source: Where it is; an open log.
        target: Where it is to be; an open log, fresh or filled in part by the same migration.
        source_name, target_name: What they are called, in the marks and to people. The same at every try.
        clock: Microseconds since 1970-01-01 UTC.
        sleep: Waits so many seconds.
        progress: Is told how it goes.

    Raises:
        LogMismatch: They are one and the same.
    """

    def __init__(  # noqa: PLR0917 - the two logs and their names, then what may be left out
        self,
        source: Log,
        target: Log,
        source_name: str,
        target_name: str,
        clock: Callable[[], int],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        progress: Progress | None = None,
    ) -> None:
        if source_name == target_name:
            raise LogMismatch(f"{source_name} can't be migrated into itself: name another target")
        self._source = source
        self._target = target
        self._source_name = source_name
        self._target_name = target_name
        self._clock = clock
        self._sleep = sleep
        self._progress = progress
        self._closer = f"{CLOSED}{target_name}"
        self._filler = f"{FILLING}{source_name}"
        self._releaser = f"{RELEASED}{source_name}"

    async def run(self, *, fence: bool = False) -> Report:
        """Move the namespace; or go on with it where an earlier try has stopped.

        Args:
            fence: Whether workers that are still at work are cut off; else it is refused while there are any.

        Raises:
            LogMismatch: The target is not fresh, the source is at work or moves elsewhere, or somebody interferes.
            LogCorrupt: The source is damaged, or the target did not become what the source is.
            LogError: A log can't be read or written: run it again.
        """
        found = [await self._look(p) for p in range(self._target.partitions)]
        folded = await self._look_at_source()
        self._require_usable(found, folded)
        if not fence and any(f.state.owner != self._closer for f in folded):
            await self._require_quiet()
        filled = [f.owner not in {"", self._filler} for f in found]  # and released, so verified
        into: list[PartitionState] = []
        if not any(filled):
            for partition in range(self._target.partitions):  # workers keep out, from here on
                claimed = await claim(self._target, partition, self._filler, self._clock)
                into.append(claimed.state)
        states, ends = await self._close(folded)
        await self._wait_for_steps(states)
        plan = await self._plan(states, ends, found)
        if any(filled):
            return await self._release_rest(plan, states, found)
        fillings = [await self._begin(p, state, plan) for p, state in enumerate(into)]
        resumed = any(f.plan is not None for f in found)
        return await self._fill(plan, states, fillings, resumed=resumed)

    async def _fill(
        self,
        plan: Plan,
        states: Sequence[PartitionState],
        fillings: Sequence[Filling],
        *,
        resumed: bool,
    ) -> Report:
        total = sum(cut.events for cut in plan.cuts)
        told = self._meter("copying events", total)
        blobs = BlobCopy(blobs_of(self._source), blobs_of(self._target))
        await copy_events(self._source, plan, self._target.layout, fillings, blobs, told)
        commands = await self._copy_commands(plan, states, blobs)
        for filling in fillings:
            await self._complete(filling, states)
        total = sum(filling.next_offset for filling in fillings)
        verified = await verify_events(
            self._target, fillings, self._source.layout, states, self._meter("verifying", total)
        )
        await verify_commands(self._target, commands)
        late = await require_closed(self._source, plan, self._closer)
        for filling in fillings:
            await self._release(filling)
        return Report(
            source=self._source_name,
            target=self._target_name,
            source_partitions=len(states),
            target_partitions=len(fillings),
            open=verified.open,
            closed=verified.closed,
            events=verified.events,
            commands=sum(commands.counts),
            blobs=blobs.count,
            blobs_missing=tuple(blobs.missing),
            late=late,
            resumed=resumed,
            complete_before=False,
            chains=tuple(cut.chain for cut in plan.cuts),
            digests=verified.digests,
        )

    async def abandon(self) -> int:
        """Give the migration up: workers may go on in the source. What was copied is left, and can't be gone on with.

        Returns:
            How many partitions of the source were opened again.

        Raises:
            LogMismatch: The target has been released to workers already.
            LogError: A log can't be read or written.
        """
        for partition in range(self._target.partitions):
            if (await self._look(partition)).owner not in {"", self._filler}:
                raise LogMismatch(
                    f"{self._target_name} has been released to workers: the namespace is there now. To move it back,"
                    " migrate it into a fresh namespace"
                )
        opened = 0
        for partition in range(self._source.partitions):
            state = (await self._folded(partition)).state
            if state.owner == self._closer:
                await claim(self._source, partition, f"{ABANDONED}{self._target_name}", self._clock)
                opened += 1
        return opened

    # Looking ----------------------------------------------------------------------------------------------

    async def _look(self, partition: int) -> _Found:
        log = self._target
        accepted, plan, done = Accepted(), None, 0
        folded = await recover(log, partition)
        await folded.go_on(log, partition)
        async for batch in log.read(Channel.EVENTS, partition, 0):
            for record in batch:
                event = accepted.take(record)
                if isinstance(event, PartitionMigrated) and event.name == "begun":
                    plan = event.payload
                done += is_of_sequence(event)
        return _Found(folded.state.owner, plan, done)

    async def _look_at_source(self) -> list[Folded]:
        """The folds of its partitions; refused where they can't be moved, before anything is done."""
        found: list[Folded] = []
        for partition in range(self._source.partitions):
            await require_whole(self._source, partition)
        for partition in range(self._source.partitions):
            folded = await self._folded(partition)
            owner = folded.state.owner
            if owner.startswith(CLOSED) and owner != self._closer:
                other = owner.removeprefix(CLOSED)
                raise LogMismatch(
                    f"{self._source_name} is closed for a migration to {other}: finish that one, or give it up with"
                    f" `refold migrate SOURCE {other} --abandon`"
                )
            if owner.startswith(FILLING):
                raise LogMismatch(
                    f"{self._source_name} is not complete itself: it is being filled from"
                    f" {owner.removeprefix(FILLING)}. Finish that migration first"
                )
            found.append(folded)
            self._tell("reading the source", partition + 1, self._source.partitions)
        return found

    def _require_usable(self, found: Sequence[_Found], folded: Sequence[Folded]) -> None:
        """Before anything is done: the target is fresh, or filled from the source as it is closed now."""
        for partition, there in enumerate(found):
            if there.plan is None and there.owner not in {"", self._filler}:
                raise LogMismatch(
                    f"{self._target_name} is in use: {there.owner!r} has claimed its partition {partition}. Migrate"
                    " into a fresh namespace"
                )
        is_closed = all(f.state.owner == self._closer for f in folded)
        if any(there.plan is not None for there in found) and not is_closed:
            raise self._other_state()

    def _other_state(self) -> LogMismatch:
        return LogMismatch(
            f"{self._target_name} was filled from another state of {self._source_name}, which was opened again since,"
            " or from another log: migrate into a fresh namespace"
        )

    async def _require_quiet(self) -> None:
        holders = await holders_of(self._source)
        if holders:
            partitions = ", ".join(map(str, sorted(holders)))
            names = ", ".join(sorted({name for name in holders.values() if name}))
            raise LogMismatch(
                f"{self._source_name} is at work: its partitions {partitions} are held by a worker"
                f"{f' ({names})' if names else ''}. Stop all its workers first, or cut them off with --fence"
            )

    # Closing the source -----------------------------------------------------------------------------------

    async def _close(self, found: Sequence[Folded]) -> tuple[list[PartitionState], list[int]]:
        """Claim each partition of the source, where that has not been done; their folds, and the offsets after."""
        states: list[PartitionState] = []
        ends: list[int] = []
        for partition, begun in enumerate(found):
            folded = begun
            if folded.state.owner != self._closer:
                folded = await claim(self._source, partition, self._closer, self._clock, folded)
            elif folded.position > folded.state.claim + 1:  # others have written since
                folded = await self._folded(partition, folded.state.claim + 1)
            states.append(folded.state)
            ends.append(folded.state.claim + 1)
            self._tell("closing the source", partition + 1, len(found))
        return states, ends

    async def _folded(self, partition: int, stop: int | None = None) -> Folded:
        folded = await recover(self._source, partition)
        if stop is not None and folded.position > stop:
            folded = Folded(PartitionState(), 0)
        await folded.go_on(self._source, partition, stop)
        return folded

    async def _wait_for_steps(self, states: Sequence[PartitionState]) -> None:
        """Until steps that were handed over have been reported, or will begin again anyway."""
        due_at = max((h.due_at for state in states for h in state.handed.values()), default=0)
        wait_s = (due_at - self._clock()) / MICROSECONDS
        if wait_s > 0:
            self._tell("waiting for steps that were handed over", 0, 1)
            await self._sleep(wait_s)

    async def _plan(
        self, states: Sequence[PartitionState], ends: Sequence[int], found: Sequence[_Found]
    ) -> Plan:
        """What is to be copied; the commands as they were when it was begun."""
        begun = next((there.plan for there in found if there.plan is not None), None)
        before = None if begun is None else Plan.from_payload(begun)
        cuts: list[Cut] = []
        for partition, (state, end) in enumerate(zip(states, ends, strict=True)):
            commands = (await self._source.bounds(Channel.COMMANDS, partition)).end
            if before is not None and partition < len(before.cuts):
                commands = before.cuts[partition].commands
            cuts.append(
                Cut(
                    events=end,
                    chain=state.chain.hex(),
                    digest=digest(state),
                    first_command=state.command + 1,
                    commands=commands,
                )
            )
        plan = Plan(self._source_name, tuple(cuts))
        if any(there.plan not in {None, plan.payload()} for there in found):
            raise self._other_state()
        return plan

    # Filling the target -----------------------------------------------------------------------------------

    async def _begin(self, partition: int, state: PartitionState, plan: Plan) -> Filling:
        """Write the plan into a partition of the target, unless it is there."""
        there = await self._look(partition)
        if there.plan not in {None, plan.payload()}:
            raise LogMismatch(
                f"another migration fills {self._target_name}: see that only one runs, then run it again"
            )
        filling = Filling(self._target, partition, state, there.done, self._filler)
        filling.tell("begun", plan.payload(), self._clock())
        await filling.flush()
        return filling

    async def _copy_commands(
        self, plan: Plan, states: Sequence[PartitionState], blobs: BlobCopy
    ) -> CommandCopy:
        partitions = range(self._target.partitions)
        present = [(await self._target.bounds(Channel.COMMANDS, p)).end for p in partitions]
        commands = CommandCopy(self._target, present, blobs)
        outboxes = [list(state.outbox) for state in states]
        total = sum(cut.commands - cut.first_command for cut in plan.cuts)
        await commands.copy(self._source, plan, outboxes, self._meter("copying commands", total))
        return commands

    async def _complete(self, filling: Filling, states: Sequence[PartitionState]) -> None:
        """All is there and all is posted: streams begin where no stream of the source had come to, from now on."""
        terms = {
            "floor": max(state.floor for state in states),
            "forget_before": min(state.forgotten_before for state in states),
        }
        filling.tell("completed", json.dumps(terms), self._clock())
        await self._write_checkpoint(filling)

    async def _write_checkpoint(self, filling: Filling) -> None:
        """So that the first worker need not fold all that was copied."""
        state, partition, now = filling.state, filling.partition, self._clock()
        name = f"{state.claim}-0"
        terms = {"forget_before": state.forgotten_before, "floor": state.floor}
        offset = filling.next_offset
        filling.record(
            CheckpointBegun(
                **own(now, self._filler), partition=partition, name=name, payload=json.dumps(terms)
            )
        )
        snapshot, hasher, count = Snapshot(state), blake2b(digest_size=32), 0
        size = part_chars(self._target.max_record_bytes)
        while (text := snapshot.next_part(size)) is not None:
            hasher.update(text.encode())
            filling.record(
                CheckpointPart(
                    **own(now, self._filler),
                    partition=partition,
                    name=name,
                    index=count,
                    payload=text,
                )
            )
            count += 1
            await filling.flush()
        filling.record(
            CheckpointCompleted(
                **own(now, self._filler),
                partition=partition,
                name=name,
                count=count,
                payload=hasher.hexdigest(),
            )
        )
        await filling.flush()
        await self._target.set_bookmark(partition, offset)

    # Releasing --------------------------------------------------------------------------------------------

    async def _release(self, filling: Filling) -> None:
        """Let workers claim a partition. Nobody has claimed it since it was verified: else the offset tells."""
        filling.record(
            PartitionClaimed(**own(self._clock(), self._releaser), partition=filling.partition)
        )
        await filling.flush()

    async def _release_rest(
        self, plan: Plan, states: Sequence[PartitionState], found: Sequence[_Found]
    ) -> Report:
        rest = [p for p, there in enumerate(found) if there.owner == self._filler]
        for partition in rest:
            await claim(self._target, partition, self._releaser, self._clock)
        return Report(
            source=self._source_name,
            target=self._target_name,
            source_partitions=len(states),
            target_partitions=len(found),
            open=sum(len(state.open) for state in states),
            closed=sum(len(state.closed) for state in states),
            events=0,
            commands=0,
            blobs=0,
            blobs_missing=(),
            late=await require_closed(self._source, plan, self._closer),
            resumed=True,
            complete_before=not rest,
            chains=tuple(cut.chain for cut in plan.cuts),
            digests=(),
        )

    def _meter(self, stage: str, total: int) -> Callable[[int], None]:
        done = 0

        def told(more: int) -> None:
            nonlocal done
            done += more
            if done % 1_000 < more or done == total:
                self._tell(stage, done, total)

        return told

    def _tell(self, stage: str, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(stage, done, total)


async def survey(source: Log) -> Survey:
    """See what there is to be moved. Changes nothing.

    Raises:
        LogError: The source can't be read.
    """
    opened = closed = events = commands = unposted = 0
    moved_to: str | None = None
    for partition in range(source.partitions):
        await require_whole(source, partition)
        folded = await recover(source, partition)
        await folded.go_on(source, partition)
        state = folded.state
        opened += len(state.open)
        closed += len(state.closed)
        events += (await source.bounds(Channel.EVENTS, partition)).end
        commands += (await source.bounds(Channel.COMMANDS, partition)).end - state.command - 1
        unposted += len(state.outbox)
        if state.owner.startswith(CLOSED):
            moved_to = state.owner.removeprefix(CLOSED)
    return Survey(
        source.partitions,
        opened,
        closed,
        events,
        commands,
        unposted,
        await holders_of(source),
        moved_to,
    )


async def holders_of(log: Log) -> dict[int, str]:
    """Who works on a log, by partition: nobody, where that can't be told."""
    if not isinstance(log, Examined):
        return {}
    return dict((await log.examine()).holders or {})


async def require_whole(log: Log, partition: int) -> None:
    """Refuse a partition whose beginning is gone: what is open could not be copied event by event.

    Raises:
        LogTrimmed: Its first events have been trimmed.
    """
    start = (await log.bounds(Channel.EVENTS, partition)).start
    if start > 0:
        raise LogTrimmed(
            f"the first {start} events of partition {partition} of {log.namespace!r} were trimmed, and a migration"
            f" copies whole streams. {ARCHIVE_ADVICE}"
        )

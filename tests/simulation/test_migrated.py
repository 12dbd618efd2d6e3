"""Lives drawn at random are cut off at some moment, migrated to another number of partitions, and lived on there."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.simulation import core_checks as core
from tests.simulation.history import History
from tests.simulation.journal import Audit
from tests.simulation.scene import START_US
from tests.simulation.trials import Trial, drawn
from tests.simulation.world import World

from refold.engine import migration_copy
from refold.engine.claim import claim
from refold.engine.migration import Migration, Report
from refold.engine.migration_marks import CLOSED, RELEASED
from refold.engine.reader import read_partition
from refold.engine.state import PartitionState
from refold.log.codec import GENESIS, decode_command, decode_event, encode_event, event_id_of
from refold.log.commands import Command, ReportStep, WatchWorkflow
from refold.log.errors import LogCorrupt, LogMismatch
from refold.log.events import (
    CommandRefused,
    Event,
    PartitionClaimed,
    PartitionHandedOver,
    StepCompleted,
    Unreadable,
)
from refold.log.memory import MemoryLog, MemoryStore
from refold.log.protocol import Channel, Entry, Log, Record

Sleep = Callable[[float], Awaitable[object]]
Damage = Callable[[Entry], Entry | None]

NAMES = "memory://source", "memory://target"
OPEN_SEED = 3
"""Of a life on three partitions, in which runs are open and queued, others have ended, messages are on their way."""
HANDED_SEED = 2
"""Of a life in which a partition is handed over while steps go on."""
SECOND_US = 1_000_000


def cut_off(store: MemoryStore, at_us: int) -> MemoryStore:
    """The same log as it was at that time."""
    now = [0]
    cut = MemoryStore(store.partitions, lambda: now[0])
    for partition in range(store.partitions):
        for channel in (Channel.EVENTS, Channel.COMMANDS):
            for record in store.read(channel, partition, 0):
                if record.timestamp <= at_us:
                    now[0] = record.timestamp
                    cut.append(
                        channel, partition, [Entry(record.key, record.value, record.headers)]
                    )
    return cut


def moments(store: MemoryStore) -> list[int]:
    """When something was appended, in order."""
    return sorted(
        r.timestamp for p in range(store.partitions) for r in store.read(Channel.EVENTS, p, 0)
    )


class Crash(BaseException):
    """The migrator's process is gone."""


class Crashing(MemoryLog):
    """A log on which one append, counted over both logs, is the last thing that the migrator does.

    Args:
        store: The records.
        fuse: How many appends there are before that one; shared with the other log.
        share: How much of that append is written.
    """

    def __init__(self, store: MemoryStore, fuse: list[int], share: float) -> None:
        super().__init__(store=store)
        self._fuse = fuse
        self._share = share

    async def append(
        self,
        channel: Channel,
        partition: int,
        entries: Sequence[Entry],
        *,
        lazily: bool = False,
    ) -> Sequence[int]:
        """Append; or write some of it, and crash."""
        if self._fuse[0] == 0:
            some = entries[: round(self._share * len(entries))]
            if some:
                await super().append(channel, partition, some)
            raise Crash
        self._fuse[0] -= 1
        return await super().append(channel, partition, entries)


async def migrated(
    source: MemoryStore,
    target: MemoryStore,
    at_us: int,
    fuse: list[int] | None = None,
    share: float = 0.0,
) -> Report:
    """Migrate one store into the other, or crash when the fuse has burnt down."""
    fuse = [1_000_000] if fuse is None else fuse
    return await between(Crashing(source, fuse, share), Crashing(target, fuse, share), at_us)


async def between(source: Log, target: Log, at_us: int, sleep: Sleep | None = None) -> Report:
    """Migrate one log into the other."""
    async with opened(source, target):
        migration = Migration(source, target, *NAMES, lambda: at_us, sleep or no_sleep)
        return await migration.run()


@asynccontextmanager
async def opened(*logs: Log) -> AsyncGenerator[None]:
    """Logs, open inside the block."""
    for log in logs:
        await log.open()
    try:
        yield
    finally:
        for log in logs:
            await log.close()


async def no_sleep(_: float) -> None:
    """Time passes at once."""


def streams(store: MemoryStore) -> Mapping[str, Sequence[Event]]:
    """Every stream as an auditor reads it who does not use the fold, without what belongs to its partition."""
    audit = Audit(store)
    audit.advance()
    return {
        id_: [replace(event, claim=0, command=0, posted=0) for event in stream]
        for id_, stream in audit.streams.items()
    }


def refusals(store: MemoryStore) -> list[CommandRefused]:
    """All refusals, without what belongs to their partition."""
    audit = Audit(store)
    audit.advance()
    found = [replace(e, claim=0, command=0, posted=0, partition=0) for _, e in audit.refused]
    return sorted(found, key=repr)


def states(store: MemoryStore) -> list[PartitionState]:
    """The folds of all partitions."""
    return asyncio.run(folds(store))


async def folds(store: MemoryStore) -> list[PartitionState]:
    """The same."""
    log = MemoryLog(store=store)
    async with opened(log):
        return [await read_partition(log, p) for p in range(store.partitions)]


def later_orders(
    store: MemoryStore, at_us: int
) -> Iterator[tuple[int, Record, Command | Unreadable]]:
    """What clients sent after that time; workflows and workers send theirs again by themselves."""
    for partition in range(store.partitions):
        for record in store.read(Channel.COMMANDS, partition, 0):
            command = decode_command(record)
            by_workflow = not isinstance(command, Unreadable) and (
                isinstance(command, ReportStep)
                or (command.requested_by or "").startswith("workflow ")
            )
            if record.timestamp > at_us and not by_workflow:
                yield record.timestamp, record, command


def lives_on(trial: Trial, at_us: int, partitions: int) -> World:
    """Migrate the life as it was at that time into a world of its own, and have it lived to its end there."""
    source = cut_off(trial.world.store, at_us)
    world = World(1, partitions=partitions)
    world.now_us = at_us + SECOND_US
    asyncio.run(migrated(source, world.store, world.now_us))
    same(source, world.store)
    for then_us, _, command in later_orders(trial.world.store, at_us):
        if not isinstance(command, Unreadable):
            world.plan(then_us + SECOND_US - START_US, lambda c=command: world.submit(c))  # type: ignore[misc]
    try:
        world.live()
        world.settle(list(trial.expected))
    finally:
        world.close()
    return world


def same(source: MemoryStore, target: MemoryStore) -> None:
    """Everything that happened, and nothing else, is in the target, in order."""
    assert streams(source) == streams(target)
    assert refusals(source) == refusals(target)
    assert not [c for state in states(target) for c in state.outbox]
    audit = Audit(target)
    audit.advance()
    ids = [event_id_of(event) for accepted in audit.accepted for _, event in accepted]
    assert len(ids) == len(set(ids))


def judge(world: World, trial: Trial) -> list[str]:
    """What is wrong in the target once all has come to rest."""
    history = History(world.store, world.journal, trial.expected)
    wrong = [*core.the_chain_verifies(history), *core.invariant_09_positions_have_no_gap(history)]
    wrong += core.invariant_07_all_readers_fold_to_the_same(history)
    for workflow_id, expectation in trial.expected.items():
        stream = history.audit.stream(workflow_id)
        if workflow_id not in history.audit.broken and (told := expectation(stream)) is not None:
            wrong.append(f"{workflow_id}: {told}")
    return wrong


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 100_000),
    share=st.floats(0, 1),
    partitions=st.sampled_from([1, 2, 3, 5]),
)
def test_a_life_goes_on_elsewhere(seed: int, share: float, partitions: int) -> None:
    """Given any log, cut off anywhere, its streams are the same in the target, and its runs end as they should."""
    trial = drawn(seed)
    times = moments(trial.world.store)
    at_us = times[round(share * (len(times) - 1))] if times else START_US
    world = lives_on(trial, at_us, partitions)
    assert not judge(world, trial), "\n".join(["", *trial.world.journal.acts])


def refuses_workers(store: MemoryStore, partition: int) -> bool:
    """Whether a worker that is assigned the partition can't claim it."""

    async def try_to_claim() -> bool:
        log = MemoryLog(store=store)
        await log.open()
        try:
            await claim(log, partition, "worker-1", lambda: START_US)
        except LogMismatch:
            return True
        finally:
            await log.close()
        return False

    return asyncio.run(try_to_claim())


def owners(store: MemoryStore) -> list[str]:
    """Who holds the claims."""
    return owners_of(states(store))


def owners_of(found: Sequence[PartitionState]) -> list[str]:
    """The same of folds."""
    return [state.owner for state in found]


def closed_and_open(seed: int) -> tuple[MemoryStore, int]:
    """A log with ended and open runs, something to be posted and something that waits."""
    trial = drawn(seed)
    for at_us in moments(trial.world.store):
        cut = cut_off(trial.world.store, at_us)
        folds = states(cut)
        ended, opened = any(s.closed for s in folds), sum(len(s.open) for s in folds)
        if ended and opened > 1 and any(s.outbox for s in folds):
            return cut, at_us
    raise AssertionError(f"seed {seed} has no such moment")


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_migration_that_crashes_anywhere_goes_on(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a crash at each append in turn, workers keep out meanwhile, and the next try completes it, once."""
    monkeypatch.setattr(migration_copy, "BATCH_ENTRIES", 3)
    cut, at_us = closed_and_open(OPEN_SEED)
    burns = 0
    for burns in range(10_000):
        source, target = cut_off(cut, at_us), MemoryStore(2, lambda: at_us)
        try:
            asyncio.run(migrated(source, target, at_us, [burns], share))
            break
        except Crash:
            pass
        claimed = [owner for owner in owners(target) if owner]
        free = [refuses_workers(target, p) for p in range(len(claimed))]
        assert free == [not owner.startswith(RELEASED) for owner in claimed]
        if False in free:
            assert all(refuses_workers(source, p) for p in range(source.partitions))
        asyncio.run(migrated(source, target, at_us))
        same(source, target)
        assert waiting(target) == expected_to_wait(cut)
        assert all(owner.startswith((RELEASED, "worker-1")) for owner in owners(target))
    assert burns > 15


def waiting(store: MemoryStore) -> list[str]:
    """Ids of the commands that nobody has consumed."""
    return sorted(
        command.command_id
        for p, state in enumerate(states(store))
        for record in store.read(Channel.COMMANDS, p, state.command + 1)
        if not isinstance(command := decode_command(record), Unreadable)
        and not isinstance(command, WatchWorkflow)
    )


def expected_to_wait(store: MemoryStore) -> list[str]:
    """The same of a source, together with what its workflows have not posted."""
    unposted = [command.command_id for state in states(store) for command in state.outbox]
    return sorted([*waiting(store), *unposted])


def test_a_source_that_was_claimed_meanwhile_is_not_migrated() -> None:
    """Given a worker of an older release that claims the closed source, the target is not released."""
    source, at_us = closed_and_open(OPEN_SEED)
    target = MemoryStore(2, lambda: at_us)
    with pytest.raises(Crash):  # on its way
        asyncio.run(migrated(source, target, at_us, [source.partitions + 4]))
    state = states(source)[0]
    intruder = PartitionClaimed(
        workflow_id=None,
        position=None,
        recorded_at=at_us,
        claim=state.claim,
        command=state.command,
        posted=state.posted,
        worker="worker-0.0",
        partition=0,
    )
    source.append(Channel.EVENTS, 0, [encode_event(intruder, state.chain)[0]])
    with pytest.raises(LogMismatch, match="another state"):
        asyncio.run(migrated(source, target, at_us))
    assert not any(owner.startswith(RELEASED) for owner in owners(target))


def test_a_source_whose_history_was_changed_is_not_migrated() -> None:
    """Given one altered event, its chain breaks: the migration stops there and says where."""
    source, at_us = closed_and_open(OPEN_SEED)
    forged = MemoryStore(source.partitions, lambda: at_us)
    done = False
    for partition in range(source.partitions):
        for record in source.read(Channel.EVENTS, partition, 0):
            value = record.value
            event = decode_event(record)
            if not done and isinstance(event, StepCompleted) and b"worker-" in value:
                value = value.replace(b"worker-", b"Worker-")
                done = True
            forged.append(Channel.EVENTS, partition, [Entry(record.key, value, record.headers)])
    assert done
    with pytest.raises(LogCorrupt, match="chain breaks at offset"):
        asyncio.run(migrated(forged, MemoryStore(2, lambda: at_us), at_us))


def test_a_target_in_use_is_refused_and_the_source_left_alone() -> None:
    """Given a target in which a worker has been, nothing is changed anywhere."""
    source, at_us = closed_and_open(OPEN_SEED)
    target = cut_off(drawn(1).world.store, at_us)
    before = owners(source), owners(target)
    with pytest.raises(LogMismatch, match="in use"):
        asyncio.run(migrated(source, target, at_us))
    assert (owners(source), owners(target)) == before


def test_an_abandoned_migration_opens_the_source_again() -> None:
    """Given a migration that was given up, workers may claim the source, and what was copied is of no use."""
    source, at_us = closed_and_open(OPEN_SEED)
    target = MemoryStore(2, lambda: at_us)
    with pytest.raises(Crash):
        asyncio.run(migrated(source, target, at_us, [source.partitions + 6]))
    assert all(refuses_workers(source, p) for p in range(source.partitions))
    assert asyncio.run(abandoned(source, target, at_us)) == source.partitions
    assert not any(refuses_workers(source, p) for p in range(source.partitions))
    assert all(refuses_workers(target, p) for p in range(target.partitions))
    with pytest.raises(LogMismatch, match="fresh namespace"):
        asyncio.run(migrated(source, target, at_us))
    asyncio.run(migrated(source, MemoryStore(4, lambda: at_us), at_us))


def test_a_complete_migration_can_not_be_abandoned() -> None:
    """Given a target that workers may open, the source stays closed: a namespace is never in two places."""
    source, at_us = closed_and_open(OPEN_SEED)
    target = MemoryStore(2, lambda: at_us)
    asyncio.run(migrated(source, target, at_us))
    assert not refuses_workers(target, 0)
    with pytest.raises(LogMismatch, match="released"):
        asyncio.run(abandoned(source, target, at_us))
    assert all(refuses_workers(source, p) for p in range(source.partitions))
    assert asyncio.run(migrated(source, target, at_us)).complete_before


async def abandoned(source: MemoryStore, target: MemoryStore, at_us: int) -> int:
    """Give a migration up."""
    logs = MemoryLog(store=source), MemoryLog(store=target)
    async with opened(*logs):
        return await Migration(*logs, *NAMES, lambda: at_us, no_sleep).abandon()


def test_steps_that_were_handed_over_are_waited_for() -> None:
    """Given steps that go on at a former owner, the source is closed, and copied when their time is over."""
    store = drawn(HANDED_SEED).world.store
    at_us = next(
        record.timestamp
        for record in store.read(Channel.EVENTS, 0, 0)
        if isinstance(event := decode_event(record), PartitionHandedOver) and event.payload != "[]"
    )
    source, target = cut_off(store, at_us), MemoryStore(3, lambda: at_us)
    due_at = max(h.due_at for state in states(source) for h in state.handed.values())
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert all(owner.startswith(CLOSED) for owner in owners_of(await folds(source)))

    logs = MemoryLog(store=source), MemoryLog(store=target)
    asyncio.run(between(*logs, at_us, sleep))
    assert slept == [(due_at - at_us) / SECOND_US]
    same(source, target)
    assert not any(state.handed for state in states(target))


class Damaging(MemoryLog):
    """A log that does something to what is appended to one channel.

    Args:
        store: The records.
        channel: Which.
        damage: Makes another entry of an entry, or none.
    """

    def __init__(self, store: MemoryStore, channel: Channel, damage: Damage) -> None:
        super().__init__(store=store)
        self._channel = channel
        self._damage = damage

    async def append(
        self,
        channel: Channel,
        partition: int,
        entries: Sequence[Entry],
        *,
        lazily: bool = False,
    ) -> Sequence[int]:
        """Append something else."""
        if channel is self._channel:
            entries = [found for entry in entries if (found := self._damage(entry)) is not None]
        return await super().append(channel, partition, entries)


def otherwise(entry: Entry) -> Entry:
    """The result of a step is another one, in an event that is else as it was."""
    event = decode_event(Record(0, 0, *entry))
    if not isinstance(event, StepCompleted):
        return entry
    changed, _ = encode_event(replace(event, payload="0"), GENESIS)
    return changed


def unsaid(entry: Entry) -> Entry | None:
    """A command is lost."""
    return None


@pytest.mark.parametrize(
    ("channel", "damage", "what"),
    [
        (Channel.EVENTS, otherwise, "the events of partition"),
        (Channel.COMMANDS, unsaid, "the commands of partition"),
    ],
)
def test_what_is_not_equal_is_not_released(channel: Channel, damage: Damage, what: str) -> None:
    """Given a target that keeps something else than it was given, the comparison finds it: workers keep out."""
    source, at_us = closed_and_open(OPEN_SEED)
    target = MemoryStore(2, lambda: at_us)
    with pytest.raises(LogCorrupt, match=what):
        asyncio.run(between(MemoryLog(store=source), Damaging(target, channel, damage), at_us))
    assert all(refuses_workers(target, p) for p in range(target.partitions))
    assert asyncio.run(abandoned(source, target, at_us)) == source.partitions


def test_records_are_merged_by_their_time() -> None:
    """Given partitions with interleaved times, one of which went back, each keeps its order and all are in time's."""
    now = [0]
    store = MemoryStore(3, lambda: now[0])
    for partition, times in enumerate(([1, 4, 9], [2, 3, 4, 1], [])):
        for at in times:
            now[0] = at
            store.append(Channel.EVENTS, partition, [Entry(f"{partition}@{at}", b"")])

    async def merge() -> list[str | None]:
        log = MemoryLog(store=store)
        async with opened(log):
            ranges = [(0, 3), (1, 4), (0, 0)]
            return [r.key async for _, r in migration_copy.merged(log, Channel.EVENTS, ranges)]

    assert asyncio.run(merge()) == ["0@1", "1@3", "0@4", "1@4", "1@1", "0@9"]

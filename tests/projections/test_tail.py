"""Tail: the events that count, in one order, filtered, from anywhere, and each of them once."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from refold import Engine, LogTrimmed, UsageError, set_attributes, step, workflow
from refold.log.codec import GENESIS, encode_event, link_claim
from refold.log.errors import LogUnavailable
from refold.log.events import (
    CheckpointPart,
    Event,
    PartitionClaimed,
    StepCompleted,
    WorkflowStarted,
)
from refold.log.memory import MemoryLog, MemoryStore
from refold.log.partitioner import partition_of
from refold.log.protocol import Channel, Entry, Log
from refold.projections.cursor import Cursor
from refold.projections.feed import Logged, Position
from refold.projections.tail import Tail, tail, tail_sync

PATIENCE_S = 60.0


def run(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await scenario()

    asyncio.run(bounded())


class Clock:
    """The log's clock: set by the test."""

    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


class Writer:
    """An owner of one partition, by hand."""

    def __init__(self, store: MemoryStore, partition: int) -> None:
        self.store = store
        self.partition = partition
        self.claim = -1
        self.chain = GENESIS
        self.positions: dict[str, int] = {}

    def claims(self) -> None:
        entry, own = encode_event(
            PartitionClaimed(
                workflow_id=None,
                position=None,
                recorded_at=1,
                claim=self.claim,
                command=-1,
                posted=0,
                worker="w",
                partition=self.partition,
            ),
            GENESIS,
        )
        self.claim = self.append(entry)
        self.chain = link_claim(self.chain, own)

    def append(self, entry: Entry) -> int:
        return self.store.append(Channel.EVENTS, self.partition, [entry])[0]

    def starts(self, id_: str, workflow: str = "bake", **attributes: str) -> None:
        self.positions[id_] = 0
        self._write(
            WorkflowStarted(
                **self._base(id_), workflow=workflow, payload="[]", attributes=attributes or None
            )
        )

    def does(self, id_: str, name: str = "mix") -> None:
        number = self.positions[id_]
        self._write(
            StepCompleted(
                **self._base(id_), step=number, name=name, payload="1", attempt=1, started_at=1
            )
        )

    def _base(self, id_: str) -> dict[str, Any]:
        position = self.positions[id_]
        self.positions[id_] += 1
        return {
            "workflow_id": id_,
            "position": position,
            "recorded_at": 1,
            "claim": self.claim,
            "command": -1,
            "posted": 0,
            "worker": "w",
        }

    def _write(self, event: Event) -> None:
        entry, self.chain = encode_event(event, self.chain)
        self.append(entry)


@asynccontextmanager
async def log_over(store: MemoryStore) -> AsyncGenerator[Log, None]:
    log = MemoryLog(store=store)
    await log.open()
    try:
        yield log
    finally:
        await log.close()


async def all_of(events: Tail) -> list[Logged]:
    async with events:
        return [logged async for logged in events]


async def some_of(events: Tail, count: int) -> list[Logged]:
    return [await anext(events) for _ in range(count)]


def places(logged: Sequence[Logged]) -> list[tuple[int, int]]:
    return [(one.partition, one.offset) for one in logged]


def two_partitions(clock: Clock) -> MemoryStore:
    """Two partitions whose events the log took in by turns, in runs of different lengths, some at one time."""
    store = MemoryStore(2, clock)
    writers = [Writer(store, 0), Writer(store, 1)]
    for writer in writers:
        writer.claims()
        writer.starts(f"run-{writer.partition}")
    chance = random.Random(3)
    for _ in range(3_000):
        writer = chance.choice(writers)
        clock.now += chance.choice((0, 0, 1, 5))
        writer.does(f"run-{writer.partition}")
    return store


def test_the_past_comes_in_the_order_in_which_the_log_took_it_in() -> None:
    """Given two partitions, when both are read, then events come by time, and each partition in its own order."""

    async def scenario() -> None:
        async with log_over(two_partitions(Clock())) as log:
            events = await all_of(tail(log, follow=False))
            assert len(events) == 3_004
            assert [e.timestamp for e in events] == sorted(e.timestamp for e in events)
            by_place = sorted(events, key=lambda e: (e.timestamp, e.partition, e.offset))
            assert places(events) == places(by_place)

    run(scenario)


def test_a_clock_that_was_set_back_changes_no_partitions_order() -> None:
    """Given times that fall within a partition, its events come in the order of their offsets all the same."""

    async def scenario() -> None:
        clock = Clock()
        store = two_partitions(clock)
        clock.now = 5
        late = Writer(store, 0)
        late.claim = 0
        late.starts("late")
        async with log_over(store) as log:
            events = await all_of(tail(log, follow=False))
            for partition in (0, 1):
                offsets = [e.offset for e in events if e.partition == partition]
                assert offsets == list(range(len(offsets)))

    run(scenario)


@pytest.mark.parametrize("seed", range(5))
def test_a_reading_goes_on_from_its_cursor_and_no_event_comes_twice_or_never(seed: int) -> None:
    """Given a reading that is broken off anywhere, when it goes on from its cursor's text, all is there."""

    async def scenario() -> None:
        chance = random.Random(seed)
        kinds = chance.choice(([], ["step"], ["workflow.started"]))
        async with log_over(two_partitions(Clock())) as log:
            whole = await all_of(tail(log, follow=False, kind=kinds))
            read: list[Logged] = []
            since: Cursor | None = None
            while len(read) < len(whole):
                events = tail(log, since=since or "start", follow=False, kind=kinds)
                async with events:
                    read += await some_of(
                        events, min(chance.randrange(900), len(whole) - len(read))
                    )
                    if events.cursor.positions:
                        since = Cursor.of(str(events.cursor))
            assert read == whole
            assert since is not None
            assert await all_of(tail(log, since=since, follow=False, kind=kinds)) == []

    run(scenario)


def test_a_cursor_goes_on_under_the_right_claim() -> None:
    """Given a zombie's event behind a cursor, going on leaves it out, and one that begins at an offset does so too."""

    async def scenario() -> None:
        store = MemoryStore(1, Clock())
        old, new = Writer(store, 0), Writer(store, 0)
        old.claims()
        old.starts("a")
        new.claim, new.chain = old.claim, old.chain
        new.claims()
        old.does("a")  # a zombie's
        new.positions = {"a": 1}
        new.does("a")
        async with log_over(store) as log:
            for kinds in ([], ["step"], ["workflow"]):
                events = tail(log, since="start", follow=False, kind=kinds)
                async with events:
                    first = [await anext(events)]
                    rest = await all_of(tail(log, since=events.cursor, follow=False, kind=kinds))
                    assert 3 not in [e.offset for e in [*first, *rest]]
            assert [e.offset for e in await all_of(tail(log, since={0: 3}, follow=False))] == [4]
            assert [e.offset for e in await all_of(tail(log, since={0: 2}, follow=False))] == [2, 4]

    run(scenario)


def test_a_reading_begins_at_a_time() -> None:
    """Given events at several times, a time begins with the first that is not earlier, in each partition."""

    async def scenario() -> None:
        store = two_partitions(Clock())
        async with log_over(store) as log:
            whole = await all_of(tail(log, follow=False))
            for at in (0, whole[700].timestamp, whole[-1].timestamp, whole[-1].timestamp + 1):
                since = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)
                found = await all_of(tail(log, since=since, follow=False))
                assert found == [e for e in whole if e.timestamp >= at]

    run(scenario)


def test_filters_are_what_a_plain_search_finds() -> None:
    """Given runs of two workflows with attributes, each filter, and all together, find what a search of all finds."""

    async def scenario() -> None:
        store = MemoryStore(1, Clock())
        writer = Writer(store, 0)
        writer.claims()
        writer.starts("a", "bake", customer="ada", oven="1")
        writer.starts("b", "bake", customer="bob", oven="1")
        writer.starts("c", "boil", customer="ada", oven="1")
        for name in ("mix", "wait"):
            for run_ in "abc":
                writer.does(run_, name)
        async with log_over(store) as log:

            async def found(**which: Any) -> list[int]:
                return [e.offset for e in await all_of(tail(log, follow=False, **which))]

            assert await found(workflow_id="b") == [2, 5, 8]
            assert await found(workflow="bake") == [1, 2, 4, 5, 7, 8]
            assert await found(attributes={"customer": "ada"}) == [1, 3, 4, 6, 7, 9]
            assert await found(attributes={"oven": 1}, kind="step") == list(range(4, 10))
            assert await found(attributes={"oven": "1"}) == []
            assert await found(kind=["partition.claimed", "workflow"]) == [0, 1, 2, 3]
            assert await found(workflow="bake", attributes={"customer": "ada"}, kind="step") == [
                4,
                7,
            ]
            assert await found(workflow="bake", workflow_id="c") == []
            # In the middle, where the starts have gone by:
            assert await found(workflow="boil", since={0: 7}) == [9]
            assert await found(attributes={"customer": "ada"}, since={0: 5}) == [6, 7, 9]

    run(scenario)


def test_parts_of_checkpoints_come_only_where_they_are_asked_for() -> None:
    """Given a checkpoint's part, a tail leaves it out, and one for its kind has it."""

    async def scenario() -> None:
        store = MemoryStore(1, Clock())
        writer = Writer(store, 0)
        writer.claims()
        part = CheckpointPart(
            workflow_id=None,
            position=None,
            recorded_at=1,
            claim=0,
            command=-1,
            posted=0,
            worker="w",
            partition=0,
            name="0.0",
            index=0,
            payload="{}",
        )
        writer.append(encode_event(part, writer.chain)[0])
        async with log_over(store) as log:
            assert [e.offset for e in await all_of(tail(log, follow=False))] == [0]
            parts = tail(log, follow=False, kind="checkpoint")
            assert [e.offset for e in await all_of(parts)] == [1]

    run(scenario)


def test_what_comes_follows_what_was_there_and_nothing_is_lost_by_impatience() -> None:
    """Given a tail that follows, events appended later come too, also after somebody gave up waiting for one."""

    async def scenario() -> None:
        store = MemoryStore(2, Clock())
        writers = [Writer(store, 0), Writer(store, 1)]
        for writer in writers:
            writer.claims()
            writer.starts(f"run-{writer.partition}")
        async with log_over(store) as log, tail(log, since="start") as events:
            there = await some_of(events, 4)
            assert sorted(places(there)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
            waiting = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            for writer in writers:
                writer.does(f"run-{writer.partition}")
            assert sorted(places(await some_of(events, 2))) == [(0, 2), (1, 2)]
            cursor = events.cursor
            writers[1].does("run-1")
            assert cursor.positions == {0: Position(3, 0), 1: Position(3, 0)}
            assert places(await some_of(events, 1)) == [(1, 3)]

    run(scenario)


def test_a_tail_from_now_has_nothing_of_the_past() -> None:
    """Given a history, a tail without a beginning gives what comes only."""

    async def scenario() -> None:
        store = MemoryStore(1, Clock())
        writer = Writer(store, 0)
        writer.claims()
        writer.starts("a")
        async with log_over(store) as log, tail(log, workflow="bake") as events:
            assert await events.load()  # the past, of which nothing is wanted
            writer.does("a")
            assert (await anext(events)).offset == 2

    run(scenario)


def test_a_filter_for_one_run_reads_its_partition_alone() -> None:
    """Given a run's id, the cursor names no partition but its own."""

    async def scenario() -> None:
        store = two_partitions(Clock())
        async with log_over(store) as log:
            id_ = next(f"run-{n}" for n in range(9) if partition_of(f"run-{n}", 2) == 1)
            events = tail(log, follow=False, workflow_id=id_)
            await all_of(events)
            assert list(events.cursor.positions) == [1]
            with pytest.raises(UsageError, match="nothing would be read"):
                await all_of(tail(log, since={0: 0}, follow=False, workflow_id=id_))

    run(scenario)


@pytest.mark.parametrize(
    ("since", "error", "words"),
    [
        ({2: 0}, UsageError, "no partition 2"),
        ({0: 10**6}, UsageError, "ends before offset"),
        ({0: 3}, LogTrimmed, "trimmed"),
        (Cursor({0: Position(3, 0)}), LogTrimmed, "trimmed"),
        (datetime(2026, 1, 1), UsageError, "no time zone"),  # noqa: DTZ001 - that is the point
    ],
)
def test_a_beginning_that_is_not_there_is_refused(
    since: Any, error: type[Exception], words: str
) -> None:
    """Given a partition, offset or time that can't be, the first event asked for is an error that says so."""

    async def scenario() -> None:
        store = two_partitions(Clock())
        store.trim(Channel.EVENTS, 0, 10)
        async with log_over(store) as log:
            with pytest.raises(error, match=words):
                await anext(tail(log, since=since, follow=False))

    run(scenario)


@pytest.mark.parametrize(
    "text", ["", "0", "0:1", "0:1:2:3", "0:-1:0", "0:1:-2", "a:1:1", "0:1:0,0:2:0"]
)
def test_a_text_that_is_no_cursor_is_refused(text: str) -> None:
    """Given some other text, no cursor comes of it."""
    with pytest.raises(UsageError, match="no cursor"):
        Cursor.of(text)


def test_an_unknown_kind_is_refused() -> None:
    """Given a kind that no event has, the error names the families that there are."""
    with pytest.raises(UsageError, match=r"'step\.done'.*step.*workflow"):
        tail("memory://", kind="step.done")


@step
async def add(a: int, b: int) -> int:
    return a + b


@workflow
async def total(count: int) -> int:
    set_attributes({"count": count})
    result = 0
    for number in range(count):
        result = await add(result, number)
    return result


def test_plain_code_follows_an_engines_log(tmp_path: Path) -> None:
    """Given an engine's file, `for` gives its events to the end, from a cursor on what has come since, and closes."""
    url = f"sqlite:///{tmp_path / 'sums.db'}?partitions=2"
    with Engine(url, workflows=[total]) as engine:
        engine.start(total, 3, id="first").result()
        with tail_sync(url, follow=False, since="start", kind="workflow.completed") as events:
            assert [e.event.workflow_id for e in events] == ["first"]
            cursor = events.cursor
        engine.start(total, 4, id="second").result()
        with tail_sync(url, since=cursor, attributes={"count": 4}, kind="step") as events:
            assert [next(events).event.workflow_id for _ in range(4)] == ["second"] * 4


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """Given no such file, a tail of it is an error, and there is still none."""
    path = tmp_path / "none.db"
    with pytest.raises(LogUnavailable, match="no log file"):
        next(tail_sync(f"sqlite:///{path}"))
    assert not path.exists()


def test_plain_code_is_refused_where_a_loop_runs() -> None:
    """Given an event loop, `tail_sync` says which spelling is right."""

    async def scenario() -> None:
        with pytest.raises(UsageError, match="async for"):
            next(tail_sync("memory://"))

    run(scenario)

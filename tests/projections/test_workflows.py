"""What the workflows read model says of runs is what the fold says, whatever has happened to them."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.projections.conftest import of
from tests.simulation.corpus import SCENES
from tests.simulation.shapes import CHANGING, SHAPES
from tests.simulation.trials import drawn, performed, undisturbed

from refold.engine.reader import WorkflowInfo, read_all
from refold.engine.state import Status
from refold.log.attributes import encode_attributes
from refold.log.codec import decode_event, encode_event
from refold.log.errors import LogCorrupt
from refold.log.events import (
    CheckpointBegun,
    Event,
    HistoryCopied,
    PartitionClaimed,
    WorkflowCompleted,
    WorkflowParked,
    WorkflowPaused,
    WorkflowReopened,
    WorkflowStarted,
    WorkflowTerminated,
)
from refold.log.memory import MemoryLog, MemoryStore
from refold.log.protocol import Channel, Entry, Record
from refold.projections.feed import Logged, Position, read_batches
from refold.projections.sqlite_store import SqliteStore
from refold.projections.store import Store
from refold.projections.target import Step
from refold.projections.workflows import Workflows
from refold.projections.workflows_filter import RunFilter
from refold.projections.workflows_view import WorkflowsView, open_view
from refold.services.read_model import info_of

LIVES = range(60)


def take_in(log: MemoryLog, store: Store, random: Random) -> None:
    """Fill a read model in transactions of any size, from one partition or from several."""

    async def logged() -> dict[int, list[Logged]]:
        return {
            partition: [
                one
                async for batch in read_batches(log, partition, Position())
                for one in batch.logged
            ]
            for partition in range(log.partitions)
        }

    left = asyncio.run(logged())
    stands: dict[int, Position] = {}
    store.open()
    while any(left.values()):
        batch: list[Logged] = []
        steps: dict[int, Step] = {}
        for partition, events in left.items():
            some = events[: random.choice([0, 1, 3, 20, 100])]
            del events[: len(some)]
            if some:
                after = Position(some[-1].offset + 1, 0)
                steps[partition] = Step(stands.get(partition), after)
                stands[partition] = after
                batch.extend(some)
        store.write(batch, steps)
    store.close()


def of_store(store: MemoryStore) -> MemoryLog:
    log = MemoryLog(store=store)
    asyncio.run(log.open())
    return log


def differences(view: WorkflowsView, infos: Sequence[WorkflowInfo]) -> list[tuple[object, object]]:
    seen = {row.workflow_id: info_of(row) for row in view.runs(limit=10_000).runs}
    wanted = {info.workflow_id: info for info in infos}
    return [
        (wanted.get(key), seen.get(key))
        for key in sorted(wanted.keys() | seen.keys())
        if wanted.get(key) != seen.get(key)
    ]


def check(log: MemoryLog, directory: Path, random: Random) -> set[str]:
    """Compare; returns how the runs stood."""
    store = SqliteStore(Workflows(), of(log), directory)
    take_in(log, store, random)
    infos = asyncio.run(read_all(log))
    with open_view(directory) as view:
        assert differences(view, infos) == []
        by_status = Counter(str(info.status) for info in infos)
        assert view.group("status") == by_status
        assert view.count() == len(infos)
        tags = [(info.status, encode_attributes(info.attributes)) for info in infos]
        for name in {name for _, own in tags for name in own}:
            counts = Counter(own[name] for _, own in tags if name in own)
            assert view.group_by_attribute(name) == counts
            open_ = Counter(
                own[name] for status, own in tags if name in own and status == "running"
            )
            assert view.group_by_attribute(name, RunFilter(status={"running"})) == open_
    return set(by_status)


def halts(record: Record) -> bool:
    """Whether a run stands still after this event, or is being copied."""
    event = decode_event(record)
    if isinstance(event, WorkflowStarted):
        return event.source_id is not None
    return isinstance(event, WorkflowParked | WorkflowPaused | WorkflowReopened | HistoryCopied)


def begun(
    store: MemoryStore, random: Random, wanted: Callable[[Record], bool] = lambda _: True
) -> MemoryStore:
    """A log as it was at some moment: each partition up to an event that is wanted, where it has one."""
    earlier = MemoryStore(store.partitions)
    for partition in range(store.partitions):
        records = store.read(Channel.EVENTS, partition, 0)
        ends = [n for n, record in enumerate(records, 1) if wanted(record)] or [len(records)]
        entries = [Entry(r.key, r.value, r.headers) for r in records[: random.choice(ends)]]
        earlier.append(Channel.EVENTS, partition, entries)
    return earlier


@pytest.mark.parametrize("first", [0, 10, 20])
def test_the_read_model_of_a_life_drawn_at_random_is_the_fold(first: int, tmp_path: Path) -> None:
    """Given worlds with crashes, zombies and checkpoints, at any moment the tables say what the fold says."""
    for seed in range(first, first + 10):
        store = drawn(seed).world.store
        random = Random(seed)
        check(of_store(begun(store, random)), tmp_path / f"{seed}-begun", random)
        check(of_store(store), tmp_path / str(seed), random)


@pytest.mark.slow
def test_the_read_model_of_scenes_is_the_fold(tmp_path: Path) -> None:
    """Given messages, children, rewinds, forks, and runs that are continued, paused, parked and reopened, at any moment
    the tables say what the fold says.
    """
    seen: set[str] = set()
    stores = [performed(scene).world.store for scene in SCENES]
    stores += [undisturbed(shape, mended=False)[0].store for shape in (*SHAPES, CHANGING)]
    for number, store in enumerate(stores):
        random = Random(number)
        halted = begun(store, random, halts)
        seen |= check(of_store(halted), tmp_path / f"{number}-halted", random)
        seen |= check(of_store(store), tmp_path / str(number), random)
    assert seen == {str(status) for status in Status}


class Stream:
    """A partition's events, written by hand: also those that no owner would write."""

    def __init__(self) -> None:
        self.store = MemoryStore(1)
        claimed = PartitionClaimed(**self.own(-1), partition=0)
        self.append(claimed)

    @staticmethod
    def own(claim: int) -> dict[str, Any]:
        return {**Stream.of(None, None, claim), "recorded_at": 1}

    @staticmethod
    def of(workflow_id: str | None, position: int | None, claim: int = 0) -> dict[str, Any]:
        return {
            "workflow_id": workflow_id,
            "position": position,
            "recorded_at": 1_000_000 * (position or 0) + 1,
            "claim": claim,
            "command": -1,
            "posted": 0,
            "worker": "w",
        }

    def append(self, *events: Event) -> "Stream":
        entries = [encode_event(event, bytes(32))[0] for event in events]
        self.store.append(Channel.EVENTS, 0, entries)
        return self

    def start(self, workflow_id: str, position: int = 0) -> "Stream":
        return self.append(
            WorkflowStarted(**self.of(workflow_id, position), workflow="order", payload="[]")
        )

    def end(self, workflow_id: str, position: int) -> "Stream":
        return self.append(WorkflowCompleted(**self.of(workflow_id, position), payload="1"))

    def forget(self, before: int, floor: int) -> "Stream":
        payload = json.dumps({"forget_before": before, "floor": floor})
        return self.append(
            CheckpointBegun(**self.own(0), partition=0, name=f"0.{floor}", payload=payload)
        )

    def junk(self, workflow_id: str) -> "Stream":
        self.store.append(Channel.EVENTS, 0, [Entry(workflow_id, b"what is this?")])
        return self


ENDED: dict[str, Any] = {"error_type": "Stop", "error_message": "by hand", "payload": "{}"}

BROKEN: dict[str, Callable[[Stream], object]] = {
    "a gap": lambda s: s.start("w").end("w", 3).end("w", 1),
    "a repeat": lambda s: s.start("w").end("w", 0),
    "no start": lambda s: s.end("w", 4).end("w", 5),
    "a second start": lambda s: s.start("w").start("w", 1).end("w", 2),
    "junk in between": lambda s: s.start("w").junk("w").end("w", 1),
    "junk first": lambda s: s.junk("w").start("w").junk("w"),
    "junk afterwards": lambda s: s.start("w").end("w", 1).junk("w"),
    "broken and terminated": lambda s: (
        s.start("w").end("w", 3).append(WorkflowTerminated(**s.of("w", 2), **ENDED))
    ),
    "no start and terminated": lambda s: s.end("w", 4).append(
        WorkflowTerminated(**s.of("w", 5), **ENDED)
    ),
    "an end twice": lambda s: s.start("w").end("w", 1).end("w", 2),
    "started again too early": lambda s: s.start("w").end("w", 1).start("w", 2),
    "forgotten and used again": lambda s: (
        s.start("w").end("w", 1).start("v").forget(9_000_000, 7).start("w", 7).end("v", 1)
    ),
    "forgotten, and not from the floor on": lambda s: (
        s.start("w").end("w", 1).forget(9_000_000, 7).start("w", 2)
    ),
    "not long enough ago to be forgotten": lambda s: (
        s.start("w").end("w", 1).forget(5, 7).start("w", 7)
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_the_read_model_of_a_broken_stream_is_the_fold(what: str, tmp_path: Path) -> None:
    """Given streams that no owner writes, and ids that are used again, the tables say what the fold says."""
    stream = Stream()
    BROKEN[what](stream)
    for turn in range(3):
        check(of_store(stream.store), tmp_path / str(turn), Random(turn))


def test_a_record_of_the_partition_itself_that_can_not_be_read_stops_it(tmp_path: Path) -> None:
    """Given what a newer release may have written for all, the read model stops as the fold does."""
    stream = Stream().start("w")
    (record,) = stream.store.read(Channel.EVENTS, 0, 0, 1)
    headers = tuple((n, b"0" if n == "claim" else v) for n, v in record.headers)
    stream.store.append(Channel.EVENTS, 0, [Entry(None, b"?", headers)])
    log = of_store(stream.store)
    with pytest.raises(LogCorrupt, match="offset 2 of partition 0 belongs to the partition itself"):
        take_in(log, SqliteStore(Workflows(), of(log), tmp_path), Random(1))

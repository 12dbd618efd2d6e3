"""Whole engines whose namespace moves: between SQLite and Kafka, and to another number of partitions."""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine_trial import kinds, until
from kafka_backend import KafkaBackend
from log_backend import PATIENCE_S
from refold import (
    CheckpointSettings,
    Engine,
    LogMismatch,
    Retry,
    Status,
    Workflow,
    WorkflowNotFound,
    WorkflowParked,
    publish,
    receive,
    run_child,
    step,
    workflow,
)
from refold.engine.migration import Migration, Report, survey
from refold.engine.reader import read_partition
from refold.engine.worker import wall_clock
from refold.log.blob_directory import DirectoryBlobs
from refold.log.codec import decode_event, encode_command, event_id_of
from refold.log.commands import EraseSubject, SendMessage
from refold.log.errors import LogTrimmed
from refold.log.events import SubjectErased
from refold.log.kafka import KafkaLog
from refold.log.memory import MemoryLog, MemoryStore
from refold.log.partitioner import partition_of
from refold.log.protocol import Channel, Log
from refold.log.sqlite import SqliteLog, SqliteSettings

MakeLog = Callable[[], Log]

RAN: list[str] = []
MENDED = threading.Event()
GATE = threading.Event()
LARGE = "x" * 400_000


@pytest.fixture(autouse=True)
def afresh() -> None:
    """Nothing has run, nothing is mended, the gate is closed."""
    RAN.clear()
    MENDED.clear()
    GATE.clear()


@step
async def note(text: str) -> str:
    RAN.append(text)
    return text


@step(retry=Retry(attempts=2, initial_s=0.001), on_exhausted="park")
async def fragile() -> str:
    if not MENDED.is_set():
        raise ConnectionError("down")
    return "mended"


@step
def held(text: str) -> str:
    RAN.append(text)
    assert GATE.wait(PATIENCE_S)
    return text


@workflow
async def short(text: str) -> str:
    return await note(text)


@workflow
async def child(text: str) -> str:
    return await note("child") + await receive("go", str) + text


@workflow
async def parent(text: str) -> str:
    await note("parent")
    return await run_child(child, text, id=f"child of {text}")


@workflow
async def sleeper() -> str:
    await note("before")
    await asyncio.sleep(1.0)
    return await note("after")


@workflow
async def parks() -> str:
    return await note("parks") + await fragile()


@workflow
async def tells() -> str:
    publish("seen", await note("tells"))
    return await receive("go", str)


@workflow
async def holds(text: str) -> str:
    return await held.aio(text)


WORKFLOWS: list[Workflow[..., Any]] = [short, child, parent, sleeper, parks, tells, holds]
OFTEN = CheckpointSettings(min_bytes=1, dedup_window_s=0.0)


def engine_on(log: MakeLog, *, checkpoints: CheckpointSettings | None = None) -> Engine:
    """An engine with all the workflows."""
    return Engine(log(), workflows=WORKFLOWS, drain_s=PATIENCE_S, checkpoints=checkpoints)


def sqlite(directory: Path, name: str, partitions: int) -> MakeLog:
    """Logs over one file."""
    settings = SqliteSettings(rebalance_s=0.01)
    return lambda: SqliteLog(directory / f"{name}.db", partitions, settings)


def migrate(source: MakeLog, target: MakeLog, *, fence: bool = False) -> Report:
    """Migrate one namespace into another."""

    async def run() -> Report:
        old, new = source(), target()
        await old.open()
        await new.open()
        try:
            return await Migration(old, new, "source", "target", wall_clock).run(fence=fence)
        finally:
            await old.close()
            await new.close()

    return asyncio.run(run())


def end(log: MakeLog) -> None:
    """The runs of `begin` go on and end as they should, whatever their namespace has been through."""
    MENDED.set()
    before = len(RAN)
    with engine_on(log) as engine:
        assert engine.handle("slept", sleeper).result(PATIENCE_S) == "after"
        engine.resume("parked")
        assert engine.handle("parked", parks).result(PATIENCE_S) == "parksmended"
        assert engine.handle("told", tells).value("seen", str, timeout_s=PATIENCE_S) == "tells"
        assert engine.handle("told", tells).result(PATIENCE_S) == "sent while nobody was there"
        assert engine.status("paused").status is Status.PAUSED
        engine.resume("paused")
        engine.handle("paused", tells).send("go", "on")
        assert engine.handle("paused", tells).result(PATIENCE_S) == "on"
        for name in NAMES:
            engine.handle(f"child of {name}", child).send("go", "+")
            assert engine.handle(name, parent).result(PATIENCE_S) == f"child+{name}"
        assert engine.handle("short", short).result(PATIENCE_S) == LARGE
        assert engine.start(short, LARGE, id="short").result(PATIENCE_S) == LARGE
        assert sorted(RAN[before:]) == ["after"]  # and nothing that was recorded before
        assert kinds(engine, "paused")[:2] == ["workflow.started", "step.completed"]
        assert engine.start(short, "new", id="new").result(PATIENCE_S) == "new"


NAMES = [f"parent-{n}" for n in range(4)]
"""So many that parents and children are on all partitions, and on each other's."""


def begin(log: MakeLog) -> None:
    """One run that has ended, and open ones of every kind: a timer, children, parked, paused, a message on its way."""
    with engine_on(log) as engine:
        assert engine.start(short, LARGE, id="short").result(PATIENCE_S) == LARGE
        for name in NAMES:
            engine.start(parent, name, id=name)
        engine.start(parks, id="parked")
        for name in ("told", "paused"):
            engine.start(tells, id=name)
            until(lambda name=name: "value.published" in kinds(engine, name))  # type: ignore[misc]
        engine.handle("paused").pause("for the move")
        for name in NAMES:
            until(lambda name=name: has_step(engine, f"child of {name}"))  # type: ignore[misc]
            until(lambda name=name: "delivery.confirmed" in kinds(engine, name))  # type: ignore[misc]
        until(lambda: engine.status("parked").status is Status.PARKED)
        engine.start(sleeper, id="slept")
        until(lambda: "timer.started" in kinds(engine, "slept"))
    send_unheard(log, "told", "sent while nobody was there")


def has_step(engine: Engine, run: str) -> bool:
    """Whether a run is there and has done its first step."""
    try:
        return "step.completed" in kinds(engine, run)
    except WorkflowNotFound:
        return False


def send_unheard(make: MakeLog, run: str, text: str) -> None:
    """Send a message while no worker is there."""
    command = SendMessage(
        command_id="unheard",
        workflow_id=run,
        reply_to=None,
        requested_at=wall_clock(),
        name="go",
        payload=json.dumps(text),
        message_id="unheard",
    )

    async def send() -> None:
        log = make()
        await log.open()
        try:
            partition = partition_of(run, log.partitions)
            await log.append(Channel.COMMANDS, partition, [encode_command(command)])
        finally:
            await log.close()

    asyncio.run(send())


def test_runs_of_every_kind_go_on_in_another_number_of_partitions(tmp_path: Path) -> None:
    """Given open runs of every kind in a file with two partitions, in one with five they end as they should."""
    source, target = sqlite(tmp_path, "source", 2), sqlite(tmp_path, "target", 5)
    begin(source)
    report = migrate(source, target)
    assert (report.source_partitions, report.target_partitions) == (2, 5)
    assert (report.open, report.closed, report.commands) == (12, 1, 1)
    assert report.blobs == 2  # an input and a result that are too large for the log
    assert (report.late, report.resumed, report.blobs_missing) == (0, False, ())
    end(target)


@pytest.mark.kafka
def test_a_namespace_goes_to_kafka_and_back(tmp_path: Path, kafka_bootstrap: str) -> None:
    """Given open runs of every kind in a file, by way of three partitions on Kafka they end in another file."""
    source, target = sqlite(tmp_path, "source", 2), sqlite(tmp_path, "target", 1)
    kafka = KafkaBackend(kafka_bootstrap, 3)
    directory = tmp_path / "blobs"

    def between() -> Log:
        return KafkaLog(
            kafka.servers, kafka.namespace, kafka.settings, blobs=DirectoryBlobs(directory)
        )

    begin(source)
    there = migrate(source, between)
    back = migrate(between, target)
    assert (there.open, there.closed, there.events) == (back.open, back.closed, back.events)
    end(target)


def test_a_source_at_work_is_left_alone_unless_its_workers_are_to_be_cut_off(
    tmp_path: Path,
) -> None:
    """Given a worker in a step, it is not disturbed; with `fence` it is cut off, told why, and stays so."""
    cut_off(sqlite(tmp_path, "source", 2), sqlite(tmp_path, "target", 3))


@pytest.mark.kafka
def test_workers_on_kafka_are_seen_and_cut_off(tmp_path: Path, kafka_bootstrap: str) -> None:
    """Given a worker in a step on Kafka, the same."""
    kafka = KafkaBackend(kafka_bootstrap, 2)
    cut_off(kafka.log, sqlite(tmp_path, "target", 1))


def cut_off(source: MakeLog, target: MakeLog) -> None:
    """Migrate under a worker that is at work."""
    with engine_on(source) as engine:
        engine.start(holds, "h", id="held")
        until(lambda: "h" in RAN)
        with pytest.raises(LogMismatch, match=r"is at work: its partitions 0, 1 are held"):
            migrate(source, target)
        assert not engine.halted_partitions
        report = migrate(source, target, fence=True)
        GATE.set()  # the worker notices when it records the outcome, or takes up a command
        busy = partition_of("held", 2)
        until(lambda: busy in engine.halted_partitions)
        assert "moves, or has moved, to target" in str(engine.halted_partitions[busy])
        idle = next(f"id-{n}" for n in range(100) if partition_of(f"id-{n}", 2) != busy)
        with pytest.raises(LogMismatch, match="moves, or has moved, to target"):
            engine.start(short, "late", id=idle)
        assert len(engine.halted_partitions) == 2
    assert report.open == 1
    with engine_on(target) as engine:
        assert engine.handle("held", holds).result(PATIENCE_S) == "h"
    assert RAN == ["h", "h"]  # its outcome was not recorded


def test_a_worker_refuses_a_namespace_that_has_moved(tmp_path: Path) -> None:
    """Given a migrated namespace, workers that open the source stop and say where it went, each of what is its own."""
    source, target = sqlite(tmp_path, "source", 2), sqlite(tmp_path, "target", 1)
    with engine_on(source) as engine:
        engine.start(short, "s", id="s").result(PATIENCE_S)
    migrate(source, target)
    with engine_on(source) as engine:
        until(lambda: {0, 1} <= engine.halted_partitions.keys())
        assert engine.stats().halted_partitions == 2
        with engine_on(source) as other:
            until(lambda: len(engine.halted_partitions) == len(other.halted_partitions) == 1)
        until(lambda: {0, 1} <= engine.halted_partitions.keys())
        assert isinstance(engine.halted_partitions[0], LogMismatch)
        assert "to target" in str(engine.halted_partitions[0])
        assert engine.status("s").status is Status.COMPLETED  # to be read for ever


def test_ids_that_were_forgotten_and_used_again_move(tmp_path: Path) -> None:
    """Given ids that were forgotten and used again, each partition at positions of its own, all streams move whole."""
    source, target = sqlite(tmp_path, "source", 2), sqlite(tmp_path, "target", 1)
    again = [f"again-{n}" for n in range(6)]
    for turn in range(4):
        with engine_on(source, checkpoints=OFTEN) as engine:
            for number, name in enumerate(again):
                if turn == 0 or partition_of(name, 2) == 0 or number % 2:
                    engine.start(short, f"{name} {turn}", id=name).result(PATIENCE_S)
    floors = asyncio.run(floors_of(source))
    assert floors[0] != floors[1]
    assert max(floors) > 0
    report = migrate(source, target)
    assert asyncio.run(floors_of(target)) == [max(floors)]
    assert report.events > 0
    with engine_on(target) as engine:
        for name in again:
            assert engine.history(name)
        assert engine.start(short, "fresh", id="fresh").result(PATIENCE_S) == "fresh"
        assert engine.history("fresh")[0].position == max(floors)  # type: ignore[union-attr]


def test_every_erasure_moves_as_an_event_of_its_own(tmp_path: Path) -> None:
    """Given subjects that were erased in several partitions, each erasure has its own id in the one that they go to."""
    source, target = sqlite(tmp_path, "source", 2), sqlite(tmp_path, "target", 1)
    with engine_on(source) as engine:
        engine.start(short, "s", id="s").result(PATIENCE_S)
        asyncio.run(erase_anew(source, [f"key-{n}" for n in range(4)]))
        until(lambda: len(asyncio.run(erasures_of(source))) == 4)
    migrate(source, target)
    assert len(set(asyncio.run(erasures_of(target)))) == 4


async def erase_anew(make: MakeLog, keys: list[str]) -> None:
    """Have the owners told of subjects whose keys are gone, in turn."""
    log = make()
    await log.open()
    try:
        for number, key in enumerate(keys):
            told = EraseSubject(
                command_id=key,
                workflow_id="s",
                reply_to=None,
                requested_at=0,
                payload=json.dumps([key]),
            )
            await log.append(Channel.COMMANDS, number % log.partitions, [encode_command(told)])
    finally:
        await log.close()


async def erasures_of(make: MakeLog) -> list[str]:
    """The ids of all events of erasures."""
    log = make()
    await log.open()
    try:
        return [
            event_id_of(event)
            for partition in range(log.partitions)
            async for batch in log.read(Channel.EVENTS, partition, 0)
            for event in map(decode_event, batch)
            if isinstance(event, SubjectErased)
        ]
    finally:
        await log.close()


async def floors_of(make: MakeLog) -> list[int]:
    """The position at which streams begin, for each partition."""
    log = make()
    await log.open()
    try:
        return [(await read_partition(log, p)).floor for p in range(log.partitions)]
    finally:
        await log.close()


def test_a_survey_changes_nothing(tmp_path: Path) -> None:
    """Given a namespace, a survey says what there is, and its runs go on as if nobody had looked."""
    source = sqlite(tmp_path, "source", 2)
    begin(source)

    async def look() -> None:
        log = source()
        await log.open()
        try:
            found = await survey(log)
        finally:
            await log.close()
        assert (found.partitions, found.open, found.closed, found.commands) == (2, 12, 1, 1)
        assert (found.holders, found.moved_to) == ({}, None)

    asyncio.run(look())
    end(source)


def test_a_namespace_that_was_trimmed_needs_its_archive() -> None:
    """Given a source whose first events are gone, the migration says so before it changes anything."""
    store, new = MemoryStore(2), MemoryStore(2)
    with Engine(MemoryLog(store=store), workflows=WORKFLOWS, checkpoints=OFTEN) as engine:
        for number in range(3):
            engine.start(short, "s", id=f"s{number}").result(PATIENCE_S)
    ends = [store.end(Channel.EVENTS, partition) for partition in range(2)]

    async def trim() -> None:
        log = MemoryLog(store=store)
        await log.open()
        await log.trim(Channel.EVENTS, 1, 1)
        await log.close()

    asyncio.run(trim())
    with pytest.raises(LogTrimmed, match="--archive"):
        migrate(lambda: MemoryLog(store=store), lambda: MemoryLog(store=new))
    assert [store.end(Channel.EVENTS, partition) for partition in range(2)] == ends
    assert new.end(Channel.EVENTS, 0) == 0


def test_a_parked_run_says_so_where_it_is_asked_for(tmp_path: Path) -> None:
    """Given a run that parked before the move, whoever waits for its result in the target is told why."""
    source, target = sqlite(tmp_path, "source", 1), sqlite(tmp_path, "target", 2)
    with engine_on(source) as engine:
        engine.start(parks, id="parked")
        until(lambda: engine.status("parked").status is Status.PARKED)
    migrate(source, target)
    with engine_on(target) as engine, pytest.raises(WorkflowParked, match="used up its attempts"):
        engine.handle("parked", parks).result(PATIENCE_S)

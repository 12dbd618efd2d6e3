"""As of a moment of the past: the same as a fresh fold of what had been recorded by then, on every log."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from engine_trial import kinds, until, with_log
from log_backend import PATIENCE_S, LogBackend, records_of
from refold import (
    CheckpointSettings,
    Engine,
    LogTrimmed,
    UsageError,
    WorkflowNotFound,
    receive,
    sleep,
    step,
    workflow,
)
from refold.engine.changes import Changes, read_changes
from refold.engine.digest import digest
from refold.engine.fold import evolve
from refold.engine.moments import AtOffset, AtPosition, AtTime, stop_at, stops_at
from refold.engine.reader import (
    WorkflowInfo,
    infos_of,
    near,
    read_all,
    read_history,
    read_partition,
    read_run,
    read_status,
)
from refold.engine.state import PartitionState
from refold.log.accepted import Accepted
from refold.log.archive_writer import ArchiveSettings
from refold.log.archived import ArchivedLog
from refold.log.codec import GENESIS, decode_event, encode_event
from refold.log.events import (
    Event,
    PartitionClaimed,
    Unreadable,
    WorkflowCompleted,
    WorkflowStarted,
)
from refold.log.partitioner import partition_of
from refold.log.protocol import Channel, Log, Record
from refold.services.archiving import Order, archive_log

OFTEN = CheckpointSettings(min_bytes=3_000)


@step
async def note(text: str) -> str:
    return text * 30


@workflow
async def short(text: str) -> str:
    await sleep(0.001)
    return await note(text)


@workflow
async def fails(text: str) -> str:
    await note(text)
    raise ValueError(text)


@workflow
async def waits(text: str) -> str:
    return await note(text) + await receive("go", str)


def lived(backend: LogBackend) -> None:
    """Runs of all sorts, with orders given to some, and checkpoints in between."""
    log = backend.log()
    with Engine(
        log, workflows=[short, fails, waits], drain_s=PATIENCE_S, checkpoints=OFTEN
    ) as engine:
        for number in range(6):
            engine.start(waits, f"w{number}", id=f"w{number}")
        engine.handle("w0").cancel(reason="not wanted")
        engine.handle("w1").pause(reason="lunch")
        for number in range(4):
            with pytest.raises(ValueError, match="f"):
                engine.start(fails, f"f{number}", id=f"f{number}").result(PATIENCE_S)
        handles = [engine.start(short, f"s{n}", id=f"s{n}") for n in range(40)]
        for handle in handles:
            handle.result(PATIENCE_S)
        engine.handle("w1").resume()
        engine.handle("w1").send("go", "!")
        engine.handle("w1").result(PATIENCE_S)
        engine.handle("f0").rewind(0, reason="again")
        until(lambda: kinds(engine, "f0").count("workflow.failed") == 2)


async def haunt(log: Log) -> None:
    """Have zombies write: the end of a run that is open, the start of another, and a claim on top of their own."""
    written: dict[str, Any] = {"recorded_at": 1, "claim": -1, "command": -1, "posted": 0}
    written["worker"] = "zombie"
    end: dict[str, Any] = {"position": 2, "payload": "1", **written}
    events: list[tuple[str, Event]] = [
        ("w2", WorkflowCompleted(workflow_id="w2", **end)),
        ("z", WorkflowStarted(workflow_id="z", workflow="z", position=0, payload="1", **written)),
        ("w3", PartitionClaimed(workflow_id=None, position=None, partition=0, **written)),
        ("w3", WorkflowCompleted(workflow_id="w3", **end)),
    ]
    for id_, event in events:
        entry, _ = encode_event(event, GENESIS)
        await log.append(Channel.EVENTS, partition_of(id_, log.partitions), [entry])


def stream_of(records: list[Record], workflow_id: str, stop: int) -> list[Event | Unreadable]:
    """The events of a run that count, by a reading of everything before an offset."""
    accepted, found = Accepted(), list[Event | Unreadable]()
    for record in records:
        if record.offset < stop:
            event = accepted.take(record)
            if event is not None and event.workflow_id == workflow_id:
                found.append(event)
    return found


def prefix(records: list[Record], stop: int, *, remembers: bool = False) -> PartitionState:
    """A fresh fold of what stands before an offset."""
    state = PartitionState(remembers=remembers)
    for record in records:
        if record.offset < stop:
            evolve(state, decode_event(record), record.offset)
    return state


async def whole(log: Log) -> list[list[Record]]:
    return [await records_of(log, Channel.EVENTS, p) for p in range(log.partitions)]


def by_id(infos: list[WorkflowInfo]) -> dict[str, WorkflowInfo]:
    return {info.workflow_id: info for info in infos}


def test_a_fold_as_of_an_offset_is_that_of_the_prefix(
    any_backend: LogBackend, tmp_path: Path
) -> None:
    """Given any offset, the state as of it, of all and of one run, is what the records before it fold to; with a
    trimmed log and its archive as well; and without the archive, where it has what came before."""
    lived(any_backend)
    with_log(any_backend, haunt)
    chance = random.Random(8)

    async def compare(log: Log) -> None:
        records = await whole(log)
        for partition, there in enumerate(records):
            for stop in [0, len(there), *(chance.randrange(len(there)) for _ in range(12))]:
                state = await read_partition(log, partition, stop=stop)
                assert digest(state) == digest(prefix(there, stop))
        stops = {p: chance.randrange(len(there)) for p, there in enumerate(records)}
        infos = by_id(await read_all(log, stops))
        expected = [
            info
            for p, there in enumerate(records)
            for info in infos_of(prefix(there, stops[p], remembers=True))
        ]
        assert infos == by_id(expected)
        for id_, info in infos.items():
            stop = stops[partition_of(id_, log.partitions)]
            assert await read_status(log, id_, stop) == info
            history = await read_history(log, id_, stop)
            assert history == stream_of(records[partition_of(id_, log.partitions)], id_, stop)
            assert await read_run(log, id_, stop) == (info, history)
        begins = [await near(log, partition_of(id_, log.partitions), id_) for id_ in infos]
        assert max(begin.offset for begin in begins if begin is not None) > 20  # not all is read

    records = with_log(any_backend, whole)
    with_log(any_backend, compare)
    place = str(tmp_path / "old")
    order = Order(place, ArchiveSettings("avro", file_records=40), None, trim=True)
    with_log(any_backend, lambda log: archive_log(log, order))
    with_log(_Archived(any_backend, place), compare)

    async def compare_rest(log: Log) -> None:
        for partition, there in enumerate(records):
            start, end = await log.bounds(Channel.EVENTS, partition)
            assert start > 0
            for stop in (start + 1, chance.randrange(start + 1, end + 1), end):
                state = await read_partition(log, partition, stop=stop)
                assert digest(state) == digest(prefix(there, stop))
            with pytest.raises(LogTrimmed, match="archive"):
                await read_partition(log, partition, stop=chance.randrange(start))

    with_log(any_backend, compare_rest)


class _Archived:
    """The backend's logs, each with an archive."""

    def __init__(self, backend: LogBackend, place: str) -> None:
        self.name = backend.name
        self._backend = backend
        self._place = place

    def log(self, *, queue_entries: int | None = None) -> Log:
        return ArchivedLog(self._backend.log(queue_entries=queue_entries), self._place)


def test_a_moment_includes_what_was_recorded_in_it(backend: LogBackend) -> None:
    """Given the time, offset or position of an event, as of it that event counts and the next does not."""
    lived(backend)

    async def look(log: Log) -> None:
        records = await whole(log)
        partition = partition_of("w1", log.partitions)
        other = 1 - partition
        mine = [r for r in records[partition] if r.key == "w1"]
        record = mine[2]
        at_offset = await stops_at(log, AtOffset(partition, record.offset))
        assert at_offset[partition] == record.offset + 1
        assert at_offset[other] == sum(r.timestamp <= record.timestamp for r in records[other])
        at_time = await stops_at(log, AtTime(record.timestamp))
        assert at_time[other] == at_offset[other]
        assert at_time[partition] == sum(
            r.timestamp <= record.timestamp for r in records[partition]
        )
        assert await stop_at(log, "w1", AtPosition(2)) == record.offset + 1
        assert await stop_at(log, "w1", AtOffset(partition, record.offset)) == record.offset + 1
        assert await stop_at(log, "w1", AtTime(record.timestamp)) == at_time[partition]
        elsewhere = AtOffset(other, at_offset[other] - 1)
        told = records[other][at_offset[other] - 1].timestamp
        assert await stop_at(log, "w1", elsewhere) == sum(
            r.timestamp <= told for r in records[partition]
        )
        with pytest.raises(WorkflowNotFound):
            await read_status(log, "w1", mine[0].offset)
        with pytest.raises(WorkflowNotFound):
            await read_history(log, "w1", mine[0].offset)
        with pytest.raises(UsageError, match="no event at position 99"):
            await stop_at(log, "w1", AtPosition(99))
        with pytest.raises(WorkflowNotFound):
            await stop_at(log, "nobody", AtPosition(0))
        with pytest.raises(UsageError, match="no event at offset"):
            await stops_at(log, AtOffset(0, 10**9))
        with pytest.raises(UsageError, match="no partition 2"):
            await stops_at(log, AtOffset(2, 0))

    with_log(backend, look)


def test_what_changed_is_the_difference_of_the_two_moments(backend: LogBackend) -> None:
    """Given two moments, the runs that changed are those that stood otherwise, and nothing is left out."""
    lived(backend)
    chance = random.Random(9)

    async def look(log: Log) -> None:
        ends = {p: len(there) for p, there in enumerate(await whole(log))}
        for _ in range(8):
            last = {p: chance.randrange(end + 1) for p, end in ends.items()}
            first = {p: chance.randrange(stop + 1) for p, stop in last.items()}
            changes = await read_changes(log, first, last)
            was, is_ = by_id(await read_all(log, first)), by_id(await read_all(log, last))
            changed = {id_ for id_, info in is_.items() if was.get(id_) != info}
            assert {run.after.workflow_id for run in changes.runs} == changed
            assert all(run.before == was.get(run.after.workflow_id) for run in changes.runs)
            assert all(run.after == is_[run.after.workflow_id] for run in changes.runs)
            assert changes.before.total() == len(was)
            assert changes.after.total() == len(is_)
        everything = await read_changes(log, dict.fromkeys(ends, 0), ends)
        _check_everything(everything)
        await _check_one(log, ends)

    with_log(backend, look)


def _check_everything(changes: Changes) -> None:
    steps = {(step.workflow, step.name): counts for step, counts in changes.steps.items()}
    assert steps["short", "note"]["step.completed"] == 40
    assert steps["fails", "note"]["step.completed"] == 5
    assert changes.events["workflow.started"] == 50


async def _check_one(log: Log, ends: Mapping[int, int]) -> None:
    changes = await read_changes(log, dict.fromkeys(ends, 0), ends, "w1")
    assert [run.after.workflow_id for run in changes.runs] == ["w1"]
    assert changes.history == await read_history(log, "w1")
    assert changes.after.total() == 1

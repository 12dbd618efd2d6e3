"""Recovery from a checkpoint on every log: it comes to what the whole history does, and is not trusted blindly."""

import logging
from collections.abc import Callable

import pytest

from engine_trial import fold_digests, kinds, records, until, with_log
from log_backend import PATIENCE_S, LogBackend
from refold import (
    CheckpointSettings,
    Engine,
    Status,
    WorkflowEnded,
    WorkflowNotFound,
    publish,
    receive,
    step,
    stream,
    workflow,
)
from refold.engine.digest import digest
from refold.engine.recovery import recover
from refold.log.codec import decode_event, encode_event
from refold.log.events import CheckpointBegun, CheckpointPart, Event, Unreadable
from refold.log.partitioner import partition_of
from refold.log.protocol import Channel, Entry, Log

OFTEN = CheckpointSettings(min_bytes=3_000)
RUNS = 60

RAN: list[str] = []


@step
async def note(text: str) -> str:
    RAN.append(text)
    return text * 20


@workflow
async def short(text: str) -> str:
    return await note(text)


@workflow
async def waits(text: str) -> str:
    first = await note(text)
    answer = await receive("go", str)
    return first[:1] + answer + await note("end of " + text)


def engine_with(backend: LogBackend) -> Engine:
    """An engine that writes checkpoints often."""
    return Engine(backend.log(), workflows=[short, waits], drain_s=PATIENCE_S, checkpoints=OFTEN)


def lived(backend: LogBackend) -> None:
    """Runs come and go, and two wait; checkpoints are written meanwhile."""
    RAN.clear()
    with engine_with(backend) as engine:
        for run in ("one", "two"):
            engine.start(waits, run, id=run)
            until(lambda run=run: "step.completed" in kinds(engine, run))  # type: ignore[misc]
        handles = [engine.start(short, f"s{n}", id=f"s{n}") for n in range(RUNS)]
        for handle in handles:
            handle.result(PATIENCE_S)
    assert any(checkpoints(backend))


def checkpoints(backend: LogBackend) -> list[int | None]:
    """From where each partition is recovered."""

    async def look(log: Log) -> list[int | None]:
        return [(await recover(log, p)).checkpoint for p in range(log.partitions)]

    return with_log(backend, look)


def recovered_digests(backend: LogBackend) -> list[str]:
    """Digest of each partition as an owner recovers it."""

    async def fold(log: Log) -> list[str]:
        digests: list[str] = []
        for partition in range(log.partitions):
            folded = await recover(log, partition)
            await folded.go_on(log, partition)
            digests.append(digest(folded.state))
        return digests

    return with_log(backend, fold)


def goes_on(backend: LogBackend) -> None:
    """The runs that waited go on in a new engine, and nothing recorded runs again."""
    before = len(RAN)
    with engine_with(backend) as engine:
        for run in ("one", "two"):
            engine.handle(run, waits).send("go", "!")
            assert engine.handle(run, waits).result(PATIENCE_S).startswith(run[:1] + "!")
        assert engine.handle("s1", short).result(PATIENCE_S) == "s1" * 20
        assert engine.start(short, "s2", id="s2").result(PATIENCE_S) == "s2" * 20
    assert sorted(RAN[before:]) == ["end of one", "end of two"]


def set_bookmarks(backend: LogBackend, moved: Callable[[int], int]) -> None:
    """Have the bookmarks lead elsewhere."""

    async def move(log: Log) -> None:
        for partition in range(log.partitions):
            await log.set_bookmark(partition, moved(await log.bookmark(partition) or 0))

    with_log(backend, move)


def test_a_worker_goes_on_from_a_checkpoint(any_backend: LogBackend) -> None:
    """Given a log with checkpoints, both ways to fold agree, and a new worker goes on from the last one."""
    lived(any_backend)
    assert recovered_digests(any_backend) == fold_digests(any_backend)
    goes_on(any_backend)
    assert recovered_digests(any_backend) == fold_digests(any_backend)


WRONG: list[tuple[Callable[[int], int], str]] = [
    (lambda offset: offset + 1, "no checkpoint begins there"),
    (lambda _: 1_000_000, "the log has offsets"),
    (lambda _: -5, "the log has offsets"),
]


@pytest.mark.parametrize(("moved", "problem"), WRONG)
def test_a_bookmark_that_leads_nowhere_costs_time_and_nothing_else(
    backend: LogBackend,
    moved: Callable[[int], int],
    problem: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Given a bookmark that is not a checkpoint's, all events are folded, which is said, and the runs go on."""
    lived(backend)
    set_bookmarks(backend, moved)
    with caplog.at_level(logging.WARNING, "refold.recovery"):
        assert recovered_digests(backend) == fold_digests(backend)
    assert any(problem in message for message in caplog.messages)
    goes_on(backend)


def torn(claim: int, partition: int) -> list[Entry]:
    """A checkpoint that was begun and never completed, as its owner would write it."""
    begun = CheckpointBegun(
        workflow_id=None,
        position=None,
        recorded_at=1,
        claim=claim,
        command=-1,
        posted=0,
        worker="w",
        partition=partition,
        name=f"{claim}-torn",
        payload='{"forget_before":0,"floor":0}',
    )
    entry, chain = encode_event(begun, bytes(32))
    part = CheckpointPart(
        workflow_id=None,
        position=None,
        recorded_at=1,
        claim=claim,
        command=-1,
        posted=0,
        worker="w",
        partition=partition,
        name=begun.name,
        index=0,
        payload='["refold",1]\n',
    )
    return [entry, encode_event(part, chain)[0]]


def test_the_last_whole_one_is_used_while_another_is_being_written(
    any_backend: LogBackend,
) -> None:
    """Given a checkpoint whose writer died on the way, the bookmark still leads to the one before it."""
    lived(any_backend)
    events = [decode_event(record) for record in records(any_backend)]
    assert any(isinstance(event, CheckpointBegun) for event in events)
    before = checkpoints(any_backend)

    async def tear(log: Log) -> None:
        for partition in range(log.partitions):
            folded = await recover(log, partition)
            await folded.go_on(log, partition)
            await log.append(Channel.EVENTS, partition, torn(folded.state.claim, partition))

    with_log(any_backend, tear)
    assert checkpoints(any_backend) == before
    assert recovered_digests(any_backend) == fold_digests(any_backend)
    goes_on(any_backend)


def test_one_that_was_never_completed_is_not_used(
    backend: LogBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """Given a bookmark that leads to a checkpoint without an end, all events are folded, which is said."""
    lived(backend)

    async def tear(log: Log) -> None:
        for partition in range(log.partitions):
            folded = await recover(log, partition)
            await folded.go_on(log, partition)
            offsets = await log.append(
                Channel.EVENTS, partition, torn(folded.state.claim, partition)
            )
            await log.set_bookmark(partition, offsets[0])

    with_log(backend, tear)
    with caplog.at_level(logging.WARNING, "refold.recovery"):
        assert recovered_digests(backend) == fold_digests(backend)
    assert any("never completed" in message for message in caplog.messages)
    goes_on(backend)


def test_what_the_owner_has_forgotten_is_found_in_the_log(any_backend: LogBackend) -> None:
    """Given a run that ended before the dedup window, its result, status and history are still there."""
    RAN.clear()
    forgetful = CheckpointSettings(min_bytes=1_000, max_closed=0)
    with Engine(
        any_backend.log(), workflows=[short], drain_s=PATIENCE_S, checkpoints=forgetful
    ) as engine:
        assert engine.start(short, "first", id="old").result(PATIENCE_S) == "first" * 20
        while not forgotten(any_backend, "old"):
            engine.start(short, "x").result(PATIENCE_S)
        handle = engine.handle("old", short)
        assert handle.result(PATIENCE_S) == "first" * 20
        assert handle.status().status is Status.COMPLETED
        first = handle.history()
        assert len(first) == 3
        assert "old" in {info.workflow_id for info in engine.list()}
        with pytest.raises(WorkflowNotFound):
            engine.handle("never", short).result(PATIENCE_S)
        again = engine.start(short, "second", id="old")
        assert again.result(PATIENCE_S) == "second" * 20
        # The history of a run is its own, not also that of the one which had its id before.
        assert [type(event) for event in again.history()] == [type(event) for event in first]
        assert again.history() != first
    ids = [(event.workflow_id, event.position) for event in events_of(any_backend, "old")]
    assert len(ids) == len(set(ids)) == 6


@workflow
async def shows(words: list[str], value: str | None) -> None:
    for word in words:
        stream("words").write(word)
    if value is not None:
        publish("value", value)
    await note("shown")


def test_what_a_former_run_of_an_id_has_shown_is_not_the_last_ones(backend: LogBackend) -> None:
    """Given an id that is used again once it is forgotten, its streams and values are those of its last run."""
    forgetful = CheckpointSettings(min_bytes=1_000, max_closed=0)
    with Engine(
        backend.log(), workflows=[short, shows], drain_s=PATIENCE_S, checkpoints=forgetful
    ) as engine:
        engine.start(shows, ["a", "b", "c"], "first", id="again").result(PATIENCE_S)
        while not forgotten(backend, "again"):
            engine.start(short, "x").result(PATIENCE_S)
        again = engine.start(shows, ["d"], None, id="again")
        again.result(PATIENCE_S)
        assert list(again.stream("words")) == ["d"]
        fork = again.fork(id="fork")
        fork.result(PATIENCE_S)
        for handle in (again, fork):
            with pytest.raises(WorkflowEnded):
                handle.value("value", timeout_s=PATIENCE_S)
    with Engine(backend.log(), worker=False) as client, pytest.raises(WorkflowEnded):
        client.handle("again").value("value", timeout_s=PATIENCE_S)  # by the log alone


def events_of(backend: LogBackend, run: str) -> list[Event]:
    """All events of a run, of all that had its id."""
    events = [decode_event(record) for record in records(backend) if record.key == run]
    return [event for event in events if not isinstance(event, Unreadable)]


def forgotten(backend: LogBackend, run: str) -> bool:
    """Whether an owner that recovers now does not know of a run that has ended."""

    async def look(log: Log) -> bool:
        folded = await recover(log, partition_of(run, log.partitions))
        await folded.go_on(log, partition_of(run, log.partitions))
        return run not in folded.state.closed

    return with_log(backend, look)

"""What `check` says of runs is what a worker does with them, and saying it leaves no trace."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import date
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from engine_trial import engine_on, records, until, with_log
from log_backend import LogBackend
from refold import (
    Engine,
    Status,
    Workflow,
    patched,
    receive,
    receive_sync,
    run_step,
    step,
    workflow,
)
from refold.engine.blobs import IN_RECORDS, Blobs
from refold.engine.definitions import Catalogue
from refold.engine.histories import Share, ended_ids, read_ended, read_open
from refold.engine.rehearsal import Finding, History, Verdict, rehearse
from refold.engine.runs import CodeRuns
from refold.engine.thread_slots import ThreadSlots
from refold.log.events import (
    Event,
    Unreadable,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowParked,
)
from refold.log.key_directory import DirectoryKeys
from refold.log.key_master import LocalMaster
from refold.log.protocol import Log

done: list[str] = []
"""Steps that were carried out."""


@step
async def fetch(what: str) -> int:
    done.append(what)
    return len(what)


@step
def store(what: str) -> str:
    done.append(what)
    return what


Variant = Callable[[], Workflow[..., Any]]
"""Makes a version of the code: each is declared as `shape`."""


def awaits() -> Workflow[..., Any]:
    """What runs are started with: two steps, then a message."""

    @workflow(name="shape")
    async def shape(text: str) -> str:
        first = await fetch(text)
        second = await store.aio(text)
        return f"{first} {second} {await receive('go', str)}"

    return shape


def blocks() -> Workflow[..., Any]:
    """The same as a plain `def`."""

    @workflow(name="shape")
    def shape(text: str) -> str:
        first = fetch.sync(text)
        second = store(text)
        return f"{first} {second} {receive_sync('go', str)}"

    return shape


def renamed() -> Workflow[..., Any]:
    @workflow(name="shape")
    async def shape(text: str) -> str:
        first = await fetch(text)
        await run_step(lambda: None, name="save")
        return f"{first} {await receive('go', str)}"

    return shape


def shorter() -> Workflow[..., Any]:
    @workflow(name="shape")
    def shape(text: str) -> str:
        return str(fetch.sync(text))

    return shape


def raises() -> Workflow[..., Any]:
    @workflow(name="shape")
    async def shape(text: str) -> str:
        first = await fetch(text)
        await store.aio(text)
        raise ValueError(f"{first} is not enough")

    return shape


def reaches_out() -> Workflow[..., Any]:
    @workflow(name="shape")
    def shape(text: str) -> str:
        fetch.sync(text)
        store(text)
        Path("trace").write_text("a side effect")
        return receive_sync("go", str)

    return shape


def completes() -> Workflow[..., Any]:
    @workflow(name="shape")
    async def shape(text: str) -> str:
        await fetch(text)
        return await store.aio(text)

    return shape


def other_input() -> Workflow[..., Any]:
    @workflow(name="shape")
    async def shape(text: str, day: date) -> str:
        return f"{await fetch(text)} {day}"

    return shape


def other_result() -> Workflow[..., Any]:
    @step(name="fetch")
    async def dated(what: str) -> date:
        raise AssertionError(what)

    @workflow(name="shape")
    async def shape(text: str) -> str:
        return f"{await dated(text)} {await store.aio(text)}"

    return shape


def waits_for_nobody() -> Workflow[..., Any]:
    @workflow(name="shape")
    async def shape(text: str) -> str:
        await fetch(text)
        await store.aio(text)
        await asyncio.Event().wait()
        return text

    return shape


def next_version() -> Workflow[..., Any]:
    @workflow(name="shape", version=2)
    async def shape(text: str) -> str:
        return text

    return shape


def with_a_patch() -> Workflow[..., Any]:
    @workflow(name="shape")
    async def shape(text: str) -> str:
        if patched("greet"):
            await fetch("hello")
        return f"{await fetch(text)} {await store.aio(text)} {await receive('go', str)}"

    return shape


VARIANTS: dict[Variant, Verdict] = {
    awaits: Verdict.GOES_ON,
    blocks: Verdict.GOES_ON,
    with_a_patch: Verdict.GOES_ON,
    renamed: Verdict.DIVERGES,
    shorter: Verdict.DIVERGES,
    other_result: Verdict.DIVERGES,
    raises: Verdict.FAILS,
    reaches_out: Verdict.FAILS,
    waits_for_nobody: Verdict.STUCK,
    other_input: Verdict.INPUT,
    completes: Verdict.ENDS,
    next_version: Verdict.NO_CODE,
}

STATUSES = {
    Verdict.GOES_ON: Status.RUNNING,
    Verdict.NO_CODE: Status.RUNNING,
    Verdict.ENDS: Status.COMPLETED,
    Verdict.FAILS: Status.FAILED,
}
"""How a run stands when a worker has taken it up; parked, where nothing else is said."""


@pytest.fixture(autouse=True)
def nothing_done() -> Iterator[None]:
    done.clear()
    yield
    done.clear()


def findings(
    backend: LogBackend,
    *workflows: Workflow[..., Any],
    closed: bool = False,
    blobs: Blobs = IN_RECORDS,
) -> list[Finding]:
    """What is found of all open runs, or of all that have ended."""
    runs = CodeRuns(Catalogue.of(workflows), "raise", ThreadSlots(2), blobs)

    async def read(log: Log) -> list[History]:
        histories: list[History] = []
        for partition in range(log.partitions):
            if closed:
                histories += await read_ended(log, partition, await ended_ids(log, partition))
            else:
                histories += await read_open(log, partition)
        return histories

    return [rehearse(runs, history, blobs) for history in with_log(backend, read)]


def waiting_runs(backend: LogBackend, variant: Variant, count: int = 3) -> None:
    """Runs that have done their steps and wait for a message."""
    shape = variant()
    with engine_on(backend, shape) as engine:
        handles = [engine.start(shape, f"text {n}", id=f"run-{n}") for n in range(count)]
        until(lambda: all(engine.status(handle.id).events == 3 for handle in handles))


@pytest.mark.parametrize("before", [awaits, blocks])
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.__name__)
def test_the_verdict_is_what_a_worker_does(
    backend: LogBackend, before: Variant, variant: Variant
) -> None:
    """Given open runs and changed code, a worker with that code does with each what was found before it came."""
    waiting_runs(backend, before)
    steps, log_before = list(done), records(backend)

    found = findings(backend, variant())

    assert {finding.verdict for finding in found} == {VARIANTS[variant]}, found
    assert done == steps, "no step runs in a rehearsal"
    assert records(backend) == log_before, "a rehearsal writes nothing"
    expected = STATUSES.get(VARIANTS[variant], Status.PARKED)
    code = variant()
    with engine_on(backend, code) as engine:
        if expected is Status.RUNNING:
            engine.start(code, "worked on when the others have been taken up", id="later")
        for finding in found:
            until_stands(engine, finding.workflow_id, expected)
            assert_told(finding, engine.history(finding.workflow_id)[-1])


def until_stands(engine: Engine, id_: str, status: Status, events: int = 0) -> None:
    """Wait until a run stands like that, with so many events at least."""

    def stands() -> bool:
        info = engine.status(id_)
        return info.status is status and info.events >= events

    until(stands)


def assert_told(finding: Finding, last: Event | Unreadable) -> None:
    """What a worker has recorded of a run is what was found."""
    match last:
        case WorkflowParked(name="diverged"):
            assert finding.divergence is not None
            assert json.loads(last.payload or "") == asdict(finding.divergence)
        case WorkflowParked():
            assert finding.message in last.error_message
        case WorkflowFailed():
            assert finding.message == f"{last.error_type}: {last.error_message}"
            assert finding.source is not None
            assert finding.source.startswith(f"{__file__}:")
        case WorkflowCompleted():
            assert finding.message == f"completes with {last.payload}"
        case _:
            assert finding.message == "" or finding.verdict is Verdict.NO_CODE


def test_runs_that_ended_are_replayed_to_their_end(any_backend: LogBackend) -> None:
    """Given runs that completed, failed, were cancelled and terminated, each is found to end as it did; and where the
    code was changed, as it would now."""

    @workflow(name="ending")
    async def ending(how: str) -> str:
        size = await fetch(how)
        if how == "fails":
            raise ValueError(f"{size} letters")
        return how if how == "completes" else await receive("never", str)

    @workflow(name="ending")
    async def changed(how: str) -> str:
        size = await fetch(how)
        if how == "fails":
            raise ValueError(f"{size} characters")
        return how.upper() if how == "completes" else await receive("never", str)

    with engine_on(any_backend, ending) as engine:
        hows = ("completes", "fails", "cancelled", "terminated", "open")
        handles = {how: engine.start(ending, how, id=how) for how in hows}
        for how in ("cancelled", "terminated", "open"):
            until_stands(engine, how, Status.RUNNING, events=2)
        handles["cancelled"].cancel()
        handles["terminated"].terminate()
        ends = {"completes", "fails", "cancelled", "terminated"}
        until(lambda: all(engine.status(id_).status in ENDED for id_ in ends))
    before = records(any_backend)

    same = findings(any_backend, ending, closed=True)
    other = {f.workflow_id: f for f in findings(any_backend, changed, closed=True)}

    assert {finding.workflow_id: finding.verdict for finding in same} == dict.fromkeys(
        ends, Verdict.ENDS
    )
    assert {id_ for id_, f in other.items() if f.breaks} == {"completes", "fails"}
    assert other["completes"].message == (
        'it completed with "completes", and with this code it completes with "COMPLETES"'
    )
    assert [f.verdict for f in findings(any_backend, changed)] == [Verdict.GOES_ON]
    assert records(any_backend) == before


ENDED = {Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.TERMINATED}


def test_shares_are_the_whole(backend: LogBackend) -> None:
    """Given a partition's runs divided into shares, each run is in exactly one, with the same history."""
    waiting_runs(backend, awaits, count=12)

    async def read(log: Log) -> None:
        for partition in range(log.partitions):
            whole = await read_open(log, partition)
            shares = [await read_open(log, partition, Share(n, 3)) for n in range(3)]
            together = [history for share in shares for history in share]
            key = attrgetter("workflow_id")
            assert sorted(together, key=key) == sorted(whole, key=key)

    with_log(backend, read)


def test_what_was_erased_can_not_be_replayed(backend: LogBackend, tmp_path: Path) -> None:
    """Given encrypted runs, they are replayed with their keys alone; once those are destroyed, the runs are told as
    erased, and the code is not to blame."""

    @workflow(name="private")
    async def private(text: str, waits: bool) -> str:
        await store.aio(text)
        return await receive("go", str) if waits else text.upper()

    keys = DirectoryKeys(tmp_path / "keys", LocalMaster([bytes(range(32))]))

    def verdicts(blobs: Blobs) -> dict[str, Verdict]:
        found = findings(backend, private, blobs=blobs)
        found += findings(backend, private, blobs=blobs, closed=True)
        assert not any(finding.breaks for finding in found)
        return {finding.workflow_id: finding.verdict for finding in found}

    with Engine(backend.log(), workflows=[private], keys=keys) as engine:
        engine.start(private, "bob", True, id="open", subject="bob")
        engine.start(private, "bob", False, id="ended", subject="bob").result(60)
        until_stands(engine, "open", Status.RUNNING, events=2)
        fits = {"open": Verdict.GOES_ON, "ended": Verdict.ENDS}
        assert verdicts(Blobs.of(backend.log(), keys)) == fits
        assert set(verdicts(IN_RECORDS).values()) == {Verdict.PAYLOAD}
        engine.erase("bob", why="asked for it", force=True)
    assert set(verdicts(Blobs.of(backend.log(), keys)).values()) == {Verdict.ERASED}

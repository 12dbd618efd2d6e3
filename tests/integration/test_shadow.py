"""A shadow says nothing where the code is the same, whatever happens to the runs, and what differs where it is not."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from engine_trial import engine_on, records, until, with_log
from log_backend import PATIENCE_S, LogBackend
from refold import (
    Handle,
    Retry,
    Status,
    Workflow,
    continue_as_new,
    patched,
    publish,
    receive,
    receive_sync,
    requests,
    run_child,
    set_attributes,
    sleep,
    step,
    step_context,
    stream,
    workflow,
)
from refold.engine.definitions import Catalogue
from refold.engine.rehearsal import Finding, Verdict
from refold.engine.shadow import Shadow
from refold.engine.state import PartitionState
from refold.log.protocol import Log
from refold.services.check_process import Overdue
from refold.services.shadowing import Shadowing

done: list[str] = []


@step(retry=Retry(attempts=3, initial_s=0.001))
async def fetch(what: str) -> int:
    done.append(what)
    if step_context().attempt == 1 and what.startswith("again"):
        raise ConnectionError("not yet")
    return len(what)


@step
def store(what: str) -> str:
    done.append(what)
    return what


@workflow
async def busy(what: str) -> int:
    """Everything at once: gathered steps, retries, timers, timeouts, a child, values, streams, tags."""
    publish("what", what)
    set_attributes({"what": what})
    stream("log").write("begun")
    sizes = await asyncio.gather(fetch(f"again {what}"), fetch(what), store.aio(what))
    try:
        async with asyncio.timeout(0.001):
            await receive("never", str)
    except TimeoutError:
        await sleep(0.001)
    total: int = sizes[1] + await run_child(leaf, what)
    return total


@workflow
def leaf(what: str) -> int:
    return len(store(what))


@workflow
async def desk(left: int) -> str:
    """Answers questions, and continues as new after each."""
    asked = requests("number", int)
    request = await asked.receive()
    request.reply(request.value + left)
    if left:
        continue_as_new(left - 1)
    return "closed"


@workflow
def patient(what: str) -> str:
    if patched("polite"):
        store("please")
    return store(f"{what} {receive_sync('word', str)}")


@workflow
async def failing(what: str) -> str:
    raise ValueError(what)


SAME: list[Workflow[..., Any]] = [busy, leaf, desk, patient, failing]


@pytest.fixture(autouse=True)
def nothing_done() -> Iterator[None]:
    done.clear()
    yield
    done.clear()


def happen(backend: LogBackend) -> None:
    """Runs of all kinds come to all kinds of ends, some after orders, and some stay open."""
    with engine_on(backend, *SAME) as engine:
        for n in range(3):
            assert engine.start(busy, f"b{n}", id=f"busy-{n}").result(PATIENCE_S) == 4
        with pytest.raises(ValueError, match="no"):
            engine.start(failing, "no", id="failing").result(PATIENCE_S)
        office = engine.start(desk, 2, id="desk")
        assert [office.ask("number", 1, int) for _ in range(3)] == [3, 2, 1]
        assert office.result(PATIENCE_S) == "closed"
        waiting = [engine.start(patient, f"p{n}", id=f"patient-{n}") for n in range(4)]
        until(lambda: all(engine.status(run.id).events == 3 for run in waiting))
        waiting[0].cancel()
        waiting[1].rewind(step=0, reason="again")
        waiting[2].pause()
        waiting[2].send("word", "hello")
        waiting[2].resume()
        assert waiting[2].result(PATIENCE_S) == "p2 hello"
        until(lambda: engine.status("patient-0").status is Status.CANCELLED)
        until(lambda: engine.status("patient-1").events == 5)


def shadowed(
    backend: LogBackend, *workflows: Workflow[..., Any], max_runs: int = 100
) -> list[Finding]:
    """What a shadow says of the whole log."""
    shadow = Shadow(Catalogue.of(workflows), max_runs)
    found: list[Finding] = []

    async def follow(log: Log) -> None:
        for partition in range(log.partitions):
            shadow.begin(partition, PartitionState())
        overdue = Overdue(60, lambda _news: None)
        await Shadowing(log, shadow, found.append, overdue).to_the_end()

    steps, before = list(done), records(backend)
    with_log(backend, follow)
    assert shadow.kept <= max_runs
    shadow.close()
    assert done == steps, "no step runs in a shadow"
    assert records(backend) == before, "a shadow writes nothing"
    return found


@pytest.mark.parametrize("max_runs", [1, 100])
def test_the_same_code_does_the_same(backend: LogBackend, max_runs: int) -> None:
    """Given runs of all kinds, the code that ran differs nowhere, whether its runs are kept or replayed each time."""
    happen(backend)
    assert shadowed(backend, *SAME, max_runs=max_runs) == []


def test_where_new_code_differs_is_told_once(backend: LogBackend) -> None:
    """Given code that asks for another step, fails, completes early, or returns otherwise, each is told for its run."""

    @workflow(name="patient")
    def patient_2(what: str) -> str:
        return store(f"{what} {receive_sync('other word', str)}")

    @workflow(name="busy")
    async def busy_2(what: str) -> int:
        publish("what", what)
        return 1

    @workflow(name="failing")
    async def failing_2(what: str) -> str:
        return what

    @workflow(name="leaf")
    def leaf_2(what: str) -> int:
        return len(store(what)) + 1

    @workflow(name="desk")
    async def desk_2(left: int) -> str:
        request = await requests("number", int).receive()
        request.reply(request.value)
        return "closed"

    happen(backend)
    found = shadowed(backend, busy_2, leaf_2, desk_2, patient_2, failing_2)

    by_id = {finding.workflow_id: finding for finding in found}
    assert {by_id[f"busy-{n}"].verdict for n in range(3)} == {Verdict.DIVERGES}
    assert by_id["failing"].verdict is Verdict.ENDS_OTHERWISE
    assert by_id["desk"].verdict is Verdict.ENDS_OTHERWISE
    assert "it continues as new, and with this code it completes" in by_id["desk"].message
    assert by_id["patient-2"].verdict is Verdict.DIVERGES
    leaves = [finding for finding in found if finding.workflow == "leaf"]
    assert [finding.verdict for finding in leaves] == [Verdict.ENDS_OTHERWISE] * 3


def test_missing_code_and_other_input_are_told(backend: LogBackend) -> None:
    """Given a workflow that is not here, or that takes another input, its runs are told as such."""

    @workflow(name="failing")
    async def failing_2(what: str, why: str) -> str:
        return what + why

    happen(backend)
    verdicts = {f.workflow_id: f.verdict for f in shadowed(backend, leaf, failing_2, desk, patient)}
    assert verdicts == {
        "failing": Verdict.INPUT,
        **{f"busy-{n}": Verdict.NO_CODE for n in range(3)},
    }


def test_code_that_ends_early_is_told_when_the_log_is_quiet(backend: LogBackend) -> None:
    """Given code that returns where the run waits, that is a difference once nothing more comes."""

    @workflow(name="patient")
    def patient_2(what: str) -> str:
        return store("please")

    happen(backend)
    found = shadowed(backend, busy, leaf, desk, patient_2, failing)
    messages = {finding.workflow_id: finding.message for finding in found}
    assert messages["patient-3"] == 'it goes on, and with this code it completes with "please"'


def test_a_shadow_follows_what_happens_from_now_on(any_backend: LogBackend) -> None:
    """Given a run that was open before, a shadow that begins later tells where it differs when it goes on."""

    @workflow(name="patient")
    def patient_2(what: str) -> str:
        if patched("polite"):
            store("please")
        receive_sync("word", str)
        return what

    found: list[Finding] = []

    async def follow(handle: Handle[str]) -> None:
        log, stop = any_backend.log(), asyncio.Event()

        def told(finding: Finding) -> None:
            found.append(finding)
            stop.set()

        await log.open()
        shadow = Shadow(Catalogue.of([patient_2]))
        shadowing = Shadowing(log, shadow, told, Overdue(60, lambda _news: None))
        following = asyncio.ensure_future(shadowing.follow(stop, from_start=False))
        await shadowing.begun.wait()
        await asyncio.to_thread(handle.send, "word", "hello")
        await following
        shadow.close()
        await log.close()

    with engine_on(any_backend, *SAME) as engine:
        handle = engine.start(patient, "p", id="p")
        until(lambda: engine.status("p").events == 3)
        asyncio.run(asyncio.wait_for(follow(handle), PATIENCE_S))
    [finding] = found
    assert (finding.workflow_id, finding.verdict) == ("p", Verdict.DIVERGES)
    assert finding.divergence is not None
    assert finding.divergence.expected == "step 'store'"
    assert "nothing: the workflow has returned" in finding.divergence.found

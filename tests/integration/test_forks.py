"""Forks: copies of runs that begin with a part of their history."""

import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from engine_trial import engine_on, fold_digests, kinds, until, written
from log_backend import LogBackend
from refold import (
    CommandRefused,
    Handle,
    UnknownWorkflow,
    UsageError,
    WorkflowConflict,
    WorkflowEnded,
    WorkflowNotFound,
    WorkflowParked,
    publish,
    receive,
    set_attributes,
    start_child,
    step,
    stream,
    workflow,
)
from refold.log.events import WorkflowStarted

RAN: list[str] = []
BROKEN = threading.Event()


@pytest.fixture(autouse=True)
def afresh() -> None:
    """Nothing has run, and nothing is broken."""
    RAN.clear()
    BROKEN.clear()


@step
async def note(what: str) -> str:
    RAN.append(what)
    if what == "fragile" and BROKEN.is_set():
        raise OSError("the line is down")
    return what


@step
async def count_to_three() -> str:
    return "drei"


@workflow
async def three() -> str:
    return await note("one") + await note("two") + await note("three")


@workflow(name="three", version=2)
async def three_of_another_kind() -> str:
    return await note("one") + await note("two") + await count_to_three()


@workflow
async def fails_second() -> str:
    return await note("one") + await note("fragile")


@workflow
async def talks() -> list[str]:
    first = await receive("in", str)
    await note(first)
    second = await receive("in", str)
    return [first, second]


def test_operations_before_the_step_are_replayed_and_the_others_done_anew(
    any_backend: LogBackend,
) -> None:
    """Given a run of three steps, a fork from its third does that one alone, under its own id, and the source stays."""
    with engine_on(any_backend, three) as engine:
        source = engine.start(three, id="s")
        source.result()
        before = kinds(engine, "s")
        fork = source.fork(2, id="f")
        assert fork.id == "f"
        assert fork.result() == "onetwothree"
        assert RAN == ["one", "two", "three", "three"]
        assert kinds(engine, "s") == before
        started = engine.history("f")[0]
        assert isinstance(started, WorkflowStarted)
        assert (started.source_id, started.step) == ("s", 2)
    assert fold_digests(any_backend) == fold_digests(any_backend)


def test_a_fork_of_everything_repeats_nothing(backend: LogBackend) -> None:
    """Given a completed run, a fork without a step replays all of it; its id is made from the source's."""
    with engine_on(backend, three) as engine:
        source = engine.start(three, id="s")
        source.result()
        fork = source.fork()
        assert fork.id.startswith("s/fork-")
        assert fork.result() == "onetwothree"
    assert RAN == ["one", "two", "three"]


def test_a_fork_of_a_failed_run_goes_on_with_mended_code(backend: LogBackend) -> None:
    """Given a run whose second step failed, a fork from that step tries it again; the source has failed for ever."""
    BROKEN.set()
    with engine_on(backend, fails_second) as engine:
        source = engine.start(fails_second)
        with pytest.raises(OSError, match="down"):
            source.result()
        BROKEN.clear()
        assert source.fork(1).result() == "onefragile"
        with pytest.raises(OSError, match="down"):
            source.result()


def test_newer_code_takes_over_from_a_step(backend: LogBackend) -> None:
    """Given two versions that differ in their third step, a fork with the newer one does the new step."""
    with engine_on(backend, three, three_of_another_kind) as engine:
        source = engine.start(three, id="s")
        assert source.result() == "onetwothree"
        assert source.fork(2, version=2).result() == "onetwodrei"
        assert source.fork(2).result() == "onetwothree"
        parked = source.fork(version=2)  # its third step is recorded, as the old code did it
        with pytest.raises(WorkflowParked, match=r"'note'.*'count_to_three'"):
            parked.result()


def test_an_open_run_is_forked_as_it_stands(backend: LogBackend) -> None:
    """Given a run that waits for its second message, its fork has the first and waits for its own second."""
    with engine_on(backend, talks) as engine:
        source = engine.start(talks, id="s", message=("in", "both"))
        until(lambda: "step.completed" in kinds(engine, "s"))
        fork = source.fork()
        source.send("in", "for the source")
        fork.send("in", "for the fork")
        assert source.result() == ["both", "for the source"]
        assert fork.result() == ["both", "for the fork"]
        again = fork.fork(id="again")
        assert again.result() == ["both", "for the fork"]


def test_what_was_shown_before_the_step_is_shown(backend: LogBackend) -> None:
    """Given values, tags and items before and after a step, a fork has the former, and shows the latter anew."""
    gate = threading.Event()

    @step
    def pass_gate() -> None:
        gate.wait()

    @workflow
    def shows() -> None:
        publish("state", "first")
        set_attributes({"phase": 1})
        stream("log").write("a")
        pass_gate()
        publish("state", "second")
        set_attributes({"phase": 2})
        stream("log").write("b")

    with engine_on(backend, shows) as engine:
        source = engine.start(shows, attributes={"plan": "gold"})
        gate.set()
        source.result()
        gate.clear()
        fork = source.fork(3)
        assert fork.value("state") == "first"
        assert fork.status().attributes == {"plan": "gold", "phase": 1}
        gate.set()
        fork.result()
        assert fork.value("state") == "second"
        assert fork.status().attributes == {"plan": "gold", "phase": 2}
        assert list(fork.stream("log")) == ["b"]  # "a" stands with the source
        assert list(fork.stream("log", start=1)) == ["b"]


def test_a_value_of_its_source_is_there_in_the_next_life(backend: LogBackend) -> None:
    """Given a fork that has ended and published nothing itself, its source's value is its own, after a restart too."""

    @workflow
    async def shows() -> None:
        publish("state", "of the source")
        await note("after")

    with engine_on(backend, shows) as engine:
        source = engine.start(shows)
        source.result()
        source.fork(1, id="f").result()
        assert engine.handle("f").value("state") == "of the source"
    with engine_on(backend, shows) as engine:
        assert engine.handle("f").value("state", str) == "of the source"
        with pytest.raises(WorkflowEnded, match="'other'"):
            engine.handle("f").value("other")


def test_a_child_that_has_ended_is_not_started_again(backend: LogBackend) -> None:
    """Given a parent whose child has ended, a fork after it has the child's result."""

    @workflow
    async def child() -> str:
        return await note("child")

    @workflow
    async def parent() -> str:
        result = await (await start_child(child))
        return result + await note("after")

    with engine_on(backend, parent, child) as engine:
        source = engine.start(parent)
        source.result()
        assert source.fork(1).result() == "childafter"
    assert RAN == ["child", "after", "after"]


def test_a_child_that_is_open_is_in_the_way(backend: LogBackend) -> None:
    """Given a parent that waits for its child, a fork after the child's start is refused, with where it can begin."""

    @workflow
    async def child() -> str:
        return await receive("in", str)

    @workflow
    async def parent() -> str:
        await note("before")
        return await (await start_child(child))

    with engine_on(backend, parent, child) as engine:
        source = engine.start(parent, id="p")
        until(lambda: "delivery.confirmed" in kinds(engine, "p"))
        before = written(backend)
        with pytest.raises(CommandRefused, match=r"child 'p/1' has not ended.*Fork from step 1"):
            source.fork()
        assert written(backend) == before
        fork = source.fork(1, id="f")
        until(lambda: "delivery.confirmed" in kinds(engine, "f"))
        engine.handle("f/1").send("in", "its own child's")
        assert fork.result() == "its own child's"


BAD_FORKS: list[tuple[Callable[[Handle[Any]], object], str]] = [
    (lambda h: h.fork(17), r"'s' has no step 17.*steps 0 to 2"),
    (lambda h: h.fork(3), "'s' has no step 3"),
    (lambda h: h.fork(-1), "-1 is no step"),
    (lambda h: h.fork(cast(Any, "2")), "'2' is no step"),
    (lambda h: h.fork(1, id=""), "must not be empty"),
    (lambda h: h.fork(1, version=0), "0 is no version"),
]


@pytest.mark.parametrize(("fork", "says"), BAD_FORKS)
def test_what_can_not_be_forked_leaves_no_trace(
    backend: LogBackend, fork: Callable[[Handle[Any]], object], says: str
) -> None:
    """Given a step past the end, or an id, step or version that is none, nothing is written."""
    with engine_on(backend, three) as engine:
        source = engine.start(three, id="s")
        source.result()
        before = written(backend)
        with pytest.raises(UsageError, match=says):
            fork(source)
        assert written(backend) == before


def test_what_only_the_worker_knows_is_refused_by_it(backend: LogBackend) -> None:
    """Given an id that is taken, a version that nobody has or a source that is not there, the fork says so."""
    with engine_on(backend, three) as engine:
        source = engine.start(three, id="s")
        source.result()
        with pytest.raises(WorkflowConflict, match="'s' is taken"):
            source.fork(1, id="s")
        with pytest.raises(UnknownWorkflow, match="version 7 of workflow 'three'"):
            source.fork(1, version=7)
        with pytest.raises(WorkflowNotFound, match="'nobody'"):
            engine.handle("nobody").fork()


def test_a_fork_continues_its_own_way(backend: LogBackend) -> None:
    """Given a fork, resume and rewind work on it as on any run, and its steps never use a number twice."""
    BROKEN.set()
    with engine_on(backend, fails_second) as engine:
        source = engine.start(fails_second)
        with pytest.raises(OSError, match="down"):
            source.result()
        fork = source.fork(1, id="f")
        with pytest.raises(OSError, match="down"):
            fork.result()
        BROKEN.clear()
        fork.resume()
        assert fork.result() == "onefragile"
        fork.rewind(0)
        assert fork.result() == "onefragile"
        with pytest.raises(CommandRefused, match=r"'f' has no step 1 .*steps 3 to 4"):
            fork.rewind(1)

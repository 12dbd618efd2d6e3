"""From names, versions and recorded inputs to runs of code."""

import json
from collections.abc import Iterator

import pytest

from refold.engine.async_run import AsyncRun
from refold.engine.definitions import Catalogue, step, workflow
from refold.engine.operations import Continued, Returned, RunFacts
from refold.engine.runs import CodeRuns
from refold.engine.sync_run import SyncRun
from refold.engine.thread_slots import ThreadSlots
from refold.engine.versions import continue_as_new
from refold.log.errors import PayloadError, UnknownWorkflow
from run_driver import START_US


@step
async def work(name: str) -> str:
    raise AssertionError("a run never carries out a step by itself")


@workflow(name="greet", version=1)
def greet_old(name: str) -> str:
    return f"hello {name}"


@workflow(name="greet", version=3)
async def greet_new(name: str, loud: bool = False) -> str:
    return f"HELLO {name}" if loud else f"hello, {name}"


@workflow
async def loop(count: int) -> None:
    continue_as_new(count + 1)


@pytest.fixture
def runs() -> Iterator[CodeRuns]:
    slots = ThreadSlots(2)
    yield CodeRuns(Catalogue.of([greet_old, greet_new, loop]), "raise", slots)
    slots.close()


def facts(workflow: str, version: int) -> RunFacts:
    return RunFacts("wf-1", workflow, version, START_US)


def test_a_start_without_a_version_gets_the_newest(runs: CodeRuns) -> None:
    """Given two versions, None is the newest, and a version is itself."""
    assert runs.resolve("greet", None) == 3
    assert runs.resolve("greet", 1) == 1


@pytest.mark.parametrize(
    ("name", "version", "told"),
    [("greet", 2, r"version 2 .*1, 3"), ("meet", None, "greet .*loop"), ("meet", 1, "greet")],
)
def test_what_is_not_registered_is_refused_with_what_is(
    runs: CodeRuns, name: str, version: int | None, told: str
) -> None:
    """Given a name or version that is not here, the error names those that are."""
    with pytest.raises(UnknownWorkflow, match=told):
        runs.resolve(name, version)


def test_a_run_is_of_its_own_version(runs: CodeRuns) -> None:
    """Given facts with a version, the run is of that version's code, of either kind."""
    old = runs.create(facts("greet", 1), '{"name":"Ann"}')
    new = runs.create(facts("greet", 3), '{"name":"Ann","loud":true}')
    old.start()
    new.start()

    assert isinstance(old, SyncRun)
    assert isinstance(new, AsyncRun)
    assert isinstance(old.ending, Returned)
    assert isinstance(new.ending, Returned)
    assert json.loads(old.ending.payload) == "hello Ann"
    assert json.loads(new.ending.payload) == "HELLO Ann"


def test_inputs_are_read_by_their_version(runs: CodeRuns) -> None:
    """Given an input, it is written in full by the version that takes it, and refused by one that does not."""
    assert runs.canonical("greet", 1, '{"name":"Ann"}') == '{"name":"Ann"}'
    assert runs.canonical("greet", 3, '{"name":"Ann"}') == '{"name":"Ann","loud":false}'
    with pytest.raises(PayloadError, match="no argument 'loud'"):
        runs.canonical("greet", 1, '{"name":"Ann","loud":true}')
    with pytest.raises(UnknownWorkflow, match="version 2"):
        runs.canonical("greet", 2, "{}")


def test_each_version_has_its_own_hash(runs: CodeRuns) -> None:
    """Given versions, their code's hashes differ; what is not here has none."""
    assert runs.code_version("greet", 1) == greet_old.code_hash
    assert runs.code_version("greet", 3) == greet_new.code_hash
    assert runs.code_version("greet", 1) != runs.code_version("greet", 3)
    assert runs.code_version("greet", 2) is None
    assert runs.code_version("meet", 1) is None


def test_a_run_continues_with_an_input_of_its_own_version(runs: CodeRuns) -> None:
    """Given a run that continues as new, its new input is encoded by its workflow's parameters."""
    run = runs.create(facts("loop", 1), '{"count":1}')
    run.start()

    assert run.ending == Continued('{"count":2}', ())

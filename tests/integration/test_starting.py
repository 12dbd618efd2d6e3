"""Starting runs: one for an id, for ever; and bad input refused before anything is written."""

import asyncio
from collections.abc import Callable, Generator
from typing import Any, cast

import pytest

from engine_trial import engine_on, kinds, written
from log_backend import PATIENCE_S, LogBackend
from refold import (
    DefinitionError,
    Engine,
    EngineClosed,
    PayloadError,
    PayloadTooLarge,
    UnknownWorkflow,
    UsageError,
    WorkflowConflict,
    WorkflowNotFound,
    receive,
    step,
    workflow,
)
from refold.engine.client import Client

RUNS: list[int] = []


@step
async def double(number: int) -> int:
    RUNS.append(number)
    return 2 * number


@workflow
async def doubled(number: int) -> int:
    return await double(number)


@workflow
async def other(number: int) -> int:
    return number


@workflow
def long_text(text: str) -> int:
    return len(text)


def test_a_run_gives_its_typed_result(any_backend: LogBackend) -> None:
    """Given a workflow of one step, its result comes back and its stream says how."""
    with engine_on(any_backend, doubled) as engine:
        handle = engine.start(doubled, 21, id="d-1")
        assert handle.result() == 42
        assert kinds(engine, "d-1") == ["workflow.started", "step.completed", "workflow.completed"]


def test_the_same_start_gets_the_same_run(any_backend: LogBackend) -> None:
    """Given a run, a start with its id and input gets that run, while it is open and when it has ended."""
    RUNS.clear()
    with engine_on(any_backend, doubled) as engine:
        first = engine.start(doubled, 7, id="again")
        second = engine.start(doubled, 7, id="again")
        assert (first.result(), second.result()) == (14, 14)
        assert engine.start(doubled, 7, id="again").result() == 14
        assert kinds(engine, "again").count("workflow.started") == 1
    assert RUNS.count(7) == 1


def test_the_same_start_gets_the_same_run_after_a_restart(backend: LogBackend) -> None:
    """Given a run that ended in an engine's former life, the same start finds its result in the log."""
    with engine_on(backend, doubled) as engine:
        assert engine.start(doubled, 9, id="kept").result() == 18
    RUNS.clear()
    with engine_on(backend, doubled) as engine:
        assert engine.start(doubled, 9, id="kept").result() == 18
        assert engine.handle("kept").result() == 18
    assert RUNS == []


def test_another_input_is_a_conflict_that_names_both(any_backend: LogBackend) -> None:
    """Given a run, a start with its id and another input, or another workflow, is refused and says whose the id is."""
    with engine_on(any_backend, doubled, other) as engine:
        engine.start(doubled, 1, id="mine").result()
        with pytest.raises(WorkflowConflict, match=r"'mine'.*'doubled'.*another input"):
            engine.start(doubled, 2, id="mine")
        with pytest.raises(WorkflowConflict, match=r"'mine'.*'doubled'.*'other'"):
            engine.start(other, 1, id="mine")
        assert engine.handle("mine", doubled).result() == 2


def test_a_refused_start_does_not_hinder_who_waits_for_the_run(
    backend: LogBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a handle of a run that goes on, a start that conflicts with it does not delay its result."""

    @workflow
    async def waits() -> str:
        return await receive("in", str)

    with engine_on(backend, waits, doubled) as engine:
        engine.start(waits, id="w")

    def never(_: Client) -> None:
        """Asking again would help in the end."""

    monkeypatch.setattr(Client, "_ask_again", never)
    with engine_on(backend, waits, doubled) as engine:
        handle = engine.handle("w")
        with pytest.raises(WorkflowConflict):
            engine.start(doubled, 1, id="w")
        handle.send("in", "here")
        assert handle.result(PATIENCE_S) == "here"


def test_an_unconfirmed_start_hears_of_its_conflict_from_the_result(backend: LogBackend) -> None:
    """Given a start that did not wait to be accepted, its refusal comes when the result is asked for."""
    with engine_on(backend, doubled) as engine:
        engine.start(doubled, 1, id="taken").result()
    with engine_on(backend, doubled) as engine:
        handle = engine.start(doubled, 2, id="taken", confirm=False)
        with pytest.raises(WorkflowConflict, match="another input"):
            handle.result()


def test_ids_are_generated_where_none_is_given(backend: LogBackend) -> None:
    """Given two starts without an id, there are two runs, each named after its workflow."""
    with engine_on(backend, doubled) as engine:
        first, second = engine.start(doubled, 1), engine.start(doubled, 1)
        assert first.id != second.id
        assert first.id.startswith("doubled-")
        assert first.result() == second.result() == 2


@pytest.mark.parametrize(
    ("bad_id", "says"),
    [
        ("", "empty"),
        ("x" * 256, "at most 255"),
        ("a\nb", "printed"),
        ("\ud800", "printed"),
        (cast(Any, 5), "string, not 5"),
    ],
)
def test_ids_that_can_not_be_keys_are_refused(backend: LogBackend, bad_id: str, says: str) -> None:
    """Given an id that is empty, too long, unprintable or no string, every call says so; nothing is written."""
    with engine_on(backend, doubled) as engine:
        before = written(backend)
        for ask in (
            lambda: engine.start(doubled, 1, id=bad_id),
            lambda: engine.handle(bad_id),
            lambda: engine.resume(bad_id),
            lambda: engine.status(bad_id),
            lambda: engine.history(bad_id),
        ):
            with pytest.raises(UsageError, match=says):
                ask()
        assert written(backend) == before


@pytest.mark.parametrize(
    "setting",
    [
        {"guard": "rasie"},
        {"threads": 0},
        {"max_steps": 0},
        {"max_runs": -1},
        {"max_payload_bytes": 0},
        {"drain_s": -1},
        {"start_timeout_s": -1},
        {"start_timeout_s": "soon"},
        {"name": ""},
    ],
)
def test_settings_that_can_not_be_are_refused(setting: dict[str, Any]) -> None:
    """Given a setting that can't be, no engine is made, and the error names it."""
    with pytest.raises(UsageError, match=f"{next(iter(setting))}="):
        Engine("memory://", workflows=[doubled], **setting)


def test_what_is_no_log_is_refused() -> None:
    """Given something that is neither a URL nor a log, the error says what one is."""
    with pytest.raises(UsageError, match="5 is no log: give a URL"):
        Engine(cast(Any, 5), workflows=[doubled])


def start_with_wrong_type(engine: Engine) -> object:
    return cast(Any, engine).start(doubled, "one")


def start_without_argument(engine: Engine) -> object:
    return cast(Any, engine).start(doubled)


def start_with_too_many(engine: Engine) -> object:
    return cast(Any, engine).start(doubled, 1, 2)


def start_with_an_object(engine: Engine) -> object:
    return cast(Any, engine).start(doubled, object())


@pytest.mark.parametrize(
    "start",
    [start_with_wrong_type, start_without_argument, start_with_too_many, start_with_an_object],
)
def test_input_that_does_not_fit_writes_nothing(
    backend: LogBackend, start: Callable[[Engine], object]
) -> None:
    """Given an argument of a wrong type, missing, too many or without JSON, the call fails and the log is unchanged."""
    with engine_on(backend, doubled) as engine:
        before = written(backend)
        with pytest.raises(PayloadError, match="doubled"):
            start(engine)
        assert written(backend) == before


def test_oversized_input_writes_nothing(backend: LogBackend) -> None:
    """Given an input over the limit, the error states size and limit, and the log is unchanged."""
    with engine_on(backend, long_text, max_payload_bytes=900_000) as engine:
        before = written(backend)
        with pytest.raises(PayloadTooLarge, match=r"900,000"):
            engine.start(long_text, "x" * 900_000)
        assert written(backend) == before
        assert engine.start(long_text, "x" * 800_000).result() == 800_000


def test_what_is_no_workflow_is_refused(backend: LogBackend) -> None:
    """Given a plain function, start says that it has to be decorated."""

    def plain(number: int) -> int:
        return number

    with engine_on(backend, doubled) as engine, pytest.raises(UsageError, match="@workflow"):
        cast(Any, engine).start(plain, 1)


def test_a_bound_workflow_takes_no_more_arguments(backend: LogBackend) -> None:
    """Given a workflow that is bound to its input, further arguments are refused and not passed over."""
    with (
        engine_on(backend, doubled) as engine,
        pytest.raises(UsageError, match="bound to its input"),
    ):
        cast(Any, engine).start(doubled.bind(1), 2)


def test_a_worker_without_the_workflow_refuses_it(backend: LogBackend) -> None:
    """Given a worker that does not know the name, the client hears so, with the names that it knows."""
    with engine_on(backend, other), engine_on(backend, worker=False) as client:
        with pytest.raises(UnknownWorkflow, match=r"'doubled'.*knows: other"):
            client.start(doubled, 1, id="nobody-knows")
        with pytest.raises(WorkflowNotFound):
            client.status("nobody-knows")


def test_workflows_of_one_name_are_refused() -> None:
    """Given two functions declared under one name, an engine with both of them is not made, and says where both are."""

    @workflow(name="same")
    def first() -> None: ...

    @workflow(name="same")
    def second() -> None: ...

    with pytest.raises(DefinitionError, match=r"'same'.*test_starting"):
        Engine("memory://", workflows=[first, second])


def test_generators_and_lambdas_are_no_workflows() -> None:
    """Given a generator function or a lambda, the decorator says what to write instead."""

    def numbers() -> Generator[int, None, None]:
        yield 1

    with pytest.raises(DefinitionError, match="generator"):
        workflow(numbers)
    with pytest.raises(DefinitionError, match="lambda"):
        workflow(lambda: 1)


class TestUsedInTheWrongPlace:
    @pytest.fixture
    def engine(self, backend: LogBackend) -> Engine:
        return engine_on(backend, doubled)

    def test_inside_a_workflow(self, engine: Engine) -> None:
        """Given workflow code that starts a run by an engine, it gets a clear error and no run is started."""

        @workflow
        def inside() -> str:
            try:
                engine.start(doubled, 1, id="inner")
            except UsageError as error:
                return str(error)
            return "it was let through"

        with engine:
            assert "inside workflow 'outer'" in engine.start(inside, id="outer").result()
            with pytest.raises(WorkflowNotFound):
                engine.status("inner")

    def test_inside_a_step(self, engine: Engine) -> None:
        """Given a step that asks an engine for a result, it gets a clear error instead of waiting for ever."""

        @step
        async def asks() -> str:
            try:
                await engine.handle("whatever").result_async()
            except UsageError as error:
                return str(error)
            return "it was let through"

        @workflow
        async def inside() -> str:
            return await asks()

        with engine:
            assert "inside workflow 'outer'" in engine.start(inside, id="outer").result()

    def test_blocking_on_its_own_loop(self, engine: Engine) -> None:
        """Given an engine on the caller's loop, its blocking calls are refused with the name of the async one."""

        async def scenario() -> None:
            async with engine:
                with pytest.raises(UsageError, match=r"start_async\(\)"):
                    engine.start(doubled, 1)
                with pytest.raises(UsageError, match=r"list_async\(\)"):
                    engine.list()
                handle = await engine.start_async(doubled, 1)
                with pytest.raises(UsageError, match=r"result_async\(\)"):
                    handle.result()
                assert await handle == 2

        asyncio.run(scenario())

    def test_before_it_is_open_and_after_it_is_closed(self, engine: Engine) -> None:
        """Given an engine that is not open, every call says so; and it can't be opened twice."""
        with pytest.raises(EngineClosed, match="with Engine"):
            engine.start(doubled, 1)
        with engine:
            handle = engine.start(doubled, 1)
            with pytest.raises(UsageError, match="opened already"):
                engine.__enter__()
        with pytest.raises(EngineClosed):
            handle.result()
        with pytest.raises(UsageError, match="opened already"):
            engine.__enter__()


def test_async_code_uses_an_engine_in_a_thread(backend: LogBackend) -> None:
    """Given an engine opened by a plain `with`, code on another loop may await its handles."""

    async def ask(engine: Engine) -> int:
        return await (await engine.start_async(doubled, 4))

    with engine_on(backend, doubled) as engine:
        assert asyncio.run(ask(engine)) == 8

"""Calls of steps and workflows: what they mean in workflow code, in a step, and outside."""

import asyncio
import functools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest

from refold.engine.async_run import AsyncRun
from refold.engine.definitions import (
    Workflow,
    run_step,
    run_step_sync,
    step,
    workflow,
)
from refold.engine.failures import capture
from refold.engine.operations import Ending, Raised, Returned, RunFacts, StepRequest
from refold.engine.retry import Retry
from refold.engine.scope import StepContext, enter
from refold.engine.sync_run import SyncRun
from refold.engine.thread_slots import ThreadSlots
from refold.log.errors import DefinitionError, UsageError
from refold.log.events import StepCompleted, StepFailed

if TYPE_CHECKING:
    pass


FIXED: dict[str, Any] = {
    "workflow_id": "w",
    "recorded_at": 2_000_000,
    "claim": 0,
    "command": 0,
    "posted": 0,
    "worker": "t",
}
"""What the events of one run share."""


@dataclass
class Money:
    cents: int


@step
async def charge(amount: Money, note: str = "") -> Money:
    return Money(amount.cents + len(note))


@step(
    name="save-file", retry=Retry(attempts=2), timeout_s=3, total_timeout_s=9, on_exhausted="park"
)
def write(path: str, *parts: str, mode: int = 0) -> int:
    return len(path) + len(parts) + mode


class Till:
    """Has a step of every kind of method."""

    rate = 2

    def __init__(self, cents: int) -> None:
        self.cents = cents

    @step
    async def count(self, more: int) -> int:
        return self.cents + more

    @step
    def label(self, text: str) -> str:
        return f"{self.cents}{text}"

    @staticmethod
    @step
    def outer_static(number: int) -> int:
        return number + 1

    @step
    @staticmethod
    def inner_static(number: int) -> int:
        return number + 1

    @step
    @classmethod
    async def of_class(cls, number: int) -> int:
        return number * cls.rate


CHARGE: Any = charge
WRITE: Any = write
TILL: Any = Till
STEP: Any = step
"""The same with no types: for what checkers refuse, and what Python lets through."""


@dataclass
class Drive:
    """A workflow run to its end, with its steps carried out as they were asked for."""

    ending: Ending | None
    requests: list[StepRequest]

    @property
    def names(self) -> list[str]:
        return [request.name for request in self.requests]

    @property
    def payload(self) -> str:
        assert isinstance(self.ending, Returned), self.ending
        return self.ending.payload

    @property
    def error(self) -> Raised:
        assert isinstance(self.ending, Raised), self.ending
        return self.ending


def drive(definition: Workflow[..., Any], *args: object) -> Drive:
    """Run a workflow as a worker does."""
    payload = definition.input_type.encode(args, {})
    positional, named = definition.input_type.decode(payload)
    facts = RunFacts("w", definition.name, definition.version, started_at=1_000_000)
    kind = definition.result_type
    run: AsyncRun | SyncRun
    slots = ThreadSlots(1)
    if definition.is_async:
        run = AsyncRun(
            definition.fn,
            positional,
            named,
            facts=facts,
            result_type=kind,
            encode_input=definition.input_type.encode,
        )
    else:
        run = SyncRun(
            definition.fn,
            positional,
            named,
            facts=facts,
            result_type=kind,
            encode_input=definition.input_type.encode,
            slots=slots,
        )
    run.start()
    asked: list[StepRequest] = []
    while new := run.take():
        for request in new:
            assert isinstance(request, StepRequest)
            asked.append(request)
            run.deliver(carried_out(request))
    run.close()
    slots.close()
    return Drive(run.ending, asked)


def carried_out(request: StepRequest) -> StepCompleted | StepFailed:
    call = request.call
    try:
        with enter(StepContext(namespace="n", workflow_id="w", step=request.step, attempt=1)):
            value = asyncio.run(call.call()) if call.is_async else call.call()
        text = call.result_type.encode(value)
    except Exception as error:  # noqa: BLE001 - any error of a step is its outcome
        failure = capture(error)
        return StepFailed(
            **FIXED,
            position=request.step,
            step=request.step,
            name=request.name,
            attempt=1,
            started_at=1,
            error_type=failure.error_type,
            error_message=failure.error_message,
            error_stack=failure.error_stack,
            payload=failure.payload,
        )
    return StepCompleted(
        **FIXED,
        position=request.step,
        step=request.step,
        name=request.name,
        payload=text,
        attempt=1,
        started_at=1,
    )


def generator() -> Iterator[int]:
    yield 1


class Callable_:  # noqa: N801 - the name is for this test
    def __call__(self) -> int:
        return 1


# What a call means ----------------------------------------------------------------------------------------------


def test_steps_in_an_async_workflow_are_recorded_by_name() -> None:
    """Given steps of both kinds, methods and functions without a decorator, each is one recorded step."""

    @workflow
    async def all_of_them(cents: int) -> list[Any]:
        till = Till(cents)
        return [
            (await charge(Money(cents), note="ab")).cents,
            await write.aio("p", "q", mode=3),
            await till.count(1),
            await till.label.aio("x"),
            await Till.outer_static.aio(1),
            await TILL.inner_static.aio(1),
            await TILL.of_class(4),
            await run_step(abs, -3),
            await run_step(lambda: "lazy", name="lambda"),
            await run_step(charge, Money(1), name="charge-again") == Money(1),
        ]

    ran = drive(all_of_them, 5)
    assert ran.payload == '[7,5,6,"5x",2,2,8,3,"lazy",true]'
    assert ran.names == [
        "charge",
        "save-file",
        "Till.count",
        "Till.label",
        "Till.outer_static",
        "Till.inner_static",
        "Till.of_class",
        "abs",
        "lambda",
        "charge-again",
    ]


def test_steps_in_a_def_workflow_are_recorded_by_name() -> None:
    """Given a `def` workflow, `async def` steps are spelled `.sync`, and the others are plain calls."""

    @workflow
    def all_of_them(cents: int) -> list[Any]:
        till = Till(cents)
        return [
            charge.sync(Money(cents), note="ab").cents,
            write("p", "q", mode=3),
            till.count.sync(1),
            till.label("x"),
            Till.outer_static(1),
            run_step_sync(abs, -3),
            run_step_sync(lambda: "lazy", name="lambda"),
        ]

    ran = drive(all_of_them, 5)
    assert ran.payload == '[7,5,6,"5x",2,3,"lazy"]'
    assert ran.names == [
        "charge",
        "save-file",
        "Till.count",
        "Till.label",
        "Till.outer_static",
        "abs",
        "lambda",
    ]


def test_a_step_carries_its_options_to_whoever_runs_it() -> None:
    """Given options on the decorator, each request has them."""

    @workflow
    def saves() -> int:
        return write("p")

    options = drive(saves).requests[0].call.options
    assert options == write.options
    assert (options.retry, options.timeout_s, options.total_timeout_s, options.on_exhausted) == (
        Retry(attempts=2),
        3,
        9,
        "park",
    )


@pytest.mark.parametrize(
    ("call", "right"),
    [
        (lambda: write("p"), "`await write.aio(...)`"),
        (lambda: charge.sync(Money(1)), "`await charge(...)`"),
        (lambda: run_step_sync(abs, 1), "`await run_step(...)`"),
    ],
)
def test_the_wrong_spelling_in_an_async_workflow_names_the_right_one(
    call: Callable[[], object], right: str
) -> None:
    """Given a call that would block the loop, the error says what to write, and nothing is asked for."""

    async def wrong() -> None:
        call()

    ran = drive(workflow(wrong))
    assert ran.error.error_type == "refold.log.errors:UsageError"
    assert right in ran.error.error_message
    assert ran.names == []


@pytest.mark.parametrize(
    ("call", "right"),
    [
        (lambda: charge(Money(1)), "`charge.sync(...)`"),
        (lambda: Till(1).count(1), "`count.sync(...)`"),
        (lambda: write.aio("p"), "`write(...)`"),
        (lambda: run_step(abs, 1), "`run_step_sync(...)`"),
    ],
)
def test_the_wrong_spelling_in_a_def_workflow_names_the_right_one(
    call: Callable[[], object], right: str
) -> None:
    """Given a call that nobody would await, the error says what to write, and no coroutine is left behind."""

    def wrong() -> None:
        call()

    ran = drive(workflow(wrong))
    assert ran.error.error_type == "refold.log.errors:UsageError"
    assert right in ran.error.error_message
    assert ran.names == []


def test_a_step_in_a_step_is_a_plain_call() -> None:
    """Given steps called by a step, only the outer one is recorded."""

    @step
    async def outer() -> int:
        return (
            (await charge(Money(1))).cents
            + write("p")
            + await write.aio("p")
            + await run_step(abs, -1)
        )

    @step
    def outer_sync() -> int:
        return charge.sync(Money(1)).cents + write("p") + run_step_sync(abs, -1)

    @workflow
    async def calls() -> list[int]:
        return [await outer(), await outer_sync.aio()]

    ran = drive(calls)
    assert ran.payload == "[4,3]"
    assert ran.names == ["outer", "outer_sync"]


def test_a_step_outside_of_any_workflow_is_a_plain_call() -> None:
    """Given no workflow, every spelling works: `.sync` runs a loop, `.aio` a thread."""

    async def in_async() -> list[object]:
        here = threading.get_ident()
        there = await run_step(threading.get_ident)
        return [
            await charge(Money(1)),
            await write.aio("p"),
            write("p"),
            await run_step(charge, Money(2)),
            here != there,
        ]

    assert asyncio.run(in_async()) == [Money(1), 1, 1, Money(2), True]
    assert charge.sync(Money(1)) == Money(1)
    assert Till(1).count.sync(1) == 2
    assert run_step_sync(charge, Money(1)) == Money(1)
    assert run_step_sync(write, "p") == 1


def test_blocking_on_a_running_loop_is_refused() -> None:
    """Given code on an event loop, `.sync` would block it, so the error says to await."""

    async def blocks() -> None:
        charge.sync(Money(1))

    with pytest.raises(UsageError, match=r"<step 'charge'>.*`await` it there"):
        asyncio.run(blocks())


@pytest.mark.parametrize(
    "call",
    [
        lambda: CHARGE(note="n"),
        lambda: CHARGE(Money(1), "n", 3),
        lambda: CHARGE(Money(1), colour=3),
        lambda: TILL(1).count(),
        lambda: TILL(1).count(1, 2),
        lambda: WRITE.aio(mode=1),
    ],
)
def test_arguments_that_do_not_fit_raise_at_the_call(call: Callable[[], object]) -> None:
    """Given a wrong call, it raises TypeError where it stands, as Python does, and no step is asked for."""

    async def wrong() -> None:
        call()

    ran = drive(workflow(wrong))
    assert ran.error.error_type == "builtins:TypeError"
    assert ran.names == []


def test_a_lambda_may_give_something_to_await() -> None:
    """Given a lambda that calls a coroutine function, its result is what the await gives."""

    async def add(number: int) -> int:
        return number + 1

    @workflow
    async def calls() -> int:
        return await run_step(lambda: add(3), name="lambda")

    @workflow
    def calls_sync() -> int:
        return run_step_sync(lambda: add(3), name="lambda")

    assert drive(calls).payload == "4"
    assert drive(calls_sync).payload == "4"


def test_a_lambda_that_gives_more_than_json_is_told_to_be_a_function() -> None:
    """Given a lambda with a dataclass for a result, nothing declares its type, and the error says what to do."""

    @workflow
    async def calls() -> Money:
        return await run_step(lambda: Money(3), name="lambda")

    error = drive(calls).error
    assert error.error_type == "refold.log.errors:PayloadError"
    assert "perhaps `Money`" in error.error_message
    assert "instead of a lambda" in error.error_message


def test_a_closures_result_comes_back_by_its_annotation() -> None:
    """Given a local function with a declared result, the workflow sees that type."""

    @workflow
    async def calls(number: int) -> int:
        async def fetch() -> Money:
            return Money(number)

        def parse(text: str) -> Money:
            return Money(len(text))

        return (await run_step(fetch)).cents + (await run_step(parse, "abc", retry=Retry())).cents

    ran = drive(calls, 4)
    assert ran.payload == "7"
    assert ran.names == ["fetch", "parse"]


def test_a_result_that_does_not_fit_fails_by_the_steps_name() -> None:
    """Given a step that returns something else than it says, the error names the step and the type."""

    @step
    def lies() -> int:
        wrong: Any = "five"
        return cast("int", wrong)

    @workflow
    def calls() -> int:
        return lies()

    error = drive(calls).error
    assert error.error_type == "refold.log.errors:PayloadError"
    assert "result of step 'lies'" in error.error_message
    assert "`int`" in error.error_message


def test_a_workflow_outside_of_any_engine_is_a_plain_call() -> None:
    """Given a unit test of a workflow's logic, a call runs the function with plain steps."""

    @workflow
    async def one(cents: int) -> Money:
        return await charge(Money(cents))

    @workflow
    def two(path: str) -> int:
        return write(path)

    assert asyncio.run(one(3)) == Money(3)
    assert two("abc") == 3


def test_a_workflow_in_a_workflow_or_a_step_is_refused() -> None:
    """Given a call that would run with no record of its own, the error says so, and names the right spelling."""

    @workflow
    def inner() -> int:
        return 1

    @workflow
    def outer() -> int:
        return inner()

    @step
    def starts() -> int:
        return inner()

    @workflow
    def outer_by_step() -> int:
        return starts()

    for caller, where in ((outer, "the code"), (outer_by_step, "step 0")):
        said = drive(caller).error.error_message
        assert f"Workflow 'inner' was called in {where} of workflow 'w'" in said
        assert "`await run_child(...)`, or `run_child_sync`" in said


def test_run_step_names_what_it_can() -> None:
    """Given a partial or a step, its function's name is used; a generator is refused."""

    @workflow
    def calls() -> list[int]:
        return [
            run_step_sync(functools.partial(pow, 2), 3),
            run_step_sync(write, "p"),
            run_step_sync(Callable_(), name="c"),
        ]

    ran = drive(calls)
    assert (ran.payload, ran.names) == ("[8,1,1]", ["pow", "save-file", "c"])
    with pytest.raises(DefinitionError, match="no name to record"):
        run_step_sync(Callable_())
    with pytest.raises(DefinitionError, match="generator"):
        run_step_sync(generator)

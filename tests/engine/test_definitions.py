"""Definitions: what the decorators make of functions, and what a call of a step means in each place."""

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from refold.engine.async_run import AsyncRun
from refold.engine.definitions import (
    AsyncStep,
    Catalogue,
    SyncStep,
    Workflow,
    run_step,
    run_step_sync,
    step,
    workflow,
)
from refold.engine.failures import capture
from refold.engine.operations import Ending, Raised, Returned, StepRequest
from refold.engine.retry import Retry
from refold.engine.scope import StepContext, enter
from refold.engine.sync_run import SyncRun
from refold.engine.thread_slots import ThreadSlots
from refold.log.errors import DefinitionError, PayloadError, UsageError
from refold.log.events import StepCompleted, StepFailed

if TYPE_CHECKING:
    from collections.abc import Hashable


FIXED: dict[str, Any] = {
    "workflow_id": "w",
    "recorded_at": 2_000_000,
    "claim": 0,
    "command": 0,
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
    started, kind = 1_000_000, definition.result_type
    run: AsyncRun | SyncRun
    slots = ThreadSlots(1)
    if definition.is_async:
        run = AsyncRun(
            definition.fn,
            positional,
            named,
            workflow_id="w",
            started_at_us=started,
            result_type=kind,
        )
    else:
        run = SyncRun(
            definition.fn,
            positional,
            named,
            workflow_id="w",
            started_at_us=started,
            result_type=kind,
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
        lambda: CHARGE(),  # noqa: PLW0108 - it is called later, in a workflow
        lambda: CHARGE(Money(1), "n", 3),
        lambda: CHARGE(Money(1), colour=3),
        lambda: TILL(1).count(),
        lambda: TILL(1).count(1, 2),
        lambda: WRITE.aio(),
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
        return "five"

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
    """Given a call that would run with no record of its own, the error says so."""

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

    assert (
        "Workflow 'inner' was called in the code of workflow 'w'"
        in drive(outer).error.error_message
    )
    assert (
        "Workflow 'inner' was called in step 0 of workflow 'w'"
        in drive(outer_by_step).error.error_message
    )


# What can be defined --------------------------------------------------------------------------------------------


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class Callable_:  # noqa: N801 - the name is for this test
    def __call__(self) -> int:
        return 1


@pytest.mark.parametrize("decorate", [step, workflow, step(name="x"), workflow(name="x")])
@pytest.mark.parametrize(
    ("fn", "told"),
    [
        (generator, "generator"),
        (async_generator, "generator"),
        (Till, "class"),
        (Callable_(), "no function"),
        (functools.partial(abs, 1), "no function"),
        (5, "no function"),
        (charge, "step already|no function"),
    ],
)
def test_what_is_no_function_can_not_be_decorated(decorate: Any, fn: object, told: str) -> None:
    """Given a generator, a class or a thing, the decorator says what to do instead."""
    with pytest.raises(DefinitionError, match=told):
        decorate(fn)


def test_a_lambda_has_no_name_to_record() -> None:
    """Given a lambda with no name, decorators and run_step say so."""
    with pytest.raises(DefinitionError, match="lambda"):
        step(lambda: 1)
    with pytest.raises(DefinitionError, match="lambda"):
        workflow(lambda: 1)
    with pytest.raises(DefinitionError, match="name='what-it-does'"):
        run_step_sync(lambda: 1)
    assert step(name="one")(lambda: 1).name == "one"


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


def test_a_method_can_not_be_a_workflow() -> None:
    """Given a method, its instance could not be brought back."""
    with pytest.raises(DefinitionError, match="method"):

        class _Shop:  # pyright: ignore[reportUnusedClass]
            @workflow
            def sell(self) -> int:
                return 1


@pytest.mark.parametrize("name", ["", "x" * 201, "tab\t", "line\n", "bell\x07"])
def test_a_name_that_can_not_be_recorded_is_refused(name: str) -> None:
    """Given an empty, over-long or unprintable name, the error says what a name is."""
    with pytest.raises(DefinitionError, match="1 to 200 printable characters"):
        step(name=name)(plain)
    with pytest.raises(DefinitionError, match="1 to 200 printable characters"):
        workflow(name=name)(plain)
    with pytest.raises(DefinitionError, match="1 to 200 printable characters"):
        run_step_sync(plain, name=name)


def plain() -> int:
    """Says one."""
    return 1


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: step(timeout_s=0), "timeout_s=0"),
        (lambda: step(timeout_s=float("nan")), "timeout_s=nan"),
        (lambda: step(total_timeout_s=-1), "total_timeout_s=-1"),
        (lambda: STEP(on_exhausted="stop"), "on_exhausted='stop'"),
        (lambda: STEP(retry=3), "retry=3"),
    ],
)
def test_an_option_out_of_range_is_refused(make: Callable[[], object], told: str) -> None:
    """Given an impossible option, the error names it before any function is decorated."""
    with pytest.raises(DefinitionError, match=told):
        make()


def test_a_definition_keeps_what_the_function_says_of_itself() -> None:
    """Given a decorated function, its name, documentation and signature can still be read."""
    one, two = step(plain), workflow(plain)
    for made in (one, two):
        assert made.__doc__ == "Says one."
        assert getattr(made, "__name__", "") == "plain"
    assert isinstance(one, SyncStep)
    assert isinstance(charge, AsyncStep)
    assert two.name == "plain"
    assert two.source.endswith(f"test_definitions.py:{plain.__code__.co_firstlineno}")


def test_the_code_hash_changes_with_the_code() -> None:
    """Given two functions, their hashes differ; given the same source, with or without the file, it is stable."""

    def make(body: str) -> Workflow[..., Any]:
        space: dict[str, Any] = {}
        exec(f"def flow():\n    return {body}", space)  # a function without source
        made: Workflow[..., Any] = workflow(space["flow"])
        return made

    assert make("1 + a").code_hash == make("1 + a").code_hash
    assert make("1 + a").code_hash != make("1 - a").code_hash
    assert workflow(plain).code_hash == workflow(plain).code_hash
    assert len(workflow(plain).code_hash) == 16


# Annotations ----------------------------------------------------------------------------------------------------


def test_a_type_defined_after_the_function_is_found() -> None:
    """Given a forward reference, the annotation is evaluated at the first use."""

    @step
    def late() -> "Late":
        return Late(1)

    assert late.result_type.round_trip(late())[1] == Late(1)


@dataclass
class Late:
    number: int


def test_a_type_local_to_a_function_is_found() -> None:
    """Given string annotations of a class in the same function, the names are kept from where it was defined."""

    @dataclass
    class Local:
        number: int

    @step
    def makes() -> "list[Local]":
        return [Local(1)]

    @workflow
    def takes(local: "Local") -> "Local":
        return local

    assert makes.result_type.round_trip(makes())[1] == [Local(1)]
    assert takes.input_type.decode(takes.input_type.encode((Local(2),), {})) == ((Local(2),), {})
    assert takes.result_type.round_trip(Local(3))[1] == Local(3)


def test_only_the_result_of_a_step_needs_a_type_at_run_time() -> None:
    """Given a parameter whose type is for the checker only, the step works."""

    @step
    def keyed(key: "Hashable") -> int:
        return hash(key)

    keyed.result_type.check()


def test_an_annotation_that_can_not_be_evaluated_names_the_function() -> None:
    """Given a name that is nowhere, the error names function and annotation, and comes at each use."""

    @workflow
    def lost(key: "Hashable") -> "Nowhere":  # noqa: F821
        return key

    for _ in range(2):
        with pytest.raises(DefinitionError, match=r"'Hashable' of 'key' in .*lost"):
            lost.check()
        with pytest.raises(DefinitionError, match=r"'Nowhere' of 'return' in .*lost"):
            lost.result_type.encode(1)


# Catalogue ------------------------------------------------------------------------------------------------------


def two_named_alike() -> tuple[Workflow[..., Any], Workflow[..., Any]]:
    def first() -> int:
        return 1

    def second() -> int:
        return 2

    return workflow(name="alike")(first), workflow(name="alike")(second)


def test_two_workflows_with_one_name_are_refused_in_a_list() -> None:
    """Given a list with one name twice, the error tells both places."""
    first, second = two_named_alike()
    with pytest.raises(DefinitionError) as caught:
        Catalogue.of([first, second])
    assert first.source in str(caught.value)
    assert second.source in str(caught.value)
    catalogue = Catalogue.of([first])
    with pytest.raises(DefinitionError, match="'alike'"):
        catalogue.add(second)
    assert catalogue["alike"] is first


def test_two_declared_workflows_with_one_name_matter_when_the_name_is_looked_up() -> None:
    """Given two modules that never meet, their equal names do not stop an engine that uses neither."""
    first, _ = two_named_alike()
    mine = workflow(name="mine-alone")(plain)
    catalogue = Catalogue.declared()
    assert catalogue["mine-alone"] is mine
    assert "alike" in catalogue
    with pytest.raises(DefinitionError, match="'alike' means several workflows"):
        catalogue.get("alike")
    with pytest.raises(DefinitionError, match="'alike'"):
        catalogue.add(first)
    assert catalogue.get("nowhere") is None


def test_a_redefinition_replaces_what_it_redefines() -> None:
    """Given a cell that is run twice in a notebook, the later definition counts."""

    def define() -> Workflow[..., Any]:
        @workflow(name="cell")
        def cell() -> int:
            return 1

        return cell

    define()
    later = define()
    assert Catalogue.declared()["cell"] is later
    catalogue = Catalogue.of([define()])
    catalogue.add(later)
    assert catalogue["cell"] is later


def test_a_catalogue_is_its_engines_own() -> None:
    """Given two catalogues, what is added to one is not in the other."""
    one, other = Catalogue(), Catalogue()
    one.add(workflow(name="only-in-one")(plain))
    assert list(one) == ["only-in-one"]
    assert (len(one), len(other)) == (1, 0)


def test_an_input_is_checked_when_it_is_bound() -> None:
    """Given a wrong argument, nothing is made that could be started."""

    @workflow
    async def takes(money: Money, *, note: str = "") -> Money:
        return money

    bound = takes.bind(Money(1), note="n")
    assert bound.payload == '{"money":{"cents":1},"note":"n"}'
    assert bound.workflow is takes
    untyped: Any = takes
    with pytest.raises(PayloadError, match="argument"):
        untyped.bind("five")

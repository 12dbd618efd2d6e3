"""Numbers that are never used twice, continuing as new, and changes of code under runs that are open."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from refold.engine.definitions import Workflow, step, workflow
from refold.engine.messages import publish, receive, receive_sync
from refold.engine.operations import Continued, Diverged, Emitted, Numbering, RunFacts
from refold.engine.scope import StepContext, enter, now, random
from refold.engine.sync_run import SyncRun
from refold.engine.tags import RunInfo, set_attributes, workflow_info
from refold.engine.thread_slots import ThreadSlots
from refold.engine.versions import continue_as_new, patched
from refold.log.errors import UsageError
from run_driver import SECOND_US, START_US, Driver, completed, make_run


@step
async def work(name: str) -> str:
    raise AssertionError("a run never carries out a step by itself")


@step
def work_plainly(name: str) -> str:
    raise AssertionError("a run never carries out a step by itself")


@pytest.fixture
def slots() -> Iterator[ThreadSlots]:
    slots = ThreadSlots(2)
    yield slots
    slots.close()


def both(*pair: Workflow[..., Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("definition", pair, ids=["async def", "def"])


FACTS = RunFacts("wf-1", "w", 1, START_US)


# Numbering ------------------------------------------------------------------------------------------------


@workflow
async def four() -> list[str]:
    return [await work(name) for name in "abcd"]


@workflow
def four_sync() -> list[str]:
    return [work_plainly(name) for name in "abcd"]


@pytest.mark.parametrize(
    ("numbering", "numbers"),
    [
        (Numbering(), [0, 1, 2, 3]),
        (Numbering(base=7), [7, 8, 9, 10]),
        (Numbering(jumps=((2, 5),)), [0, 1, 5, 6]),
        (Numbering(base=3, jumps=((3, 5), (6, 9))), [5, 9, 10, 11]),
        (Numbering(jumps=((2, 5), (5, 8), (9, 12))), [0, 1, 8, 12]),
        (Numbering(jumps=((3, 7), (1, 9))), [0, 9, 10, 11]),
    ],
)
@both(four, four_sync)
def test_numbers_begin_and_jump_where_they_are_told(
    definition: Workflow[..., Any], numbering: Numbering, numbers: list[int]
) -> None:
    """Given a numbering, operations get its numbers, and the next one is always known."""
    driver = Driver.begin(definition, facts=replace(FACTS, numbering=numbering))
    for number in numbers:
        assert driver.open == [number]
        driver.complete(number, "x")

    assert sorted(driver.asked) == numbers
    assert driver.run.next_step == numbers[-1] + 1
    driver.check_replays()


def test_what_was_rewound_is_void() -> None:
    """Given outcomes of numbers that a jump left out, or of before the base, they are no reason to diverge."""
    numbering = Numbering(base=3, jumps=((4, 9),))
    driver = Driver.begin(four, facts=replace(FACTS, numbering=numbering))
    for void in (0, 4, 8):
        driver.tell(completed(void, "gone", "1", START_US + 1))

    assert (driver.open, driver.ending) == ([3], None)
    driver.check_replays()


def test_a_run_that_continued_draws_other_numbers() -> None:
    """Given runs of one id with other bases, their random numbers differ; with the same one they agree."""

    @workflow
    async def draws() -> float:
        return random().random()

    drawn = [
        Driver.begin(draws, facts=replace(FACTS, numbering=Numbering(base=base))).result()
        for base in (0, 0, 4, 4, 9)
    ]

    assert drawn[0] == drawn[1]
    assert drawn[2] == drawn[3]
    assert len(set(drawn)) == 3


# Continuing as new ----------------------------------------------------------------------------------------


@workflow
async def endless(count: int, note: str = "") -> None:
    await work("a")
    publish("count", count)
    continue_as_new(count + 1, note="again")


@workflow
def endless_sync(count: int, note: str = "") -> None:
    work_plainly("a")
    publish("count", count)
    continue_as_new(count + 1, note="again")


@both(endless, endless_sync)
def test_a_run_continues_as_new_with_its_new_input(definition: Workflow[..., Any]) -> None:
    """Given code that asks to begin afresh, the run ends with the new input and what was not received, in order."""
    driver = Driver.begin(definition, 1)
    driver.message("b", "1")
    driver.question("a", "2")
    driver.message("a", "3")
    driver.complete(0, "x")

    assert driver.ending == Continued('{"count":2,"note":"again"}', (1, 2, 3))
    assert [o.step for o in driver.history if isinstance(o, Emitted)] == [1]
    driver.check_replays()


@workflow
async def takes_one() -> None:
    await receive("a")
    continue_as_new()


@workflow
def takes_one_sync() -> None:
    receive_sync("a")
    continue_as_new()


@both(takes_one, takes_one_sync)
def test_what_was_received_is_not_kept(definition: Workflow[..., Any]) -> None:
    """Given messages of which the code took the first, only the others go on; also those that come after."""
    driver = Driver.begin(definition)
    driver.message("b", "0")
    driver.message("a", "1")
    ended = driver.ending
    driver.message("a", "2")

    assert ended == Continued("{}", (1,))
    assert driver.ending == Continued("{}", (1, 3))


@pytest.mark.parametrize(
    "act",
    [lambda: continue_as_new("x"), continue_as_new, lambda: continue_as_new(1, 2, 3)],
)
def test_an_input_that_does_not_fit_is_told_and_the_run_goes_on(act: Callable[[], object]) -> None:
    """Given arguments that do not fit, the code gets an error that it can handle."""

    @workflow
    async def picky(count: int) -> str:
        try:
            act()
        except Exception as error:  # noqa: BLE001 - told to the test
            return type(error).__name__
        return ""

    assert json.loads(Driver.begin(picky, 1).result()) == "PayloadError"


def test_a_task_that_is_awaited_may_continue_as_new() -> None:
    """Given a helper task that asks for it and is awaited, the run continues."""

    @workflow
    async def indirect() -> None:
        async def helper() -> None:
            await work("a")
            continue_as_new()

        await asyncio.create_task(helper())

    driver = Driver.begin(indirect)
    driver.complete(0, "x")

    assert driver.ending == Continued("{}", ())


# Patches --------------------------------------------------------------------------------------------------


@workflow
async def changed() -> str:
    await work("a")
    new = patched("better")
    await work("new" if new else "old")
    return f"{new} {patched('better')}"


@workflow
def changed_sync() -> str:
    work_plainly("a")
    new = patched("better")
    work_plainly("new" if new else "old")
    return f"{new} {patched('better')}"


@both(changed, changed_sync)
def test_a_new_run_takes_the_new_path_and_says_so(definition: Workflow[..., Any]) -> None:
    """Given a run that comes to the change live, it is True, told once, and takes no number."""
    driver = Driver.begin(definition)
    assert driver.run.take_patches() == []
    driver.complete(0, "x")

    assert driver.run.take_patches() == ["better"]
    assert driver.run.take_patches() == []
    assert driver.step_with("new") == 1
    driver.complete(1, "x")
    assert json.loads(driver.result()) == "True True"
    assert driver.run.take_patches() == []


@both(changed, changed_sync)
def test_a_run_that_was_past_the_change_stays_on_the_old_path(
    definition: Workflow[..., Any],
) -> None:
    """Given a history from before the change, its replay answers False, and goes on answering that."""
    run = make_run(definition)
    history = [completed(0, run_name(definition), '"x"', START_US + 1)]
    run.replay(history)

    assert run.take_patches() == []
    run.deliver(completed(1, run_name(definition), '"x"', START_US + 2))
    assert run.ending is not None
    assert '"False False"' in str(run.ending)


@both(changed, changed_sync)
def test_a_recorded_patch_is_true_on_replay(definition: Workflow[..., Any]) -> None:
    """Given a run that took the new path and said so, its replay takes it too, and does not say it again."""
    run = make_run(definition, facts=replace(FACTS, patches=frozenset({"better"})))
    run.replay([completed(0, run_name(definition), '"x"', START_US + 1)])

    assert run.take_patches() == []
    [request] = run.take()
    assert request.step == 1
    run.deliver(completed(1, run_name(definition), '"x"', START_US + 2))
    assert '"True True"' in str(run.ending)


@both(changed, changed_sync)
def test_a_run_that_had_not_come_to_the_change_takes_the_new_path(
    definition: Workflow[..., Any],
) -> None:
    """Given a replay that ends before the change, the run comes to it live."""
    run = make_run(definition)
    run.replay([])
    run.deliver(completed(0, run_name(definition), '"x"', START_US + 1))

    assert run.take_patches() == ["better"]
    run.close()


def test_a_suspended_run_keeps_its_answer(slots: ThreadSlots) -> None:
    """Given a `def` workflow that was put away on the new path, it begins again on it and says it once."""
    driver = Driver.begin(changed_sync, slots=slots)
    driver.complete(0, "x")
    assert driver.run.take_patches() == ["better"]
    assert isinstance(driver.run, SyncRun)
    driver.run.suspend()
    driver.complete(1, "x")

    assert json.loads(driver.result()) == "True True"
    assert driver.run.take_patches() == []


def run_name(definition: Workflow[..., Any]) -> str:
    return "work" if definition.is_async else "work_plainly"


# What a run knows of itself -------------------------------------------------------------------------------


def test_a_run_knows_its_facts() -> None:
    """Given a run with a parent, a deadline and tags, its code sees them, and how long its history is."""
    told: list[RunInfo] = []

    @workflow
    async def curious() -> None:
        await work("a")
        set_attributes({"size": 3, "kind": "gift"})
        await work("b")
        told.append(workflow_info())
        told.append(workflow_info())

    known = replace(
        FACTS,
        version=4,
        attributes={"size": "1", "old": "true"},
        deadline=START_US + SECOND_US,
        parent_id="p",
    )
    driver = Driver.begin(curious, facts=known)
    driver.complete(0, "x")
    driver.message("a", "1")
    driver.complete(2, "x")

    first, second = told
    assert first == second
    assert (first.id, first.workflow, first.version, first.parent_id) == ("wf-1", "w", 4, "p")
    assert first.started_at.isoformat() == "2026-01-01T00:00:00+00:00"
    assert first.deadline is not None
    assert first.deadline.isoformat() == "2026-01-01T00:00:01+00:00"
    assert first.attributes == {"size": 3, "kind": "gift", "old": True}
    assert (first.history_length, first.continue_suggested) == (4, False)
    told.clear()
    driver.check_replays()
    assert told == [first] * len(told), "the same at every replay"


def test_a_long_history_suggests_to_continue() -> None:
    """Given 10,000 outcomes, the run is told that it should continue as new, and not one before."""

    @workflow
    async def busy() -> None:
        while not workflow_info().continue_suggested:
            await receive("tick")
        continue_as_new()

    driver = Driver.begin(busy)
    driver.message("tick", "1")
    tick = driver.history[0]
    driver.run.deliver_all([tick] * 9_998)
    assert driver.ending is None
    driver.run.deliver(tick)
    assert isinstance(driver.ending, Continued)


def test_tags_are_set_by_an_emission() -> None:
    """Given tags, they are recorded as the log writes them; none is no operation; too many are refused."""

    @workflow
    async def tagging() -> str:
        set_attributes({})
        set_attributes({"size": 3})
        try:
            set_attributes({f"t{n}": n for n in range(64)})
        except Exception as error:  # noqa: BLE001 - told to the test
            return str(error)
        return ""

    driver = Driver.begin(tagging)

    assert "more than 64 attributes" in driver.result()
    assert driver.asked[0][:1] == ("attributes",)
    assert "{'size': '3'}" in driver.asked[0]
    assert len(driver.asked) == 1
    driver.check_replays()


def test_another_emission_than_the_recorded_one_diverges() -> None:
    """Given a history in which a value was published, code that sets tags there diverges."""

    @workflow
    async def tagging() -> None:
        set_attributes({"size": 3})
        await work("a")

    driver = Driver(lambda: make_run(tagging))
    driver.run.start()
    driver.run.deliver(Emitted(0, "value.published", "status", 5))

    ending = driver.ending
    assert isinstance(ending, Diverged)
    assert (ending.expected, ending.found, ending.position) == (
        "published value 'status'",
        "setting of 'attributes'",
        5,
    )


def test_an_emission_that_the_code_does_not_make_any_more_diverges() -> None:
    """Given a recorded emission where the code runs a step, the run diverges."""
    run = make_run(four)
    run.start()
    run.deliver(Emitted(0, "value.published", "status", 5))

    assert isinstance(run.ending, Diverged)
    assert run.ending.found == "step 'work'"


CALLS: list[Callable[[], object]] = [
    lambda: patched("a"),
    continue_as_new,
    lambda: set_attributes({"a": 1}),
    workflow_info,
    now,
]


@pytest.mark.parametrize("act", CALLS)
def test_only_workflow_code_has_a_run(act: Callable[[], object]) -> None:
    """Given a step or plain code, each call is refused with what to do instead."""
    context = StepContext(namespace="n", workflow_id="w", step=3, attempt=1)

    with pytest.raises(UsageError, match="outside a workflow; "):
        act()
    with enter(context), pytest.raises(UsageError, match="in step 3 of workflow 'w'"):
        act()


@pytest.mark.parametrize("name", ["", "x" * 256, "\n"])
def test_a_change_needs_a_name(name: str) -> None:
    """Given a name that can't be recorded, the call is refused."""

    @workflow
    async def careless() -> None:
        patched(name)

    assert "name" in Driver.begin(careless).error().error_message

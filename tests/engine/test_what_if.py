"""What a run would have done, had something else come of its steps; and that finding out has no effect."""

import asyncio
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel

from engine_trial import engine_on, records, until
from log_backend import LogBackend, MemoryBackend
from refold import (
    Workflow,
    patched,
    publish,
    receive,
    receive_sync,
    run_child,
    send,
    sleep,
    step,
    what_if,
    workflow,
)
from refold.engine.supposed import MAX_BEYOND, Came
from refold.engine.what_if import Course
from refold.log.errors import PayloadError, UsageError, WorkflowNotFound

done: list[str] = []


class Quote(BaseModel):
    price: int
    until: date


class OutOfStock(Exception):
    """An error of the user's own."""


@step
async def quote(item: str) -> Quote:
    done.append("quote")
    return Quote(price=10 * len(item), until=date(2030, 1, 1))


@step
def stock(item: str, warehouse: str = "north") -> int:
    done.append("stock")
    return 3


@step
async def charge(amount: int) -> str:
    done.append("charge")
    return f"paid {amount}"


@step
async def apologise(item: str) -> bool:
    done.append("apologise")
    return True


@workflow
async def buy(item: str) -> str:
    """Branches on what its steps return."""
    offer, left = await asyncio.gather(quote(item), stock.aio(item))
    if left == 0:
        return f"sorry: {await apologise(item)}"
    if offer.price > 100:
        word = await receive("approval", str)
        return f"{word}: {await charge(offer.price)}"
    try:
        return await charge(offer.price)
    except OutOfStock as error:
        return f"failed: {error}"


@workflow
def buy_sync(item: str) -> str:
    """The same as a plain `def`."""
    offer = quote.sync(item)
    left = stock(item)
    if left == 0:
        return f"sorry: {apologise.sync(item)}"
    if offer.price > 100:
        word = receive_sync("approval", str)
        return f"{word}: {charge.sync(offer.price)}"
    try:
        return charge.sync(offer.price)
    except OutOfStock as error:
        return f"failed: {error}"


ALL = [buy, buy_sync]


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


@pytest.fixture
def backend() -> LogBackend:
    return MemoryBackend()


def came(course: Course) -> list[tuple[str, Came]]:
    return [(operation.name, operation.came) for operation in course.operations]


def run_to_its_end(backend: LogBackend, code: Workflow[..., Any], *args: object) -> None:
    with engine_on(backend, code) as engine:
        engine.start(code.bind(*args), id="run").result(60)
    done.clear()


@pytest.mark.parametrize("code", ALL, ids=["async def", "def"])
def test_a_value_takes_the_code_down_another_path(
    backend: LogBackend, code: Workflow[..., Any]
) -> None:
    """Given another value, the code goes another way: what it would carry out is told with its arguments."""
    run_to_its_end(backend, code, "pen")
    before = records(backend)

    found = what_if(backend.log(), "run", {"stock": 0}, workflows=[code])

    assert found.recorded.result == '"paid 30"'
    assert came(found.recorded) == [(n, Came.RECORDED) for n in ("quote", "stock", "charge")]
    assert came(found.supposed) == [
        ("quote", Came.RECORDED),
        ("stock", Came.SUPPOSED),
        ("apologise", Came.OPEN),
    ]
    assert found.supposed.operations[2].call == "apologise('pen')"
    assert (found.supposed.result, found.supposed.ending) == (None, "waits")
    assert done == []
    assert records(backend) == before


@pytest.mark.parametrize("code", ALL, ids=["async def", "def"])
def test_stubs_stand_for_what_comes_after_the_history(
    backend: LogBackend, code: Workflow[..., Any]
) -> None:
    """Given a value or a function in place of a step, the run goes on to its end."""
    run_to_its_end(backend, code, "pen")

    def apologises(item: str) -> bool:
        return item != "pen"

    for stub in (False, apologises):
        found = what_if(backend.log(), "run", {1: 0}, stubs={"apologise": stub}, workflows=[code])
        assert found.supposed.result == '"sorry: False"'
        assert came(found.supposed)[2] == ("apologise", Came.STUBBED)
    assert done == []


@pytest.mark.parametrize("code", ALL, ids=["async def", "def"])
def test_an_error_is_raised_in_place_of_a_value(
    backend: LogBackend, code: Workflow[..., Any]
) -> None:
    """Given an error, the code catches it as what it is; an error of a stub's own is the step's."""
    run_to_its_end(backend, code, "pen")
    found = what_if(backend.log(), "run", {"charge": OutOfStock("pen")}, workflows=[code])
    assert found.supposed.result == '"failed: pen"'
    assert found.supposed.operations[2].error == "OutOfStock: pen"
    found = what_if(backend.log(), "run", {"quote": ConnectionError("away")}, workflows=[code])
    assert found.supposed.error == "ConnectionError: away"

    def refuses(item: str) -> bool:
        raise OutOfStock(f"no {item}")

    found = what_if(backend.log(), "run", {1: 0}, stubs={"apologise": refuses}, workflows=[code])
    assert found.supposed.error == "OutOfStock: no pen"


def test_what_does_not_fit_is_refused(backend: LogBackend) -> None:
    """Given a value of another type, an operation or run that is not there, or other code, one clear error says so."""
    run_to_its_end(backend, buy, "pen")

    def ask(outcomes: dict[str | int, object], **stubs: object) -> None:
        what_if(backend.log(), "run", outcomes, stubs=stubs, workflows=[buy])

    with pytest.raises(PayloadError, match=r"'3' can't be what step 'stock' returned: .* integer"):
        ask({"stock": "3"})
    with pytest.raises(PayloadError, match="can't be what step 'apologise' returned"):
        ask({"stock": 0}, apologise=None)
    with pytest.raises(
        UsageError, match=r"no step or child reserve: it has quote#0, stock#1, charge#2"
    ):
        ask({"reserve": 1})
    with pytest.raises(UsageError, match="no step or child charge#1"):
        ask({"charge#1": 1})
    with pytest.raises(UsageError, match="was given twice"):
        ask({"stock": 1, 1: 2})
    with pytest.raises(WorkflowNotFound, match="no workflow has the id 'other'"):
        what_if(backend.log(), "other", workflows=[buy])

    @workflow(name="buy")
    async def other(item: str) -> str:
        return f"{await stock.aio(item)}"

    with pytest.raises(UsageError, match="the code that is here is not that of workflow 'run'"):
        what_if(backend.log(), "run", workflows=[other])
    assert done == []


def test_an_open_run_is_supposed_to_go_on(backend: LogBackend) -> None:
    """Given a run that waits for a message, both courses wait for it, unless a step turns it away from that."""
    with engine_on(backend, buy) as engine:
        engine.start(buy, "a long name", id="run")
        until(lambda: engine.status("run").events == 3)
    found = what_if(backend.log(), "run", workflows=[buy])
    assert found.recorded == found.supposed
    assert found.recorded.ending == "waits for a message, or for the end of a child"
    cheap = Quote(price=1, until=date(2030, 1, 1))
    found = what_if(
        backend.log(), "run", {"quote": cheap}, stubs={"charge": "paid"}, workflows=[buy]
    )
    assert found.supposed.result == '"paid"'


@step
async def poll(job: str) -> bool:
    done.append("poll")
    return True


@workflow
async def watch(job: str) -> int:
    """Asks until it hears yes, and rests between."""
    asked = 1
    while not await poll(job):
        asked += 1
        await sleep(3600)
    publish("asked", asked)
    return asked


def test_timers_beyond_the_history_fire_and_code_that_never_ends_is_stopped(
    backend: LogBackend,
) -> None:
    """Given a stub that says no for ever, the run is stopped after a while; one that says yes in time ends it."""
    run_to_its_end(backend, watch, "job")
    answers = iter([False, False, True])

    def answer(_job: str) -> bool:
        return next(answers)

    found = what_if(
        backend.log(),
        "run",
        {"poll": False},
        stubs={"poll": answer},
        workflows=[watch],
    )
    assert found.supposed.result == "4"
    assert came(found.supposed)[:3] == [
        ("poll", Came.SUPPOSED),
        ("sleep", Came.ASSUMED),
        ("poll", Came.STUBBED),
    ]
    found = what_if(backend.log(), "run", {"poll": False}, stubs={"poll": False}, workflows=[watch])
    assert found.supposed.ending.startswith("goes on")
    assert len(found.supposed.operations) <= MAX_BEYOND + 3


@workflow
async def part(size: int) -> int:
    return await stock.aio("part") + size


@workflow
async def whole(size: int) -> int:
    """Has a child, tells somebody, and waits for the child."""
    result = await run_child(part, size, id="the-part")
    await send("somebody", "size", result)
    return result if result < 10 else await run_child(part, result, id="another")


def test_children_can_be_supposed_to_end_otherwise(backend: LogBackend) -> None:
    """Given another result of a child, the parent goes on with it; a child beyond the history is shown, or stubbed."""
    with engine_on(backend, whole, part, buy) as engine:
        engine.start(buy, "a long name", id="somebody")
        assert engine.start(whole, 1, id="run").result(60) == 4
    code = [whole, part]
    assert what_if(backend.log(), "run", {"part": 7}, workflows=code).supposed.result == "7"
    found = what_if(backend.log(), "run", {"part": 70}, workflows=code)
    assert found.supposed.ending == "waits for a message, or for the end of a child"
    assert "start of child 'part' to 'another'" in found.supposed.operations[-1].call
    found = what_if(backend.log(), "run", {"part": 70}, stubs={"part": 71}, workflows=code)
    assert found.supposed.result == "71"
    found = what_if(backend.log(), "run", {"part": OutOfStock("none")}, workflows=code)
    assert found.supposed.error == "OutOfStock: none"
    with pytest.raises(PayloadError, match="does not fit"):
        what_if(backend.log(), "run", {"part": "many"}, workflows=code)


def test_the_patched_path_is_the_recorded_one(backend: LogBackend) -> None:
    """Given a run from before a change, it stays on the old path as far as its history goes."""

    def code(*, new: bool) -> Workflow[[str], str]:
        @workflow(name="changing")
        async def changing(item: str) -> str:
            if new and patched("greet"):
                await apologise(item)
            return f"{await stock.aio(item)} {await charge(1)}"

        return changing

    run_to_its_end(backend, code(new=False), "pen")
    found = what_if(backend.log(), "run", {"charge": "free"}, workflows=[code(new=True)])
    assert found.supposed.result == '"3 free"'


def test_an_operation_keeps_its_outcome_when_those_before_it_change(backend: LogBackend) -> None:
    """Given steps that are left out or added, later ones of the same name keep what is recorded of them."""

    @workflow
    async def loop(items: list[str]) -> list[int]:
        counts: list[int] = []
        for item in items:
            counts.append(await stock.aio(item))
            if counts[-1] > 3:
                await apologise(item)
        await charge(sum(counts))
        return counts

    run_to_its_end(backend, loop, ["a", "b"])
    with pytest.raises(
        UsageError, match="has 2 operations stock, name one of them: it has stock#0"
    ):
        what_if(backend.log(), "run", {"stock": 4}, workflows=[loop])
    found = what_if(
        backend.log(), "run", {"stock#0": 4}, stubs={"apologise": True}, workflows=[loop]
    )
    assert found.supposed.result == "[4,3]"
    assert came(found.supposed) == [
        ("stock", Came.SUPPOSED),
        ("apologise", Came.STUBBED),
        ("stock", Came.RECORDED),
        ("charge", Came.RECORDED),
    ]
    assert found.recorded.operations[2].call == "charge(6)"
    assert found.supposed.operations[3].call == "charge(7)"

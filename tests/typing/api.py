"""What type checkers see of the decorators, the engine and its handles. Never run: mypy and pyright read it."""

from collections.abc import AsyncGenerator, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from refold import (
    BulkResult,
    Engine,
    Handle,
    Logged,
    Metric,
    MetricContext,
    QueueInfo,
    ReadModel,
    RunFilter,
    RunRow,
    Runs,
    Schedule,
    ScheduleInfo,
    Status,
    WhatIf,
    WorkflowInfo,
    metric,
    read_metrics,
    tail,
    tail_sync,
    what_if,
    what_if_async,
)
from refold.engine.bound import Bound
from refold.engine.definitions import (
    AsyncStep,
    AsyncWorkflow,
    SyncStep,
    SyncWorkflow,
    run_step,
    run_step_sync,
    step,
    workflow,
)
from refold.engine.retry import Retry
from refold.log.events import Event, StepCompleted, Unreadable
from refold.projections.metric_fold import Cells


@dataclass
class Order:
    amount: int


@dataclass
class Receipt:
    text: str


@step
async def charge(order: Order, note: str = "") -> Receipt:
    return Receipt(f"{order.amount}{note}")


@step(name="write", retry=Retry(attempts=5, on=(OSError,)), timeout_s=20, on_exhausted="park")
def write(path: str, *, mode: int = 0) -> int:
    return len(path) + mode


@step(timeout_s=1)
async def refund(order: Order) -> bool:
    return order.amount > 0


@step(pool="gpu")
def render(order: Order) -> Receipt:
    return Receipt(str(order.amount))


class Shop:
    @step
    async def pack(self, order: Order) -> Receipt:
        return Receipt(str(order.amount))

    @step(timeout_s=3.5)
    def label(self, size: int) -> str:
        return "x" * size

    @staticmethod
    @step
    def weigh(order: Order) -> float:
        return float(order.amount)


shop = Shop()


async def steps_in_async_code() -> None:
    assert_type(await charge(Order(1)), Receipt)
    assert_type(await charge(Order(1), note="n"), Receipt)
    assert_type(await refund(Order(1)), bool)
    assert_type(await write.aio("p", mode=1), int)
    assert_type(await render.aio(Order(1)), Receipt)
    assert_type(await shop.pack(Order(1)), Receipt)
    assert_type(await shop.label.aio(size=3), str)
    await charge("no order")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await write.aio()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    made: Coroutine[Any, Any, Receipt] = charge(Order(1))
    assert_type(await made, Receipt)


def steps_in_blocking_code() -> None:
    assert_type(charge.sync(Order(1), "n"), Receipt)
    assert_type(write("p"), int)
    assert_type(write("p", mode=1), int)
    assert_type(shop.pack.sync(Order(1)), Receipt)
    assert_type(shop.label(3), str)
    assert_type(Shop.label(shop, 3), str)
    assert_type(Shop.weigh(Order(1)), float)
    _ = charge.sync()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    write("p", 1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    write.sync("p")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    shop.label("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def area(width: int, height: float) -> float:
    return width * height


def greet(name: str, greeting: str = "hello") -> str:
    return f"{greeting} {name}"


async def fetch(url: str) -> bytes:
    return url.encode()


async def in_async_code() -> None:
    assert_type(await run_step(area, 1, 2.0), float)
    assert_type(await run_step(greet, "x"), str)
    assert_type(await run_step(fetch, "http://x", name="fetch", retry=Retry()), bytes)
    assert_type(await run_step(lambda: 5, name="five"), int)
    assert_type(await run_step(lambda: fetch("u"), name="fetch"), bytes)
    assert_type(await run_step(shop.label, 3), str)
    await run_step(area, "x", 2.0)  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue, reportArgumentType]


def in_blocking_code() -> None:
    assert_type(run_step_sync(area, 1, 2.0, timeout_s=1), float)
    assert_type(run_step_sync(fetch, "u"), bytes)
    assert_type(run_step_sync(lambda: "s", name="s"), str)


@workflow
async def checkout(order: Order, *, gift: bool = False) -> Receipt:
    return await charge(order, note=str(gift))


@workflow(name="nightly")
def nightly(day: str) -> int:
    return write(day)


async def workflows_called_plainly() -> None:
    assert_type(await checkout(Order(1)), Receipt)
    assert_type(nightly("2026-01-01"), int)


def workflows_with_input() -> None:
    assert_type(checkout.bind(Order(1), gift=True), Bound[Receipt])
    assert_type(nightly.bind("2026-01-01"), Bound[int])
    checkout.bind("no order")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def generics(
    one: AsyncStep[[str], int],
    two: SyncStep[[int, str], bytes],
    three: AsyncWorkflow[[str], int],
    four: SyncWorkflow[[], int],
) -> None:
    assert_type(one.sync("x"), int)
    assert_type(two(1, "x"), bytes)
    assert_type(three.bind("x"), Bound[int])
    assert_type(four(), int)


def runs_are_started(engine: Engine) -> None:
    handle = engine.start(checkout, Order(1), id="o", deadline=timedelta(days=1))
    assert_type(handle, Handle[Receipt])
    assert_type(handle.result(timeout_s=1), Receipt)
    assert_type(engine.start(nightly, "2026-01-01", version=1, confirm=False), Handle[int])
    assert_type(engine.start(nightly, "2026-01-01", queue="night"), Handle[int])
    assert_type(engine.set_queue("night", concurrency=2, reason="quiet"), None)
    assert_type(engine.queue("night"), QueueInfo)
    assert_type(engine.queue("night").concurrency, int | None)
    engine.set_queue("night", 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(
        engine.start(
            checkout.bind(Order(1), gift=True),
            attributes={"plan": "gold", "seats": 3, "at": datetime.now(UTC)},
            message=("go", Order(2)),
        ),
        Handle[Receipt],
    )
    assert_type(engine.handle("o"), Handle[Any])
    assert_type(engine.handle("o", checkout), Handle[Receipt])
    engine.start(nightly, 1)  # type: ignore[misc]  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.start(nightly, "x", deadline="soon")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.start(nightly, "x", on="x")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


async def workflows_are_scheduled(engine: Engine) -> None:
    schedule = engine.schedule("n", nightly, "2026-01-01", cron="0 3 * * *", timezone="Europe/Oslo")
    assert_type(schedule, Schedule)
    bound = checkout.bind(Order(1), gift=True)
    every = timedelta(hours=1)
    assert_type(await engine.schedule_async("c", bound, every=every, overlap="skip"), Schedule)
    assert_type(schedule.info(), ScheduleInfo)
    assert_type(engine.schedules(), Sequence[ScheduleInfo])
    assert_type(schedule.trigger(reason="now"), Handle[Any])
    assert_type(await schedule.pause_async(), None)
    engine.schedule("n", nightly, 1, cron="0 3 * * *")  # type: ignore[misc]  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.schedule("n", nightly, "x", cron=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    engine.schedule("n", nightly, "x", overlap="queue")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


async def runs_are_started_in_async_code(engine: Engine) -> None:
    handle = await engine.start_async(checkout, Order(1), id="o", version=2)
    assert_type(handle, Handle[Receipt])
    assert_type(await handle, Receipt)
    assert_type(await handle.fork_async(2, version=3), Handle[Receipt])


def runs_are_talked_to(handle: Handle[Receipt]) -> None:
    handle.send("go", Order(1), message_id="m")
    assert_type(handle.ask("add", 1), Any)
    assert_type(handle.ask("add", 1, int, timeout_s=1), int)
    assert_type(handle.value("order", Order), Order)
    assert_type(handle.value("orders", list[Order]), list[Order])
    assert_type(handle.value("order"), Any)
    assert_type(handle.stream("tokens", str, start=3), Generator[str, None, None])
    assert_type(handle.stream("tokens"), Generator[Any, None, None])
    assert_type(handle.fork(), Handle[Receipt])
    handle.ask("add", 1, int, 5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    handle.rewind("2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def runs_are_talked_to_in_async_code(handle: Handle[Receipt]) -> None:
    await handle.send_async("go", Order(1))
    assert_type(await handle.ask_async("add", 1, int), int)
    assert_type(await handle.value_async("order", Order), Order)
    assert_type(handle.stream_async("tokens", str), AsyncGenerator[str, None])
    async for token in handle.stream_async("tokens", str):
        assert_type(token, str)


def many_runs(engine: Engine) -> None:
    where = Runs(status=[Status.FAILED], attributes={"plan": "gold"})
    assert_type(engine.list(where), Sequence[WorkflowInfo])
    assert_type(engine.resume_all(where, dry_run=True), Sequence[BulkResult])
    assert_type(engine.fork_all(where, 2, version=3), Sequence[BulkResult])
    engine.cancel_all()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Runs(status="failed")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def runs_are_read_from_the_read_model(runs: ReadModel) -> None:
    where = RunFilter(status={"failed"}, attributes={"plan": "gold"})
    assert_type(runs.list(where, order="ended").runs, Sequence[RunRow])
    assert_type((await runs.list_async(where)).next, str | None)
    assert_type(await runs.group_async("parent"), Mapping[str, int])
    runs.list(order="colour")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@metric(unit="tokens", by=("step",), kinds="step.completed", aggregate="sum")
def tokens(event: StepCompleted, context: MetricContext) -> int | None:
    return context.value["tokens"] if event.name == "ask" else None


async def history_is_read() -> None:
    assert_type(tokens, Metric)
    assert_type(await read_metrics("sqlite:///o.db", [tokens], every=timedelta(days=1)), Cells)
    async for logged in tail("sqlite:///o.db", since="start", follow=False, kind="step"):
        assert_type(logged, Logged)
        assert_type(logged.event, Event | Unreadable)
    with tail_sync("sqlite:///o.db", attributes={"plan": "gold"}) as events:
        for logged in events:
            assert_type(logged, Logged)
    metric(aggregate="mean")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tail("sqlite:///o.db", since=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def runs_are_supposed_to_have_gone_otherwise() -> None:
    supposed = what_if("sqlite:///o.db", "o", {"charge": ValueError("no"), 3: Receipt("r")})
    assert_type(supposed, WhatIf)
    assert_type(await what_if_async("sqlite:///o.db", "o", stubs={"charge": Receipt("r")}), WhatIf)
    what_if("sqlite:///o.db", "o", [1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

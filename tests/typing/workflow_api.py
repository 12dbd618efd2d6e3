"""What type checkers see of the calls within workflow code. Never run: mypy and pyright read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from refold.engine.children import (
    Child,
    cancel_workflow,
    cancel_workflow_sync,
    run_child,
    run_child_sync,
    start_child,
    start_child_sync,
)
from refold.engine.definitions import workflow
from refold.engine.messages import (
    Request,
    Requests,
    publish,
    receive,
    receive_sync,
    requests,
    send,
    send_sync,
)
from refold.engine.scope import sleep_until, sleep_until_sync
from refold.engine.streams import Stream, stream
from refold.engine.tags import RunInfo, set_attributes, workflow_info
from refold.engine.versions import continue_as_new, patched
from refold.log.attributes import Tag


@dataclass
class Order:
    amount: int


@dataclass
class Receipt:
    text: str


@workflow
async def nothing() -> None: ...


@workflow
def checkout(order: Order, note: str = "") -> Receipt:
    return Receipt(note)


@workflow
async def wide(a: int, b: str, c: float, d: bytes) -> list[int]:
    return [a]


async def children_of_async_code() -> None:
    assert_type(await start_child(nothing), Child[None])
    assert_type(await start_child(checkout, Order(1)), Child[Receipt])
    assert_type(await start_child(checkout, Order(1), "n", id="a"), Child[Receipt])
    assert_type(await start_child(checkout.bind(Order(1), note="n")), Child[Receipt])
    assert_type(await start_child(wide, 1, "b", 1.0, b"d"), Child[list[int]])
    assert_type(await run_child(checkout, Order(1), deadline=timedelta(1)), Receipt)
    assert_type(await run_child(wide, 1, "b", 1.0, b"d", version=2), list[int])
    child = await start_child(checkout, Order(1), on_parent_end="abandon", attributes={"a": 1})
    assert_type(await child, Receipt)
    assert_type(await child.result(), Receipt)
    assert_type(child.id, str)
    assert_type(await child.cancel(), None)
    assert_type(await cancel_workflow("a", "why"), None)
    await start_child(checkout)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await start_child(checkout, 1)  # type: ignore[misc]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await start_child(checkout, Order(1), on_parent_end="forget")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await start_child(checkout, Order(1), ids="a")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await start_child(len, "a")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


def children_of_blocking_code() -> None:
    child = start_child_sync(checkout, Order(1), deadline=datetime.now(UTC))
    assert_type(child, Child[Receipt])
    assert_type(child.result_sync(), Receipt)
    assert_type(child.cancel_sync("why"), None)
    assert_type(run_child_sync(checkout, Order(1), "n"), Receipt)
    assert_type(run_child_sync(nothing.bind()), None)
    cancel_workflow_sync("a")


def positive(order: Order) -> None:
    if order.amount < 0:
        raise ValueError("negative")


async def messages_in_async_code() -> None:
    assert_type(await receive("topic", Order), Order)
    assert_type(await receive("topic", list[Order], timeout=5), list[Order])
    assert_type(await receive("topic", Order | None), Any)
    assert_type(await receive("topic"), Any)
    assert_type(await send("id", "topic", Order(1)), None)
    asked = requests("topic", Order, validate=positive)
    assert_type(asked, Requests[Order])
    assert_type(await asked.receive(timeout=timedelta(1)), Request[Order])
    async for request in asked:
        assert_type(request, Request[Order])
        assert_type(request.value, Order)
        request.reply(Receipt("x"))
        request.refuse("why")


def messages_in_blocking_code() -> None:
    assert_type(receive_sync("topic", Order, timeout=timedelta(1)), Order)
    assert_type(receive_sync("topic"), Any)
    send_sync("id", "topic", 1)
    for request in requests("topic", int):
        assert_type(request.value, int)
    assert_type(requests("topic").receive_sync().value, Any)


def what_is_recorded_at_once() -> None:
    publish("key", Order(1))
    assert_type(stream("s"), Stream)
    stream("s").write(Order(1))
    tags: Mapping[str, Tag] = {"size": 3, "when": datetime.now(UTC)}
    set_attributes(tags)
    set_attributes({"bad": [1]})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    assert_type(workflow_info(), RunInfo)
    assert_type(workflow_info().attributes, Mapping[str, Tag])


async def time_and_change() -> bool:
    await sleep_until(datetime.now(UTC))
    sleep_until_sync(datetime.now(UTC))
    if patched("a"):
        continue_as_new(1, note="x")
    return True

"""Scenes in which runs and clients send, receive, ask, publish and stream."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from pydantic_core import from_json
from tests.simulation.scene import Play, Scene
from tests.simulation.shapes import echo, nothing, returns, write

from refold.engine.children import run_child, run_child_sync
from refold.engine.definitions import step, workflow
from refold.engine.messages import (
    publish,
    receive,
    receive_sync,
    requests,
    send,
    send_sync,
)
from refold.engine.scope import now, sleep_sync, sleep_until, sleep_until_sync
from refold.engine.streams import stream
from refold.engine.tags import set_attributes
from refold.log.errors import WorkflowEnded, WorkflowNotFound
from refold.log.events import (
    AttributesSet,
    Event,
    StreamWritten,
    ValuePublished,
    WorkflowCompleted,
)


async def deliver(workflow_id: str, topic: str, value: object) -> None:
    """Send, and again while the receiver has not been started."""
    while True:
        try:
            return await send(workflow_id, topic, value)
        except WorkflowNotFound:
            await asyncio.sleep(1)


def deliver_sync(workflow_id: str, topic: str, value: object) -> None:
    """The same in a `def` workflow."""
    while True:
        try:
            return send_sync(workflow_id, topic, value)
        except WorkflowNotFound:
            sleep_sync(1)


# Time -----------------------------------------------------------------------------------------------------


@workflow
async def sleeping_until() -> bool:
    began = now()
    await sleep_until(began - timedelta(days=1))
    await sleep_until(began + timedelta(hours=1))
    await echo("awake")
    return now() - began >= timedelta(hours=1)


@workflow
def sleeping_until_plainly() -> bool:
    began = now()
    sleep_until_sync(began - timedelta(days=1))
    sleep_until_sync(began + timedelta(hours=1))
    write("awake")
    return now() - began >= timedelta(hours=1)


def _sleeps_until(play: Play) -> None:
    play.start(play.id("until", 0), sleeping_until, expected=returns(True))
    play.start(play.id("plainly", 1), sleeping_until_plainly, expected=returns(True))


# Back and forth -------------------------------------------------------------------------------------------


@workflow
async def ping(other: str, rounds: int) -> list[int]:
    got: list[int] = []
    for i in range(rounds):
        await deliver(other, "ping", i)
        got.append(await receive("pong", int))
    return got


@workflow
async def pong(other: str, rounds: int) -> int:
    for _ in range(rounds):
        await deliver(other, "pong", await receive("ping", int) + 10)
    return rounds


@workflow
def pong_plainly(other: str, rounds: int) -> int:
    for _ in range(rounds):
        deliver_sync(other, "pong", receive_sync("ping", int) + 10)
    return rounds


def _ping_pong(play: Play) -> None:
    one, two = play.id("ping", 0), play.id("pong", 1)
    play.start(two, pong, one, 2, expected=returns(2))
    play.start(one, ping, two, 2, expected=returns([10, 11]))


def _ping_pong_plainly(play: Play) -> None:
    one, two = play.id("ping", 2), play.id("plainly", 1)
    play.start(one, ping, two, 2, expected=returns([10, 11]))
    play.start(two, pong_plainly, one, 2, expected=returns(2))


# Waiting for a message, but not for ever ------------------------------------------------------------------


@workflow
async def impatient() -> list[str]:
    try:
        return ["in time", await receive("x", str, timeout=5)]
    except TimeoutError:
        return ["too late", await receive("x", str)]


@workflow
def impatient_plainly() -> list[str]:
    try:
        return ["in time", receive_sync("x", str, timeout=5)]
    except TimeoutError:
        return ["too late", receive_sync("x", str)]


def _impatient(play: Play) -> None:
    expected = returns(["in time", "m"], ["too late", "m"])
    for number, waits in enumerate((impatient, impatient_plainly)):
        waiting = play.id(waits.name, number)
        play.start(waiting, waits, expected=expected)
        play.at(4.999, play.clients.send(waiting, "x", '"m"', f"{waiting}-once"))
        play.at(5.005, play.clients.send(waiting, "x", '"m"', f"{waiting}-once"))


# To whom nothing can be sent ------------------------------------------------------------------------------


@workflow
async def sending_wrong(ended: str) -> list[str]:
    errors: list[str] = []
    await run_child(nothing, id=ended)
    for to in (f"{ended}-unheard-of", ended):
        try:
            await send(to, "x", 1)
        except (WorkflowNotFound, WorkflowEnded) as error:
            errors.append(await echo(type(error).__name__))
    return errors


@workflow
def sending_wrong_plainly(ended: str) -> list[str]:
    errors: list[str] = []
    run_child_sync(nothing, id=ended)
    for to in (f"{ended}-unheard-of", ended):
        try:
            send_sync(to, "x", 1)
        except (WorkflowNotFound, WorkflowEnded) as error:
            errors.append(type(error).__name__)
    return errors


def _sends_wrong(play: Play) -> None:
    expected = returns(["WorkflowNotFound", "WorkflowEnded"])
    play.start(play.id("wrong", 0), sending_wrong, play.id("ended", 1), expected=expected)


def _sends_wrong_plainly(play: Play) -> None:
    expected = returns(["WorkflowNotFound", "WorkflowEnded"])
    play.start(play.id("plainly", 2), sending_wrong_plainly, play.id("past", 0), expected=expected)


# Many to one ----------------------------------------------------------------------------------------------


@workflow
async def collecting(count: int) -> list[list[str | int]]:
    return [await receive("item", list[str | int]) for _ in range(count)]


@workflow
async def supplying(to: str, count: int) -> int:
    for i in range(count):
        await deliver(to, "item", ["s", i])
    return count


@workflow
async def supplying_at_once(to: str, count: int) -> int:
    await deliver(to, "item", ["g", -1])
    await asyncio.gather(*(send(to, "item", ["g", i]) for i in range(count)))
    return count + 1


def _in_order(stream: Sequence[Event]) -> str | None:
    last = stream[-1]
    if not isinstance(last, WorkflowCompleted):
        return f"ended with {last}"
    items = from_json(last.payload)
    for by, count in (("s", 3), ("g", 3), ("c", 2)):
        numbers = [number for sender, number in items if sender == by]
        if numbers != sorted(numbers) or len(set(numbers)) != count:
            return f"{by}'s messages came as {numbers}"
    return None


def _many_to_one(play: Play) -> None:
    to = play.id("collecting", 0)
    play.start(to, collecting, 8, expected=_in_order)
    play.start(play.id("one", 1), supplying, to, 3, expected=returns(3))
    play.start(play.id("all", 2), supplying_at_once, to, 2, expected=returns(3))
    for number in range(2):
        play.at(0.5 + number / 10, play.clients.send(to, "item", f'["c",{number}]'))


# What others can see --------------------------------------------------------------------------------------


@step
async def tell(count: int) -> int:
    for i in range(count):
        stream("tokens").write(f"told {i}")
    return count


@workflow
async def showing() -> str:
    publish("stage", "begun")
    tokens = stream("tokens")
    tokens.write("first")
    await tell(2)
    publish("stage", "told")
    set_attributes({"stage": 2, "kind": "show"})
    tokens.write("last")
    await asyncio.sleep(10)
    publish("stage", "over")
    return await echo("shown")


@workflow
def showing_plainly() -> str:
    publish("stage", "begun")
    tokens = stream("tokens")
    tokens.write("first")
    tell.sync(2)
    publish("stage", "told")
    set_attributes({"stage": 2, "kind": "show"})
    tokens.write("last")
    sleep_sync(10)
    publish("stage", "over")
    return "shown"


def _shown(stream: Sequence[Event]) -> str | None:
    values = [from_json(e.payload) for e in stream if isinstance(e, ValuePublished)]
    items = [item for e in stream if isinstance(e, StreamWritten) for item in from_json(e.payload)]
    told = items[1:-1]
    tags = [e.attributes for e in stream if isinstance(e, AttributesSet)]
    if values != ["begun", "told", "over"] or len(tags) != 1:
        return f"published {values} and set {tags}"
    if (items[0], items[-1]) != ("first", "last") or told[-2:] != ["told 0", "told 1"]:
        return f"wrote {items}"
    return returns("shown")(stream)


def _shows(play: Play) -> None:
    for number, shows in enumerate((showing, showing_plainly)):
        shown = play.id(shows.name, number)
        play.start(shown, shows, expected=_shown)
        for after_s in (0, 5, 15):
            play.at(after_s, play.clients.value(shown, "stage"))
        play.at(1, play.clients.value(shown, "never"))


# Questions ------------------------------------------------------------------------------------------------


def _positive(number: int) -> None:
    if number <= 0:
        raise ValueError("too small")


@workflow
async def answering(count: int) -> list[int]:
    asked = requests("double", int, validate=_positive)
    taken: list[int] = []
    for i in range(count):
        try:
            question = await asked.receive(timeout=1000)
        except TimeoutError:
            break
        taken.append(question.value)
        if i == 1:
            question.refuse("not this one")
        else:
            question.reply(await echo(str(question.value * 2)))
    return taken


@workflow
def answering_plainly(count: int) -> list[int]:
    asked = requests("double", int, validate=_positive)
    taken: list[int] = []
    for i in range(count):
        try:
            question = asked.receive_sync(timeout=1000)
        except TimeoutError:
            break
        taken.append(question.value)
        if i == 1:
            question.refuse("not this one")
        else:
            question.reply(question.value * 2)
    return taken


def _answered(stream: Sequence[Event]) -> str | None:
    last = stream[-1]
    if not isinstance(last, WorkflowCompleted):
        return f"ended with {last}"
    taken = from_json(last.payload)
    known = len(set(taken)) == len(taken) and set(taken) <= {1, 2, 3}
    return None if known else f"took the questions {taken}"


def _answers(play: Play) -> None:
    for number, answers in enumerate((answering, answering_plainly)):
        asked = play.id(answers.name, number)
        play.start(asked, answers, 3, expected=_answered)
        for question in (1, 0, 2, 3):
            ask = play.clients.ask(asked, "double", str(question))
            play.at(question, ask)
            play.at(question + 0.05, ask)
        play.at(1, play.clients.ask(asked, "double", '"one"'))


# A start that brings a message ----------------------------------------------------------------------------


@workflow
async def waiting_for(count: int) -> list[str]:
    return [await receive("go", str) for _ in range(count)]


def _starts_with_message(play: Play) -> None:
    waiting = play.id("waiting", 0)
    play.start(waiting, waiting_for, 2, message=("go", '"a"'), expected=returns(["a", "b"]))
    again = play.clients.start(waiting, waiting_for, 2, message=("go", '"b"'))
    play.at(1, again)
    play.at(2, again)


SCENES: tuple[Scene, ...] = (
    Scene("sleeping until", (sleeping_until, sleeping_until_plainly), _sleeps_until),
    Scene("ping-pong", (ping, pong), _ping_pong),
    Scene("ping-pong plainly", (ping, pong_plainly), _ping_pong_plainly),
    Scene("impatient", (impatient, impatient_plainly), _impatient),
    Scene("sending wrong", (sending_wrong, nothing), _sends_wrong),
    Scene("sending wrong plainly", (sending_wrong_plainly, nothing), _sends_wrong_plainly),
    Scene("many to one", (collecting, supplying, supplying_at_once), _many_to_one, large=True),
    Scene("showing", (showing, showing_plainly), _shows),
    Scene("answering", (answering, answering_plainly), _answers, large=True),
    Scene("start with message", (waiting_for,), _starts_with_message),
)

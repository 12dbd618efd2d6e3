"""Workflows that have to do with each other, for tests that kill workers: messages, children, cancels, new beginnings.

Their ids put them on any partition, so that most of what they want of each other passes between two owners, of which
one may be dead. Each has a step at its end, or at every turn, so that the journal shows how far they are.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from random import Random
from typing import Any, TypeVar

from crash_shapes import Mark, Shape, counts, gives, mark
from refold import (
    Child,
    Handle,
    Workflow,
    WorkflowCancelled,
    WorkflowEnded,
    continue_as_new,
    publish,
    receive,
    receive_sync,
    run_child,
    send,
    send_sync,
    start_child,
    workflow,
)

T = TypeVar("T")

BALLS = 6
"""How often each of two players gets the ball."""
VOLLEY = 4
"""Balls that a player has sent before it waits for any."""
MEMBERS = 10
"""Children of a family; the last of them fails."""
LETTERS = 7
LETTERS_A_LIFE = 3
"""A mailbox begins anew after so many."""
LODGERS = 5

IMPATIENCE_S = 0.5
"""A client that has heard nothing for so long asks anew: the answer may have died with a worker."""

COMPANY_WINDOW = 12
"""As many runs of these are open as run well beside each other: each has up to ten others at work."""


async def _insist(call: Callable[[], Awaitable[T]]) -> T:
    """Ask, and anew where no answer comes: a client that has less patience than the engine's own."""
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(IMPATIENCE_S):
                return await call()


# Messages in both directions ------------------------------------------------------------------------------


def _check(ball: int, expected: int) -> None:
    if ball != expected:
        raise ValueError(f"ball {ball} came, not {expected}")


@workflow
async def server(value: int) -> int:
    """Sends the ball first, each time; balls that come out of order end it."""
    other = await receive("other", str)
    await asyncio.gather(*(send(other, "volley", i) for i in range(VOLLEY)))
    for i in range(VOLLEY):
        _check(await receive("volley", int), i)
    for i in range(BALLS):
        await send(other, "ball", i)
        _check(await receive("ball", int), i)
    return (await mark(value)).value


@workflow
def returner(value: int) -> int:
    """Sends the ball back, each time, and is a `def` workflow."""
    other = receive_sync("other", str)
    for i in range(VOLLEY):
        send_sync(other, "volley", i)
    for i in range(VOLLEY):
        _check(receive_sync("volley", int), i)
    for i in range(BALLS):
        _check(receive_sync("ball", int), i)
        send_sync(other, "ball", i)
    return mark.sync(value).value


@workflow
async def rally(n: int) -> list[Mark]:
    """Two players, who are told of each other and left to it."""
    one, two = await asyncio.gather(start_child(server, 10 * n), start_child(returner, 10 * n))
    await asyncio.gather(send(one.id, "other", two.id), send(two.id, "other", one.id))
    first, second = await asyncio.gather(one.result(), two.result())
    return [await mark(first + second)]


# Children -------------------------------------------------------------------------------------------------


@workflow
async def member(value: int, fails: bool) -> int:
    """A child."""
    marked = await mark(value)
    if fails:
        raise ValueError(f"member {value} was made to fail")
    return marked.value


@workflow
async def family(n: int) -> list[Mark]:
    """Many children at once, one that fails among them, and one that nobody waits for."""
    await start_child(member, 10 * n, False, on_parent_end="detached")
    ends = await asyncio.gather(
        *(run_child(member, 10 * n + i, i == MEMBERS - 1) for i in range(MEMBERS)),
        return_exceptions=True,
    )
    failed = [end for end in ends if isinstance(end, ValueError)]
    assert len(failed) == 1
    return [await mark(sum(end for end in ends if not isinstance(end, BaseException)))]


def _sums(n: int) -> Sequence[int]:
    return [sum(10 * n + i for i in range(MEMBERS - 1))]


# Cancelling -----------------------------------------------------------------------------------------------


@workflow
async def lodger(floors: int) -> int:
    """Stays until it is cancelled, and so does whoever lives above it."""
    if floors:
        return await run_child(lodger, floors - 1)
    return await receive("never", int)


@workflow
async def strict(n: int) -> list[Mark]:
    """Cancels one child itself, and lets another come to its deadline."""
    one = await start_child(lodger, 1)
    two = await start_child(lodger, 1, deadline=timedelta(milliseconds=20))
    await one.cancel("the house is full")
    for child in (one, two):
        try:
            await child
        except WorkflowCancelled:
            continue
        raise AssertionError(f"{child} was not cancelled")
    return [await mark(10 * n)]


@workflow
async def household(n: int) -> list[Mark]:
    """Takes in children until it is cancelled; cleans up when all have gone."""
    lodgers: list[Child[int]] = []
    try:
        for i in range(LODGERS):
            lodgers.append(await start_child(lodger, i % 2))
            publish(f"lodger-{i}", i)
        await start_child(member, n, False, on_parent_end="abandon")
        return [await mark(await receive("never", int))]
    finally:
        ends = await asyncio.gather(*(child.result() for child in lodgers), return_exceptions=True)
        assert all(isinstance(end, WorkflowCancelled) for end in ends)
        await mark(10 * n)


async def _call_off(handle: Handle[list[Mark]], n: int, random: Random) -> Sequence[str]:
    """Cancel the run, at its beginning or when it has so many children."""
    lodgers = random.randint(0, LODGERS)
    if lodgers:
        await _insist(lambda: handle.value_async(f"lodger-{lodgers - 1}", int))
    with suppress(WorkflowEnded):  # by the order whose answer was lost
        await _insist(lambda: handle.cancel_async(f"household {n} is called off"))
    return []


def _cancelled(n: int, result: list[Mark] | Exception) -> bool:
    return isinstance(result, WorkflowCancelled) and f"household {n} is called off" in str(result)


# Messages of clients, to a workflow that begins anew ------------------------------------------------------


@workflow
async def mailbox(n: int, marks: list[Mark] | None = None) -> list[Mark]:
    """Takes letters, and begins anew while they come."""
    taken = list(marks or ())
    for _ in range(min(LETTERS_A_LIFE, LETTERS - len(taken))):
        letter = await receive("mail", int)
        taken.append(await mark(10 * n + letter))
    if len(taken) < LETTERS:
        continue_as_new(n, taken)
    return taken


async def _post(handle: Handle[list[Mark]], _n: int, random: Random) -> Sequence[str]:
    """Send the letters, some of them more than once, also when they have long been received."""
    sent: list[str] = []

    async def post(letter: int) -> None:
        await _insist(lambda: handle.send_async("mail", letter, message_id=f"letter-{letter}"))

    for letter in range(LETTERS):
        await asyncio.gather(*(post(letter) for _ in range(random.choice((1, 1, 2)))))
        sent.append(f"letter-{letter}")
        if random.random() < 0.3:
            await post(random.randrange(letter + 1))
    return sent


RALLY = Shape(rally, 4, gives(lambda n: [20 * n]))
COMPANY = (
    RALLY,
    Shape(family, MEMBERS + 1, gives(_sums)),
    Shape(strict, 3, gives(lambda n: [10 * n])),
    Shape(household, None, _cancelled, _call_off),
    Shape(mailbox, LETTERS - 1, counts(LETTERS), _post),
)
COMPANY_WORKFLOWS: list[Workflow[..., Any]] = [
    *(shape.workflow for shape in COMPANY),
    server,
    returner,
    member,
    lodger,
]

"""Workflows that are made to be checked: what each run must come to follows from its input and from the log.

Most are those of the kill tests (`crash_shapes`, `crash_company`), whose steps write a journal. Here are those with
which several clients have to do at once, or that undo what they did.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from crash_company import COMPANY_WORKFLOWS, family, rally
from crash_shapes import (
    WORKFLOWS,
    Mark,
    blocking,
    fan_out,
    flaky,
    mark,
    mark_in_thread,
    paused,
    race,
    retried,
    sequential,
)
from refold import Workflow, publish, receive, requests, workflow

ADD: Final = "add"
TOTAL: Final = "total"

NAP_S: Final = 0.3
SAGA_STEPS: Final = 4


@workflow
async def tally(n: int) -> list[str]:
    """Takes messages from all clients until an empty one comes; says and publishes how many it has taken."""
    taken: list[str] = []

    async def answer() -> None:
        async for request in requests(TOTAL, str):
            request.reply([request.value, len(taken)])

    answering = asyncio.ensure_future(answer())
    publish(TOTAL, 0)
    while message := await receive(ADD, str):
        await mark(n)
        taken.append(message)
        publish(TOTAL, len(taken))
    answering.cancel()
    return taken


@workflow
async def napper(n: int) -> list[Mark]:
    """Sleeps between steps, long enough that most naps see some fault."""
    marks = [await mark(10 * n)]
    for i in range(1, 4):
        await asyncio.sleep(NAP_S)
        marks.append(await mark(10 * n + i))
    return marks


@workflow
async def saga(n: int) -> list[Mark]:
    """Does some steps, fails at the last where `n` is odd, and undoes what it did in the opposite order."""
    done: list[Mark] = []
    try:
        for i in range(SAGA_STEPS):
            done.append(await mark(10 * n + i))  # noqa: PERF401 - what was done is undone, wherever it fails
        if n % 2:
            raise ValueError(f"saga {n} was made to fail")  # noqa: TRY301 - it is what is shown
        return [*done, await flaky(10 * n + SAGA_STEPS, 1)]
    except ValueError:
        return [await mark_in_thread.aio(-made.value) for made in reversed(done)]


@workflow
async def guest(n: int) -> list[Mark]:
    """Stays until it is cancelled, and cleans up."""
    try:
        await mark(n)
        await receive("never", int)
    finally:
        await mark(n + 1)
    return []


Expected = Callable[[int], Sequence[int] | None]
"""The values of the marks that a run returns, by its input; None where several are right."""


@dataclass(frozen=True, slots=True)
class Form:
    """A workflow that clients start, and what its runs come to.

    Args:
        workflow: Takes a number and returns marks.
        expected: What marks.
        in_order: Whether each of its steps begins when the one before is recorded.
    """

    workflow: Workflow[..., list[Mark]]
    expected: Expected
    in_order: bool = False


def _count(steps: int) -> Expected:
    return lambda n: [10 * n + i for i in range(steps)]


def _saga(n: int) -> Sequence[int]:
    done = [10 * n + i for i in range(SAGA_STEPS)]
    return [-value for value in reversed(done)] if n % 2 else [*done, 10 * n + SAGA_STEPS]


FORMS: Final = (
    Form(sequential, _count(6), in_order=True),
    Form(fan_out, _count(6)),
    Form(blocking, _count(4), in_order=True),
    Form(retried, _count(3), in_order=True),
    Form(paused, _count(2), in_order=True),
    Form(race, lambda _: None),
    Form(napper, _count(4), in_order=True),
    Form(saga, _saga, in_order=True),
    Form(family, lambda n: [sum(10 * n + i for i in range(9))]),
    Form(rally, lambda n: [20 * n]),
)
"""What clients start and wait for. A family has many children, a rally two runs that message each other."""

EXPECTED: Final = {form.workflow.name: form.expected for form in FORMS}
IN_ORDER: Final = frozenset(form.workflow.name for form in FORMS if form.in_order) | {guest.name}

ALL: Final[list[Workflow[..., Any]]] = [
    *WORKFLOWS,
    *COMPANY_WORKFLOWS,
    tally,
    napper,
    saga,
    guest,
]
"""What a worker must have."""

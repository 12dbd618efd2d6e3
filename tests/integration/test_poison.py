"""A command that the owner can't handle, because code that it calls fails in an unforeseen way, stops nobody else."""

from collections.abc import Callable

import pytest
from pydantic import BaseModel, field_validator

from engine_trial import engine_on
from log_backend import LogBackend
from refold import CommandRefused, workflow

CHECKS: list[Callable[[], None]] = []


class Odd(BaseModel):
    """A type whose validator fails as none should: pydantic lets such an error through."""

    name: str

    @field_validator("name")
    @classmethod
    def check(cls, value: str) -> str:
        for each in CHECKS:
            each()
        return value


@workflow
async def takes_odd(odd: Odd) -> str:
    return odd.name


@workflow
async def plain() -> str:
    return "fine"


def fail() -> None:
    raise ArithmeticError("unforeseen")


def test_a_poison_command_is_refused_and_others_go_on(backend: LogBackend) -> None:
    """Given input whose check fails in the worker with an error that is no PayloadError, the start is refused."""
    with engine_on(backend, takes_odd, plain) as engine:
        # Too long to be among the inputs that a worker need not check, since its own process has just written them.
        poison = takes_odd.bind(Odd(name="x" * 2_000))
        CHECKS.append(fail)
        try:
            with pytest.raises(CommandRefused, match="unforeseen"):
                engine.start(poison, id="poison")
        finally:
            CHECKS.clear()
        assert [engine.start(plain, id=f"p-{n}").result() for n in range(6)] == ["fine"] * 6

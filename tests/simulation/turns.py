"""Coroutines that are driven by hand, with no event loop: each `send` is one act, up to where it lets others act."""

from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")


@coroutine
def pause(until_us: int | None = None) -> Generator[int | None, None, None]:
    """Let others act, until a time or until woken; None for just once."""
    yield until_us


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Drive a coroutine that only pauses to its end, with nobody acting between."""
    while True:
        try:
            work.send(None)
        except StopIteration as done:
            value: T = done.value
            return value

"""Tests of a workflow: in memory, with the outside world replaced, and with no time to wait out."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

import rental
from refold import Engine, tail_sync
from refold.log.events import StepAttemptFailed
from rental import CardRefused, Gateway


class FakeGateway(Gateway):
    """Notes what it is asked for, and first fails as often as it is told to."""

    def __init__(self) -> None:
        self.failures: Sequence[Exception] = []
        self.asked: list[str] = []

    async def charge(self, customer: str, cents: int) -> str:
        """Fails, or takes nothing."""
        self.asked.append(f"charge {customer} {cents}")
        if self.failures:
            failure, *self.failures = self.failures
            raise failure
        return "payment-1"

    async def remind(self, customer: str) -> None:
        """Sends nothing."""
        self.asked.append(f"remind {customer}")


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> FakeGateway:
    """In place of the outside world, for one test."""
    fake = FakeGateway()
    monkeypatch.setattr(rental, "gateway", fake)
    return fake


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine of its own for each test: what is in memory:// is gone when it closes."""
    with Engine("memory://", workflows=[rental.rental]) as engine:
        yield engine


def test_a_step_alone_is_a_function(gateway: FakeGateway) -> None:
    """Called outside of any workflow, a step is a plain call."""
    assert asyncio.run(rental.charge("Ada", 1)) == "payment-1"


def test_a_bicycle_comes_back(engine: Engine, gateway: FakeGateway) -> None:
    """A message that is sent before the code waits for it is kept."""
    run = engine.start(rental.rental, "Ada", id="ada-1")
    run.send("returned", "the station")

    assert run.result(timeout_s=60) == "returned to the station"
    assert gateway.asked == ["charge Ada 5000"]


def test_a_line_that_is_down_is_tried_again(engine: Engine, gateway: FakeGateway) -> None:
    """Each attempt that failed is an event."""
    gateway.failures = [ConnectionError("no line"), ConnectionError("no line")]
    run = engine.start(rental.rental, "Ada", message=("returned", "the station"))

    assert run.result(timeout_s=60) == "returned to the station"
    assert sum(isinstance(event, StepAttemptFailed) for event in run.history()) == 2


def test_a_card_that_is_refused_ends_the_rental(engine: Engine, gateway: FakeGateway) -> None:
    """The error comes out of `result` with its own type."""
    gateway.failures = [CardRefused("stolen")]

    with pytest.raises(CardRefused, match="stolen"):
        engine.start(rental.rental, "Ada").result(timeout_s=60)


def test_two_weeks_later_there_is_a_reminder(gateway: FakeGateway, tmp_path: Path) -> None:
    """The worker stops, and another one starts fifteen days later by its clock: nobody waits, and replay is tested."""
    log = f"sqlite:///{tmp_path}/test.db"

    def in_fifteen_days() -> int:
        return (time.time_ns() // 1000) + timedelta(days=15) // timedelta(microseconds=1)

    with Engine(log, workflows=[rental.rental]) as engine:
        engine.start(rental.rental, "Ada", id="ada-1")
        with tail_sync(log, since="start", kind="timer.started") as events:
            next(events)  # waits until the run waits

    with Engine(log, workflows=[rental.rental], clock=in_fifteen_days) as engine:
        assert engine.handle("ada-1", rental.rental).result(timeout_s=60) == "reminded"

    assert gateway.asked == ["charge Ada 5000", "remind Ada"]  # nothing was charged again

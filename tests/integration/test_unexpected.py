"""An error in refold itself, while it goes on with one run, is that run's trouble and no other's."""

from collections.abc import Iterator

import pytest

from engine_trial import engine_on
from log_backend import PATIENCE_S, LogBackend
from refold import Status, WorkflowParked, step, workflow
from refold.engine.async_run import AsyncRun
from refold.engine.operations import Outcome

RAN: list[str] = []


@step
async def note(text: str) -> str:
    RAN.append(text)
    return text


@workflow
async def unlucky() -> str:
    return await note("one") + await note("two")


@workflow
async def lucky() -> str:
    return await note("lucky")


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ArithmeticError]]:
    """Errors that telling `unlucky` an outcome, or replaying it, runs into: one each time, as long as there are any."""
    RAN.clear()
    errors: list[ArithmeticError] = []
    deliver, replay = AsyncRun.deliver, AsyncRun.replay

    def fail(run: AsyncRun) -> None:
        if errors and run.facts.workflow == "unlucky":
            raise errors.pop()

    def failing_deliver(run: AsyncRun, outcome: Outcome) -> None:
        fail(run)
        deliver(run, outcome)

    def failing_replay(run: AsyncRun, outcomes: list[Outcome]) -> None:
        if outcomes:
            fail(run)
        replay(run, outcomes)

    monkeypatch.setattr(AsyncRun, "deliver", failing_deliver)
    monkeypatch.setattr(AsyncRun, "replay", failing_replay)
    yield errors
    errors.clear()


def test_it_is_tried_once_more_from_the_history(
    backend: LogBackend, failures: list[ArithmeticError]
) -> None:
    """Given one error, the run is replayed and goes on, and no step that was recorded runs again."""
    failures.append(ArithmeticError("unforeseen"))
    with engine_on(backend, unlucky, lucky) as engine:
        assert engine.start(unlucky, id="u").result(PATIENCE_S) == "onetwo"
    assert RAN == ["one", "two"]


def test_it_is_parked_when_it_fails_again_and_others_go_on(
    backend: LogBackend, failures: list[ArithmeticError]
) -> None:
    """Given two errors, the run waits for a person with the reason said, others end, and `resume` goes on with it."""
    failures.extend(ArithmeticError(f"unforeseen {n}") for n in range(2))
    with engine_on(backend, unlucky, lucky) as engine:
        handle = engine.start(unlucky, id="u")
        with pytest.raises(WorkflowParked, match="unforeseen"):
            handle.result(PATIENCE_S)
        assert [engine.start(lucky, id=f"l{n}").result(PATIENCE_S) for n in range(4)] == [
            "lucky"
        ] * 4
        assert handle.status().status is Status.PARKED
        handle.resume()
        assert handle.result(PATIENCE_S) == "onetwo"
    assert [text for text in RAN if text != "lucky"] == ["one", "two"]

"""Wall clocks that somebody sets, while the clock that nobody can set goes on: no timer early, none twice."""

from collections.abc import Iterator
from itertools import product

import pytest
from tests.simulation.attempts import SECOND_US
from tests.simulation.journal import read
from tests.simulation.scenes_messages import impatient, sleeping_until
from tests.simulation.shapes import SHAPES, nothing, sleeping
from tests.simulation.trials import judged
from tests.simulation.world import World

from refold.log.events import TimerFired, TimerStarted, WorkflowReopened
from refold.log.protocol import Channel

HOUR_US = 3600 * SECOND_US
JUMPS_US = (-24 * HOUR_US, -HOUR_US, -SECOND_US, SECOND_US, HOUR_US, 24 * HOUR_US)
WHEN_US = (100_000, 1799 * SECOND_US, 1800 * SECOND_US, 3600 * SECOND_US)


def waits_us(world: World, workflow_id: str) -> Iterator[tuple[int, int]]:
    """For each timer of a run: how long it was to wait when it was started, and how long it did, in true time."""
    started: dict[int, tuple[int, int]] = {}
    for record in world.store.read(Channel.EVENTS, 0, 0):
        event = read(record)
        if isinstance(event, TimerStarted) and event.workflow_id == workflow_id:
            started[event.step] = record.timestamp, event.due_at - event.recorded_at
        elif isinstance(event, TimerFired) and event.workflow_id == workflow_id:
            at_us, wait_us = started.pop(event.step)
            yield wait_us, record.timestamp - at_us


def set_clock(world: World, at_us: int, skew_us: int) -> None:
    """Somebody sets the clock of whoever owns the partition."""

    def act() -> None:
        world.set_clocks = True
        for worker in world.workers:
            worker.set_clock(skew_us)

    world.plan(at_us, act)


@pytest.mark.parametrize("jump_us", JUMPS_US)
def test_a_timer_is_never_early_however_clocks_are_set(jump_us: int) -> None:
    """Given a wall clock that is set forward or back while a timer runs, and back again or not, the timer waits as long
    as it was to by the clock that nobody can set, and fires once.
    """
    for first_us, back in product(WHEN_US, (False, True)):
        world = World(1)
        expected = next(shape.expected for shape in SHAPES if shape.workflow is sleeping)
        world.submit(world.clients.start("w", sleeping))
        world.submit(world.clients.start("until", sleeping_until))
        world.submit(world.clients.start("impatient", impatient))
        set_clock(world, first_us, jump_us)
        if back:
            set_clock(world, first_us + 10 * SECOND_US, 0)
        trial = judged(world, {"w": expected})
        assert not trial.problems, trial.report()
        for workflow_id in ("w", "until", "impatient"):
            waited = list(waits_us(world, workflow_id))
            assert len(waited) == 1
            assert all(did_us >= wait_us - SECOND_US // 10 for wait_us, did_us in waited)


def test_a_clock_that_is_set_forward_makes_no_timer_late() -> None:
    """Given a wall clock that is set forward while a timer runs, it fires when its time has passed, to the second."""
    world = World(1)
    world.submit(world.clients.start("w", sleeping))
    set_clock(world, SECOND_US, HOUR_US)
    judged(world, {})
    ((wait_us, did_us),) = waits_us(world, "w")
    assert did_us - wait_us < SECOND_US


def test_a_clock_that_is_set_back_makes_a_timer_late_by_as_much() -> None:
    """Given a wall clock that is set back by an hour while a timer runs, it fires an hour late, and a minute at most
    beyond that.
    """
    world = World(1)
    world.submit(world.clients.start("w", sleeping))
    set_clock(world, SECOND_US, -HOUR_US)
    judged(world, {})
    ((wait_us, did_us),) = waits_us(world, "w")
    assert HOUR_US <= did_us - wait_us + SECOND_US <= HOUR_US + 61 * SECOND_US


def test_time_does_not_go_back_in_a_run_that_is_reopened() -> None:
    """Given a run that has ended, and a clock that was set back since, its reopening is recorded after its end."""
    world = World(1)
    world.submit(world.clients.start("w", nothing))
    set_clock(world, SECOND_US, -HOUR_US)
    world.plan(2 * SECOND_US, lambda: world.reopen("w", None))
    trial = judged(world, {})
    stream = world.audit.stream("w")
    assert any(isinstance(event, WorkflowReopened) for event in stream)
    assert not trial.problems, trial.report()
    times = [event.recorded_at for event in stream]
    assert times == sorted(times)

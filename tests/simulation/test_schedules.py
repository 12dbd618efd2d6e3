"""A schedule starts one run for each due time, whatever becomes of workers, clocks and orders meanwhile."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from tests.simulation.attempts import SECOND_US
from tests.simulation.faults import Fault, Faults, FaultsAt, Kind, NoFaults
from tests.simulation.scene import PARTITIONS, START_US, Play
from tests.simulation.shapes import echo, returns
from tests.simulation.trials import Trial, judged
from tests.simulation.world import World

from refold.engine.definitions import Catalogue, workflow
from refold.engine.schedule_run import ScheduleInfo, schedule_workflow
from refold.engine.schedule_times import ScheduleSpec
from refold.engine.scope import sleep_sync
from refold.log.events import ValuePublished, WorkflowStarted

HOUR_S = 3600
OWN_ID = "schedule:sweep"
MIDNIGHT = datetime.fromtimestamp(START_US / SECOND_US, UTC)


@workflow
def sweep(minutes: int) -> str:
    """Takes its time."""
    echo.sync("swept")
    sleep_sync(60 * minutes)
    return "clean"


CODE = Catalogue.of([sweep])


def hourly(faults: Faults, minutes: int, spec: ScheduleSpec) -> tuple[World, Play]:
    """A world with a schedule in it, of runs that take so long."""
    world = World(1, faults, partitions=PARTITIONS, code=CODE)
    play = Play(world)
    info = ScheduleInfo("sweep", spec)
    play.start(OWN_ID, schedule_workflow(CODE), info, expected=returns(None))
    return world, play


def spec(minutes: int = 0, hours: int = 3, **given: object) -> ScheduleSpec:
    """An hour's schedule, for so many hours."""
    end = MIDNIGHT + timedelta(hours=hours)
    payload = sweep.bind(minutes).payload
    return ScheduleSpec("sweep", payload, every=timedelta(hours=1), end_at=end, **given)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def order(play: Play, after_s: float, what: str) -> None:
    """Somebody orders the schedule to do something."""
    payload = json.dumps({"order": what, "requested_by": "anna", "reason": "to see"})
    play.at(after_s, play.clients.ask(OWN_ID, "refold.schedule", payload))


def at(hour: int) -> str:
    """The run of a due time."""
    return f"sweep/2026-01-01T{hour:02}:00:00Z"


def ordered(faults: Faults) -> tuple[World, Play]:
    """One that is triggered, paused over its second due time, resumed, and over after its third."""
    world, play = hourly(faults, 0, spec())
    order(play, 1.3 * HOUR_S, "trigger")
    order(play, 1.5 * HOUR_S, "pause")
    order(play, 2.5 * HOUR_S, "resume")
    for hour in (1, 3):
        play.expected[at(hour)] = returns("clean")
    return world, play


def overlapping(faults: Faults) -> tuple[World, Play]:
    """One whose runs take longer than an hour, and which skips a due time meanwhile."""
    world, play = hourly(faults, 90, spec(90, overlap="skip"))
    for hour in (1, 3):
        play.expected[at(hour)] = returns("clean")
    return world, play


def started(world: World) -> list[str]:
    """The runs that were started, in the order of their ids; each as often as it was."""
    return sorted(
        stream[0].workflow_id or ""
        for stream in map(world.audit.stream, world.audit.streams)
        for event in stream
        if isinstance(event, WorkflowStarted) and event.workflow == "sweep"
    )


def stands(world: World) -> ScheduleInfo:
    """How the schedule has said last that it stands."""
    said = [e for e in world.audit.stream(OWN_ID) if isinstance(e, ValuePublished)]
    args, _ = schedule_workflow(CODE).input_type.decode(f'{{"schedule":{said[-1].payload}}}')
    assert isinstance(args[0], ScheduleInfo)
    return args[0]


def live(made: tuple[World, Play]) -> None:
    """Live through it without any trouble."""
    world, _ = made
    try:
        world.live()
    finally:
        world.close()


def check(trial: Trial, runs: Sequence[str]) -> None:
    """Nothing is wrong, and these were started for due times; others by an order alone."""
    assert not trial.problems, trial.report()
    of_due_times = [id_ for id_ in started(trial.world) if "." not in id_]
    assert of_due_times == list(runs), trial.report()


STORIES = [ordered, overlapping]


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("kind", [Kind.CRASH, Kind.LOST, Kind.LATE, Kind.ZOMBIE])
def test_each_due_time_starts_one_run_whatever_becomes_of_an_append(
    story: Callable[[Faults], tuple[World, Play]], kind: Kind
) -> None:
    """Given a crash, a lost ack, a late append or a zombie at append k, the same due times start one run each, those
    that are skipped or come while it is paused start none, and every invariant holds; for each k.
    """
    faults = NoFaults()
    live(story(faults))
    for k in range(len(faults.sizes)):
        # A crash before append k is one after the append before it.
        world, play = story(FaultsAt({k: Fault(kind, None if kind is Kind.CRASH else 0)}))
        check(judged(world, play.expected), [at(1), at(3)])
        info = stands(world)
        assert (info.skipped, info.ended) == (1 if story is overlapping else 0, "over")


def test_clocks_that_are_set_start_nothing_twice() -> None:
    """Given the owner's clock set back or forward before a due time or after it, no due time starts two runs, and none
    starts before it is due by that clock.
    """
    for jump_s, when_s in product((-3 * HOUR_S, -600, 600, 3 * HOUR_S), (600, 3900)):
        world, play = hourly(NoFaults(), 0, spec(hours=9))
        world.set_clocks = True

        def jump(world: World = world, jump_s: int = jump_s) -> None:
            for worker in world.workers:
                worker.set_clock(jump_s * SECOND_US)

        world.plan(when_s * SECOND_US, jump)
        trial = judged(world, play.expected)
        assert not trial.problems, trial.report()
        runs = started(world)
        assert len(runs) == len(set(runs)) >= 1
        for run in runs:
            (begun,) = (e for e in world.audit.stream(run) if isinstance(e, WorkflowStarted))
            due = datetime.fromisoformat(run.removeprefix("sweep/"))
            assert begun.recorded_at >= due.timestamp() * SECOND_US

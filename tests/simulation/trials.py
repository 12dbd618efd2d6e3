"""Worlds that tests run: one workflow with planned faults, and a whole life drawn from one seed."""

from dataclasses import dataclass
from functools import partial
from random import Random

from tests.simulation.attempts import SECOND_US
from tests.simulation.checker import History, problems
from tests.simulation.faults import Fault, Faults, FaultsAt, NoFaults, RandomFaults
from tests.simulation.shapes import CHANGING, SHAPES, Shape
from tests.simulation.world import World

from refold.log.commands import StartWorkflow

START_WITHIN_US = 5 * SECOND_US
"""Starts are spread over so long, so that some meet a partition that is just being taken over."""


@dataclass
class Trial:
    """A world at rest, and what is wrong with it.

    Args:
        world: The world.
        problems: Violated invariants.
    """

    world: World
    problems: list[str]

    def report(self) -> str:
        """Everything that was done, and what is wrong."""
        return "\n".join(["", *self.world.journal.acts, "", *self.problems])


def undisturbed(shape: Shape, *, mended: bool) -> tuple[World, list[int]]:
    """A world in which nothing goes wrong and one worker does all, and the sizes of its appends.

    Args:
        shape: What is run.
        mended: Whether no run needs a person.
    """
    faults = NoFaults()
    world = _one_run(shape, faults)
    world.outside.mended = mended
    try:
        world.live()
    finally:
        world.close()
    world.audit.advance()
    return world, faults.sizes


def appends(shape: Shape) -> list[int]:
    """Sizes of the appends until nothing is left to do, but perhaps for a person."""
    return undisturbed(shape, mended=False)[1]


def disturbed(shape: Shape, planned: dict[int, Fault]) -> Trial:
    """One run of `shape` with faults at the planned appends; then it is brought to its end and judged."""
    return judged(_one_run(shape, FaultsAt(planned)), {"w": shape})


def _one_run(shape: Shape, faults: Faults) -> World:
    world = World(1, faults)
    world.submit(world.start("w", shape))
    return world


def drawn(seed: int) -> Trial:
    """A life drawn from a seed: several runs of any shape, clients that repeat themselves, and all faults mixed."""
    random = Random(seed)
    world = World(
        seed,
        RandomFaults(Random(seed + 1), share=random.choice((0.05, 0.2, 0.4)), budget=12),
        disturb=random.choice((0.005, 0.02)),
        disturbances=random.randrange(8),
        skew_us=random.choice((0, 5 * SECOND_US)),
        max_kept_result_bytes=random.choice((0, 500, 32_000_000)),
    )
    shapes = {f"run-{i}": random.choice((CHANGING, *SHAPES)) for i in range(random.randrange(1, 7))}
    for workflow_id, shape in shapes.items():
        _plan_run(world, random, workflow_id, shape)
    _plan_trouble(world, random, sorted(shapes))
    return judged(world, shapes)


def _plan_run(world: World, random: Random, workflow_id: str, shape: Shape) -> None:
    """Start a run; perhaps ask again, in other words, or with another workflow under the same id."""
    start = world.start(workflow_id, shape)
    begin_us = random.randrange(START_WITHIN_US)
    world.plan(begin_us, lambda: world.submit(start))
    if random.random() < 0.3:
        world.plan(begin_us + random.randrange(START_WITHIN_US), lambda: world.submit(start))
    if random.random() < 0.3:
        again = world.start(workflow_id, shape)
        world.plan(begin_us + random.randrange(START_WITHIN_US), lambda: world.submit(again))
    if random.random() < 0.3:
        other = world.start(workflow_id, random.choice([s for s in SHAPES if s.name != shape.name]))
        world.plan(begin_us + 1 + random.randrange(START_WITHIN_US), lambda: world.submit(other))
    if random.random() < 0.3:
        world.plan(random.randrange(2 * START_WITHIN_US), lambda: world.watch(workflow_id))
    if random.random() < 0.3:
        world.plan(random.randrange(2 * START_WITHIN_US), lambda: world.resume(workflow_id))


def _plan_trouble(world: World, random: Random, workflow_ids: list[str]) -> None:
    """Commands that can't be carried out, a deployment, and a stream that nobody here can read."""

    def deploy() -> None:
        world.version = 3 - world.version

    if random.random() < 0.3:
        key = random.choice([*workflow_ids, None])
        world.plan(random.randrange(START_WITHIN_US), lambda: world.poison_command(key))
    if random.random() < 0.2:
        unknown = _start_of("unheard-of", "{}")
        world.plan(random.randrange(START_WITHIN_US), lambda: world.submit(unknown))
    if random.random() < 0.2:
        misfit = _start_of("sequential", '{"start":"one"}')
        world.plan(random.randrange(START_WITHIN_US), lambda: world.submit(misfit))
    for _ in range(random.choice((0, 0, 1, 2))):
        world.plan(random.randrange(2 * START_WITHIN_US), deploy)
    for poison in (world.poison_stream, world.intrude):
        if random.random() < 0.15:
            victim = random.choice(workflow_ids)
            world.plan(random.randrange(2 * START_WITHIN_US), partial(poison, victim))


def _start_of(workflow: str, payload: str) -> StartWorkflow:
    return StartWorkflow(
        command_id="misfit",
        workflow_id=f"misfit-{workflow}",
        reply_to="misfit",
        requested_at=0,
        workflow=workflow,
        payload=payload,
    )


def judged(world: World, shapes: dict[str, Shape]) -> Trial:
    """Let a world come to rest, bring all its runs to their end, and judge it."""
    try:
        world.live()
        world.settle(shapes)
    finally:
        world.close()
    expected = {workflow_id: shape.expected for workflow_id, shape in shapes.items()}
    return Trial(world, problems(History(world.store, world.journal, expected)))

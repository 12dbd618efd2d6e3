"""Worlds that tests run: one workflow with planned faults, and a whole life drawn from one seed."""

from dataclasses import dataclass
from functools import partial
from random import Random

from tests.simulation.attempts import SECOND_US
from tests.simulation.checker import problems
from tests.simulation.corpus import SCENES
from tests.simulation.faults import Fault, Faults, FaultsAt, NoFaults, RandomFaults
from tests.simulation.history import History
from tests.simulation.scene import PARTITIONS, Play, Scene
from tests.simulation.shapes import CHANGING, SHAPES, Expectation, Shape
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
        expected: How runs must have ended, by workflow id.
    """

    world: World
    problems: list[str]
    expected: dict[str, Expectation]

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
    return judged(_one_run(shape, FaultsAt(planned)), {"w": shape.expected})


def performed(scene: Scene, planned: dict[int, Fault] | None = None) -> Trial:
    """A scene with faults at the planned appends; then it is brought to its end and judged."""
    world = World(1, FaultsAt(planned or {}), partitions=PARTITIONS)
    play = Play(world)
    scene.perform(play)
    return judged(world, play.expected)


def scene_appends(scene: Scene) -> list[int]:
    """Sizes of a scene's appends until nothing is left to do, but perhaps for a person."""
    faults = NoFaults()
    world = World(1, faults, partitions=PARTITIONS)
    scene.perform(Play(world))
    try:
        world.live()
    finally:
        world.close()
    return faults.sizes


def _one_run(shape: Shape, faults: Faults) -> World:
    world = World(1, faults)
    world.submit(world.clients.start("w", shape.workflow, *shape.args))
    return world


def drawn(seed: int) -> Trial:
    """A life drawn from a seed: several runs of any shape, clients that repeat themselves, and all faults mixed.

    In every other life they are scenes on several partitions, with or without somebody who meddles with them.
    """
    random = Random(seed)
    scenes = random.random() < 0.5
    world = World(
        seed,
        RandomFaults(Random(seed + 1), share=random.choice((0.05, 0.2, 0.4)), budget=12),
        partitions=PARTITIONS if scenes else 1,
        disturb=random.choice((0.005, 0.02)),
        disturbances=random.randrange(8),
        skew_us=random.choice((0, 0, 5 * SECOND_US, 3600 * SECOND_US)),
        max_kept_result_bytes=random.choice((0, 500, 32_000_000)),
        max_idle_runs=random.choice((0, 1, 1_000)),
        warn_at_history=random.choice((3, 50_000)),
        checkpoint_bytes=random.choice((1, 1_000, 5_000)),
    )
    if scenes:
        return judged(world, _plan_scenes(world, random))
    shapes = {f"run-{i}": random.choice((CHANGING, *SHAPES)) for i in range(random.randrange(1, 7))}
    for workflow_id, shape in shapes.items():
        _plan_run(world, random, workflow_id, shape)
    _plan_trouble(world, random, sorted(shapes))
    return judged(world, {name: shape.expected for name, shape in shapes.items()})


def _plan_scenes(world: World, random: Random) -> dict[str, Expectation]:
    """Have scenes performed, at any pace; what somebody meddles with may end in any way."""
    expected: dict[str, Expectation] = {}
    for number in range(random.choice((1, 1, 2, 3))):
        prefix = f"{number}."
        begin_us = random.randrange(START_WITHIN_US)
        play = Play(world, prefix, begin_us, random.choice((0, 0.02, 0.3, 1, 3)))
        scene = random.choice(SCENES)
        scene.perform(play)
        if random.random() < 0.6:
            expected |= play.expected
            continue
        for _ in range(random.randrange(1, 5)):
            meddle = partial(_meddle, world, random, prefix)
            world.plan(random.randrange(random.choice((1, 4)) * START_WITHIN_US), meddle)
    for _ in range(random.choice((0, 0, 1, 2))):
        world.plan(random.randrange(2 * START_WITHIN_US), partial(_deploy, world))
    return expected


def _deploy(world: World) -> None:
    world.version = 3 - world.version


def _meddle(world: World, random: Random, prefix: str) -> None:
    """Do something to one of a scene's runs."""
    world.audit.advance()
    victims = sorted(name for name in world.audit.streams if name.startswith(prefix))
    if not victims:
        return
    victim, step = random.choice(victims), random.randrange(4)
    clients = world.clients
    match random.randrange(10):
        case 0:
            world.submit(clients.terminate(victim))
        case 1:
            world.submit(clients.cancel(victim))
        case 2:
            world.submit(clients.pause(victim))
        case 3:
            world.submit(clients.resume(victim))
        case 4:
            world.submit(clients.rewind(victim, step))
        case 5:
            world.reopen(victim, random.choice((None, step)))
        case 6:
            fork = f"{prefix}fork-{random.randrange(3)}"
            world.fork(victim, fork, random.choice((None, step)))
        case 7:
            world.submit(clients.watch(victim))
        case 8 if random.random() < 0.3:
            world.intrude(victim)
        case _:
            world.submit(clients.send(victim, random.choice(("go", "item", "x")), '"odd"'))


def _plan_run(world: World, random: Random, workflow_id: str, shape: Shape) -> None:
    """Start a run; perhaps ask again, in other words, or with another workflow under the same id."""
    start = world.clients.start(workflow_id, shape.workflow, *shape.args)
    begin_us = random.randrange(START_WITHIN_US)
    world.plan(begin_us, lambda: world.submit(start))
    if random.random() < 0.3:
        world.plan(begin_us + random.randrange(START_WITHIN_US), lambda: world.submit(start))
    if random.random() < 0.3:
        again = world.clients.start(workflow_id, shape.workflow, *shape.args)
        world.plan(begin_us + random.randrange(START_WITHIN_US), lambda: world.submit(again))
    if random.random() < 0.3:
        odd = random.choice([other for other in SHAPES if other.name != shape.name])
        other = world.clients.start(workflow_id, odd.workflow, *odd.args)
        world.plan(begin_us + 1 + random.randrange(START_WITHIN_US), lambda: world.submit(other))
    if random.random() < 0.3:
        watch = world.clients.watch(workflow_id)
        world.plan(random.randrange(2 * START_WITHIN_US), lambda: world.submit(watch))
    if random.random() < 0.3:
        world.plan(random.randrange(2 * START_WITHIN_US), lambda: world.mend(workflow_id))


def _plan_trouble(world: World, random: Random, workflow_ids: list[str]) -> None:
    """Commands that can't be carried out, a deployment, and a stream that nobody here can read."""

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
        world.plan(random.randrange(2 * START_WITHIN_US), partial(_deploy, world))
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


def lived(scene: Scene) -> History:
    """The history of a scene in which all goes well."""
    world = World(1, partitions=PARTITIONS)
    play = Play(world)
    scene.perform(play)
    return _settled(world, play.expected)


def judged(world: World, expected: dict[str, Expectation]) -> Trial:
    """Let a world come to rest, bring all its runs to their end, and judge it."""
    return Trial(world, problems(_settled(world, expected)), expected)


def _settled(world: World, expected: dict[str, Expectation]) -> History:
    try:
        world.live()
        world.settle(list(expected))
    finally:
        world.close()
    return History(world.store, world.journal, expected)

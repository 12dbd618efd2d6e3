"""What the simulation has found, in its smallest form."""

import pytest
from tests.simulation.corpus import SCENES
from tests.simulation.journal import read
from tests.simulation.scene import PARTITIONS, Play
from tests.simulation.trials import judged
from tests.simulation.world import World

from refold.engine.fold import evolve
from refold.engine.state import PartitionState
from refold.log.commands import ConfirmDelivery
from refold.log.events import MessageReceived
from refold.log.protocol import Channel

RESTLESS = next(scene for scene in SCENES if scene.name == "ends between")


@pytest.mark.parametrize("seed", range(10))
def test_a_run_that_ends_before_it_begins_anew_does_not_begin(seed: int) -> None:
    """Given a run that continues as new, and is ended before it is begun again, it stays ended."""
    world = World(seed, partitions=PARTITIONS)
    play = Play(world)
    RESTLESS.perform(play)
    trial = judged(world, play.expected)
    assert not trial.problems, trial.report()


def test_what_comes_to_a_run_whose_history_is_broken_is_confirmed() -> None:
    """Given a record that can't be read in a run's stream, and a message that its owner recorded before it came upon
    that, the sender is told that the message is there.
    """
    world = World(1, partitions=PARTITIONS)
    world.submit(world.clients.start("w", RESTLESS.workflows[0], 3))
    world.live()
    partition = next(p for p in range(PARTITIONS) if world.store.end(Channel.COMMANDS, p))
    state = PartitionState()
    for record in world.store.read(Channel.EVENTS, partition, 0):
        state = evolve(state, read(record), record.offset)
    world.close()
    state.open["w"].broken = "a record can't be read"

    message = MessageReceived(
        workflow_id="w",
        position=1,
        recorded_at=world.now_us,
        claim=state.claim,
        command=1,
        posted=0,
        worker="w",
        name="never",
        payload="1",
        message_id="other/0",
        parent_id="other",
        parent_step=0,
    )
    evolve(state, message, 9)

    assert [type(command) for command in state.outbox] == [ConfirmDelivery]

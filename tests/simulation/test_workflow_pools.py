"""Workflows of two pools, each with partitions and workers of its own, survive a crash at every append."""

import pytest
from tests.simulation.faults import Fault, Faults, FaultsAt, Kind, NoFaults
from tests.simulation.shapes import echo, returns
from tests.simulation.trials import judged
from tests.simulation.world import World

from refold.engine.children import run_child, start_child
from refold.engine.definitions import Catalogue, workflow
from refold.engine.messages import receive, send
from refold.log.protocol import Channel

POOLS = (("gpu", 1), ("ocr", 1))


@workflow(pool="ocr")
async def caption(topic: str) -> str:
    return await echo(f"'{topic}'")


@workflow(pool="gpu")
async def film(topic: str, customer: str) -> str:
    """Tells a run of no pool, and has a child in another pool."""
    await send(customer, "news", "begun")
    return f"a film on {await run_child(caption, topic)}"


@workflow
async def advert(topic: str) -> str:
    begun = await start_child(film, topic, "advert")
    news = await receive("news", str)
    return f"{news}: {await begun.result()}"


def world_of(faults: Faults) -> World:
    world = World(1, faults, pools=POOLS, code=Catalogue.of([advert, film, caption]))
    world.submit(world.clients.start("advert", advert, "soap"))
    return world


def calm_appends() -> list[int]:
    """Sizes of the appends where nothing goes wrong."""
    faults = NoFaults()
    world = world_of(faults)
    try:
        world.live()
    finally:
        world.close()
    for partition in range(world.layout.partitions):
        records = world.store.read(Channel.EVENTS, partition, 0)
        assert {world.layout.place(record.key) for record in records if record.key} == {partition}
    return faults.sizes


@pytest.mark.parametrize("kind", [Kind.CRASH, Kind.LOST, Kind.ZOMBIE])
def test_a_family_across_pools_survives_any_fault_at_any_append(kind: Kind) -> None:
    """Given a run whose child is a pool's and whose grandchild another's, and workers with their own pool's code alone,
    each is on its pool's partitions, and all end as they must whatever befalls any append.
    """
    for k, size in enumerate(calm_appends()):
        for written in {0, size}:
            world = world_of(FaultsAt({k: Fault(kind, written)}))
            trial = judged(world, {"advert": returns("begun: a film on 'soap'")})
            assert not trial.problems, trial.report()

"""Workflows of pools, in whole engines: those that have their code run them, and no others."""

import asyncio
import threading
from typing import Any

import pytest

from engine_trial import kinds, until
from log_backend import PATIENCE_S, LogBackend, MemoryBackend
from refold import (
    DefinitionError,
    Engine,
    Status,
    UnknownWorkflow,
    UsageError,
    Workflow,
    receive,
    run_child,
    start_child,
    step,
    workflow,
)
from refold.engine.migration import Migration
from refold.engine.worker import wall_clock

RAN: list[str] = []
CLEANED = threading.Event()


@pytest.fixture(autouse=True)
def afresh() -> None:
    RAN.clear()
    CLEANED.clear()


@step
async def note(text: str) -> str:
    RAN.append(text)
    return text


@workflow(pool="gpu")
async def film(scenes: int) -> list[str]:
    return [await note(f"scene {number}") for number in range(scenes)]


@workflow(pool="gpu")
async def endless() -> str:
    try:
        return await receive("cut", str)
    except asyncio.CancelledError:
        await note("cleaned up")
        CLEANED.set()
        raise


@workflow(pool="gpu")
async def premiere(scenes: int) -> str:
    film_of = await run_child(film, scenes)
    return f"{len(film_of)} {await run_child(review, 'fine')}"


@workflow(pool="silent")
async def silent() -> None:
    return None


@workflow
async def review(text: str) -> str:
    return await note(f"review: {text}")


@workflow
async def advert(scenes: int) -> list[str]:
    await note("ordered")
    return await run_child(film, scenes)


@workflow
async def named(name: str) -> str:
    child = await start_child(endless, id=name)
    return await child.result()


@workflow
async def misnamed() -> str:
    try:
        await start_child(endless, id="a film")
    except UsageError as error:
        return str(error)
    return "started"


COMMON: list[Workflow[..., Any]] = [advert, named, misnamed, review]


def common_on(backend: LogBackend, **settings: Any) -> Engine:
    """A worker of the common partitions, which has no code of the pool's."""
    return Engine(backend.log(), workflows=COMMON, drain_s=PATIENCE_S, **settings)


def studio_on(backend: LogBackend, **settings: Any) -> Engine:
    """A worker of the pool, which has the code of its workflows and no other."""
    return Engine(
        backend.log(),
        workflows=[film, endless, premiere],
        worker=False,
        pools=["gpu"],
        drain_s=PATIENCE_S,
        **settings,
    )


def test_a_child_runs_where_its_code_is(pooled_backend: LogBackend) -> None:
    """Given a worker without the child's code and a pool's that has it, the child's result reaches its parent."""
    with common_on(pooled_backend) as common, studio_on(pooled_backend, name="studio") as studio:
        run = common.start(advert, 3, id="ad")
        assert run.result(timeout_s=PATIENCE_S) == ["scene 0", "scene 1", "scene 2"]
        until(lambda: studio.owned_partitions == [2, 3])
        assert common.owned_partitions == [0, 1]
        workers = {event.worker for event in common.history("ad/1@gpu")}  # type: ignore[union-attr]
        assert workers == {"studio"}


def test_a_child_waits_for_a_worker_of_its_pool(pooled_backend: LogBackend) -> None:
    """Given no worker of the pool, its child is started when one comes, and not before."""
    with common_on(pooled_backend) as common:
        run = common.start(advert, 1, id="ad")
        until(lambda: "child.requested" in kinds(common, "ad"))
        with studio_on(pooled_backend):
            assert run.result(timeout_s=PATIENCE_S) == ["scene 0"]
    assert RAN == ["ordered", "scene 0"]


def test_a_run_of_a_pool_goes_on_in_its_next_worker(pooled_backend: LogBackend) -> None:
    """Given a pool's worker that stops, the next one continues its runs; nothing recorded is done again."""
    with common_on(pooled_backend) as common:
        with studio_on(pooled_backend):
            common.start(named, "take@gpu", id="n")
            until(lambda: common.handle("n").status().status is Status.RUNNING)
            until(lambda: "delivery.confirmed" in kinds(common, "n"))
        with studio_on(pooled_backend):
            common.handle("take@gpu").send("cut", "that's it")
            assert common.handle("n", named).result(timeout_s=PATIENCE_S) == "that's it"


def test_cancelling_reaches_a_child_in_a_pool(pooled_backend: LogBackend) -> None:
    """Given a parent that is cancelled, its child in the pool cleans up and is cancelled as well."""
    with common_on(pooled_backend) as common, studio_on(pooled_backend):
        run = common.start(named, "take@gpu", id="n")
        until(lambda: "delivery.confirmed" in kinds(common, "n"))
        run.cancel("no money")
        assert CLEANED.wait(PATIENCE_S)
        until(lambda: common.status("take@gpu").status is Status.CANCELLED)


def test_a_client_starts_a_run_of_a_pool(pooled_backend: LogBackend) -> None:
    """Given no id, one of the pool is made up; a child without a pool goes back to the common partitions."""
    client = Engine(pooled_backend.log(), worker=False)
    with common_on(pooled_backend), studio_on(pooled_backend), client:
        run = client.start(premiere, 2)
        assert run.id.endswith("@gpu")
        assert run.result(timeout_s=PATIENCE_S) == "2 review: fine"
        assert kinds(client, f"{run.id}/1")[0] == "workflow.started"


def test_ids_and_pools_must_agree() -> None:
    """Given an id that is not its workflow's pool's, nothing is started, in code or outside; the right one is told."""
    backend = MemoryBackend((("gpu", 1),))
    with common_on(backend) as common:
        with pytest.raises(UsageError, match="use 'a film@gpu' in place of 'a film'"):
            common.start(film, 1, id="a film")
        with pytest.raises(UsageError, match="'review@gpu' is one of pool 'gpu'"):
            common.start(review, "x", id="review@gpu")
        told = common.start(misnamed).result(timeout_s=PATIENCE_S)
        assert "use 'a film@gpu' in place of 'a film'" in told


def test_a_fork_stays_in_its_pool() -> None:
    """Given a run of a pool that has ended, its fork runs in the pool."""
    backend = MemoryBackend((("gpu", 2),))
    with studio_on(backend) as studio:
        run = studio.start(film, 2)
        run.result(timeout_s=PATIENCE_S)
        fork = run.fork(1)
        assert fork.id.endswith("@gpu")
        assert fork.result(timeout_s=PATIENCE_S) == ["scene 0", "scene 1"]
    assert RAN == ["scene 0", "scene 1", "scene 1"]


def test_one_process_can_serve_both(pooled_backend: LogBackend) -> None:
    """Given a worker that serves the common partitions and a pool, it has all of both and runs both."""
    both = Engine(pooled_backend.log(), workflows=[*COMMON, film], pools=["gpu"])
    with both:
        until(lambda: both.owned_partitions == [0, 1, 2, 3])
        assert both.start(advert, 1).result(timeout_s=PATIENCE_S) == ["scene 0"]


def test_a_namespace_without_the_pool_needs_the_code_everywhere() -> None:
    """Given a namespace that has no partitions for the pool, any worker runs its workflows, if it has them."""
    backend = MemoryBackend()
    with Engine(backend.log(), workflows=[advert, film]) as engine:
        assert engine.start(advert, 1).result(timeout_s=PATIENCE_S) == ["scene 0"]
    with common_on(backend) as common, pytest.raises(UnknownWorkflow):
        common.start(advert, 2).result(timeout_s=PATIENCE_S)


def test_open_children_move_to_a_pools_partitions() -> None:
    """Given a namespace without the pool, its open runs go on after a migration to one that has partitions for it."""
    old, new = MemoryBackend(), MemoryBackend((("gpu", 2),))
    with Engine(old.log(), workflows=[named, endless]) as engine:
        engine.start(named, "take@gpu", id="n")
        until(lambda: "delivery.confirmed" in kinds(engine, "n"))

    async def move() -> None:
        source, target = old.log(), new.log()
        await source.open()
        await target.open()
        await Migration(source, target, "old", "new", wall_clock).run()
        await source.close()
        await target.close()

    asyncio.run(move())
    with common_on(new) as common, studio_on(new) as studio:
        studio.handle("take@gpu").send("cut", "done")
        assert common.handle("n", named).result(timeout_s=PATIENCE_S) == "done"


def test_a_pools_worker_with_nothing_to_do_says_so() -> None:
    """Given a namespace without partitions for a pool that has no step either, its worker does not stand idle."""
    engine = Engine(MemoryBackend().log(), workflows=[silent], worker=False, pools=["silent"])
    with pytest.raises(UsageError, match="nothing to do here for pool 'silent'"):
        engine.__enter__()


def test_a_pool_that_no_id_can_name_is_refused() -> None:
    """Given a pool whose name ids can't end with, the definition is refused."""
    with pytest.raises(DefinitionError, match="can't name a pool of workflows"):
        workflow(pool="g@u")(lambda: None)

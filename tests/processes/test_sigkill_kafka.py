"""Two workers on a real Kafka broker, one killed or stopped: the other finishes, nothing recorded runs again."""

import asyncio
import os
import random
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from crash_audit import Journal
from crash_company import COMPANY, COMPANY_WINDOW, RALLY
from crash_exchange import between_partitions
from crash_load import (
    LOOK_EVERY_S,
    WINDOW,
    Load,
    digests,
    digests_elsewhere,
    problems_of,
)
from crash_nursery import Nursery, log_of
from crash_shapes import FREEZE, FREEZING, SHAPES, Shape
from kafka_backend import KafkaBackend
from log_backend import PATIENCE_S
from refold import Engine

MOST_ATTEMPTS = 100
"""A worker is killed after at most so many attempts have begun in it, so it owned partitions when it died."""
PARTITIONS = 4

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def url(kafka_bootstrap: str) -> str:
    """A namespace of four partitions, for two workers."""
    backend = KafkaBackend(kafka_bootstrap, PARTITIONS)
    return f"kafka://{kafka_bootstrap}/{backend.namespace}"


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that another process brings about."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - it is brought about in another process
            await asyncio.sleep(LOOK_EVERY_S)


@pytest.mark.parametrize(
    ("shapes", "window", "rounds"),
    [
        pytest.param(SHAPES, WINDOW, 20, id="alone"),
        pytest.param(COMPANY, COMPANY_WINDOW, 6, id="in_company"),
    ],
)
def test_of_two_workers_one_is_killed_again_and_again(
    url: str, tmp_path: Path, shapes: Sequence[Shape], window: int, rounds: int
) -> None:
    """Given two workers under load, when one after the other is killed, nothing is lost or repeated.

    In company, runs message, start and cancel each other over all partitions, of which a dead worker owns some.
    """
    rounds = int(os.environ.get("REFOLD_KILLS", rounds))
    seed = int(os.environ.get("REFOLD_SEED", random.SystemRandom().getrandbits(32)))
    print(f"REFOLD_SEED={seed} brings the same kills back")  # as near as three processes allow
    chance = random.Random(seed)
    journal = Journal(tmp_path / "journal")

    async def scenario() -> None:
        with Nursery(url, journal.path) as nursery:
            async with Engine(log_of(url), worker=False, start_timeout_s=PATIENCE_S) as client:
                load = Load(client, journal, chance, shapes, window)
                workers = [nursery.start(), nursery.start()]
                for _ in range(rounds):
                    victim = workers.pop(chance.randrange(2))
                    await load.until_begun(chance.randint(1, MOST_ATTEMPTS), victim)
                    os.kill(victim, signal.SIGKILL)
                    assert nursery.bury(victim) == -signal.SIGKILL
                    workers.append(nursery.start())
                audited, problems = await problems_of(url, client, load, journal)
                assert [nursery.retire(worker) for worker in workers] == [0, 0]
        assert problems == []
        assert len(audited.claims) > rounds  # every victim had claimed something
        begun = [(line.workflow_id, line.step, line.attempt) for line in journal.lines]
        print(
            f"{len(load.acknowledged)} runs, {len(begun)} attempts, of them "
            f"{len(begun) - len(set(begun))} again after a kill, {len(audited.claims)} claims, "
            f"{audited.stale} stale records; between partitions: "
            f"{dict(between_partitions(audited, PARTITIONS))}"
        )

    asyncio.run(scenario())
    everywhere = [asyncio.run(digests(url)), asyncio.run(digests(url)), digests_elsewhere(url)]
    assert everywhere[0] == everywhere[1] == everywhere[2]


def test_a_stopped_worker_that_comes_back_changes_nothing(url: str, tmp_path: Path) -> None:
    """Given a worker stopped past its session inside a step, when it goes on, its writes are void and it works on.

    Some of its runs were about to message others: what it still posts of theirs was posted by the new owner as well.
    """
    journal = Journal(tmp_path / "journal")
    freeze = Path(f"{journal.path}{FREEZE}")
    freeze.touch()  # found, and removed, by the first worker that comes to the step

    async def scenario() -> None:
        with Nursery(url, journal.path) as nursery:
            async with Engine(log_of(url), worker=False, start_timeout_s=PATIENCE_S) as client:
                load = Load(client, journal, random.Random(1), (*SHAPES, RALLY))
                workers = [nursery.start(), nursery.start()]
                for worker in workers:
                    await load.until_begun(30, worker)
                frozen = [await load.start(FREEZING) for _ in range(8)]
                await until(lambda: not freeze.exists())
                await load.until_begun(100)  # by the other one, on partitions that were its own
                for run in frozen:  # also those whose partition the stopped one owned
                    await client.handle(run, FREEZING.workflow).result_async(PATIENCE_S)
                journal.new()
                stopped = next(worker for worker in workers if is_stopped(worker))
                os.kill(stopped, signal.SIGCONT)
                await load.until_begun(30, stopped)  # it has joined and claimed again
                audited, problems = await problems_of(url, client, load, journal)
                assert [nursery.retire(worker) for worker in workers] == [0, 0]
        assert problems == []
        assert len(audited.claims) > 4
        print(f"{audited.stale} stale records, {len(audited.claims)} claims")

    asyncio.run(scenario())
    assert asyncio.run(digests(url)) == digests_elsewhere(url)


def is_stopped(pid: int) -> bool:
    """Whether a process stands still after SIGSTOP."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"

"""A worker on one SQLite file, killed again and again under load: nothing is lost, nothing recorded runs again."""

import asyncio
import os
import random
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from crash_audit import Journal
from crash_company import COMPANY, COMPANY_WINDOW
from crash_exchange import between_partitions
from crash_load import WINDOW, Load, digests, digests_elsewhere, problems_of
from crash_nursery import Nursery
from crash_shapes import SHAPES, Shape
from log_backend import PATIENCE_S
from refold import Engine

MOST_ATTEMPTS = 200
"""A worker is killed after at most so many attempts have begun in it; some are killed before the first."""


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("shapes", "window", "partitions", "rounds"),
    [
        pytest.param(SHAPES, WINDOW, 1, 100, id="alone"),
        pytest.param(COMPANY, COMPANY_WINDOW, 4, 20, id="in_company"),
    ],
)
def test_a_worker_killed_again_and_again_loses_and_repeats_nothing(
    tmp_path: Path, shapes: Sequence[Shape], window: int, partitions: int, rounds: int
) -> None:
    """Given runs of every shape, when their worker is killed again and again, each ends once, with what was recorded.

    In company, they message, start and cancel each other over several partitions.
    """
    rounds = int(os.environ.get("REFOLD_KILLS", rounds))
    seed = int(os.environ.get("REFOLD_SEED", random.SystemRandom().getrandbits(32)))
    print(f"REFOLD_SEED={seed} brings the same kills back")  # as near as two processes allow
    chance = random.Random(seed)
    url = f"sqlite:///{tmp_path}/log.db?partitions={partitions}"
    journal = Journal(tmp_path / "journal")

    async def scenario() -> None:
        productive = 0
        with Nursery(url, journal.path) as nursery:
            async with Engine(url, worker=False, start_timeout_s=PATIENCE_S) as client:
                load = Load(client, journal, chance, shapes, window)
                for _ in range(rounds):
                    worker = nursery.start()
                    attempts = max(0, chance.randint(-MOST_ATTEMPTS // 10, MOST_ATTEMPTS))
                    await load.until_begun(attempts, worker)
                    os.kill(worker, signal.SIGKILL)
                    await load.top_up()
                    assert nursery.bury(worker) == -signal.SIGKILL
                    productive += attempts > 0
                last = nursery.start()
                audited, problems = await problems_of(url, client, load, journal)
                assert nursery.retire(last) == 0
        assert problems == []
        lives = {line.pid for line in journal.lines}
        assert len(lives) >= productive
        assert len(audited.claims) >= len(lives)  # each life that began a step had claimed the log
        begun = [(line.workflow_id, line.step, line.attempt) for line in journal.lines]
        print(
            f"{len(load.acknowledged)} runs, {len(begun)} attempts, of them "
            f"{len(begun) - len(set(begun))} again after a kill, {len(audited.claims)} claims; "
            f"between partitions: {dict(between_partitions(audited, partitions))}"
        )

    asyncio.run(scenario())
    everywhere = [asyncio.run(digests(url)), asyncio.run(digests(url)), digests_elsewhere(url)]
    assert everywhere[0] == everywhere[1] == everywhere[2]

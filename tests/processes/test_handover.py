"""Workers that are told to stop while others go on: partitions move at once, and no step is cut off."""

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from crash_audit import Audited, Journal
from crash_load import Load, digests, digests_elsewhere, problems_of
from crash_nursery import PATIENT, Nursery, log_of
from crash_shapes import LINGERING, SHAPES
from kafka_backend import KafkaBackend
from log_backend import PATIENCE_S, records_of
from refold import Engine
from refold.log.codec import decode_event
from refold.log.events import PartitionHandedOver, PartitionOffered
from refold.log.protocol import Channel, Log

WORKERS = 3
PARTITIONS = 6

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A namespace for three workers, in a file and on a broker in turn."""
    monkeypatch.setenv(PATIENT, "1")  # who is cut off by the group hands nothing over
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'log.db'}?partitions={PARTITIONS}"
    bootstrap: str = request.getfixturevalue("kafka_bootstrap")
    return f"kafka://{bootstrap}/{KafkaBackend(bootstrap, PARTITIONS).namespace}"


async def handed_over(url: str) -> tuple[list[int], int]:
    """How many steps went on at each hand-over; and how many partitions were offered before."""
    log: Log = log_of(url)
    await log.open()
    try:
        records = [
            r for p in range(log.partitions) for r in await records_of(log, Channel.EVENTS, p)
        ]
    finally:
        await log.close()
    events = [decode_event(record) for record in records]
    steps = [e.payload.count("],") for e in events if isinstance(e, PartitionHandedOver)]
    return steps, sum(isinstance(e, PartitionOffered) for e in events)


def test_a_rolling_restart_cuts_no_step_off(url: str, tmp_path: Path) -> None:
    """Given three workers under load, when each is replaced by a new one, nothing is lost, no attempt begins twice."""
    journal = Journal(tmp_path / "journal")
    chance = random.Random(3)

    async def scenario() -> Audited:
        with Nursery(url, journal.path) as nursery:
            async with Engine(log_of(url), worker=False, start_timeout_s=PATIENCE_S) as client:
                load = Load(client, journal, chance, (*SHAPES, LINGERING, LINGERING))
                workers = [nursery.start() for _ in range(WORKERS)]
                for worker in workers:
                    await load.until_begun(20, worker)
                for old in tuple(workers):
                    new = nursery.start()
                    assert await asyncio.to_thread(nursery.retire, old) == 0
                    workers = [*workers[1:], new]
                    await load.until_begun(20, new)
                audited, problems = await problems_of(url, client, load, journal)
                assert [nursery.retire(worker) for worker in workers] == [0] * WORKERS
        assert problems == []
        return audited

    audited = asyncio.run(scenario())
    begun = Counter((line.workflow_id, line.step, line.attempt) for line in journal.lines)
    assert [attempt for attempt, count in begun.items() if count > 1] == []
    assert len(audited.claims) > PARTITIONS
    steps, offers = asyncio.run(handed_over(url))
    assert steps
    assert (offers > 0) == url.startswith("kafka:")
    assert asyncio.run(digests(url)) == digests_elsewhere(url)

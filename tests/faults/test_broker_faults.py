"""Two workers under load while brokers fail: it goes on by itself, nothing is lost, nothing recorded runs again."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource

from crash_audit import Journal
from crash_faults import StubbornLoad, leader_of, resident_bytes
from crash_load import LOOK_EVERY_S, digests, digests_elsewhere, problems_of
from crash_nursery import IMPATIENT, IMPATIENT_SETTINGS, Nursery, log_of
from kafka_backend import KafkaBackend
from kafka_broker import Broker, Cluster
from log_backend import PATIENCE_S, opened, records_of
from refold import AppendUnknown, Engine, LogUnavailable
from refold.log.findings import Level
from refold.log.kafka import KafkaLog
from refold.log.protocol import Channel, Entry, Log

PARTITIONS = 4
ATTEMPTS = 60
"""Steps that must begin before a fault and after it: the workers were at work, and are again."""
AWAY_S = (
    1.5 * (IMPATIENT_SETTINGS.session_timeout_ms + IMPATIENT_SETTINGS.delivery_timeout_ms) / 1000
)
"""Half as long again as the longest chain of timeouts: sessions end, appends become unknown, clients are refused."""
MEMORY_MAX_BYTES = 64 * 1024 * 1024
"""What two workers may need more for an outage: a few copies of what is open, never what was offered."""

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass(frozen=True, slots=True)
class Trial:
    """Two workers, a client and its load on a namespace of their own."""

    url: str
    topic: str
    client: Engine
    load: StubbornLoad
    journal: Journal
    nursery: Nursery
    workers: list[int]

    async def at_work(self) -> None:
        """Every worker has begun steps."""
        for worker in self.workers:
            await self.load.until_begun(ATTEMPTS, worker)

    async def ends_well(self) -> None:
        """Both workers take up work again; then everything ends, and nothing was lost, repeated or made up."""
        began = time.monotonic()
        await self.at_work()
        print(f"both at work again after {time.monotonic() - began:.1f} s")
        audited, problems = await problems_of(self.url, self.client, self.load, self.journal)
        assert problems == []
        assert [self.nursery.retire(worker) for worker in self.workers] == [0, 0]
        print(
            f"{len(self.load.acknowledged)} runs, {len(self.journal.lines)} attempts,"
            f" {len(audited.claims)} claims, {audited.stale} stale records,"
            f" refusals: {dict(self.load.refusals)}"
        )


@contextlib.asynccontextmanager
async def trial(bootstrap: str, journal: Path, window: int = 30) -> AsyncGenerator[Trial, None]:
    """A trial; workers that were not retired end with it."""
    backend = await asyncio.to_thread(KafkaBackend, bootstrap, PARTITIONS, IMPATIENT_SETTINGS)
    url = f"kafka://{bootstrap}/{backend.namespace}"
    book = Journal(journal)
    with Nursery(url, journal) as nursery:
        async with Engine(log_of(url), worker=False, start_timeout_s=PATIENCE_S) as client:
            load = StubbornLoad(client, book, 1, window)
            workers = [nursery.start(), nursery.start()]
            topic = f"{backend.namespace}.events"
            yield Trial(url, topic, client, load, book, nursery, workers)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(IMPATIENT, "yes")


def same_everywhere(url: str) -> None:
    """Readers of their own, in this process and another, fold to the same."""
    assert asyncio.run(digests(url)) == digests_elsewhere(url)


def test_the_only_broker_restarts_then_stays_away(lasting_broker: Broker, tmp_path: Path) -> None:
    """Given the only broker restarted in order, later killed and away until every timeout has passed: all goes on.

    Meanwhile clients are refused, in time and clearly, and memory stays where it was.
    """

    async def away(trying: Trial) -> None:
        before = resident_bytes(trying.workers)
        await asyncio.sleep(AWAY_S)  # the fault itself, not a wait for anything
        assert resident_bytes(trying.workers) - before < MEMORY_MAX_BYTES
        await asyncio.to_thread(lasting_broker.start)

    async def scenario() -> str:
        async with trial(lasting_broker.bootstrap, tmp_path / "journal", window=100) as trying:
            await trying.at_work()
            await trying.load.during(asyncio.to_thread(lasting_broker.restart))
            await trying.at_work()
            await asyncio.to_thread(lasting_broker.kill)
            await trying.load.during(away(trying))
            await trying.ends_well()
            assert trying.load.refusals["LogUnavailable"] > 0
            return trying.url

    same_everywhere(asyncio.run(scenario()))


def test_one_of_three_brokers_is_lost_then_another(
    lasting_cluster: Cluster, tmp_path: Path
) -> None:
    """Given three brokers, SIGKILL of a leader costs nothing; without a second one, appends wait or are refused.

    Nothing is acknowledged that only one broker has; when the two are back, all goes on.
    """

    async def scenario() -> str:
        async with trial(lasting_cluster.bootstrap, tmp_path / "journal") as trying:
            load = trying.load
            await trying.at_work()
            node = await asyncio.to_thread(leader_of, lasting_cluster.bootstrap, trying.topic, 0)
            leader = lasting_cluster.broker(node)
            await load.during(asyncio.to_thread(leader.kill))
            await trying.at_work()  # with two brokers
            other = next(broker for broker in lasting_cluster.brokers if broker.running)
            await asyncio.to_thread(other.kill)
            acknowledged, refused = set(load.acknowledged), load.refusals.total()

            async def until_refused() -> None:
                while load.refusals.total() == refused:  # noqa: ASYNC110 - counted by the load
                    await asyncio.sleep(LOOK_EVERY_S)
                assert set(load.acknowledged) == acknowledged
                await asyncio.to_thread(lasting_cluster.revive)

            await load.during(until_refused())
            await trying.ends_well()
            return trying.url

    same_everywhere(asyncio.run(scenario()))


def test_the_reason_is_told_where_copies_are_missing(lasting_cluster: Cluster) -> None:
    """Given a topic that wants three copies and has two, an append names the setting; it works with the third."""
    backend = KafkaBackend(lasting_cluster.bootstrap, 1, IMPATIENT_SETTINGS)
    topic = f"{backend.namespace}.events"
    wants_all = ConfigResource("TOPIC", topic, {"min.insync.replicas": "3"})
    entry = Entry("k", b"v")

    async def scenario() -> None:
        async with opened(backend) as log:
            await log.append(Channel.EVENTS, 0, [entry])
            leader = await asyncio.to_thread(leader_of, lasting_cluster.bootstrap, topic, 0)
            lost = next(one for one in lasting_cluster.brokers if one.node_id != leader)
            await asyncio.to_thread(alter, lasting_cluster.bootstrap, wants_all)
            await asyncio.to_thread(lost.kill)
            # Until the cluster has missed the broker, the leader waits for it.
            with pytest.raises((AppendUnknown, LogUnavailable), match=r"min\.insync\.replicas"):
                await append_for_ever(log, entry)
            assert isinstance(log, KafkaLog)
            while "2 of 3 copies in sync and needs 3" not in await failures(log):
                pass
            await asyncio.to_thread(lost.start)
            offset = await append_at_last(log, entry)
            assert (await records_of(log, Channel.EVENTS))[-1].offset == offset

    asyncio.run(scenario())


async def append_for_ever(log: Log, entry: Entry) -> None:
    """Append until it fails."""
    while True:
        await log.append(Channel.EVENTS, 0, [entry])


async def append_at_last(log: Log, entry: Entry) -> int:
    """Append until it works."""
    while True:
        try:
            (offset,) = await log.append(Channel.EVENTS, 0, [entry])
        except (AppendUnknown, LogUnavailable):
            continue
        return offset


async def failures(log: KafkaLog) -> str:
    """What a doctor says."""
    examination = await log.examine()
    return "\n".join(f.told for f in examination.findings if f.level is Level.FAIL)


def alter(bootstrap: str, resource: ConfigResource) -> None:
    """Change a topic's settings."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap.split(","))
    try:
        admin.alter_configs([resource])
    finally:
        admin.close()

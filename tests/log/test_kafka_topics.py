"""Making a namespace's topics, and refusing at open what is not the namespace that was made."""

import asyncio
import logging
import socket
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource
from kafka.cluster import ClusterMetadata

from kafka_backend import TEST_SETTINGS, KafkaBackend
from kafka_broker import Cluster
from refold.log.errors import LogMismatch, LogUnavailable, TopicsMissing, UsageError
from refold.log.kafka import KafkaLog, KafkaSettings, create_topics
from refold.log.kafka_client import Clients
from refold.log.kafka_settings import Topics
from refold.log.kafka_topics import FORMAT, NamespaceRecord, TopicsReport
from refold.log.layout import Layout
from refold.log.protocol import MIN_TAKEOVER_S, Channel, Entry


@contextmanager
def admin_of(bootstrap: str) -> Generator[KafkaAdminClient, None, None]:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap.split(","))
    try:
        yield admin
    finally:
        admin.close()


def create(bootstrap: str, namespace: str, partitions: int = 2) -> TopicsReport:
    return asyncio.run(
        create_topics(bootstrap.split(","), namespace, partitions, None, TEST_SETTINGS)
    )


def open_and_close(log: KafkaLog) -> None:
    async def scenario() -> None:
        try:
            await log.open()
        finally:
            await log.close()

    asyncio.run(scenario())


def fresh_name() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


def test_a_client_knows_its_topics_from_its_first_request(
    kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given topics that are there, a client that is made for them does not ask once more for their partitions:
    kafka-python would let 100 ms pass before.
    """
    backend = KafkaBackend(kafka_bootstrap)
    clients, topics = Clients(backend.servers, TEST_SETTINGS), Topics(backend.namespace).all()
    made: Any = ClusterMetadata
    ask = made.request_update
    asked: list[object] = []

    def noted(cluster: object) -> object:
        asked.append(cluster)
        return ask(cluster)

    monkeypatch.setattr(ClusterMetadata, "request_update", noted)
    producer = clients.producer("learning", topics)
    try:
        clients.learn_partitions(producer, topics)
    finally:
        producer.close(timeout=1.0)
    assert asked == []


class TestCreate:
    def test_topics_are_made_to_keep_everything(self, kafka_bootstrap: str) -> None:
        """Given a new namespace, events and commands never expire, take the broker's time, and elect clean leaders."""
        name = fresh_name()
        report = create(kafka_bootstrap, name)
        assert (report.created, report.layout) == (True, Layout(2))
        with admin_of(kafka_bootstrap) as admin:
            for channel in ("events", "commands"):
                topic = f"{name}.{channel}"
                found = admin.describe_configs(
                    [ConfigResource("TOPIC", topic)], config_filter="all"
                )["topic"][topic]
                values = {key: entry["value"] for key, entry in found.items()}
                assert values["retention.ms"] == "-1"
                assert values["retention.bytes"] == "-1"
                assert values["cleanup.policy"] == "delete"
                assert values["message.timestamp.type"] == "LogAppendTime"
                assert values["unclean.leader.election.enable"] == "false"

    def test_one_copy_is_told(self, kafka_bootstrap: str) -> None:
        """Given a single broker, the report says that its disk is all there is."""
        report = create(kafka_bootstrap, fresh_name())
        assert ("one copy" in " ".join(report.warnings)) == (report.replication == 1)

    def test_making_it_again_changes_nothing(self, kafka_bootstrap: str) -> None:
        """Given a namespace, making it again says that it is there, and its records stay."""
        name = fresh_name()
        first = create(kafka_bootstrap, name)
        again = create(kafka_bootstrap, name)
        assert (first.created, again.created) == (True, False)
        assert again.layout == first.layout

    def test_two_makers_at_once_agree(self, kafka_bootstrap: str) -> None:
        """Given two processes that make the same namespace at once, both succeed, and it opens."""
        name = fresh_name()

        async def both() -> list[TopicsReport]:
            return await asyncio.gather(
                *(create_topics([kafka_bootstrap], name, 2, None, TEST_SETTINGS) for _ in range(2))
            )

        assert sum(report.created for report in asyncio.run(both())) == 1
        open_and_close(KafkaLog([kafka_bootstrap], name, TEST_SETTINGS))

    def test_another_partition_count_is_refused(self, kafka_bootstrap: str) -> None:
        """Given a namespace of 2 partitions, asking for 3 is an error that names both."""
        name = fresh_name()
        create(kafka_bootstrap, name, 2)
        with pytest.raises(LogMismatch, match="has 2 partitions, not 3"):
            create(kafka_bootstrap, name, 3)

    def test_a_crash_before_the_record_is_made_up_for(self, kafka_bootstrap: str) -> None:
        """Given topics whose maker died before it recorded them, making them again completes the namespace."""
        name = fresh_name()
        with admin_of(kafka_bootstrap) as admin:
            wanted = {
                f"{name}.{part}": {
                    "num_partitions": 1 if part == "meta" else 2,
                    "replication_factor": 1,
                    "configs": {"retention.ms": "-1"},
                }
                for part in ("events", "commands", "replies", "meta")
            }
            admin.create_topics(wanted, wait_for_metadata=True)
        report = create(kafka_bootstrap, name)
        assert not report.created
        open_and_close(KafkaLog([kafka_bootstrap], name, TEST_SETTINGS))

    def test_somebody_elses_topics_are_left_alone(self, kafka_bootstrap: str) -> None:
        """Given one topic of another application by such a name, nothing is made beside it."""
        name = fresh_name()
        with admin_of(kafka_bootstrap) as admin:
            admin.create_topics(
                {f"{name}.events": {"num_partitions": 7, "replication_factor": 1}},
                wait_for_metadata=True,
            )
            with pytest.raises(LogMismatch, match="another namespace"):
                create(kafka_bootstrap, name)
            assert f"{name}.commands" not in admin.list_topics()

    @pytest.mark.parametrize(
        "name", ["", ".", "a.b", "-a", "a b", "a/b", "ns\n", "ключ", "x" * 201, "__a b"]
    )
    def test_names_that_no_topic_can_have_are_refused(self, name: str) -> None:
        """Given a bad name, it is refused before anybody is asked (no broker is there)."""
        with pytest.raises(UsageError, match="letters, digits"):
            create("127.0.0.1:1", name)
        with pytest.raises(UsageError, match="letters, digits"):
            KafkaLog(["127.0.0.1:1"], name)

    @pytest.mark.parametrize("partitions", [0, -1, 1_000_000])
    def test_impossible_partition_counts_are_refused(self, partitions: int) -> None:
        """Given a count that can't be, it is refused before anybody is asked."""
        with pytest.raises(UsageError, match="partitions"):
            create("127.0.0.1:1", "orders", partitions)

    @pytest.mark.parametrize("servers", [[], ["host"], ["host:port"], ["a:1", "b"], [""]])
    def test_addresses_that_are_none_are_refused(self, servers: list[str]) -> None:
        """Given a list without a usable address, the error says what one looks like."""
        with pytest.raises(UsageError, match="host:port"):
            KafkaLog(servers, "orders")

    @pytest.mark.slow
    def test_three_brokers_hold_three_copies(self, kafka_cluster: Cluster) -> None:
        """Given three brokers, each partition has three copies, and two must have a record before it counts."""
        report = create(kafka_cluster.bootstrap, fresh_name())
        assert (report.replication, report.in_sync_min, report.warnings) == (3, 2, ())


class TestOpen:
    def test_no_broker_there_says_so(self) -> None:
        """Given an address where nobody listens, open and create name it and what to check."""
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else's
            server = f"127.0.0.1:{closed.getsockname()[1]}"
            with pytest.raises(LogUnavailable, match=f"{server}.*check that a broker runs there"):
                open_and_close(
                    KafkaLog([server], "orders", replace(TEST_SETTINGS, connect_timeout_ms=300))
                )

    def test_a_namespace_that_was_never_made_says_how(self, kafka_bootstrap: str) -> None:
        """Given no topics, open says which command makes them, and makes none itself."""
        name = fresh_name()
        with pytest.raises(TopicsMissing, match="refold topics create"):
            open_and_close(KafkaLog([kafka_bootstrap], name, TEST_SETTINGS))
        with admin_of(kafka_bootstrap) as admin:
            assert not [topic for topic in admin.list_topics() if topic.startswith(name)]

    def test_added_partitions_are_refused(self, kafka_bootstrap: str) -> None:
        """Given a topic that somebody added partitions to, open refuses, unless it is told to leave those alone."""
        backend = KafkaBackend(kafka_bootstrap)
        with admin_of(kafka_bootstrap) as admin:
            admin.create_partitions({f"{backend.namespace}.events": 5})
        with pytest.raises(
            LogMismatch, match=r"5 partitions.*made with 2.*ignore_added_partitions"
        ):
            self.until_refused(backend)
        settings = replace(TEST_SETTINGS, ignore_added_partitions=True)
        log = KafkaLog(backend.servers, backend.namespace, settings)
        open_and_close(log)
        assert log.partitions == 2

    def test_a_topic_made_again_is_refused(self, kafka_bootstrap: str) -> None:
        """Given a topic that was deleted and made again with the same name, open refuses: its history is gone."""
        backend = KafkaBackend(kafka_bootstrap)
        topic = f"{backend.namespace}.events"
        with admin_of(kafka_bootstrap) as admin:
            admin.delete_topics([topic])
            self.create_when_gone(admin, topic)
        with pytest.raises(LogMismatch, match="made again"):
            self.until_refused(backend)

    def test_a_deleted_topic_is_refused(self, kafka_bootstrap: str) -> None:
        """Given a topic that was deleted, open says which."""
        backend = KafkaBackend(kafka_bootstrap)
        with admin_of(kafka_bootstrap) as admin:
            admin.delete_topics([f"{backend.namespace}.commands"])
        with pytest.raises(LogMismatch, match=r"commands was deleted"):
            self.until_refused(backend)

    def test_unsafe_settings_are_warned_of(
        self, kafka_bootstrap: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Given commands that somebody set to expire, open warns that what waits may be lost."""
        backend = KafkaBackend(kafka_bootstrap)
        topic = f"{backend.namespace}.commands"
        with admin_of(kafka_bootstrap) as admin:
            admin.alter_configs(
                [
                    ConfigResource(
                        "TOPIC", topic, {"retention.ms": "1000", "min.insync.replicas": "2"}
                    )
                ]
            )
        with caplog.at_level(logging.WARNING, logger="refold"):
            open_and_close(backend.kafka_log(TEST_SETTINGS))
        assert "what nobody took up in time will be lost" in caplog.text
        assert "asks for 2 in-sync copies and has only one" in caplog.text

    def test_a_newer_format_is_refused(self) -> None:
        """Given a namespace that a newer release made, this one says to upgrade."""
        record = NamespaceRecord(FORMAT + 1, 2, {}, 0)
        with pytest.raises(LogMismatch, match="run a newer refold"):
            NamespaceRecord.from_json("orders", record.to_json())

    @pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": "x"}', "null", "\x00"])
    def test_a_foreign_record_is_refused(self, text: str) -> None:
        """Given something else under our key, the error asks whose namespace it is."""
        with pytest.raises(LogMismatch, match="another application"):
            NamespaceRecord.from_json("orders", text)

    @staticmethod
    def until_refused(backend: KafkaBackend) -> None:
        """Open until the broker's metadata shows what the admin did, which takes it a moment."""
        for _ in range(200):
            open_and_close(backend.kafka_log(TEST_SETTINGS))

    @staticmethod
    def create_when_gone(admin: KafkaAdminClient, topic: str) -> None:
        """A deleted topic's name is free when the broker has done the deleting."""
        gone: Callable[[], bool] = lambda: topic not in admin.list_topics()  # noqa: E731
        while not gone():
            pass
        admin.create_topics(
            {topic: {"num_partitions": 2, "replication_factor": 1}}, wait_for_metadata=True
        )


class TestRecordedNamespace:
    def test_the_record_round_trips(self) -> None:
        """Given a record, its JSON gives it back."""
        record = NamespaceRecord(FORMAT, 8, {"a.events": "id-1"}, 1_700_000_000_000_000)
        assert NamespaceRecord.from_json("a", record.to_json()) == record

    def test_records_survive_many_bookmarks(self, kafka_bootstrap: str) -> None:
        """Given bookmarks written after it, the namespace's record is still found at the next open."""
        backend = KafkaBackend(kafka_bootstrap)

        async def scenario() -> None:
            log = backend.kafka_log(TEST_SETTINGS)
            await log.open()
            for offset in range(50):
                await log.set_bookmark(offset % 2, offset)
            await log.close()
            again = backend.kafka_log(TEST_SETTINGS)
            await again.open()
            assert [await again.bookmark(partition) for partition in (0, 1)] == [48, 49]
            assert list(await again.append(Channel.EVENTS, 0, [Entry("k", b"v")])) == [0]
            await again.close()

        asyncio.run(scenario())


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            (lambda: KafkaSettings(security_protocol="TLS"), "security_protocol"),
            (lambda: KafkaSettings(security_protocol="SASL_SSL"), "sasl_username"),
            (lambda: KafkaSettings(session_timeout_ms=1_000), "heartbeat_interval_ms"),
            (lambda: KafkaSettings(delivery_timeout_ms=1_000), "delivery_timeout_ms"),
        ],
    )
    def test_settings_that_can_not_work_are_refused(
        self, settings: Callable[[], KafkaSettings], named: str
    ) -> None:
        """Given settings that contradict each other, the error names the one to change."""
        with pytest.raises(UsageError, match=named):
            settings()

    def test_a_session_too_short_for_the_engine_is_refused(self) -> None:
        """Given a session that could end within MIN_TAKEOVER_S, the error says what to give; a longer one is taken."""
        shortest_ms = int(MIN_TAKEOVER_S * 1_000) + 200
        with pytest.raises(UsageError, match=f"session_timeout_ms.*more than {shortest_ms} ms"):
            KafkaSettings(session_timeout_ms=shortest_ms, heartbeat_interval_ms=200)
        KafkaSettings(session_timeout_ms=shortest_ms + 1, heartbeat_interval_ms=200)

    def test_a_password_is_not_shown(self) -> None:
        """Given a password, the settings' text, which may be logged, does not have it."""
        settings = KafkaSettings(
            security_protocol="SASL_SSL",
            sasl_mechanism="PLAIN",
            sasl_username="refold",
            sasl_password="geheim",
        )
        assert "geheim" not in repr(settings)

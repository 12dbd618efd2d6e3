"""The broker that the Kafka tests stand on: real, kept over restarts, and never left behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from kafka_broker import Broker, Cluster, class_archive, kafka_jars

TOOL = Path(__file__).parent.parent / "tools" / "kafka_broker.py"


def topics(bootstrap: str) -> set[str]:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap.split(","))
    try:
        return set(admin.list_topics())
    finally:
        admin.close()


def create_topic(bootstrap: str, name: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap.split(","))
    try:
        admin.create_topics({name: {"num_partitions": 1, "replication_factor": -1}})
    finally:
        admin.close()


def test_a_client_lists_topics(kafka_bootstrap: str) -> None:
    assert isinstance(topics(kafka_bootstrap), set)


@pytest.mark.usefixtures("kafka_bootstrap")  # skipped where there is no Kafka
def test_brokers_start_with_an_archive_of_their_classes_that_is_kept() -> None:
    (option,) = class_archive("java", kafka_jars())
    archive = Path(option.removeprefix("-XX:SharedArchiveFile="))
    assert archive.stat().st_size > 1_000_000
    written = archive.stat().st_mtime_ns
    assert class_archive("java", kafka_jars()) == [option]
    assert archive.stat().st_mtime_ns == written


@pytest.mark.slow
@pytest.mark.parametrize("end", [Broker.stop, Broker.kill])
def test_a_restarted_broker_has_its_data_at_the_same_address(
    kafka_broker: Broker, end: Callable[[Broker], None]
) -> None:
    create_topic(kafka_broker.bootstrap, "kept")
    address, pid = kafka_broker.bootstrap, kafka_broker.pid
    end(kafka_broker)
    kafka_broker.restart()
    assert (kafka_broker.bootstrap, kafka_broker.pid != pid) == (address, True)
    assert "kept" in topics(address)


@pytest.mark.slow
def test_a_cluster_of_three_takes_writes_with_one_broker_dead(kafka_cluster: Cluster) -> None:
    create_topic(kafka_cluster.bootstrap, "replicated")
    kafka_cluster.brokers[0].kill()
    producer = KafkaProducer(bootstrap_servers=kafka_cluster.bootstrap.split(","), acks="all")
    try:
        assert producer.send("replicated", b"survives").get(timeout=60).offset == 0
    finally:
        producer.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes by /proc")
@pytest.mark.usefixtures("kafka_bootstrap")  # skipped where there is no Kafka
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_broker_does_not_outlive_the_process_that_started_it(end: signal.Signals) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "KAFKA_BOOTSTRAP"}
    with subprocess.Popen(
        [sys.executable, TOOL], stdout=subprocess.PIPE, text=True, env=environment
    ) as maker:
        assert maker.stdout is not None
        address = maker.stdout.readline().strip().removeprefix("KAFKA_BOOTSTRAP=")
        port = address.rpartition(":")[2]
        (broker_pid,) = java_pids(port)
        maker.send_signal(end)
    wait_for_end(broker_pid)


def java_pids(port: str) -> list[int]:
    """The brokers whose settings name that port, found by their working directory's file."""
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and names_port(entry / "cwd" / "server.properties", port)
    ]


def names_port(settings: Path, port: str) -> bool:
    try:
        return f"advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n" in settings.read_text()
    except OSError:
        return False


def wait_for_end(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        readable, _, _ = select.select([descriptor], [], [], 30)
        assert readable, f"broker {pid} still runs 30 s after its maker was ended"
    finally:
        os.close(descriptor)

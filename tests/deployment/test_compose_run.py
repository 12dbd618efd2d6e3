"""The deployment of docker-compose.yml as processes: its very commands and variables, on a real broker."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource

from cli_process import PATIENCE_S, Running
from compose import Compose, Service

ROOT = Path(__file__).parents[2]
COMPOSE = Compose.read(ROOT / "docker-compose.yml")

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


class Machine:
    """Runs services as processes: one machine in place of many containers.

    Args:
        directory: In place of the image's working directory.
        bootstrap: The broker in place of the service `kafka`.
    """

    def __init__(self, directory: Path, bootstrap: str) -> None:
        self.directory = directory
        self._namespace = f"compose-{uuid.uuid4().hex[:8]}"
        self._bootstrap = bootstrap

    def places(self, service: Service) -> Mapping[str, str]:
        """What is elsewhere here: the log, and a free port for each that a container has to itself."""
        places = {"kafka://kafka:9092/demo": f"kafka://{self._bootstrap}/{self._namespace}"}
        for port in service.ports:
            with socket.create_server(("127.0.0.1", 0)) as free:
                places[str(port.target)] = str(free.getsockname()[1])
        return places

    def environment(self, service: Service, places: Mapping[str, str]) -> dict[str, str]:
        given = {name: moved(value, places) for name, value in service.environment.items()}
        return {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **given}

    def begin(self, service: Service, places: Mapping[str, str]) -> Running:
        """Start it in the background."""
        return Running(
            subprocess.Popen(
                self.words(service, places),
                cwd=self.directory,
                env=self.environment(service, places),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )

    def finished(self, service: Service) -> str:
        """Run it to its end; what it printed."""
        places = self.places(service)
        done = subprocess.run(
            self.words(service, places),
            cwd=self.directory,
            env=self.environment(service, places),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def words(self, service: Service, places: Mapping[str, str]) -> list[str]:
        """Its command, as the image's entrypoint would run it."""
        entry = service.entrypoint or ("python", "-m", "refold")
        return pythonic(moved(word, places) for word in (*entry, *service.command))

    def healthy(self, service: Service, places: Mapping[str, str]) -> bool:
        """Whether its own health check says so."""
        kind, *words = service.healthcheck
        assert kind == "CMD"
        done = subprocess.run(
            pythonic(moved(word, places) for word in words),
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return done.returncode == 0


def moved(text: str, places: Mapping[str, str]) -> str:
    for here, there in places.items():
        text = text.replace(here, there)
    return text


def pythonic(words: Iterator[str]) -> list[str]:
    first, *rest = words
    assert first == "python"
    return [sys.executable, *rest]


@pytest.fixture
def machine(tmp_path: Path, kafka_bootstrap: str) -> Machine:
    """A directory with the examples, as the image has them."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return Machine(tmp_path, kafka_bootstrap)


def test_the_deployment_works_as_processes(machine: Machine) -> None:
    """Given topics made once, two workers share the client's runs, all are healthy, and SIGTERM ends them well."""
    services = COMPOSE.services
    assert "topics made" in machine.finished(services["topics"])
    assert "topics there already" in machine.finished(services["topics"])
    workers = [service for service in services.values() if service.command[:1] == ("worker",)]
    with ExitStack() as stack:
        begun: list[tuple[Running, Service, Mapping[str, str], str]] = []
        for service, ready in [
            *((one, "claimed=") for one in workers),
            (services["schemas"], "url="),
        ]:
            places = machine.places(service)
            running = stack.enter_context(machine.begin(service, places))
            begun.append((running, service, places, ready))
        for running, service, places, ready in begun:
            running.until(ready)
            assert machine.healthy(service, places), running.said
        first = machine.finished(services["client"]).splitlines()
        assert first[-1] == "6 parcels"
        assert [line.partition(":")[0] for line in first[:-1]] == [
            f"parcel-{n}" for n in range(1, 7)
        ]
        # The client once more: nothing is done a second time, and its results are the same.
        assert machine.finished(services["client"]).splitlines() == first
        for running, service, places, _ in begun:
            assert running.stopped(signal.SIGTERM) == 0, running.said
            assert not machine.healthy(service, places)


def properties() -> Sequence[str]:
    """Kafka's settings, as the image makes them from variables: KAFKA_A_B is a.b."""
    names = COMPOSE.services["kafka"].environment
    assert all(name.startswith("KAFKA_") for name in names)
    return [name.removeprefix("KAFKA_").lower().replace("_", ".") for name in names]


def test_every_setting_of_kafka_is_one_that_kafka_has(kafka_bootstrap: str) -> None:
    """Given the broker's variables, a real broker knows each of them as a setting."""
    admin = KafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    try:
        brokers = admin.describe_cluster()["brokers"]
        node = str(brokers[0]["broker_id"] if "broker_id" in brokers[0] else brokers[0]["node_id"])
        found = admin.describe_configs([ConfigResource("BROKER", node)], config_filter="all")
    finally:
        admin.close()
    known = set(found["broker"][node])
    assert set(properties()) <= known
    assert "no.such.setting" not in known

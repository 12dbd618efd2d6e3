"""A real Kafka for tests, the demo and benchmarks, with no container engine: Java and Maven are enough.

    with find_or_start() as bootstrap: ...     # KAFKA_BOOTSTRAP if it is set, else a broker of our own
    with Broker() as broker: broker.kill(); broker.restart()   # one that a test may maltreat
    with Cluster(3) as cluster: cluster.brokers[0].kill()

    python tools/kafka_broker.py [--brokers N]                 # start, print the address, run until Ctrl-C

Apache Kafka comes from Maven Central once and stays in the user's cache. A broker runs in KRaft mode, controller
and broker in one process, on loopback, its data in a temporary directory. It never outlives this process: not
a clean exit, and not SIGKILL either (see `tools/watchdog.py`). Only processes started here are ended, by their pid.
"""

from __future__ import annotations

import argparse
import atexit
import base64
import contextlib
import fcntl
import hashlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from watchdog import Watchdog

KAFKA_VERSION = "4.3.0"
SLF4J_VERSION = (
    "1.7.36"  # the API that this Kafka was built for; slf4j-simple writes to standard error
)
JAVA_VERSION_MIN = 17  # what Kafka 4's broker is compiled for

# About 5 s on two idle cores; a test run beside a build on a small machine needs far more.
READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
POLL_S = 0.1
LOG_TAIL_LINES = 40

# Below every system's range of ephemeral ports (Linux begins at 32768): while a broker is down, no outgoing
# connection can be given its port. Inside that range a client that reconnects over and over can even meet itself.
PORTS = range(20_000, 32_000)

POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>refold</groupId><artifactId>for-tests</artifactId><version>1</version>
  <dependencies>
{dependencies}  </dependencies>
</project>
"""
DEPENDENCY = """\
    <dependency>
      <groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>
    </dependency>
"""

# What a broker for tests does otherwise than Kafka's defaults, and why. A test may override any of it.
TEST_CONFIG = {
    "auto.create.topics.enable": "false",  # a missing topic is an error that we must see
    "unclean.leader.election.enable": "false",
    "group.initial.rebalance.delay.ms": "0",  # waits for nobody: a group of one starts at once
    "group.min.session.timeout.ms": "1000",  # a test may lose a member sooner than 6 s
    # A killed broker's next life is let in only when the session of the last has expired (default 9 s).
    "broker.session.timeout.ms": "4000",
    "broker.heartbeat.interval.ms": "500",
    "offsets.topic.num.partitions": "4",  # 50 log directories take longer to make than to use
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "1",
    "log.cleaner.dedupe.buffer.size": "8388608",  # 128 MB of a small heap would go to the cleaner
    "controlled.shutdown.enable": "true",
}


class BrokerUnavailableError(RuntimeError):
    """No broker can be had here; the message is one line that says what is missing."""


class BrokerFailedError(RuntimeError):
    """A broker was started, or named, and does not serve; the message ends with its log."""


@dataclass(frozen=True, slots=True)
class Node:
    """One member of a KRaft quorum: its id and its two loopback ports."""

    node_id: int
    port: int
    controller_port: int


class Broker:
    """One Kafka process. Starts on `with` or `start()`; its data lives until `close()`.

    Args:
        config: Broker settings that override `TEST_CONFIG` and Kafka's defaults.
        node: Id and ports; free ones are chosen where none are given.
        quorum: Every node of the cluster, where there is more than this one.
        cluster_id: The KRaft cluster id that all nodes of a cluster share.
        jvm: Java's options besides `KAFKA_OPTS`; where none are given, those of `class_archive`.

    Raises:
        BrokerUnavailableError: Java is missing, or Maven and the cached jars both are.
    """

    def __init__(
        self,
        config: Mapping[str, str] | None = None,
        *,
        node: Node | None = None,
        quorum: Sequence[Node] = (),
        cluster_id: str | None = None,
        jvm: Sequence[str] | None = None,
    ) -> None:
        self._java = _java()
        self._jars = kafka_jars()
        self._jvm = class_archive(self._java, self._jars) if jvm is None else list(jvm)
        self._node = node or _free_nodes(1)[0]
        self._quorum = tuple(quorum) or (self._node,)
        self._cluster_id = cluster_id or _random_cluster_id()
        self._config = dict(config or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: Watchdog | None = None
        self._home: Path | None = None
        self._maker_pid = os.getpid()

    @property
    def bootstrap(self) -> str:
        """The address that clients take, the same over every restart."""
        return f"127.0.0.1:{self._node.port}"

    @property
    def node_id(self) -> int:
        """The broker's id in its cluster: what topic descriptions name as leader."""
        return self._node.node_id

    @property
    def pid(self) -> int:
        """The pid of the running Java process."""
        if self._process is None:
            raise BrokerFailedError(f"broker {self.bootstrap} is not running")
        return self._process.pid

    @property
    def log_path(self) -> Path:
        """The broker's own log, appended to over restarts."""
        return self._home_or_raise() / "broker.log"

    def start(self) -> None:
        """Format the data directory, start the process and wait until a client can list topics."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start the process and return at once; `wait_ready` is the other half."""
        if self._process is not None:
            raise BrokerFailedError(f"broker {self.bootstrap} is running already")
        if self._home is None:
            self._home = Path(tempfile.mkdtemp(prefix="refold-kafka-"))
            atexit.register(self.close)
            self._format()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command("kafka.Kafka", "server.properties"),
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the program that uses the broker
            )
        self._watchdog = Watchdog(self._process.pid, self._home)

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until a client is served and the broker has joined its cluster.

        Raises:
            BrokerFailedError: The process ended, or `timeout_s` passed; with the tail of its log.
        """
        deadline = time.monotonic() + timeout_s
        while not _serves(self.bootstrap, self.node_id):
            if not self._alive_after(POLL_S):
                code = self._reap()
                raise BrokerFailedError(f"Kafka ended with code {code} at start{self._log_tail()}")
            if time.monotonic() > deadline:
                raise BrokerFailedError(f"Kafka not ready after {timeout_s} s{self._log_tail()}")

    def stop(self) -> None:
        """Shut down in order (SIGTERM); the data stay for `restart`."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process where it stands (SIGKILL); the data stay for `restart`."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Start again on the same data and ports, after `stop` or `kill`, or instead of them."""
        self.stop()
        self.start()

    @property
    def running(self) -> bool:
        """Whether its process runs, as far as this object has brought that about."""
        return self._process is not None

    def revive(self) -> None:
        """Start again if it was stopped or killed."""
        if not self.running:
            self.start()

    def wait(self) -> int:
        """Wait until the process ends by itself, and return its exit code."""
        if self._process is None:
            return 0
        self._process.wait()
        return self._reap()

    def close(self) -> None:
        """Kill the process and delete its data. What is closed already stays so."""
        if os.getpid() != self._maker_pid:
            return  # a forked child's atexit: the broker is its parent's
        self.kill()
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reap()

    def _reap(self) -> int:
        """Forget a process that has ended. Its watchdog goes with it: the pid may be another's from now on."""
        process, watchdog = self._process, self._watchdog
        self._process = self._watchdog = None
        if watchdog is not None:
            watchdog.dismiss()
        return process.wait() if process is not None else 0

    def _alive_after(self, pause_s: float) -> bool:
        """Pause, but not beyond the process's end."""
        if self._process is None:
            return False
        try:
            self._process.wait(pause_s)
        except subprocess.TimeoutExpired:
            return True
        return False

    def _format(self) -> None:
        home = self._home_or_raise()
        properties = "".join(f"{key}={value}\n" for key, value in self._settings().items())
        (home / "server.properties").write_text(properties)
        done = subprocess.run(
            self._command(
                "kafka.tools.StorageTool",
                *("format", "-t", self._cluster_id, "-c", "server.properties"),
            ),
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=READY_TIMEOUT_S,
            check=False,
        )
        self.log_path.write_bytes(done.stdout)
        if done.returncode != 0:
            raise BrokerFailedError(f"Kafka could not format its data directory{self._log_tail()}")

    def _settings(self) -> dict[str, str]:
        home, node, nodes = self._home_or_raise(), self._node, len(self._quorum)
        replication = str(min(3, nodes))
        in_sync_min = "2" if nodes >= 3 else "1"  # two of three: one may be lost
        return {
            "process.roles": "broker,controller",
            "node.id": str(node.node_id),
            "controller.quorum.voters": ",".join(
                f"{peer.node_id}@127.0.0.1:{peer.controller_port}" for peer in self._quorum
            ),
            "listeners": f"PLAINTEXT://127.0.0.1:{node.port},"
            f"CONTROLLER://127.0.0.1:{node.controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{node.port}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(home / "data"),
            "default.replication.factor": replication,
            "min.insync.replicas": in_sync_min,
            "offsets.topic.replication.factor": replication,
            "transaction.state.log.replication.factor": replication,
            "transaction.state.log.min.isr": in_sync_min,
            "share.coordinator.state.topic.replication.factor": replication,
            "share.coordinator.state.topic.min.isr": in_sync_min,
            **TEST_CONFIG,
            **self._config,
        }

    def _command(self, main_class: str, *args: str) -> list[str]:
        return [
            self._java,
            *("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC"),  # several fit beside the tests
            *self._jvm,
            *os.environ.get("KAFKA_OPTS", "").split(),  # as Kafka's own scripts have it
            "-Djava.awt.headless=true",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            *("-cp", str(self._jars / "*"), main_class, *args),
        ]

    def _home_or_raise(self) -> Path:
        if self._home is None:
            raise BrokerFailedError(f"broker {self.bootstrap} has no data: start it first")
        return self._home

    def _log_tail(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "; the end of its log:\n" + "\n".join(lines)


class Cluster:
    """`size` brokers, each a member of the quorum. With three, one may be lost.

    Args:
        size: How many brokers; an even number survives no more losses than the odd one below it.
        config: As in `Broker`, for each of them.
        own: Gives what else the config of one node has, such as listeners with ports of its own.
    """

    def __init__(
        self,
        size: int,
        config: Mapping[str, str] | None = None,
        *,
        own: Callable[[Node], Mapping[str, str]] | None = None,
    ) -> None:
        nodes = _free_nodes(size)
        cluster_id = _random_cluster_id()
        self.brokers = [
            Broker(
                {**(config or {}), **(own(node) if own is not None else {})},
                node=node,
                quorum=nodes,
                cluster_id=cluster_id,
            )
            for node in nodes
        ]

    @property
    def bootstrap(self) -> str:
        """Every broker's address, with commas between: the list outlives any one of them."""
        return ",".join(broker.bootstrap for broker in self.brokers)

    def broker(self, node_id: int) -> Broker:
        """The broker of that id, as a topic's description names its leader."""
        return next(broker for broker in self.brokers if broker.node_id == node_id)

    def start(self) -> None:
        """Start all, then wait for all: none is ready before a majority is up."""
        for broker in self.brokers:
            broker.launch()
        for broker in self.brokers:
            broker.wait_ready()

    def revive(self) -> None:
        """Start those that were stopped or killed, at once: none is ready before a majority is up."""
        dead = [broker for broker in self.brokers if not broker.running]
        for broker in dead:
            broker.launch()
        for broker in dead:
            broker.wait_ready()

    def close(self) -> None:
        """Kill all, delete all data."""
        for broker in self.brokers:
            broker.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@contextlib.contextmanager
def find_or_start() -> Generator[str, None, None]:
    """The address of a broker that answers: `KAFKA_BOOTSTRAP` if it is set, else one started for the block.

    Raises:
        BrokerUnavailableError: None is named and none can be started here.
        BrokerFailedError: The one that is named, or was started, does not answer.
    """
    bootstrap = os.environ.get("KAFKA_BOOTSTRAP")
    if bootstrap:
        if not _serves(bootstrap):
            raise BrokerFailedError(f"KAFKA_BOOTSTRAP is {bootstrap}, and no broker answers there")
        yield bootstrap
        return
    with Broker() as broker:
        yield broker.bootstrap


def _serves(bootstrap: str, node_id: int | None = None) -> bool:
    """Whether a client can list topics there, and finds that node among the live ones."""
    first = bootstrap.split(",", maxsplit=1)[0]
    host, _, port = first.rpartition(":")
    try:  # a cheap look first: the client logs and retries on a closed port
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        return False
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=bootstrap.split(","), bootstrap_timeout_ms=10_000
        )
    except KafkaError:
        return False
    try:
        admin.list_topics()
        if node_id is None:
            return True
        return node_id in {broker["broker_id"] for broker in admin.describe_cluster()["brokers"]}
    except KafkaError:
        return False
    finally:
        admin.close()


def _java() -> str:
    """The Java to run, or a `BrokerUnavailableError` that says what is wrong with it."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin" if home else None)
    if java is None:
        raise BrokerUnavailableError(
            f"Kafka needs Java {JAVA_VERSION_MIN} or newer, and no java was found"
        )
    said = subprocess.run(
        [java, "-version"], capture_output=True, text=True, timeout=60, check=False
    ).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < JAVA_VERSION_MIN:
        first_line = (said.splitlines() or ["nothing"])[0]
        raise BrokerUnavailableError(
            f"Kafka needs Java {JAVA_VERSION_MIN}, {java} says: {first_line}"
        )
    return java


def kafka_jars() -> Path:
    """The directory with Kafka's jars, brought by Maven the first time."""
    return fetched_jars(
        f"kafka-{KAFKA_VERSION}",
        f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
        f"org.slf4j:slf4j-simple:{SLF4J_VERSION}",
    )


def class_archive(java: str, jars: Path) -> list[str]:
    """Java's options for a broker that starts with its classes read already, in less than half the processor time.

    The archive (JEP 350) is written once, by a broker that starts and stops for it, and stays beside the jars. It
    fits one Java only, so that is in its name. Where it can't be written brokers start without it.
    """
    said = subprocess.run([java, "-version"], capture_output=True, timeout=60, check=False).stderr
    archive = jars.with_name(f"{jars.name}-{hashlib.sha256(said).hexdigest()[:12]}.jsa")
    with contextlib.suppress(OSError), archive.with_suffix(".lock").open("w") as lock:
        fcntl.flock(
            lock, fcntl.LOCK_EX
        )  # whoever comes meanwhile waits: it starts sooner all the same
        if not archive.exists():
            _write_class_archive(archive)
    return (
        [f"-XX:SharedArchiveFile={archive}"] if archive.exists() and archive.stat().st_size else []
    )


def _write_class_archive(archive: Path) -> None:
    incomplete = archive.with_suffix(".incomplete")
    incomplete.unlink(missing_ok=True)
    with (
        contextlib.suppress(BrokerFailedError),
        Broker(jvm=[f"-XX:ArchiveClassesAtExit={incomplete}"]) as broker,
    ):
        broker.stop()
    incomplete.touch()  # empty: it could not be done, and is not tried again
    incomplete.rename(archive)


def fetched_jars(name: str, *artifacts: str) -> Path:
    """A directory with jars and all that they need, brought from Maven Central the first time.

    Args:
        name: Of the directory, in the user's cache; with the version in it.
        artifacts: What is wanted, as `group:artifact:version`.

    Raises:
        BrokerUnavailableError: They are not there, and Maven is missing.
        BrokerFailedError: Maven could not bring them.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "refold"
    jars = cache / name
    if jars.is_dir():
        return jars
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerUnavailableError(f"no mvn found, which would bring {name} once")
    cache.mkdir(parents=True, exist_ok=True)
    # Complete or absent: what a killed download leaves behind has another name.
    with tempfile.TemporaryDirectory(dir=cache, prefix="incomplete-") as work:
        wanted = "".join(DEPENDENCY.format(*artifact.split(":")) for artifact in artifacts)
        (Path(work) / "pom.xml").write_text(POM.format(dependencies=wanted))
        print(f"fetching {name} with Maven, once", file=sys.stderr)
        done = subprocess.run(
            [maven, "-B", "-q", "dependency:copy-dependencies", "-DoutputDirectory=jars"],
            cwd=work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-LOG_TAIL_LINES:])
            raise BrokerFailedError(f"Maven could not bring {name}:\n{tail}")
        with contextlib.suppress(FileExistsError, OSError):  # another process was first: as good
            (Path(work) / "jars").rename(jars)
    if not jars.is_dir():
        raise BrokerFailedError(f"the jars of {name} could not be put into {jars}")
    return jars


def _random_cluster_id() -> str:
    """What `kafka.tools.StorageTool random-uuid` makes, without starting Java for it."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if not text.startswith("-"):  # would be read as an option
            return text


def free_ports(count: int) -> list[int]:
    """So many loopback ports that nobody listens on, from where no outgoing connection is given one."""
    with contextlib.ExitStack() as held:  # all at once, so that none is found twice
        return [_free_port(held) for _ in range(count)]


def _free_nodes(count: int) -> list[Node]:
    ports = free_ports(2 * count)
    return [
        Node(node_id=number + 1, port=ports[2 * number], controller_port=ports[2 * number + 1])
        for number in range(count)
    ]


def _free_port(held: contextlib.ExitStack) -> int:
    for port in random.sample(PORTS, 1000):
        probe = held.enter_context(socket.socket())
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return port
    raise BrokerFailedError(f"1000 ports of {PORTS} tried, and all of them are taken")


def main() -> int:
    """Start a broker, print its address, run until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description="A real Kafka on loopback, until Ctrl-C.")
    parser.add_argument("--brokers", type=int, default=1, metavar="N", help="how many (default: 1)")
    size = parser.parse_args().brokers
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with Cluster(size) as cluster:
            print(f"KAFKA_BOOTSTRAP={cluster.bootstrap}", flush=True)
            print("Kafka is ready; Ctrl-C ends it and deletes its data.", file=sys.stderr)
            return cluster.brokers[0].wait()
    except KeyboardInterrupt:
        return 0
    except (BrokerUnavailableError, BrokerFailedError) as error:
        print(error, file=sys.stderr)
        return 1


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())

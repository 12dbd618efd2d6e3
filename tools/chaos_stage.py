"""What a fault run happens on: brokers, a link from each process to each broker, and the processes themselves.

A Kafka client is told by the broker where to go, so each process has listeners of its own at every broker, which
advertise that process's proxies. Only processes that were started here are signalled, by their pid.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from chaos_history import Life, Scribe, now_us
from chaos_links import Link
from chaos_plan import Cast
from crash_shapes import JOURNAL
from kafka_broker import Broker, Cluster, Node, free_ports

SUPERVISE_EVERY_S: Final = 0.1
RESTART_AFTER_S: Final = 0.5
"""A worker that ended by itself is started again, as whoever runs services does."""

NETWORK_THREADS: Final = 1
"""Each listener has as many threads as `num.network.threads` says, and there are many listeners."""


@asynccontextmanager
async def beside(work: Coroutine[None, None, None]) -> AsyncGenerator[None]:
    """Do something as long as the block lasts; what it fails with is the block's failure at its end."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Stage:
    """Brokers and the links to them.

    Args:
        cast: Who there is.
    """

    def __init__(self, cast: Cast) -> None:
        self.cast = cast
        self._near = [*cast.workers, *cast.spares, *cast.clients]
        ports = iter(free_ports(2 * len(self._near) * len(cast.brokers)))
        self._behind: dict[tuple[str, str], int] = {}
        self.links: dict[tuple[str, str], Link] = {}
        for process in self._near:
            for broker in cast.brokers:
                front, self._behind[process, broker] = next(ports), next(ports)
                name = f"{process} - {broker}"
                self.links[process, broker] = Link(name, front, self._behind[process, broker])
        self.cluster = Cluster(len(cast.brokers), own=self._listeners)
        self.brokers: dict[str, Broker] = dict(zip(cast.brokers, self.cluster.brokers, strict=True))

    def _listeners(self, node: Node) -> Mapping[str, str]:
        """A node's listeners: one for those who come directly, and one for each process that comes by a proxy."""
        broker = self.cast.brokers[node.node_id - 1]
        bound = [f"PLAINTEXT://127.0.0.1:{node.port}"]
        told = list(bound)
        kinds = ["PLAINTEXT:PLAINTEXT", "CONTROLLER:PLAINTEXT"]
        for process in self._near:
            name = process.replace("-", "").upper()
            bound.append(f"{name}://127.0.0.1:{self._behind[process, broker]}")
            told.append(f"{name}://127.0.0.1:{self.links[process, broker].port}")
            kinds.append(f"{name}:PLAINTEXT")
        return {
            "listeners": ",".join([*bound, f"CONTROLLER://127.0.0.1:{node.controller_port}"]),
            "advertised.listeners": ",".join(told),
            "listener.security.protocol.map": ",".join(kinds),
            "num.network.threads": str(NETWORK_THREADS),
            "connections.max.idle.ms": "60000",
        }

    @property
    def bootstrap(self) -> str:
        """The brokers' addresses, without proxies."""
        return self.cluster.bootstrap

    def servers(self, process: str) -> str:
        """The brokers' addresses for a process."""
        return ",".join(
            f"127.0.0.1:{self.links[process, broker].port}" for broker in self.cast.brokers
        )

    def links_of(self, target: str) -> list[Link]:
        """The links that a target names: `worker-1 - broker-2`, or all of a process with `*`."""
        process, _, broker = target.partition(" - ")
        brokers = self.cast.brokers if broker == "*" else [broker]
        return [self.links[process, name] for name in brokers]

    async def open(self) -> None:
        """Start the brokers, then let the links listen."""
        await asyncio.to_thread(self.cluster.start)
        for link in self.links.values():
            await link.open()

    async def close(self) -> None:
        """End all."""
        for link in self.links.values():
            await link.close()
        self.cluster.close()

    def signal_broker(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a broker that runs."""
        broker = self.brokers[name]
        if broker.running:
            os.kill(broker.pid, number)


@dataclass(slots=True)
class Place:
    """A place for a process, in which one life follows another."""

    name: str
    command: Callable[[str], Sequence[str]]
    wanted: bool = False
    lives: int = 0
    not_before: float = 0.0
    process: "subprocess.Popen[bytes] | None" = None
    life: Life | None = None


class Company:
    """The processes of workers and clients, each started again when it has ended, as long as it is wanted.

    Args:
        directory: The run's: logs of the processes and the journal are there.
        scribe: Lives are written down there.
        environment: Environment variables for them, besides this process's.
    """

    def __init__(self, directory: Path, scribe: Scribe, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._scribe = scribe
        self._environment = {
            **os.environ,
            **environment,
            JOURNAL: str(directory / "journal"),
        }
        self._places: dict[str, Place] = {}
        # Inherited: a worker that is told to freeze while it starts would be ended by what it does not know yet.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        (directory / "logs").mkdir(parents=True, exist_ok=True)

    def add(self, name: str, command: Callable[[str], Sequence[str]]) -> None:
        """Make a place.

        Args:
            name: As `worker-1`.
            command: Gives a life's command by the life's name, `worker-1.3`.
        """
        self._places[name] = Place(name, command)

    async def supervise(self) -> None:
        """Bury the dead and start who is wanted, for ever."""
        while True:
            self.look()
            await asyncio.sleep(SUPERVISE_EVERY_S)

    def look(self) -> None:
        """Bury the dead and start who is wanted, once."""
        now = asyncio.get_running_loop().time()
        for place in self._places.values():
            process = place.process
            if process is not None and process.poll() is not None:
                self._bury(place, process)
                place.not_before = max(place.not_before, now + RESTART_AFTER_S)
            if place.wanted and place.process is None and now >= place.not_before:
                self._start(place)

    def want(self, name: str) -> None:
        """Have a process in this place from now on."""
        self._places[name].wanted = True
        self.look()

    def dismiss(self, name: str) -> None:
        """Have none any more, once this one has ended."""
        self._places[name].wanted = False

    def keep_away(self, name: str, length_s: float) -> None:
        """Start nobody there for some time."""
        now = asyncio.get_running_loop().time()
        self._places[name].not_before = now + length_s

    def living(self, name: str) -> Life | None:
        """Who is there now."""
        place = self._places[name]
        if place.process is None or place.process.poll() is not None:
            return None
        return place.life

    def signal(self, name: str, number: signal.Signals, pid: int | None = None) -> None:
        """Signal the process that is there now, if it is the one with this pid."""
        place = self._places[name]
        if place.process is not None and pid in {None, place.process.pid}:
            place.process.send_signal(number)  # does nothing where it has been waited for

    def end_input(self, name: str) -> None:
        """Close the standard input of the process that is there."""
        process = self._places[name].process
        if process is not None and process.stdin is not None:
            process.stdin.close()

    async def gone(self, names: Sequence[str], patience_s: float) -> list[str]:
        """Wait until nobody is in these places; returns those in which somebody still is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while any(self.living(name) for name in names):  # noqa: ASYNC110 - they are processes
                    await asyncio.sleep(SUPERVISE_EVERY_S)
        self.look()
        return [name for name in names if self.living(name)]

    def close(self) -> None:
        """Kill all who are there."""
        for place in self._places.values():
            place.wanted = False
            if place.process is not None:
                place.process.kill()
                place.process.wait()
                self._bury(place, place.process)

    def _start(self, place: Place) -> None:
        place.lives += 1
        name = f"{place.name}.{place.lives}"
        with (self._directory / "logs" / f"{name}.log").open("ab") as log:
            place.process = subprocess.Popen(
                list(place.command(name)),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for the run as a whole
            )
        place.life = Life(name, place.process.pid, now_us())
        self._scribe.write("begin", place.life)

    def _bury(self, place: Place, process: "subprocess.Popen[bytes]") -> None:
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        if place.life is not None:
            ended = replace(place.life, ended_us=now_us(), exit_code=process.returncode)
            self._scribe.write("end", ended)
        place.process = place.life = None

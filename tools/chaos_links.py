"""Links that can fail: each process reaches each broker through a TCP proxy of its own, on loopback.

A proxy needs no rights, where network namespaces need root. What TCP promises it keeps: bytes are never lost in the
middle of a connection. They are late (a delay), held until the link heals (as in a partition, after which TCP sends
again), or the connection is reset and with it whatever was under way.
"""

import asyncio
import contextlib
from enum import Enum
from typing import Final

CHUNK_BYTES: Final = 64 * 1024


class Way(Enum):
    """A direction of a link."""

    THERE = "there"
    BACK = "back"


class Link:
    """The way from one process to one broker.

    Args:
        name: For people: `worker-1 - broker-2`.
        port: Where the process connects to.
        target: The broker's own port.
    """

    def __init__(self, name: str, port: int, target: int) -> None:
        self.name = name
        self.port = port
        self._target = target
        self._server: asyncio.Server | None = None
        self._open = {way: asyncio.Event() for way in Way}
        self._is_cut = False
        self._delay_s = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self._busy: set[asyncio.Task[None]] = set()
        self._set_all()

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def close(self) -> None:
        """Listen no more, and end all connections."""
        if self._server is not None:
            self._server.close()
        self._set_all()
        self._reset()
        while self._busy:
            await asyncio.wait(self._busy)

    # Faults -----------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Reset all connections, and each new one."""
        self._is_cut = True
        self._reset()

    def hold(self, *ways: Way) -> None:
        """Let no byte pass, in some directions; connections stay, and new ones are taken. A half-open connection is
        one that is held in one direction.
        """
        for way in ways:
            self._open[way].clear()

    def slow(self, delay_s: float) -> None:
        """Delay what passes, in both directions."""
        self._delay_s = delay_s

    def heal(self, *, reset: bool) -> None:
        """Let everything pass again: what was held too, unless connections are reset first."""
        if reset:
            self._reset()
        self._is_cut = False
        self._delay_s = 0.0
        self._set_all()

    def _set_all(self) -> None:
        for event in self._open.values():
            event.set()

    def _reset(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    # Passing on -------------------------------------------------------------------------------------------

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connected(reader, writer))
        self._busy.add(task)
        task.add_done_callback(self._busy.discard)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        try:
            there = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # the broker is away: so is whoever asks for it
            writer.transport.abort()
            return
        self._writers |= {writer, there[1]}
        ways = [
            asyncio.create_task(self._pass_on(reader, there[1], Way.THERE)),
            asyncio.create_task(self._pass_on(there[0], writer, Way.BACK)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, there[1]):
                self._writers.discard(end)
                end.transport.abort()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way
    ) -> None:
        """Until one end closes: Kafka's protocol has no half-closed connections."""
        with contextlib.suppress(ConnectionError, OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._open[way].wait()
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                writer.write(data)
                await writer.drain()

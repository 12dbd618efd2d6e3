"""The links that can fail: what TCP promises is kept, whatever is done to them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from chaos_links import Link, Way
from kafka_broker import free_ports

PATIENCE_S = 120.0


class Echo:
    """A server that says back what it hears, and remembers it."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.new = asyncio.Event()
        self.busy: set[asyncio.Task[None]] = set()

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection."""
        task = asyncio.create_task(self._say_back(reader, writer))
        self.busy.add(task)
        task.add_done_callback(self.busy.discard)

    async def _say_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1_000):
                self.heard += data
                self.new.set()
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


class Wire:
    """A link to an echo, and the near ends of connections over it."""

    def __init__(self, link: Link, echo: Echo) -> None:
        self.link = link
        self.echo = echo
        self.ends: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.link.port)
        self.ends.append(writer)
        return reader, writer

    async def said(self, text: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection over which something has been said and come back."""
        reader, writer = await self.connect()
        writer.write(text)
        assert await reader.readexactly(len(text)) == text
        return reader, writer


@asynccontextmanager
async def link_to_echo() -> AsyncGenerator[Wire]:
    """A link to a server that echoes."""
    echo = Echo()
    front, behind = free_ports(2)
    async with asyncio.timeout(PATIENCE_S):
        server = await asyncio.start_server(echo.serve, "127.0.0.1", behind)
        link = Link("here - there", front, behind)
        await link.open()
        wire = Wire(link, echo)
        try:
            yield wire
        finally:
            for end in wire.ends:
                end.transport.abort()
            await link.close()
            server.close()
            while echo.busy:
                await asyncio.wait(echo.busy)


def test_what_is_said_comes_back() -> None:
    """Given a whole link, bytes pass in both directions, also many of them."""

    async def scenario() -> None:
        async with link_to_echo() as wire:
            await wire.said(b"x" * 1_000_000)

    asyncio.run(scenario())


def test_a_cut_link_resets_connections_and_takes_no_new_one_until_it_heals() -> None:
    """Given a cut link, who talked hears an end; after healing new connections work."""

    async def scenario() -> None:
        async with link_to_echo() as wire:
            reader, _ = await wire.said(b"before")
            wire.link.cut()
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await wire.said(b"meanwhile")
            wire.link.heal(reset=True)
            await wire.said(b"after")

    asyncio.run(scenario())


def test_what_was_held_comes_when_the_link_heals() -> None:
    """Given a link that holds everything, nothing is heard at the far end until it heals, and then all of it."""

    async def scenario() -> None:
        async with link_to_echo() as wire:
            reader, writer = await wire.said(b"before")
            wire.link.hold(*Way)
            writer.write(b"held")
            answer = asyncio.create_task(reader.readexactly(4))
            await wire.connect()  # is taken even so
            assert not answer.done()
            assert bytes(wire.echo.heard) == b"before"
            wire.link.heal(reset=False)
            assert await answer == b"held"

    asyncio.run(scenario())


def test_over_a_half_open_link_requests_arrive_and_answers_do_not() -> None:
    """Given a link held on its way back, the far end hears, and the near end learns that it never will."""

    async def scenario() -> None:
        async with link_to_echo() as wire:
            reader, writer = await wire.said(b"before")
            wire.link.hold(Way.BACK)
            wire.echo.new.clear()
            writer.write(b"request")
            await wire.echo.new.wait()
            assert bytes(wire.echo.heard) == b"beforerequest"
            wire.link.heal(reset=True)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(7)

    asyncio.run(scenario())


def test_a_slow_link_passes_everything_in_order() -> None:
    """Given a slow link, what is said comes back whole."""

    async def scenario() -> None:
        async with link_to_echo() as wire:
            wire.link.slow(0.001)
            await wire.said(bytes(range(256)) * 1_000)

    asyncio.run(scenario())

"""A namespace on Kafka whose schemas have their numbers from a registry."""

import asyncio
import logging
import struct
import uuid
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from kafka_backend import TEST_SETTINGS, KafkaBackend
from kafka_secure import SecureBroker
from refold import Engine, workflow
from refold.log.codec import (
    GENESIS,
    decode_command,
    decode_event,
    encode_command,
    encode_event,
)
from refold.log.commands import StartWorkflow
from refold.log.errors import LogMismatch, LogUnavailable, UsageError
from refold.log.events import PartitionClaimed, Unreadable
from refold.log.kafka import KafkaLog, create_topics
from refold.log.kafka_acls import Role, permissions
from refold.log.kafka_client import Clients
from refold.log.kafka_scan import read_all
from refold.log.protocol import Channel, Entry, Record
from refold.log.schema_ids import SchemaIds, current
from registry_server import RegistryServer

FIRST_ID = 40
CLAIM = PartitionClaimed(
    workflow_id=None,
    position=None,
    recorded_at=1_700_000_000_000_000,
    claim=-1,
    command=-1,
    posted=0,
    worker="w",
    partition=0,
)

pytestmark = pytest.mark.kafka


@workflow
def doubled(number: int) -> int:
    """A run that leaves events, commands and replies."""
    return 2 * number


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer(FIRST_ID) as registry:
        yield registry


@pytest.fixture
def backend(kafka_bootstrap: str) -> KafkaBackend:
    return KafkaBackend(kafka_bootstrap, partitions=1)


def log_with(backend: KafkaBackend, url: str | None) -> KafkaLog:
    return backend.kafka_log(replace(TEST_SETTINGS, schema_registry=url))


@asynccontextmanager
async def opened(log: KafkaLog) -> AsyncGenerator[KafkaLog, None]:
    try:
        await log.open()
        yield log
    finally:
        await log.close()


async def append_claim(log: KafkaLog) -> Entry:
    async with opened(log):
        entry, _ = encode_event(CLAIM, GENESIS)
        await log.append(Channel.EVENTS, 0, [entry])
    return entry


async def events_of(log: KafkaLog) -> list[Record]:
    async with opened(log):
        return [r async for batch in log.read(Channel.EVENTS, 0, 0) for r in batch]


def raw(backend: KafkaBackend, topic: str) -> Sequence[Record]:
    """What stands in a topic, byte for byte."""
    clients = Clients(backend.servers, TEST_SETTINGS)
    return list(read_all(clients, f"{backend.namespace}.{topic}", 0))


def ids_in(backend: KafkaBackend, topic: str) -> set[int]:
    """The numbers of schemas in a topic."""
    return {struct.unpack_from(">bi", record.value)[1] for record in raw(backend, topic)}


def test_workflows_run_on_numbers_from_a_registry(
    backend: KafkaBackend, registry: RegistryServer
) -> None:
    """Given a registry, a worker and a client talk under its numbers, and a later one without it reads them."""
    with (
        Engine(log_with(backend, registry.url), workflows=[doubled]),
        Engine(log_with(backend, registry.url), worker=False) as client,
    ):
        assert client.start(doubled, 21, id="a").result(30) == 42
    assert ids_in(backend, "events") == {FIRST_ID}
    assert ids_in(backend, "commands") == {FIRST_ID + 1}
    assert ids_in(backend, "replies") == {FIRST_ID + 2}
    subjects = registry.subjects()
    assert sorted(subjects) == sorted(one.subject(backend.namespace) for one in current())
    assert set(registry.configs.values()) == {"BACKWARD_TRANSITIVE"}
    # Somebody without the setting reads what the namespace has noted, and writes numbers of our own.
    with Engine(log_with(backend, None), workflows=[doubled]) as engine:
        assert engine.start(doubled, 21, id="a").result(30) == 42
        assert engine.start(doubled, 1, id="b").result(30) == 2
    assert ids_in(backend, "events") == {FIRST_ID, SchemaIds().event}


def test_records_are_read_with_our_own_numbers_by_every_way_of_reading(
    backend: KafkaBackend, registry: RegistryServer
) -> None:
    """Given a record under the registry's number, a scan and a tail give it as it was encoded."""

    async def scenario() -> None:
        entry = await append_claim(log_with(backend, registry.url))
        (scanned,) = await events_of(log_with(backend, registry.url))
        assert scanned[2:] == entry
        async with opened(log_with(backend, registry.url)) as log:
            tail = log.tail(Channel.EVENTS, 0, 0)
            (followed,) = await anext(tail)
            await tail.aclose()
        assert followed == scanned
        assert decode_event(followed) == decode_event(scanned)

    asyncio.run(scenario())


def test_a_registry_that_is_away_at_the_start_is_an_error(
    backend: KafkaBackend,
) -> None:
    """Given no registry at the address that is set, the log does not open, and says why."""
    with RegistryServer() as gone:
        url = gone.url

    async def scenario() -> None:
        log = log_with(backend, url)
        with pytest.raises(LogUnavailable, match="check that the schema registry runs"):
            await log.open()
        await log.close()

    asyncio.run(scenario())


def test_work_goes_on_when_the_registry_is_away_later(backend: KafkaBackend) -> None:
    """Given an open log, the registry is not needed any more, neither to write nor to read."""

    async def scenario() -> None:
        with RegistryServer(FIRST_ID) as registry:
            log = log_with(backend, registry.url)
            await log.open()
        try:
            entry, _ = encode_event(CLAIM, GENESIS)
            await log.append(Channel.EVENTS, 0, [entry])
            (record,) = [r async for batch in log.read(Channel.EVENTS, 0, 0) for r in batch]
            assert record.value == entry.value
        finally:
            await log.close()

    asyncio.run(scenario())


def test_a_number_that_nobody_noted_is_looked_up_in_the_registry(
    backend: KafkaBackend, registry: RegistryServer
) -> None:
    """Given an event of somebody who could not note its number, whoever has the registry reads it."""
    event = current()[0]
    registry.answer("POST", "/subjects/elsewhere/versions", {"schema": '"string"'})
    registry.answer("POST", "/subjects/other.events-value/versions", {"schema": event.text + " "})

    async def scenario() -> None:
        async with opened(log_with(backend, None)) as log:
            entry, _ = encode_event(CLAIM, GENESIS)
            foreign = struct.pack(">bi", 0, FIRST_ID + 1) + entry.value[5:]
            nobodys = struct.pack(">bi", 0, FIRST_ID) + entry.value[5:]
            await log.append(Channel.EVENTS, 0, [Entry(None, foreign), Entry(None, nobodys)])
        known, stranger = await events_of(log_with(backend, registry.url))
        assert known.value == entry.value
        assert isinstance(decode_event(stranger), Unreadable)
        blind, _ = await events_of(log_with(backend, None))
        assert isinstance(decode_event(blind), Unreadable)

    asyncio.run(scenario())


class Listening(logging.Handler):
    """Knows when a warning was logged with a text in it, on whatever thread."""

    def __init__(self, text: str) -> None:
        super().__init__(logging.WARNING)
        self._text = text
        self._loop = asyncio.get_running_loop()
        self._said = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage():
            self._loop.call_soon_threadsafe(self._said.set)

    async def wait(self) -> None:
        await self._said.wait()


def test_a_reader_waits_for_the_registry_rather_than_guess(backend: KafkaBackend) -> None:
    """Given a new number and a registry that is away, a scan fails, and a tail waits until it is back."""

    async def scenario() -> None:
        with RegistryServer(FIRST_ID) as registry:
            reader = log_with(backend, registry.url)
            await reader.open()
        port = registry.port
        entry, _ = encode_event(CLAIM, GENESIS)
        new = Entry(None, struct.pack(">bi", 0, FIRST_ID + 3) + entry.value[5:])
        async with opened(log_with(backend, None)) as log:
            await log.append(Channel.EVENTS, 0, [new])
        try:
            with pytest.raises(LogUnavailable, match="asking for schema 43"):
                async for _ in reader.read(Channel.EVENTS, 0, 0):
                    pass
            said = Listening("asking for schema 43")
            logging.getLogger("refold").addHandler(said)
            tail = reader.tail(Channel.EVENTS, 0, 0)
            following = asyncio.ensure_future(anext(tail))
            await said.wait()
            assert not following.done()
            with RegistryServer(FIRST_ID, port=port) as back:
                for text in ('"int"', '"long"', '"string"', current()[0].text):
                    back.answer("POST", f"/subjects/{len(text)}/versions", {"schema": text})
                (record,) = await following
            await tail.aclose()
            logging.getLogger("refold").removeHandler(said)
            assert record.value == entry.value
        finally:
            await reader.close()

    asyncio.run(scenario())


def test_numbers_of_another_registry_are_refused(
    backend: KafkaBackend, registry: RegistryServer
) -> None:
    """Given a log with numbers from one registry, another that means something else by them is refused."""

    async def scenario() -> None:
        async with opened(log_with(backend, registry.url)):
            pass
        with RegistryServer(FIRST_ID - 1) as another:  # its number 40 is that of commands
            log = log_with(backend, another.url)
            with pytest.raises(LogMismatch, match="from elsewhere"):
                await log.open()
            await log.close()

    asyncio.run(scenario())


def test_numbers_from_another_base_are_noted_and_read_by_everybody(backend: KafkaBackend) -> None:
    """Given a base of one's own, records carry its numbers, and who knows nothing of it reads them."""

    async def scenario() -> None:
        log = backend.kafka_log(replace(TEST_SETTINGS, schema_base=5_000))
        entry = await append_claim(log)
        (record,) = await events_of(log_with(backend, None))
        assert record.value == entry.value
        for base, error in ((2_147_483_646, UsageError), (SchemaIds().command, LogMismatch)):
            refused = backend.kafka_log(replace(TEST_SETTINGS, schema_base=base))
            with pytest.raises(error, match="schema_base"):
                await refused.open()
            await refused.close()

    asyncio.run(scenario())
    assert ids_in(backend, "events") == {5_000}


def test_a_second_start_writes_nothing(backend: KafkaBackend, registry: RegistryServer) -> None:
    """Given a namespace that is registered, opening it again registers and notes nothing."""

    async def scenario() -> None:
        async with opened(log_with(backend, registry.url)):
            pass
        before = len(raw(backend, "meta"))
        registry.requests.clear()
        registry.writable = False
        async with opened(log_with(backend, registry.url)) as log:
            given = [FIRST_ID, FIRST_ID + 1, FIRST_ID + 2]
            assert sorted(log.registered_schemas) == given
            assert sorted(await log.noted_schemas()) == [*given, *(one.id for one in current())]
        assert len(raw(backend, "meta")) == before
        assert registry.requests == [
            f"POST /subjects/{one.subject(backend.namespace)}" for one in current()
        ]

    asyncio.run(scenario())


@pytest.mark.parametrize("role", [Role.CLIENT, Role.READER])
def test_who_may_write_nothing_down_reads_and_writes_all_the_same(
    secure_broker: SecureBroker, registry: RegistryServer, role: Role
) -> None:
    """Given a client or reader without the right to note numbers, a log with a registry opens and works."""
    namespace, name = f"test-{uuid.uuid4().hex[:12]}", f"user-{uuid.uuid4().hex[:8]}"
    asyncio.run(create_topics([secure_broker.admin], namespace, 1, None, TEST_SETTINGS))
    secure_broker.add_user(name, "password")
    secure_broker.grant(f"User:{name}", permissions(role, namespace))
    settings = replace(secure_broker.settings(name, "password"), schema_registry=registry.url)

    async def scenario() -> None:
        async with opened(KafkaLog([secure_broker.login], namespace, settings)) as log:
            assert FIRST_ID in log.registered_schemas
            assert FIRST_ID not in await log.noted_schemas()
            if role is Role.CLIENT:
                start = StartWorkflow(
                    command_id="c",
                    workflow_id="w",
                    reply_to=None,
                    requested_at=0,
                    workflow="x",
                    payload="[]",
                )
                await log.append(Channel.COMMANDS, 0, [encode_command(start)])
        trusted = replace(TEST_SETTINGS, schema_registry=registry.url)
        async with opened(KafkaLog([secure_broker.admin], namespace, trusted)) as log:
            commands = [r async for batch in log.read(Channel.COMMANDS, 0, 0) for r in batch]
            assert FIRST_ID in await log.noted_schemas()
        assert all(not isinstance(decode_command(one), Unreadable) for one in commands)
        assert len(commands) == (role is Role.CLIENT)

    asyncio.run(scenario())


def test_a_namespace_says_what_its_numbers_mean(backend: KafkaBackend) -> None:
    """Given a new namespace, its meta topic holds the schemas under refold's own numbers, for whoever has no refold."""
    notes = asyncio.run(log_with(backend, None).noted_schemas())
    assert notes == {one.id: one.text for one in current()}

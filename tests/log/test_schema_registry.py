"""What refold asks of a schema registry, of several: confluent's mock, one over HTTP, and SCHEMA_REGISTRY_URL."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient

from kafka_certificates import Authority
from refold.log.errors import LogMismatch, LogUnavailable, UsageError
from refold.log.schema_ids import current, published_like
from refold.log.schema_registry import (
    ConfluentRegistry,
    RegistryAddress,
    SchemaRegistry,
    registry_at,
)
from registry_server import RegistryServer

EVENT, COMMAND, _ = (one.text for one in current())
ANOTHER = '{"type": "record", "name": "Other", "fields": [{"name": "a", "type": "string"}]}'


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as server:
        yield server


GIVEN = ["given"] if "SCHEMA_REGISTRY_URL" in os.environ else []


@pytest.fixture(params=["mock", "http", *GIVEN])
def registry(request: pytest.FixtureRequest) -> Iterator[SchemaRegistry]:
    """Each kind of registry that there is here."""
    match request.param:
        case "mock":
            client = cast("Any", SchemaRegistryClient).new_client({"url": "mock://refold"})
            yield ConfluentRegistry(client, "mock://refold")
            client.close()
        case "http":
            server: RegistryServer = request.getfixturevalue("server")
            yield from closing(registry_at(server.url))
        case _:
            yield from closing(registry_at(os.environ["SCHEMA_REGISTRY_URL"]))


def closing(registry: SchemaRegistry) -> Iterator[SchemaRegistry]:
    yield registry
    registry.close()


@pytest.fixture
def namespace() -> str:
    """A name that a registry which others use as well has not seen."""
    return f"test-{uuid.uuid4().hex[:12]}"


def test_a_schema_that_is_registered_is_found_again(
    registry: SchemaRegistry, namespace: str
) -> None:
    """Given a new subject, nothing is found; once registered, the same number comes back whatever is asked."""
    subject = f"{namespace}.events-value"
    assert registry.find(subject, EVENT) is None
    id_ = registry.register(subject, EVENT)
    assert registry.find(subject, EVENT) == registry.register(subject, EVENT) == id_
    text = registry.text(id_)
    assert text is not None
    assert published_like(text) == current()[0]


def test_schemas_have_numbers_of_their_own(registry: SchemaRegistry, namespace: str) -> None:
    """Given the three schemas of a namespace, each has another number."""
    ids = [registry.register(one.subject(namespace), one.text) for one in current()]
    assert len(set(ids)) == len(ids)
    assert [registry.find(one.subject(namespace), one.text) for one in current()] == ids


def test_a_number_that_stands_for_nothing_has_no_schema(registry: SchemaRegistry) -> None:
    """Given a number that the registry never gave, there is no schema, and no error."""
    assert registry.text(2_147_000_000) is None


def test_a_subject_promises_before_it_is_registered(server: RegistryServer) -> None:
    """Given a registry, compatibility is set before the schema comes, so that the registry judges it."""
    registry = registry_at(server.url)
    registry.register("shop.events-value", EVENT)
    assert server.configs == {"shop.events-value": "BACKWARD_TRANSITIVE"}
    assert server.requests == [
        "PUT /config/shop.events-value",
        "POST /subjects/shop.events-value/versions",
    ]
    registry.close()


def test_a_subject_that_is_somebody_elses_is_refused(server: RegistryServer) -> None:
    """Given a subject with a schema of another kind, registering is an error that says so."""
    registry = registry_at(server.url)
    registry.register("shop.events-value", ANOTHER)
    with pytest.raises(LogMismatch, match="incompatible with an earlier schema"):
        registry.register("shop.events-value", EVENT)
    registry.close()


def test_a_registry_that_may_only_be_read_is_enough_once_it_knows(server: RegistryServer) -> None:
    """Given a user who may not write, what is registered is found, and registering says whom to ask."""
    registry = registry_at(server.url)
    id_ = registry.register("shop.events-value", EVENT)
    server.writable = False
    assert registry.find("shop.events-value", EVENT) == id_
    with pytest.raises(LogUnavailable, match="refold schemas register"):
        registry.register("shop.commands-value", COMMAND)
    registry.close()


def test_a_registry_that_is_away_is_a_clear_error() -> None:
    """Given nobody at the address, the error says where and what to check."""
    with RegistryServer() as gone:
        url = gone.url
    registry = registry_at(url)
    with pytest.raises(LogUnavailable, match=f"at {url}: .*check that the schema registry runs"):
        registry.find("shop.events-value", EVENT)
    registry.close()


def test_basic_authentication(tmp_path: Path) -> None:
    """Given a registry that asks who we are, the URL's user and password are told, and shown nowhere."""
    with RegistryServer(user="refold:s3cr:t") as server:
        own = registry_at(server.url.replace("//", "//refold:s3cr%3At@"))
        assert own.register("shop.events-value", EVENT) == 1
        assert own.shown == server.url
        own.close()
        stranger = registry_at(server.url.replace("//", "//refold:wrong@"))
        with pytest.raises(LogUnavailable, match="user and password") as refused:
            stranger.find("shop.events-value", EVENT)
        assert "wrong" not in str(refused.value)
        stranger.close()


def test_tls_with_a_certificate_of_our_own(tmp_path: Path) -> None:
    """Given HTTPS, the registry is believed only by the certificate that is named."""
    authority = Authority(tmp_path)
    with RegistryServer(tls=authority.certify("registry", "localhost")) as server:
        registry = registry_at(f"{server.url}?cafile={authority.certificate}")
        assert registry.register("shop.events-value", EVENT) == 1
        registry.close()
        trusting_others = registry_at(server.url)
        with pytest.raises(LogUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            trusting_others.find("shop.events-value", EVENT)
        trusting_others.close()


def test_a_server_that_is_no_registry_is_an_error() -> None:
    """Given an address where something else answers, nothing is taken for a number."""
    with RegistryServer() as server:
        registry = registry_at(f"{server.url}/elsewhere")
        with pytest.raises(LogUnavailable, match="is this a schema registry"):
            registry.register("shop.events-value", EVENT)
        registry.close()


def test_an_address_is_taken_apart() -> None:
    """Given several URLs, a user and files for TLS, each goes where it belongs and the user is not shown."""
    address = RegistryAddress.parsed(
        "https://me:p%40ss@a:8081/registry/,https://b:8081?cafile=/etc/ca.pem&certfile=c.pem&keyfile=k.pem"
    )
    assert address.urls == ("https://a:8081/registry", "https://b:8081")
    assert address.user == "me:p@ss"
    assert address.tls == {
        "ssl.ca.location": "/etc/ca.pem",
        "ssl.certificate.location": "c.pem",
        "ssl.key.location": "k.pem",
    }
    assert "p@ss" not in repr(address)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("ftp://me:secret@host", "does not begin with http:// or https://"),
        ("http://", "and a host"),
        ("registry:8081", "does not begin with"),
        ("http://me:secret@host:port", "not a URL"),
        ("http://me:secret@host?ca=/x", "its option 'ca' is unknown"),
        ("https://me:secret@host?cafile=", "'cafile' is unknown, or empty"),
        ("https://me:secret@host?cafile=/nowhere", "check its cafile"),
    ],
)
def test_an_address_that_can_t_be_is_refused_and_no_secret_is_told(setting: str, says: str) -> None:
    """Given a mistake in the setting, the error names it, and not the password."""
    with pytest.raises(UsageError, match=says) as refused:
        registry_at(setting)
    assert "secret" not in str(refused.value)

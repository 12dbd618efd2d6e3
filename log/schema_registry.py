"""Schema registries: who gives numbers to schemas, so that consumers which know nothing of refold can read its topics.

confluent-kafka's own client speaks to them (Confluent's, Karapace, Apicurio in its compatible mode, and refold's own
read-only endpoint). It is an extra, and this is the only module that imports it.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from refold.log.errors import LogError, LogMismatch, LogUnavailable, UsageError

T = TypeVar("T")

COMPATIBILITY: Final = "BACKWARD_TRANSITIVE"
"""What a subject of refold's promises: each version reads what all versions before it wrote."""

# A registry answers in milliseconds. One that does not is away, and whoever waits is told.
_TIMEOUT_S = 5
_RETRIES = 1
_RETRY_WAIT_MS = 200

_OPTIONS: Final = {
    "cafile": "ssl.ca.location",
    "certfile": "ssl.certificate.location",
    "keyfile": "ssl.key.location",
}
_FORM: Final = (
    "write it as http[s]://[USER:PASSWORD@]HOST[:PORT][?cafile=PEM&certfile=PEM&keyfile=PEM]"
)

_FORBIDDEN: Final = (401, 403)
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_UNPROCESSABLE: Final = 422
_SERVER_ERROR: Final = 500


class SchemaRegistry(Protocol):
    """What refold asks of a registry. Every method blocks, and may be called on any thread.

    All raise LogUnavailable where the registry gives no answer, or none to us.
    """

    @property
    def shown(self) -> str:
        """Its address, for messages; without secrets."""
        ...

    def find(self, subject: str, schema: str) -> int | None:
        """The number of a schema that is registered under `subject`; None where it is not."""
        ...

    def register(self, subject: str, schema: str) -> int:
        """Hold the subject to `COMPATIBILITY` and register the schema; its number.

        Raises:
            LogMismatch: It is not compatible with what is registered, or is none to this registry.
        """
        ...

    def text(self, id: int) -> str | None:
        """The Avro schema that has this number; None where there is none."""
        ...

    def close(self) -> None:
        """Let go of connections."""


@dataclass(frozen=True, slots=True)
class RegistryAddress:
    """Where a registry is, and how to speak to it.

    Args:
        urls: Its URLs, without secrets; each stands for all.
        user: User and password for HTTP's basic authentication, "user:password".
        tls: Option of confluent-kafka's client -> path of a PEM file.
    """

    urls: tuple[str, ...]
    user: str | None = field(default=None, repr=False)
    tls: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def parsed(cls, setting: str) -> "RegistryAddress":
        """The address that a setting names: URLs with commas between them, then options for TLS.

        Raises:
            UsageError: It names none. The message shows no secret.
        """
        addresses, _, query = setting.partition("?")
        urls: list[str] = []
        user: str | None = None
        for address in addresses.split(","):
            try:
                parts = urlsplit(address.strip())
                host, port = parts.hostname, parts.port
            except ValueError:  # its message would repeat the text, and a password in it
                raise _no_address("it is not a URL") from None
            if parts.scheme not in {"http", "https"} or not host:
                raise _no_address("it does not begin with http:// or https:// and a host")
            if parts.username is not None:
                user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            host = f"[{host}]" if ":" in host else host
            place = host if port is None else f"{host}:{port}"
            urls.append(f"{parts.scheme}://{place}{parts.path.rstrip('/')}")
        tls: dict[str, str] = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            if name not in _OPTIONS or not value:
                raise _no_address(f"its option {name!r} is unknown, or empty")
            tls[_OPTIONS[name]] = value
        return cls(tuple(urls), user, tls)

    @property
    def shown(self) -> str:
        """The URLs, for messages."""
        return ",".join(self.urls)

    def client_options(self) -> dict[str, object]:
        """What confluent-kafka's client takes."""
        options: dict[str, object] = {
            "url": self.shown,
            "timeout": _TIMEOUT_S,
            "max.retries": _RETRIES,
            "retries.wait.ms": _RETRY_WAIT_MS,
            **self.tls,
        }
        if self.user is not None:
            options["basic.auth.user.info"] = self.user
        return options


def _no_address(reason: str) -> UsageError:
    return UsageError(f"the setting schema_registry does not name a registry: {reason}; {_FORM}")


class ConfluentRegistry:
    """A `SchemaRegistry`, by confluent-kafka's client.

    Args:
        client: A `confluent_kafka.schema_registry.SchemaRegistryClient`.
        shown: Its address, for messages.
    """

    def __init__(self, client: object, shown: str) -> None:
        self._client: Any = client
        self._shown = shown
        self._types = _confluent()

    @property
    def shown(self) -> str:
        """See `SchemaRegistry`."""
        return self._shown

    def find(self, subject: str, schema: str) -> int | None:
        """See `SchemaRegistry`."""
        return self._asked(
            f"looking for the schema of {subject}",
            lambda: int(self._client.lookup_schema(subject, self._avro(schema)).schema_id),
        )

    def register(self, subject: str, schema: str) -> int:
        """See `SchemaRegistry`."""
        doing = f"registering the schema of {subject}"
        config = self._types.ServerConfig(
            compatibility=self._types.ConfigCompatibilityLevel(COMPATIBILITY)
        )
        # First the promise: then the registry itself judges what we register.
        self._asked(doing, lambda: self._client.set_config(subject, config))
        id_ = self._asked(
            doing, lambda: int(self._client.register_schema(subject, self._avro(schema)))
        )
        if id_ is None:
            raise LogUnavailable(
                f"{doing} at {self.shown}: it knows of no such thing; is this a schema registry?"
            )
        return id_

    def text(self, id: int) -> str | None:
        """See `SchemaRegistry`."""
        found: Any = self._asked(f"asking for schema {id}", lambda: self._client.get_schema(id))
        if found is None or found.schema_type not in {None, "AVRO"}:
            return None
        return cast("str | None", found.schema_str)

    def close(self) -> None:
        """See `SchemaRegistry`."""
        with suppress(Exception):  # nothing is done with it any more, whatever it says
            self._client.close()

    def _avro(self, schema: str) -> object:
        return self._types.Schema(schema, "AVRO")

    def _asked(self, doing: str, ask: Callable[[], T]) -> T | None:
        """The answer; None for 'not found'."""
        try:
            return ask()
        except self._types.SchemaRegistryError as error:
            if error.http_status_code == _NOT_FOUND:
                return None
            raise self._refused(doing, error) from error
        except Exception as error:  # the HTTP client's own, which confluent-kafka does not name
            raise LogUnavailable(
                f"{doing} at {self.shown}: {type(error).__name__}: {error}; check that the schema registry runs "
                "there and can be reached"
            ) from error

    def _refused(self, doing: str, error: Any) -> LogError:
        told = f"{doing} at {self.shown}: {error}"
        status = int(error.http_status_code)
        if status in _FORBIDDEN:
            return LogUnavailable(
                f"{told}; give a user and password that it takes, or have somebody who may do this run "
                "`refold schemas register`"
            )
        if status == _CONFLICT:
            return LogMismatch(
                f"{told}; what stands under that subject is not refold's, or of a newer release: "
                "run that release, or use another namespace"
            )
        if status == _UNPROCESSABLE:
            return LogMismatch(f"{told}; is the registry read-only, or does it take no Avro?")
        if status >= _SERVER_ERROR:
            return LogUnavailable(f"{told}; check the schema registry's log")
        return LogUnavailable(f"{told}; is this a schema registry?")


def registry_at(setting: str) -> SchemaRegistry:
    """The registry that a setting names; nothing is asked of it yet.

    Args:
        setting: As `RegistryAddress.parsed` takes it.

    Raises:
        UsageError: It names none, a file for TLS can't be read, or the extra is not installed.
    """
    address = RegistryAddress.parsed(setting)
    types = _confluent()
    try:
        client = types.SchemaRegistryClient(address.client_options())
    except Exception as error:  # a file that is no PEM raises whatever ssl raises
        raise UsageError(
            f"the schema registry {address.shown} can't be spoken to: {type(error).__name__}: {error}; "
            "check its cafile, certfile and keyfile"
        ) from error
    return ConfluentRegistry(client, address.shown)


def _confluent() -> Any:  # a module that says little about its types
    """confluent-kafka's package for registries.

    Raises:
        UsageError: It is not installed.
    """
    try:
        from confluent_kafka import schema_registry  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise UsageError(
            "schema_registry needs confluent-kafka's registry client, which is not installed: "
            "pip install 'refold[registry]'"
        ) from error
    return schema_registry

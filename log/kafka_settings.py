"""How refold uses Kafka: names of topics, settings and the reasons for their defaults.

The settings of a connection can come from a URL, the environment or a file as well: see `kafka_options.py`.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from urllib.parse import urlsplit

from refold.log.errors import UsageError
from refold.log.local import DEFAULT_MAX_RECORD_BYTES
from refold.log.protocol import MIN_TAKEOVER_S, Channel, workers_of
from refold.log.schema_ids import DEFAULT_BASE

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
PASSWORD_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
MECHANISMS = (*PASSWORD_MECHANISMS, "OAUTHBEARER")
# The package that compresses, which is also the name of our extra; what Python itself can do has none.
COMPRESSIONS = {"none": None, "gzip": None, "lz4": "lz4", "zstd": "zstandard"}

SECRETS = frozenset(
    {"ssl_key_password", "sasl_password", "sasl_token", "sasl_client_secret", "schema_registry"}
)
"""Settings that nothing may show."""

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_INSTANCE_ID = re.compile(r"[A-Za-z0-9._-]{1,249}")

# Kafka's own limit is 249 characters for a topic, and `.commands` is our longest suffix.
_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}")
_SERVER = re.compile(r"(?:\[[0-9A-Fa-f:]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")

PARTITIONS_MAX = 1024

# A reply is a hint: a client that hears nothing asks again long before this.
REPLY_RETENTION_MS = 10 * 60 * 1000

# What a topic accepts: four times our largest batch, so that the broker never refuses one. A refused record would
# turn kafka-python's idempotent producer fatal for every partition.
MESSAGE_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings:
    """Settings of one KafkaLog. The defaults are for production; tests shorten the timeouts.

    Args:
        client_id: What brokers' logs and quotas call this client; what it does follows after a `-`.
        group_instance_id: Makes a worker a static member of its group (KIP-345): no other running worker may have the
            same. It does not leave when it stops; come back within `session_timeout_ms`, it has its partitions again
            and no other worker's moved. Until then nobody works on them, also after a crash.
        session_timeout_ms: A worker that says nothing for so long has lost its partitions. 6 s is the least that
            a broker takes by default. What it has beyond a heartbeat must be longer than `MIN_TAKEOVER_S`.
        heartbeat_interval_ms: How often a worker shows that it lives. Moves of partitions are noticed in heartbeats,
            and so is a worker's death, after its session.
        request_timeout_ms: How long one request may take before it is sent again.
        delivery_timeout_ms: How long an append may take, with all retries, before its outcome is called unknown;
            and how long a read waits for an answer. A partition whose leader is lost has another in some 10 s.
        connect_timeout_ms: How long to look for a broker that answers, at open or when the producer is made anew.
        linger_ms: How long the producer waits for more records. Group commit needs none.
        max_record_bytes: Largest key + value + headers of one record.
        max_batch_bytes: Most that one produce request carries for a partition.
        queue_entries: Most records that wait for the log or are on their way, over all partitions.
        queue_bytes: Most bytes of them.
        fetch_wait_ms: How long a broker holds a fetch that finds nothing. A partition that begins to be followed
            waits for the fetch before it; no record does.
        prefetch_records: How many records of a partition are fetched ahead of whoever reads it.
        scan_fetch_bytes: Most bytes of one partition in one answer while reading history.
        readers: How many reads of history run at once; others wait for their turn.
        compression: Of what is written: none, gzip, lz4 or zstd; the last two need the extra of that name here and
            in every process that reads.
        security_protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL, as the brokers' listener has it.
        ssl_cafile: Certificates to trust, PEM; the system's where not given.
        ssl_certfile: This client's certificate, PEM (mutual TLS).
        ssl_keyfile: Its key, PEM, where the file above does not hold it.
        ssl_key_password: The key's password.
        ssl_key_password_file: A file that holds it.
        ssl_check_hostname: Whether a broker's certificate must be for the name by which it is called.
        sasl_mechanism: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER.
        sasl_username: User for PLAIN and SCRAM.
        sasl_password: The user's password.
        sasl_password_file: A file that holds it; read for each new connection pool, so that it can be changed.
        sasl_token: Token for OAUTHBEARER.
        sasl_token_file: A file that holds it, read at each login: whoever renews the token writes it there.
        sasl_token_command: A command that prints it, run (without a shell) when the last one is about to expire.
        sasl_token_url: An endpoint that gives it for client credentials (OAuth 2.0), before the last one expires.
        sasl_client_id: What the endpoint knows this client by.
        sasl_client_secret: The client's secret.
        sasl_client_secret_file: A file that holds it; read each time, so that it can be changed.
        sasl_scope: What is asked for, where the endpoint wants to be told.
        sasl_token_cafile: Certificates to trust of the endpoint, PEM; the system's where not given.
        schema_registry: URL of the registry that gives the numbers of schemas; refold's own where not given. It may
            hold a user and password, and `?cafile=`, `certfile=` and `keyfile=` for TLS.
        blobs: URL of the store of large payloads, the same for all workers and clients; that of `REFOLD_BLOBS` where
            not given.
        keys: URL of the keys with which payloads are encrypted; that of `REFOLD_KEYS` where not given.
        schema_base: First of refold's own numbers of schemas, for where the usual ones are taken by somebody else's.
        ignore_added_partitions: Whether a namespace is used though somebody has added partitions to its topics: refold
            puts nothing there.
    """

    client_id: str = "refold"
    group_instance_id: str | None = None
    session_timeout_ms: int = 6_000
    heartbeat_interval_ms: int = 100
    request_timeout_ms: int = 10_000
    delivery_timeout_ms: int = 30_000
    connect_timeout_ms: int = 10_000
    linger_ms: int = 0
    max_record_bytes: int = DEFAULT_MAX_RECORD_BYTES
    max_batch_bytes: int = 1024 * 1024
    queue_entries: int = 20_000
    queue_bytes: int = 32 * 1024 * 1024
    fetch_wait_ms: int = 100
    prefetch_records: int = 2_000
    scan_fetch_bytes: int = 4 * 1024 * 1024
    readers: int = 8
    compression: str = "none"
    security_protocol: str = "PLAINTEXT"
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_key_password: str | None = field(default=None, repr=False)
    ssl_key_password_file: str | None = None
    ssl_check_hostname: bool = True
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    sasl_password_file: str | None = None
    sasl_token: str | None = field(default=None, repr=False)
    sasl_token_file: str | None = None
    sasl_token_command: str | None = None
    sasl_token_url: str | None = None
    sasl_client_id: str | None = None
    sasl_client_secret: str | None = field(default=None, repr=False)
    sasl_client_secret_file: str | None = None
    sasl_scope: str | None = None
    sasl_token_cafile: str | None = None
    schema_registry: str | None = field(default=None, repr=False)
    blobs: str | None = None
    keys: str | None = None
    schema_base: int = DEFAULT_BASE
    ignore_added_partitions: bool = False

    def __post_init__(self) -> None:
        """Refuse what kafka-python would refuse later, and less clearly.

        Raises:
            UsageError: Naming the setting.
        """
        _check_security(self)
        _check_compression(self.compression)
        _check_times(self)
        if self.group_instance_id is not None and not _INSTANCE_ID.fullmatch(
            self.group_instance_id
        ):
            raise UsageError(
                f"group_instance_id={self.group_instance_id!r} is not 1 to 249 letters, digits, '.', '_' or '-'"
            )

    @property
    def uses_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.security_protocol.endswith("SSL")

    @property
    def uses_sasl(self) -> bool:
        """Whether connections begin with a login."""
        return self.security_protocol.startswith("SASL")


def _check_security(settings: KafkaSettings) -> None:
    """Refuse a half of a login, and what would be silently left unused: perhaps it was meant to protect something."""
    protocol = settings.security_protocol
    if protocol not in PROTOCOLS:
        raise UsageError(f"security_protocol is {_one_of(PROTOCOLS)}, not {protocol!r}")
    tls = _given(settings, *_names("ssl_"))
    if tls and not settings.uses_tls:
        raise UsageError(
            f"{tls[0]} is set, and security_protocol={protocol} has no TLS: set it to SSL or SASL_SSL"
        )
    if settings.ssl_keyfile is not None and settings.ssl_certfile is None:
        raise UsageError("ssl_keyfile needs ssl_certfile, the certificate that the key is for")
    _at_most_one(settings, "ssl_key_password", "ssl_key_password_file")
    login = _given(settings, *_names("sasl_"))
    if settings.uses_sasl:
        _check_login(settings)
    elif login:
        raise UsageError(
            f"{login[0]} is set, and security_protocol={protocol} has no login: set it to SASL_SSL, or to"
            " SASL_PLAINTEXT where nobody can listen"
        )


def _check_login(settings: KafkaSettings) -> None:
    mechanism = settings.sasl_mechanism
    passwords = _at_most_one(settings, "sasl_password", "sasl_password_file")
    tokens = _at_most_one(
        settings, "sasl_token", "sasl_token_file", "sasl_token_command", "sasl_token_url"
    )
    _check_endpoint(settings)
    if mechanism not in MECHANISMS:
        raise UsageError(
            f"{settings.security_protocol} needs sasl_mechanism: {_one_of(MECHANISMS)}"
            + ("" if mechanism is None else f", not {mechanism!r}")
            + "; with it, sasl_username and sasl_password_file, or a token"
        )
    if mechanism == "OAUTHBEARER":
        if not tokens or passwords or settings.sasl_username is not None:
            raise UsageError(
                "sasl_mechanism=OAUTHBEARER takes sasl_token_url, sasl_token_file, sasl_token_command or sasl_token,"
                " and no sasl_username or password"
            )
    elif settings.sasl_username is None or not passwords or tokens:
        raise UsageError(
            f"sasl_mechanism={mechanism} takes sasl_username and sasl_password_file (or sasl_password), and no token"
        )


def _check_endpoint(settings: KafkaSettings) -> None:
    """Client credentials are whole or not there, and travel where nobody can listen."""
    secrets = _at_most_one(settings, "sasl_client_secret", "sasl_client_secret_file")
    url = settings.sasl_token_url
    if url is None:
        unused = _given(settings, "sasl_client_id", "sasl_scope", "sasl_token_cafile", *secrets)
        if unused:
            raise UsageError(f"{unused[0]} is set and sasl_token_url is not, which it is for")
        return
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.fragment:
        raise UsageError("sasl_token_url is not the https:// URL of a token endpoint")
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            "sasl_token_url holds a user or password, and every error would show it: give sasl_client_id and"
            " sasl_client_secret_file"
        )
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise UsageError(
            f"sasl_token_url={url} would send the client's secret to where others can read it: use https"
        )
    if settings.sasl_client_id is None or not secrets:
        raise UsageError(
            "sasl_token_url takes sasl_client_id and sasl_client_secret_file (or sasl_client_secret)"
        )


def _names(prefix: str) -> list[str]:
    return [field.name for field in fields(KafkaSettings) if field.name.startswith(prefix)]


def _given(settings: KafkaSettings, *names: str) -> list[str]:
    """Those of the settings that are not what they are by default."""
    default = {field.name: field.default for field in fields(settings)}
    return [name for name in names if getattr(settings, name) != default[name]]


def _at_most_one(settings: KafkaSettings, *names: str) -> list[str]:
    given = _given(settings, *names)
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} are set: one of them, please")
    return given


def _check_compression(compression: str) -> None:
    if compression not in COMPRESSIONS:
        raise UsageError(f"compression is {_one_of(COMPRESSIONS)}, not {compression!r}")
    package = COMPRESSIONS[compression]
    if package is not None and find_spec(package) is None:
        raise UsageError(
            f"compression={compression} needs the package {package}: pip install 'refold[{compression}]'"
        )


def _check_times(settings: KafkaSettings) -> None:
    heartbeat_ms, session_ms = settings.heartbeat_interval_ms, settings.session_timeout_ms
    if 3 * heartbeat_ms > session_ms:
        raise UsageError(
            f"heartbeat_interval_ms={heartbeat_ms} is more than a third of session_timeout_ms="
            f"{session_ms}: one late heartbeat would lose the partitions"
        )
    # The broker counts from the last heartbeat, which may be an interval older than the last proof of ownership.
    shortest_ms = MIN_TAKEOVER_S * 1_000 + heartbeat_ms
    if session_ms <= shortest_ms:
        raise UsageError(
            f"session_timeout_ms={session_ms} is too short: a worker that was stopped for a moment may"
            f" begin a step up to {MIN_TAKEOVER_S:g} s after the log showed that a partition was its own, when"
            f" another could own it already; give more than {shortest_ms:g} ms (MIN_TAKEOVER_S and"
            f" heartbeat_interval_ms={heartbeat_ms})"
        )
    request_ms = settings.linger_ms + settings.request_timeout_ms
    if settings.delivery_timeout_ms < request_ms:
        raise UsageError(
            f"delivery_timeout_ms={settings.delivery_timeout_ms} is less than one request may take"
            f" (linger_ms + request_timeout_ms = {request_ms})"
        )


def _one_of(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}"


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one namespace."""

    namespace: str

    def of(self, channel: Channel) -> str:
        """The topic that carries `channel`."""
        return f"{self.namespace}.{channel}"

    @property
    def meta(self) -> str:
        """The compacted topic that says what the namespace is."""
        return f"{self.namespace}.meta"

    def group(self, pool: str | None = None) -> str:
        """The consumer group whose members share the partitions of a pool, or the common ones."""
        return self.group_of(workers_of(pool))

    def group_of(self, name: str) -> str:
        """The consumer group of that name."""
        return f"{self.namespace}.{name}"

    def all(self) -> tuple[str, ...]:
        """Every topic that the namespace needs."""
        return (*(self.of(channel) for channel in Channel), self.meta)


def check_namespace(namespace: str) -> None:
    """Refuse what can't be the beginning of a topic's name.

    Raises:
        UsageError: With the rule that it breaks.
    """
    if not _NAMESPACE.fullmatch(namespace):
        raise UsageError(
            f"the namespace {namespace!r} can't name Kafka topics: use 1 to 200 letters, digits, '-' or '_',"
            " the first a letter or digit"
        )


def check_bootstrap(bootstrap: Sequence[str]) -> tuple[str, ...]:
    """The brokers' addresses as a tuple, each `host:port`.

    Raises:
        UsageError: There is none, or one of them is not an address.
    """
    servers = (bootstrap,) if isinstance(bootstrap, str) else tuple(bootstrap)
    bad = [server for server in servers if not _SERVER.fullmatch(server)]
    if bad or not servers:
        raise UsageError(f"brokers are named host:port, at least one of them; got {bad or 'none'}")
    return servers

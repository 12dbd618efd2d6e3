"""How refold uses Kafka: names of topics, settings and the reasons for their defaults."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from refold.log.errors import UsageError
from refold.log.local import DEFAULT_MAX_RECORD_BYTES
from refold.log.protocol import MIN_TAKEOVER_S, Channel

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
        client_id: What brokers' logs and quotas call this client.
        session_timeout_ms: A worker that says nothing for so long has lost its partitions. 6 s is the least that
            a broker takes by default. What it has beyond a heartbeat must be longer than `MIN_TAKEOVER_S`.
        heartbeat_interval_ms: How often a worker shows that it lives. Moves of partitions are noticed in heartbeats:
            with 500 ms a move took 0.55 s, with Kafka's usual 3,000 ms it took 6.2 s.
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
        security_protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
        ssl_cafile: Certificates to trust, PEM.
        ssl_certfile: This client's certificate, PEM.
        ssl_keyfile: Its key, PEM.
        sasl_mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
        sasl_username: User for SASL.
        sasl_password: Password for SASL.
    """

    client_id: str = "refold"
    session_timeout_ms: int = 6_000
    heartbeat_interval_ms: int = 500
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
    security_protocol: str = "PLAINTEXT"
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse what kafka-python would refuse later, and less clearly.

        Raises:
            UsageError: Naming the setting.
        """
        if self.security_protocol not in {"PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"}:
            raise UsageError(
                f"security_protocol is PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL, not {self.security_protocol!r}"
            )
        sasl = (self.sasl_mechanism, self.sasl_username, self.sasl_password)
        if self.security_protocol.startswith("SASL") and None in sasl:
            raise UsageError(
                f"{self.security_protocol} needs sasl_mechanism, sasl_username and sasl_password"
            )
        if 3 * self.heartbeat_interval_ms > self.session_timeout_ms:
            raise UsageError(
                f"heartbeat_interval_ms={self.heartbeat_interval_ms} is more than a third of session_timeout_ms="
                f"{self.session_timeout_ms}: one late heartbeat would lose the partitions"
            )
        # The broker counts from the last heartbeat, which may be an interval older than the last proof of ownership.
        shortest_ms = MIN_TAKEOVER_S * 1_000 + self.heartbeat_interval_ms
        if self.session_timeout_ms <= shortest_ms:
            raise UsageError(
                f"session_timeout_ms={self.session_timeout_ms} is too short: a worker that was stopped for a moment may"
                f" begin a step up to {MIN_TAKEOVER_S:g} s after the log showed that a partition was its own, when"
                f" another could own it already; give more than {shortest_ms:g} ms (MIN_TAKEOVER_S and"
                f" heartbeat_interval_ms={self.heartbeat_interval_ms})"
            )
        if self.delivery_timeout_ms < self.linger_ms + self.request_timeout_ms:
            raise UsageError(
                f"delivery_timeout_ms={self.delivery_timeout_ms} is less than one request may take"
                f" (linger_ms + request_timeout_ms = {self.linger_ms + self.request_timeout_ms})"
            )


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

    @property
    def group(self) -> str:
        """The consumer group whose members share the partitions."""
        return f"{self.namespace}.workers"

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

"""The topics of a namespace: made once, checked at every open.

A partition count that changes moves keys to other partitions, and a topic that is made again is an empty history.
So the namespace's compacted topic `<namespace>.meta` records the count and the topics' ids when they are made
(KIP-516 gave topics ids that no two share), and a log that finds others refuses to open.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from refold.log.errors import LogMismatch, LogUnavailable, TopicsMissing, UsageError
from refold.log.kafka_client import Admin, AlreadyExists, Clients
from refold.log.kafka_safety import Safety, safety_of
from refold.log.kafka_scan import read_all
from refold.log.kafka_schemas import own_notes
from refold.log.kafka_settings import (
    MESSAGE_BYTES_MAX,
    PARTITIONS_MAX,
    REPLY_RETENTION_MS,
    KafkaSettings,
    Topics,
    check_bootstrap,
    check_namespace,
)
from refold.log.layout import Layout, in_words
from refold.log.protocol import Channel

FORMAT = 2
_WITHOUT_POOLS = 1
"""Of a namespace without pools: releases that know of none, and would misplace what is theirs, can use it."""
NAMESPACE_KEY = "namespace"

# With three copies and two of them needed for every write, any one broker may be lost.
_REPLICATION = 3
_IN_SYNC_MIN = 2
_LOOK_AGAIN_S = 0.05
_SETTLE_S = 5.0
_ABSENT_S = 0.5
"""Of a namespace of which nothing is found, which is mostly a wrong name: a person waits for that answer."""


@dataclass(frozen=True, slots=True)
class NamespaceRecord:
    """What `<namespace>.meta` says under the key `namespace`.

    Args:
        format: Version of everything else that is recorded; this release knows 1, and 2 for one with pools.
        partitions: Number of partitions of each channel.
        topic_ids: Each topic's id, as Kafka made it.
        created_at: Microseconds since 1970-01-01 UTC.
        pools: Each pool with the number of its own partitions, which are among those.
    """

    format: int
    partitions: int
    topic_ids: Mapping[str, str]
    created_at: int
    pools: tuple[tuple[str, int], ...] = ()

    @property
    def layout(self) -> Layout:
        """What the partitions are for."""
        return Layout(self.partitions - sum(count for _, count in self.pools), self.pools)

    def to_json(self) -> str:
        """The record as JSON text."""
        values = asdict(self)
        if not self.pools:
            del values["pools"]
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, namespace: str, text: bytes | str) -> "NamespaceRecord":
        """The record from its JSON.

        Raises:
            LogMismatch: It is not what refold wrote, or of a newer format.
        """
        try:
            values = json.loads(text)
            record = cls(
                int(values["format"]),
                int(values["partitions"]),
                {str(topic): str(id_) for topic, id_ in values["topic_ids"].items()},
                int(values["created_at"]),
                tuple((str(name), int(count)) for name, count in values.get("pools", ())),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LogMismatch(
                f"the topic {namespace}.meta does not say what refold writes there ({error!r}):"
                " is the namespace another application's?"
            ) from error
        if record.format > FORMAT:
            raise LogMismatch(
                f"the namespace {namespace} is of format {record.format}, this release knows {FORMAT}:"
                " run a newer refold"
            )
        return record


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as the cluster describes it."""

    topic_id: str
    partitions: int
    replication: int


@dataclass(frozen=True, slots=True)
class TopicsReport:
    """What `create_topics` did or found.

    Args:
        namespace: Name of the namespace.
        created: Whether the topics were made now; False where they were there already.
        layout: The partitions of each channel.
        replication: Copies of each partition.
        in_sync_min: Copies that must have a record before it counts as written.
        warnings: What a person should know about them, a sentence each.
    """

    namespace: str
    created: bool
    layout: Layout
    replication: int
    in_sync_min: int
    warnings: tuple[str, ...]


async def create_topics(  # noqa: PLR0917 - as they are told to a person
    bootstrap: Sequence[str],
    namespace: str,
    partitions: int = 8,
    replication: int | None = None,
    settings: KafkaSettings | None = None,
    pools: tuple[tuple[str, int], ...] = (),
) -> TopicsReport:
    """Make the topics of a namespace, or find that they are there as asked. Safe to repeat, and after a crash.

    Args:
        bootstrap: Addresses of brokers, host:port.
        namespace: Name that the topics begin with.
        partitions: Number of partitions, for ever: how many workers can share the work.
        replication: Copies of each partition; without it, 3 or as many as there are brokers.
        settings: How to connect.
        pools: Each pool of workflows with the number of partitions that it gets besides those, for ever as well.

    Returns:
        What was made or found, with warnings.

    Raises:
        UsageError: A name or number can't be, before anything is made.
        LogUnavailable: No broker answers, or it refuses.
        LogMismatch: The namespace is there with other topics or another partition count.
    """
    check_namespace(namespace)
    servers = check_bootstrap(bootstrap)
    layout = Layout(partitions, pools)
    if partitions < 1 or layout.partitions > PARTITIONS_MAX:
        raise UsageError(
            f"a namespace has 1 to {PARTITIONS_MAX} partitions, not {in_words(layout)}"
        )
    if replication is not None and replication < 1:
        raise UsageError(f"a topic has at least 1 copy, not {replication}")
    clients = Clients(servers, settings or KafkaSettings())
    return await asyncio.to_thread(_create, clients, Topics(namespace), layout, replication)


def _create(
    clients: Clients, topics: Topics, layout: Layout, replication: int | None
) -> TopicsReport:
    with clients.session(f"making the topics of {topics.namespace}") as admin:
        found = describe(admin, topics)
        made = not found and _make(clients, admin, topics, layout.partitions, replication)
        found = _settled(admin, topics, found, _SETTLE_S)
        recorded = recorded_namespace(clients, topics) if topics.meta in found else None
        if recorded is None:
            recorded = _record(clients, topics, found, layout)
        check(topics, recorded, found)
        if recorded.layout != layout:
            raise LogMismatch(
                f"the namespace {topics.namespace} has {in_words(recorded.layout)}, not {in_words(layout)},"
                " and that never changes: use it as it is, or make another namespace"
            )
        safety = inspect(admin, topics, found)
    events = topics.of(Channel.EVENTS)
    copies = found[events].replication
    warnings = safety.warnings
    if copies == 1:
        warnings = (
            f"{events} has one copy: losing that broker's disk loses it. With three brokers and"
            " replication 3 any one may be lost",
            *warnings,
        )
    return TopicsReport(topics.namespace, made, layout, copies, safety.in_sync_min, tuple(warnings))


def _make(
    clients: Clients, admin: Admin, topics: Topics, partitions: int, replication: int | None
) -> bool:
    """Make all topics in one request. False where somebody else did at the same time."""
    copies = replication or min(_REPLICATION, len(admin.describe_cluster()["brokers"]))
    common = {
        "min.insync.replicas": str(_IN_SYNC_MIN if copies >= _REPLICATION else 1),
        "unclean.leader.election.enable": "false",  # a leader that lacks records un-happens them
        "max.message.bytes": str(MESSAGE_BYTES_MAX),
        "message.timestamp.type": "LogAppendTime",  # one clock a partition, no refused timestamps
    }
    kept = {**common, "retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete"}
    # Only closed segments expire: without a short segment.ms the ten minutes would be a week.
    age = str(REPLY_RETENTION_MS)
    configs = {
        topics.of(Channel.EVENTS): kept,
        topics.of(Channel.COMMANDS): kept,
        topics.of(Channel.REPLIES): {**kept, "retention.ms": age, "segment.ms": age},
        topics.meta: {**common, "cleanup.policy": "compact"},
    }
    wanted = {
        topic: {
            "num_partitions": 1 if topic == topics.meta else partitions,
            "replication_factor": copies,
            "configs": config,
        }
        for topic, config in configs.items()
    }
    timeout_ms = clients.settings.request_timeout_ms
    try:
        admin.create_topics(wanted, timeout_ms=timeout_ms)
    except AlreadyExists:
        return False
    finally:
        admin.wait_for_topics(topics.all(), timeout_ms=timeout_ms)
    return True


def _record(
    clients: Clients, topics: Topics, found: Mapping[str, TopicState], layout: Layout
) -> NamespaceRecord:
    """Write down what was made; also after a crash between the making and the writing."""
    missing = [topic for topic in topics.all() if topic not in found]
    counts = sorted({found[t].partitions for t in topics.all() if t in found and t != topics.meta})
    if missing or counts != [layout.partitions] or found[topics.meta].partitions != 1:
        raise LogMismatch(
            f"topics named like those of {topics.namespace} are there, but not as refold makes them"
            f" (missing: {missing or 'none'}, partitions: {counts}): choose another namespace,"
            " or delete them if they hold nothing"
        )
    ids = {topic: state.topic_id for topic, state in sorted(found.items())}
    record = NamespaceRecord(
        FORMAT if layout.pools else _WITHOUT_POOLS,
        layout.partitions,
        ids,
        time.time_ns() // 1000,
        layout.pools,
    )
    doing = f"recording the namespace {topics.namespace}"
    producer = clients.producer(f"{clients.settings.client_id}-admin", [topics.meta])
    with clients.errors(doing):
        for key, value, _ in own_notes(topics):  # before the record: whoever finds that finds these
            producer.send(topics.meta, value, (key or "").encode(), [], partition=0)
        sent = producer.send(
            topics.meta, record.to_json().encode(), NAMESPACE_KEY.encode(), [], partition=0
        )
        producer.close(timeout=clients.settings.delivery_timeout_ms / 1000)
    if sent.exception is not None:
        raise clients.unknown(sent.exception, doing) from sent.exception
    if not sent.is_done:
        raise LogUnavailable(f"{doing}: no broker acknowledged it; run the command again")
    return record


def _settled(
    admin: Admin, topics: Topics, found: dict[str, TopicState], patience_s: float
) -> dict[str, TopicState]:
    """What is found once all topics are, or when patience ends: each broker hears of new topics in its own time, and
    which of them is asked is the client's choice.
    """
    give_up_at = time.monotonic() + patience_s
    while len(found) < len(topics.all()) and time.monotonic() < give_up_at:
        time.sleep(_LOOK_AGAIN_S)
        found = describe(admin, topics)
    return found


def described(admin: Admin, topics: Topics) -> dict[str, TopicState]:
    """The topics of a namespace that was there: one that seems gone is looked for again, before it is missed."""
    return _settled(admin, topics, describe(admin, topics), _SETTLE_S)


def describe(admin: Admin, topics: Topics) -> dict[str, TopicState]:
    """The topics of the namespace that exist."""
    return {
        str(topic["name"]): TopicState(
            str(topic["topic_id"]),
            len(topic["partitions"]),
            min((len(part["replica_nodes"]) for part in topic["partitions"]), default=0),
        )
        for topic in admin.describe_topics(topics.all())
        if topic["error_code"] == 0
    }


def recorded_namespace(clients: Clients, topics: Topics) -> NamespaceRecord | None:
    """What the meta topic says about the namespace; None where it says nothing yet."""
    text = None
    for record in read_all(clients, topics.meta, 0):
        if record.key == NAMESPACE_KEY:
            text = record.value
    return None if text is None else NamespaceRecord.from_json(topics.namespace, text)


def require(clients: Clients, topics: Topics) -> tuple[NamespaceRecord, Safety]:
    """Check that the namespace is there and is the one that was made. Blocks.

    Raises:
        TopicsMissing: The namespace was never made.
        LogMismatch: As `check`, or the topics' settings destroy history.
        LogUnavailable: No broker answers.
    """
    with clients.session(f"opening the namespace {topics.namespace}") as admin:
        found = describe(admin, topics)
        found = _settled(admin, topics, found, _SETTLE_S if found else _ABSENT_S)
        recorded = recorded_namespace(clients, topics) if topics.meta in found else None
        if recorded is None:
            servers = ",".join(clients.bootstrap)
            raise TopicsMissing(
                f"the namespace {topics.namespace} has no topics on {servers}: make them with"
                f" `refold topics create kafka://{servers}/{topics.namespace}`"
            )
        check(topics, recorded, found, ignoring=clients.settings.ignore_added_partitions)
        safety = inspect(admin, topics, found)
    if safety.refusal is not None:
        raise safety.refusal
    return recorded, safety


def check(
    topics: Topics,
    recorded: NamespaceRecord,
    found: Mapping[str, TopicState],
    *,
    ignoring: bool = False,
) -> None:
    """Refuse topics that are not those that were recorded.

    Args:
        topics: Their names.
        recorded: What they were.
        found: What they are.
        ignoring: Whether partitions that were added are none of our business.

    Raises:
        LogMismatch: A topic is gone, was made again, or has another partition count.
    """
    for topic in topics.all():
        state = found.get(topic)
        expected = 1 if topic == topics.meta else recorded.partitions
        if state is None:
            raise LogMismatch(
                f"the topic {topic} was deleted: restore it from a backup, or begin a new namespace"
            )
        if state.topic_id != recorded.topic_ids.get(topic):
            raise LogMismatch(
                f"the topic {topic} is not the one that the namespace was made with (id {state.topic_id},"
                f" recorded {recorded.topic_ids.get(topic)}): it was deleted and made again, so its history"
                " is gone. Restore it, or begin a new namespace"
            )
        if state.partitions < expected or (state.partitions > expected and not ignoring):
            raise LogMismatch(
                f"the topic {topic} has {state.partitions} partitions, the namespace was made with {expected}:"
                " other programs would look for keys elsewhere, and Kafka takes no partition away again. Open it with"
                " ignore_added_partitions=true, as refold itself uses those that it was made with, and in time move"
                " it to a new namespace (refold migrate)"
            )


def inspect(admin: Admin, topics: Topics, found: Mapping[str, TopicState]) -> Safety:
    """How safe the topics are."""
    return safety_of(admin, topics, {topic: state.replication for topic, state in found.items()})

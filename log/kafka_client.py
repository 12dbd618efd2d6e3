"""kafka-python behind types and our errors: the only module that imports it, with `kafka_login` for its connections.

kafka-python ships no types, so what refold uses of it is written down here as protocols. It is chatty when a broker
is away, but only for those who configured logging: its logger `kafka` has a NullHandler of its own, and refold
touches neither that logger's level nor its handlers.
"""

import re
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, cast

import kafka
import kafka.admin
import kafka.errors as kafka_errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.structs import MemberState

from refold.log.errors import (
    AppendUnknown,
    LogCorrupt,
    LogError,
    LogUnavailable,
    RecordTooLarge,
    TopicsMissing,
)
from refold.log.kafka_login import AccessDenied, Login, Network
from refold.log.kafka_settings import MESSAGE_BYTES_MAX, KafkaSettings
from refold.log.protocol import Record
from refold.log.schema_frames import Frames

KafkaFailure = cast("type[Exception]", kafka_errors.KafkaError)
OutOfRange = cast("type[Exception]", kafka_errors.OffsetOutOfRangeError)
Truncated = cast("type[Exception]", kafka_errors.LogTruncationError)
Corrupt = cast("type[Exception]", kafka_errors.CorruptRecordError)
Unauthorized = cast("type[Exception]", kafka_errors.AuthorizationError)
ProducerClosed = cast("type[Exception]", kafka_errors.IllegalStateError)
Undecodable = cast("type[Exception]", kafka_errors.UnsupportedCodecError)
Fenced = cast("type[Exception]", kafka_errors.FencedInstanceIdError)
# What stands for a time where an end is asked for.
LATEST = -1
EARLIEST = -2
STABLE = cast("str", MemberState.STABLE)
AlreadyExists = cast("type[Exception]", kafka_errors.TopicAlreadyExistsError)

_NO_SUCH_TOPIC = (kafka_errors.UnknownTopicOrPartitionError, kafka_errors.InvalidTopicError)
_TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)
# A broker answers one request of a connection at a time. A scan knows its end and need not wait there, and the fetch
# that the client sends ahead would hold up whatever is asked next.
_SCAN_WAIT_MS = 1
_FOLLOW_BYTES = 1024 * 1024

# What members and leader of a group say of themselves, and of all: an offered partition is asked for.
_OFFERS = b"offers"

_TOPIC_UNAUTHORIZED = cast("int", kafka_errors.TopicAuthorizationFailedError.errno)

# An event loop or socket that is already closed shows as one of these, not as a KafkaError.
_TORN_DOWN = (OSError, RuntimeError)


class TopicPartition(Protocol):
    """A partition of a topic; hashable."""

    @property
    def topic(self) -> str: ...  # noqa: D102
    @property
    def partition(self) -> int: ...  # noqa: D102


class ConsumerRecord(Protocol):
    """A record as the consumer gives it. `timestamp` in milliseconds."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...  # noqa: D102


class Sent(Protocol):
    """The future of a record that was given to the producer. Callbacks run on its I/O thread, or at once."""

    is_done: bool
    exception: Exception | None
    value: Any  # RecordMetadata, which has `offset`; None until done

    def add_callback(self, f: Callable[[object], None]) -> object: ...  # noqa: D102
    def add_errback(self, f: Callable[[Exception], None]) -> object: ...  # noqa: D102


class Producer(Protocol):
    """What refold uses of KafkaProducer. Thread-safe."""

    def send(  # noqa: D102
        self,
        topic: str,
        value: bytes,
        key: bytes | None,
        headers: list[tuple[str, bytes]],
        partition: int,
    ) -> Sent: ...
    def partitions_for(self, topic: str) -> set[int]: ...  # noqa: D102
    def close(self, timeout: float) -> None: ...  # noqa: D102


class GroupMetadata(Protocol):
    """How a member stands in its group."""

    @property
    def state(self) -> str: ...  # noqa: D102


class TimedOffset(Protocol):
    """Where the first record of a time is; a negative offset where there is none."""

    @property
    def offset(self) -> int: ...  # noqa: D102


class Consumer(Protocol):
    """What refold uses of KafkaConsumer. One thread at a time."""

    def assign(self, partitions: Sequence[TopicPartition]) -> None: ...  # noqa: D102
    def subscribe(self, topics: Sequence[str], *, listener: object) -> None: ...  # noqa: D102
    def seek(self, partition: TopicPartition, offset: int) -> None: ...  # noqa: D102
    def pause(self, *partitions: TopicPartition) -> None: ...  # noqa: D102
    def resume(self, *partitions: TopicPartition) -> None: ...  # noqa: D102
    def position(self, partition: TopicPartition, timeout_ms: int) -> int | None: ...  # noqa: D102
    def poll(  # noqa: D102
        self, timeout_ms: int, max_records: int
    ) -> Mapping[TopicPartition, Sequence[ConsumerRecord]]: ...
    def beginning_offsets(  # noqa: D102
        self, partitions: Sequence[TopicPartition], timeout_ms: int
    ) -> Mapping[TopicPartition, int]: ...
    def end_offsets(  # noqa: D102
        self, partitions: Sequence[TopicPartition], timeout_ms: int
    ) -> Mapping[TopicPartition, int]: ...
    def offsets_for_times(  # noqa: D102
        self, timestamps: dict[TopicPartition, int], timeout_ms: int
    ) -> Mapping[TopicPartition, "TimedOffset | None"]: ...
    def group_metadata(self) -> "GroupMetadata": ...  # noqa: D102
    def commit_async(self, offsets: Mapping[TopicPartition, object]) -> object: ...  # noqa: D102
    def close(self, autocommit: bool, timeout_ms: int) -> None: ...  # noqa: D102


class Admin(Protocol):
    """What refold uses of KafkaAdminClient."""

    def describe_topics(self, topics: Sequence[str]) -> list[dict[str, Any]]: ...  # noqa: D102
    def describe_configs(  # noqa: D102
        self, config_resources: Sequence[object], *, config_filter: str
    ) -> dict[str, dict[str, dict[str, dict[str, Any]]]]: ...
    def describe_cluster(self) -> dict[str, Any]: ...  # noqa: D102
    def describe_groups(self, group_ids: Sequence[str]) -> dict[str, dict[str, Any]]: ...  # noqa: D102
    def list_group_offsets(  # noqa: D102
        self, group_specs: Mapping[str, Sequence[TopicPartition]]
    ) -> dict[str, dict[TopicPartition, Any]]: ...
    def list_partition_offsets(  # noqa: D102
        self, topic_partition_specs: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, "TimedOffset"]: ...
    def get_broker_version_data(self, broker_id: int) -> Any: ...  # noqa: D102
    def create_topics(  # noqa: D102
        self, new_topics: Mapping[str, Mapping[str, object]], *, timeout_ms: int
    ) -> object: ...
    def delete_records(  # noqa: D102
        self, records_to_delete: Mapping[TopicPartition, int], timeout_ms: int
    ) -> object: ...
    def wait_for_topics(self, topic_names: Sequence[str], timeout_ms: int) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class Rebalanced(Protocol):
    """Told of a group's moves, on the consumer's I/O thread: heartbeats wait while it runs."""

    def gained(self, partitions: Sequence[TopicPartition]) -> None: ...  # noqa: D102
    def gave_up(self, partitions: Sequence[TopicPartition], lost: bool) -> None: ...  # noqa: D102


class _Sharing(CooperativeStickyAssignor):  # type: ignore[misc]  # it has no types
    """Assigns some partitions of a topic, and leaves the others to other groups.

    Each member says that it understands offers, and the leader tells all of them whether all do: an older release would
    stop at the first that it reads.
    """

    def __init__(self, partitions: Collection[int]) -> None:
        base: Any = super()
        base.__init__()
        self._partitions = partitions
        self.members = 0  # when this member last was the leader
        self.all_understand = False

    def metadata(self, topics: Any) -> Any:
        base: Any = super()
        metadata = base.metadata(topics)
        metadata.user_data = _OFFERS
        return metadata

    def assign(self, cluster: Any, members: Any) -> Any:
        self.members = len(members)
        base: Any = super()
        shares = base.assign(_Part(cluster, self._partitions), members)
        if all(member.metadata.user_data == _OFFERS for member in members):
            for share in shares.values():
                share.user_data = _OFFERS
        return shares

    def on_assignment(self, assignment: Any, generation: Any) -> None:
        base: Any = super()
        base.on_assignment(assignment, generation)
        self.all_understand = assignment.user_data == _OFFERS


class _Part:
    """What an assignor asks of the cluster's metadata, with some partitions only."""

    def __init__(self, cluster: Any, partitions: Collection[int]) -> None:
        self._cluster = cluster
        self._partitions = partitions

    def topics(self) -> Any:
        return self._cluster.topics()

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        found = self._cluster.partitions_for_topic(topic)
        return None if found is None else {p for p in found if p in self._partitions}


class Clients:
    """Makes producers, consumers and admin clients that agree on brokers, security and timeouts.

    Every method blocks: call it on a thread of its own.

    Args:
        bootstrap: Addresses of brokers, host:port.
        settings: See there.
    """

    def __init__(self, bootstrap: Sequence[str], settings: KafkaSettings) -> None:
        self.bootstrap = tuple(bootstrap)
        self.settings = settings
        self._login = Login(settings)
        # Why a connection could not be made last; a timeout alone would not tell.
        self._trouble = ""
        # None until the log has asked what its numbers of schemas mean.
        self.frames: Frames | None = None

    def producer(self, client_id: str, topics: Collection[str]) -> Producer:
        """A producer for `topics` that acknowledges only what all in-sync replicas have, once each."""
        settings = self.settings
        with self.errors("connecting a producer"):
            producer = self._make(
                kafka.KafkaProducer,
                topics,
                **self._connection(client_id),
                acks="all",
                enable_idempotence=True,
                linger_ms=settings.linger_ms,
                compression_type=None if settings.compression == "none" else settings.compression,
                delivery_timeout_ms=settings.delivery_timeout_ms,
                batch_size=settings.max_batch_bytes + 64 * 1024,
                max_request_size=2 * MESSAGE_BYTES_MAX,
                # send() runs on the event loop; it waits only if a topic vanishes under a running log.
                max_block_ms=2_000,
                retry_backoff_ms=50,
                metrics_enabled=False,
            )
        return cast("Producer", producer)

    def learn_partitions(self, producer: Producer, topics: Sequence[str]) -> None:
        """Wait until a producer knows the partitions of `topics`, for as long as a broker is looked for.

        Raises:
            LogUnavailable: It does not learn them.
        """
        until = time.monotonic() + self.settings.connect_timeout_ms / 1000

        def learn(topic: str) -> None:
            while True:
                try:
                    producer.partitions_for(topic)
                except kafka_errors.KafkaTimeoutError:  # after `max_block_ms`, which is for `send`
                    if time.monotonic() >= until:
                        raise
                else:
                    return

        with (
            self.errors("asking for the topics' partitions"),
            # All at once, for where they were not known at first: each would wait for the metadata request before it.
            ThreadPoolExecutor(len(topics)) as threads,
        ):
            list(threads.map(learn, topics))

    def consumer(self, client_id: str, topics: Collection[str]) -> Consumer:
        """A consumer that follows partitions: it is told them and the offsets, and never chooses one by itself."""
        with self.errors("connecting a consumer"):
            consumer = self._make(
                kafka.KafkaConsumer,
                topics,
                **self._connection(client_id),
                **self._fetching(_FOLLOW_BYTES, self.settings.fetch_wait_ms),
                group_id=None,
            )
        return cast("Consumer", consumer)

    def reader(self, client_id: str, topics: Collection[str]) -> Consumer:
        """A consumer that reads the history of `topics`."""
        with self.errors("connecting a consumer"):
            consumer = self._make(
                kafka.KafkaConsumer,
                topics,
                **self._connection(client_id),
                **self._fetching(self.settings.scan_fetch_bytes, _SCAN_WAIT_MS),
                group_id=None,
            )
        return cast("Consumer", consumer)

    def member(
        self, client_id: str, group: str, topic: str, partitions: Collection[int]
    ) -> Consumer:
        """A consumer that is a member of `group`, which shares these partitions of a topic and no others."""
        settings = self.settings
        with self.errors(f"joining the group {group}"):
            consumer = self._make(
                kafka.KafkaConsumer,
                (topic,),
                **self._connection(client_id),
                **self._fetching(_FOLLOW_BYTES, settings.fetch_wait_ms),
                group_id=group,
                group_instance_id=settings.group_instance_id,
                session_timeout_ms=settings.session_timeout_ms,
                heartbeat_interval_ms=settings.heartbeat_interval_ms,
                # One instance a consumer: it keeps what this member owned.
                partition_assignment_strategy=(_Sharing(partitions),),
            )
        return cast("Consumer", consumer)

    def admin(self) -> Admin:
        """A client for topics and their settings."""
        connection = self._connection(f"{self.settings.client_id}-admin")
        with self.errors("connecting"):
            return cast("Admin", self._make(_Admin, (), **connection))

    @contextmanager
    def session(self, doing: str) -> Generator[Admin, None, None]:
        """An admin client for a block, with our errors."""
        with self.errors(doing):
            admin = self.admin()
            try:
                yield admin
            finally:
                admin.close()

    def records(self, polled: Sequence[ConsumerRecord]) -> list[Record]:
        """The log's records from the consumer's, numbered as refold numbers schemas. May ask who gave a number.

        Raises:
            LogUnavailable: A number is new, and whoever knows it gives no answer.
        """
        records = to_records(polled)
        return records if self.frames is None else self.frames.incoming(records)

    def _fetching(self, fetch_bytes: int, wait_ms: int) -> dict[str, Any]:
        return {
            "auto_offset_reset": "none",  # 'earliest' or 'latest' would hide a log that was cut
            "enable_auto_commit": False,
            "retry_backoff_ms": 20,  # also how long a poll sleeps where a topic's leader is not known yet
            "fetch_min_bytes": 1,
            "fetch_max_wait_ms": wait_ms,
            "max_partition_fetch_bytes": fetch_bytes,
            "metrics_enabled": False,
        }

    def _connection(self, client_id: str) -> dict[str, Any]:
        settings = self.settings
        return {
            "bootstrap_servers": list(self.bootstrap),
            "client_id": client_id,
            "request_timeout_ms": settings.request_timeout_ms,
            "bootstrap_timeout_ms": settings.connect_timeout_ms,
            "reconnect_backoff_max_ms": 1_000,  # a broker that restarts is met within a second
            **self._login.config(),
        }

    @contextmanager
    def errors(self, doing: str) -> Generator[None, None, None]:
        """Turn what kafka-python raises in the block into our errors; `doing` says what was tried."""
        try:
            yield
        except LogError:
            raise
        except (KafkaFailure, *_TORN_DOWN) as error:
            raise self.translated(error, doing) from error

    def translated(self, error: Exception, doing: str) -> LogError:
        """Our error for one of kafka-python's, with that as its cause."""
        failure = self._failure(error, doing)
        failure.__cause__ = error
        return failure

    def _failure(self, error: Exception, doing: str) -> LogError:
        servers = ",".join(self.bootstrap)
        told = f"{doing} (brokers {servers}): {reason(error)}"
        if isinstance(error, _NO_SUCH_TOPIC):
            return TopicsMissing(f"{told}; make the topics with `refold topics create`")
        if isinstance(error, _TOO_LARGE):
            return RecordTooLarge(f"{told}; raise the topic's max.message.bytes or write less")
        if isinstance(error, (OutOfRange, Truncated)):
            return LogCorrupt(
                f"{told}; records that were there are gone: the topic was cut, expired or made again"
            )
        if isinstance(error, Corrupt):
            return LogCorrupt(f"{told}; restore the partition from a replica or a backup")
        if isinstance(error, AccessDenied):
            return LogUnavailable(f"{doing}: {error.args[0]}")
        return LogUnavailable(f"{told}; {self._advice(error, doing)}")

    def _advice(self, error: Exception, doing: str) -> str:
        if isinstance(error, Unauthorized):
            return _lacking(error, doing)
        if isinstance(error, Undecodable):
            return "pip install 'refold[lz4,zstd]' here: whoever wrote it has it"
        if isinstance(error, Fenced):
            return "another worker has this group_instance_id: each needs one of its own, then start this one again"
        if self._trouble:
            return f"a connection failed before: {self._trouble}"
        return "check that a broker runs there and can be reached"

    def _make(
        self, client_class: Callable[..., object], topics: Collection[str], **config: object
    ) -> object:
        """One of kafka-python's clients, or nothing: a constructor that fails leaves a thread and sockets behind.

        It knows the topics' leaders from the start.
        """
        networks: list[Network] = []

        def remembered(**network_config: object) -> object:
            networks.append(Network(self._note_trouble, topics, **network_config))
            return networks[-1]

        try:
            return client_class(**config, kafka_client=remembered)
        except BaseException:
            for network in networks:
                network.close()
            raise

    def _note_trouble(self, trouble: str) -> None:
        self._trouble = trouble

    def unknown(self, error: Exception, doing: str) -> AppendUnknown:
        """Our error for an append that failed and may be in the log all the same."""
        told = reason(error)
        if isinstance(
            error, kafka_errors.KafkaTimeoutError
        ):  # it keeps no record of why its tries failed
            told += (
                " (no broker answers, or fewer copies are in sync than min.insync.replicas asks:"
                " `refold doctor` tells)"
            )
        if isinstance(error, Unauthorized) or _NO_PRODUCER_ID in told:
            told += f"; {_lacking(error, doing)}"
        unknown = AppendUnknown(
            f"{doing} (brokers {','.join(self.bootstrap)}): {told};"
            " it may or may not be in the log: read the log to know"
        )
        unknown.__cause__ = error
        return unknown


def is_too_large(error: Exception | None) -> bool:
    """Whether the broker refused a record for its size: then it is not in the log."""
    return isinstance(error, _TOO_LARGE)


class _Admin(kafka.KafkaAdminClient):  # type: ignore[misc]  # an untyped base
    def describe_topics(self, topics: Sequence[str]) -> list[dict[str, Any]]:
        """As ever; but a topic that may not be seen is not taken for one that is not there."""
        base: Any = super()
        found = cast("list[dict[str, Any]]", base.describe_topics(topics))
        hidden = {topic["name"] for topic in found if topic["error_code"] == _TOPIC_UNAUTHORIZED}
        if hidden:
            raise kafka_errors.TopicAuthorizationFailedError(hidden)
        return found


# Wrapped in a plain KafkaError where a user that may write nothing at all asks to be a producer.
_NO_PRODUCER_ID = "ClusterAuthorizationFailedError"

# What was being tried, as the messages here begin, tells the permission that was missing.
_PERMISSIONS = (
    ("appending", "WRITE"),
    ("reading", "READ"),
    ("following", "READ"),
    ("making", "CREATE"),
    ("deleting", "DELETE"),
)


# As kafka-python names what an error is about; elsewhere the name is the last word.
_NAMED = re.compile(r"\btopic (\S+)")


def _lacking(error: Exception, doing: str) -> str:
    """Which permission is missing, on what, and who can say more."""
    about = error.args[0] if error.args else None
    if isinstance(about, str):  # of one topic or group, which not every error names
        named = _NAMED.search(about)
        about = about.rpartition(" ")[2] if named is None else named[1]
    if _NO_PRODUCER_ID in str(error):
        error = kafka_errors.ClusterAuthorizationFailedError()
    if isinstance(error, kafka_errors.GroupAuthorizationFailedError):
        lacking = f"READ on the group {about or 'of the workers'}"
    elif isinstance(error, kafka_errors.ClusterAuthorizationFailedError):
        lacking = (
            f"{_permission(doing)} on the topics it writes, or IDEMPOTENT_WRITE on the cluster"
        )
    else:
        topics = [about] if isinstance(about, str) else sorted(about or ())
        lacking = f"{_permission(doing)} on {'the topic ' + ', '.join(topics) if topics else 'that topic'}"
    return f"this user lacks {lacking}; `refold acls` prints what each role needs"


def _permission(doing: str) -> str:
    return next((name for word, name in _PERMISSIONS if doing.startswith(word)), "DESCRIBE")


def reason(error: Exception) -> str:
    """What kafka-python says, with the error's name where the text alone would not tell."""
    name, text = type(error).__name__, str(error)
    return text if name in text else f"{name}: {text}" if text else name


def topic_partition(topic: str, partition: int) -> TopicPartition:
    """kafka-python's own tuple: its consumer refuses any other."""
    return cast("TopicPartition", kafka.TopicPartition(topic, partition))


def offsets_of(
    admin: Admin, places: Collection[TopicPartition], which: int
) -> dict[TopicPartition, int]:
    """`LATEST`, the offsets that the next records will get, or `EARLIEST`, the first ones. One request a broker."""
    if not places:
        return {}
    found = admin.list_partition_offsets(dict.fromkeys(places, which))
    return {place: found[place].offset for place in places}


def topic_resource(topic: str) -> object:
    """Names a topic to `Admin.describe_configs`."""
    return cast("object", kafka.admin.ConfigResource("TOPIC", topic))


def places_of(error: Exception) -> Sequence[TopicPartition]:
    """The partitions that an `OutOfRange` or `Truncated` is about."""
    about = getattr(error, "divergent_offsets", None) or error.args[0]
    return list(cast("Mapping[TopicPartition, object]", about))


def unpark(consumer: Consumer) -> None:
    """Have the next poll look for records that were fetched, put aside while their partition was paused, and are due.

    kafka-python 3.0.12 looks only where nothing is in line, and leaves a used-up answer of another partition there.
    Then the resumed one is neither read nor, since records of it are put aside, fetched; it can stand still for good.
    """
    fetcher: object = getattr(consumer, "_fetcher", None)
    in_line: object = getattr(fetcher, "_next_partition_records", None)
    if in_line is not None and not in_line:
        setattr(fetcher, "_next_partition_records", None)  # noqa: B010 - no part of the public type


def is_fenced(consumer: Consumer) -> bool:
    """Whether a static member of a group has stopped its heartbeats because another one has its name."""
    coordinator: object = getattr(consumer, "_coordinator", None)
    return (
        getattr(coordinator, "group_instance_id", None) is not None
        and getattr(coordinator, "state", None) == STABLE
        and getattr(coordinator, "_heartbeat_enabled", None) is False
    )


def is_alone(consumer: Consumer) -> bool:
    """Whether the group has no other member, as its leader knows; of who is not the leader it is not true."""
    coordinator: object = getattr(consumer, "_coordinator", None)
    leads = getattr(coordinator, "_is_leader", False) is True
    return leads and all(sharing.members == 1 for sharing in _sharing(consumer))


def all_understand_offers(consumer: Consumer) -> bool:
    """Whether every member of the group does, as its leader said when it last shared the partitions out."""
    return any(sharing.all_understand for sharing in _sharing(consumer))


def _sharing(consumer: Consumer) -> list[_Sharing]:
    """The assignor that `Clients.member` gave a consumer, which keeps it to itself."""
    coordinator: object = getattr(consumer, "_coordinator", None)
    assignors: Mapping[str, object] = getattr(coordinator, "_assignors", {})
    return [assignor for assignor in assignors.values() if isinstance(assignor, _Sharing)]


def committed(offset: int) -> object:
    """An offset as `Consumer.commit_async` takes it."""
    return cast("object", kafka.OffsetAndMetadata(offset, "", -1))


def kill(producer: Producer) -> None:
    """Stop a producer where it stands: nothing that is not yet on its way will be sent. Any thread may call it.

    `KafkaProducer.close(timeout=0)` is meant for this, but begins with a flush that raises while records wait.
    """
    cast("Any", producer)._sender.force_close()


def rebalance_listener(rebalanced: Rebalanced) -> object:
    """What `Consumer.subscribe` takes as its listener."""
    return _Listener(rebalanced)


class _Listener(kafka.ConsumerRebalanceListener):  # type: ignore[misc]  # an untyped base
    def __init__(self, rebalanced: Rebalanced) -> None:
        self._rebalanced = rebalanced

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        self._rebalanced.gained(assigned)

    def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        self._rebalanced.gave_up(revoked, lost=False)

    def on_partitions_lost(self, lost: Sequence[TopicPartition]) -> None:
        self._rebalanced.gave_up(lost, lost=True)


def key_of(key: bytes) -> str:
    """A record's key as text: one that is no UTF-8 stays readable."""
    return key.decode(errors="backslashreplace")


def to_records(records: Sequence[ConsumerRecord]) -> list[Record]:
    """The log's records from the consumer's.

    Anybody with the right to may have written to the topic: what is null becomes empty. What such a record means is for
    the codec to say; it must not stop the partition here.
    """
    return [
        Record(
            record.offset,
            record.timestamp * 1000,
            None if record.key is None else key_of(record.key),
            record.value or b"",
            tuple([(name, value or b"") for name, value in record.headers]),
        )
        for record in records
    ]

"""What `refold doctor` asks a cluster about a namespace.

Every question is asked for itself: one that this user may not ask, or that the cluster can't answer, is a finding like
any other, and the next is asked all the same.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from refold.log.errors import LogError, LogUnavailable
from refold.log.findings import Examination, Finding, fail, ok, warn
from refold.log.kafka_client import Admin, Clients, KafkaFailure, Unauthorized, reason
from refold.log.kafka_clock import clock_findings
from refold.log.kafka_group import group_findings
from refold.log.kafka_safety import Weight, safety_of
from refold.log.kafka_settings import Topics
from refold.log.kafka_topics import NamespaceRecord, check, describe, recorded_namespace
from refold.log.protocol import Channel

_COPIES = 3
_PATIENCE_S = 5.0
_PAUSE_S = 0.2
_KAFKA_LEAST = (2, 8)
"""Topics have had ids since then (KIP-516): without them a topic that was made again is not told from the old one."""


@dataclass(slots=True)
class _Visit:
    """One examination: what it asks with, and what it knows so far."""

    clients: Clients
    admin: Admin
    topics: Topics
    brokers: Sequence[int] = ()
    described: Mapping[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    recorded: NamespaceRecord | None = None
    whole: bool = False  # every topic is there and is the one that was recorded
    holders: dict[int, str] | None = None


def examine(clients: Clients, topics: Topics) -> Examination:
    """Look at the cluster and the namespace. Blocks."""
    try:
        with clients.session("connecting") as admin:
            visit = _Visit(clients, admin, topics)
            findings = [
                finding
                for name, question in _QUESTIONS.items()
                for finding in _asked(name, question, visit)
            ]
    except LogUnavailable as error:
        advice = "check the address, the network and, where the cluster wants one, the login"
        return Examination([fail("brokers", str(error), advice)], readable=False)
    return Examination(findings, visit.holders, readable=visit.whole)


def _asked(
    name: str, question: Callable[[_Visit], Iterator[Finding]], visit: _Visit
) -> Sequence[Finding]:
    give_up_at = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return list(question(visit))
        except Unauthorized as error:
            told = f"this user may not ask: {reason(error)}"
            advice = "ask somebody who may, or grant Describe and DescribeConfigs (`refold acls`)"
            return [warn(name, told, advice)]
        except (KafkaFailure, LogError, OSError) as error:
            if getattr(error, "retriable", False) and time.monotonic() < give_up_at:
                time.sleep(_PAUSE_S)  # as when a cluster is asked for its first group ever
                continue
            told = f"no answer: {error if isinstance(error, LogError) else reason(error)}"
            return [warn(name, told, "ask again; if it stays so, look at the brokers' logs")]


def _brokers(visit: _Visit) -> Iterator[Finding]:
    """The addresses that brokers give to clients are others than those that the URL names."""
    cluster = visit.admin.describe_cluster()
    visit.brokers = sorted(int(broker["broker_id"]) for broker in cluster["brokers"])
    versions: dict[int, tuple[int, ...]] = {}
    for broker in cluster["brokers"]:
        address = f"{broker['host']}:{broker['port']}"
        try:
            data = visit.admin.get_broker_version_data(broker["broker_id"])
        except (KafkaFailure, OSError) as error:
            yield fail(
                "brokers",
                f"broker {broker['broker_id']} gives clients the address {address}, and does not answer"
                f" there: {reason(error)}",
                "correct its advertised.listeners, or open the way to it",
            )
        else:
            versions[int(broker["broker_id"])] = tuple(data.broker_version)
    told = ", ".join(f"{id_} ({_dotted(version)})" for id_, version in versions.items())
    if versions:
        yield ok("brokers", f"{len(versions)} of {len(visit.brokers)} answer: {told}")
    for id_, version in versions.items():
        if version < _KAFKA_LEAST:
            yield fail(
                "brokers",
                f"broker {id_} is Kafka {_dotted(version)}",
                f"upgrade it to {_dotted(_KAFKA_LEAST)} at least: refold needs topic ids",
            )
    if len(visit.brokers) < _COPIES:
        yield warn(
            "brokers",
            "the cluster has " + ("one broker" if len(visit.brokers) == 1 else "two brokers"),
            "with three, any one may be lost and work goes on",
        )


def _topics(visit: _Visit) -> Iterator[Finding]:
    found = describe(visit.admin, visit.topics)
    visit.described = {
        str(topic["name"]): topic
        for topic in visit.admin.describe_topics(visit.topics.all())
        if topic["error_code"] == 0
    }
    if not found:
        yield fail(
            "topics",
            f"there are no topics of {visit.topics.namespace}, or this user may not see them",
            "check the name; `refold topics create` makes a namespace; `refold acls` prints what to grant",
        )
        return
    if visit.topics.meta in found:
        visit.recorded = recorded_namespace(visit.clients, visit.topics)
    if visit.recorded is None:
        yield fail(
            "topics",
            f"{visit.topics.meta} does not say what the namespace is",
            "`refold topics create` completes a namespace that was left half made; else restore the topic",
        )
        return
    try:
        ignoring = visit.clients.settings.ignore_added_partitions
        check(visit.topics, visit.recorded, found, ignoring=ignoring)
    except LogError as error:
        told, _, advice = str(error).partition(": ")
        yield fail("topics", told, advice)
        return
    visit.whole = True
    yield ok(
        "topics",
        f"{len(found)} topics with the ids recorded, {visit.recorded.partitions} partitions as recorded",
    )


def _copies(visit: _Visit) -> Iterator[Finding]:
    few: dict[int, list[str]] = {}
    for topic, copies in _replication(visit).items():
        if topic != visit.topics.of(Channel.REPLIES) and copies < _COPIES:
            few.setdefault(copies, []).append(topic)
    for copies, topics in few.items():
        can = len(visit.brokers) >= _COPIES
        yield warn(
            "copies",
            f"{', '.join(topics)}: {copies} {'copy' if copies == 1 else 'copies'}"
            + (", though there are brokers for three" if can else ""),
            "give them three (kafka-reassign-partitions)" if can else "add brokers, then copies",
        )
    if visit.described and not few:
        yield ok("copies", f"{_COPIES} or more of every partition")


def _in_sync(visit: _Visit) -> Iterator[Finding]:
    if not visit.described:
        return
    least = safety_of(visit.admin, visit.topics, _replication(visit)).in_sync_min
    sound = True
    for topic, described in visit.described.items():
        for part in described["partitions"]:
            place = f"{topic}/{part['partition_index']}"
            copies, in_sync = len(part["replica_nodes"]), len(part["isr_nodes"])
            if part["leader_id"] < 0:
                sound = False
                yield fail(
                    "in sync",
                    f"{place} has no leader: its copies are on brokers {part['replica_nodes']}",
                    "start one of these brokers that was in sync last",
                )
            elif in_sync < min(least, copies):
                sound = False
                yield fail(
                    "in sync",
                    f"{place} has {in_sync} of {copies} copies in sync and needs {least}: appends wait",
                    f"start the brokers that are missing (copies are on {part['replica_nodes']})",
                )
            elif in_sync < copies:
                sound = False
                yield warn(
                    "in sync",
                    f"{place} has {in_sync} of {copies} copies in sync",
                    f"start the brokers that are missing, or wait until they have caught up (copies are on"
                    f" {part['replica_nodes']})",
                )
    if sound:
        yield ok("in sync", "every copy of every partition")


def _replication(visit: _Visit) -> dict[str, int]:
    return {
        topic: min(len(part["replica_nodes"]) for part in described["partitions"])
        for topic, described in visit.described.items()
    }


def _settings(visit: _Visit) -> Iterator[Finding]:
    if set(visit.described) != set(visit.topics.all()):
        return
    safety = safety_of(visit.admin, visit.topics, _replication(visit))
    if not safety.known:
        yield warn(
            "settings",
            "this user may not read the topics' settings",
            "grant DescribeConfigs on the topics (`refold acls`), or ask somebody who may",
        )
        return
    for risk in safety.risks:
        level = warn if risk.weight is Weight.DOUBTFUL else fail
        yield level("settings", risk.told, risk.advice)
    if not safety.risks:
        yield ok(
            "settings",
            f"events and commands are kept for ever, min.insync.replicas={safety.in_sync_min}, no unclean"
            f" leaders, the broker's time, records to {safety.message_bytes_max:,} bytes",
        )


def _clock(visit: _Visit) -> Iterator[Finding]:
    if visit.whole:
        replies = visit.topics.of(Channel.REPLIES)
        yield from clock_findings(visit.clients, replies, visit.described[replies]["partitions"])


def _group(visit: _Visit) -> Iterator[Finding]:
    if visit.whole and visit.recorded is not None:
        report = group_findings(visit.admin, visit.topics, visit.recorded.layout)
        visit.holders = report.holders
        yield from report.findings


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


_QUESTIONS: Mapping[str, Callable[[_Visit], Iterator[Finding]]] = {
    "brokers": _brokers,
    "topics": _topics,
    "copies": _copies,
    "in sync": _in_sync,
    "settings": _settings,
    "clock": _clock,
    "group": _group,
}

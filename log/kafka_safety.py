"""What the settings of a namespace's topics promise, and which of them would lose history.

Kafka takes many settings that a log can't live with, and says nothing: it deletes what is old, compacts a history to
each key's last record, or acknowledges what one disk has. Most are told as warnings. Those that destroy history in the
ordinary course of things are refused: a worker that goes on would acknowledge what will not be there.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from refold.log.errors import LogMismatch
from refold.log.kafka_client import Admin, KafkaFailure, topic_resource
from refold.log.kafka_settings import MESSAGE_BYTES_MAX, Topics
from refold.log.protocol import Channel

logger = logging.getLogger(__name__)

MESSAGE_BYTES_LEAST = 1_048_588
"""What a broker takes by default. A topic that takes less refuses payloads that refold allows."""


class Weight(IntEnum):
    """How bad a risk is."""

    DOUBTFUL = 1  # worth a warning
    GRAVE = 2  # something can be lost
    REFUSED = 3  # history will be lost: the log is not opened


class Risk(NamedTuple):
    """One thing that is not as it should be.

    Args:
        topic: Which topic has it.
        setting: Name of the setting.
        weight: How bad it is.
        told: What is wrong.
        advice: What to do.
    """

    topic: str
    setting: str
    weight: Weight
    told: str
    advice: str

    def __str__(self) -> str:
        return f"{self.told}; {self.advice}"


@dataclass(frozen=True, slots=True)
class Safety:
    """What the topics' settings promise.

    Args:
        risks: What is not as it should be.
        in_sync_min: Copies that must have an event before it counts as written.
        message_bytes_max: Largest batch that every topic takes.
        known: Whether the settings could be read: a user with few rights may not.
    """

    risks: tuple[Risk, ...]
    in_sync_min: int
    message_bytes_max: int
    known: bool = True

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know, a sentence each."""
        return tuple(str(risk) for risk in self.risks)

    @property
    def refusal(self) -> LogMismatch | None:
        """Why nobody should go on with these topics; None where nothing speaks against it."""
        refused = [str(risk) for risk in self.risks if risk.weight is Weight.REFUSED]
        return LogMismatch(". ".join(refused)) if refused else None


def safety_of(admin: Admin, topics: Topics, copies: Mapping[str, int]) -> Safety:
    """How safe the topics are. Who may not read their settings learns nothing. Blocks.

    Args:
        admin: Asks the cluster.
        topics: The namespace's topics, all of them there.
        copies: How many copies each has.
    """
    try:
        answer = admin.describe_configs(
            [topic_resource(topic) for topic in topics.all()], config_filter="all"
        )["topic"]
    except (KafkaFailure, KeyError) as error:
        logger.debug("settings of the topics of %s can't be read: %r", topics.namespace, error)
        return Safety((), 1, MESSAGE_BYTES_MAX, known=False)
    configs = {topic: _plain(answer.get(topic, {})) for topic in topics.all()}
    events, commands = topics.of(Channel.EVENTS), topics.of(Channel.COMMANDS)
    risks = [
        *(
            risk
            for topic in (events, commands)
            for risk in (*_durable(topic, copies[topic], configs[topic]), *_kept(topic, configs))
        ),
        *_expiring(events, configs[events], Weight.REFUSED, "history will be lost"),
        *_expiring(
            commands, configs[commands], Weight.GRAVE, "what nobody took up in time will be lost"
        ),
        *_meta_kept(topics.meta, configs[topics.meta]),
        *(risk for topic in topics.all() for risk in _roomy(topic, configs[topic])),
    ]
    return Safety(
        tuple(risks),
        int(configs[events].get("min.insync.replicas", "1")),
        min(int(config.get("max.message.bytes", MESSAGE_BYTES_MAX)) for config in configs.values()),
        known=any(configs.values()),
    )


def _plain(config: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {name: str(entry["value"]) for name, entry in config.items()}


def _alter(topic: str, **settings: str) -> str:
    """The command that mends a topic, with the options for the connection left out."""
    wanted = ",".join(f"{name.replace('_', '.')}={value}" for name, value in settings.items())
    return f"`kafka-configs --alter --topic {topic} --add-config {wanted}`"


def _durable(topic: str, copies: int, config: Mapping[str, str]) -> list[Risk]:
    """Whether what is acknowledged outlives a broker."""
    in_sync_min = int(config.get("min.insync.replicas", "1"))
    risks: list[Risk] = []
    if copies == 1 and in_sync_min > 1:
        # Kafka takes this setting and does not hold it: with one copy, that one is enough.
        risks.append(
            Risk(
                topic,
                "min.insync.replicas",
                Weight.DOUBTFUL,
                f"{topic} asks for {in_sync_min} in-sync copies and has only one: a write is on one disk",
                "give it three copies (kafka-reassign-partitions)",
            )
        )
    if copies > 1 and in_sync_min == 1:
        risks.append(
            Risk(
                topic,
                "min.insync.replicas",
                Weight.GRAVE,
                f"{topic} has {copies} copies but calls a write done with one (min.insync.replicas=1):"
                " losing a broker can lose what was acknowledged",
                _alter(topic, min_insync_replicas="2"),
            )
        )
    if copies > 1 and in_sync_min >= copies:
        risks.append(
            Risk(
                topic,
                "min.insync.replicas",
                Weight.DOUBTFUL,
                f"{topic} has {copies} copies and needs all of them for every write"
                f" (min.insync.replicas={in_sync_min}): one broker away stops all work",
                _alter(topic, min_insync_replicas=str(copies - 1)),
            )
        )
    if config.get("unclean.leader.election.enable") == "true":
        risks.append(
            Risk(
                topic,
                "unclean.leader.election.enable",
                Weight.GRAVE,
                f"{topic} allows unclean leaders: acknowledged records can vanish",
                _alter(topic, unclean_leader_election_enable="false"),
            )
        )
    return risks


def _kept(topic: str, configs: Mapping[str, Mapping[str, str]]) -> list[Risk]:
    """Whether each record stays, with the time that the log gave it."""
    config = configs[topic]
    risks: list[Risk] = []
    if "compact" in config.get("cleanup.policy", "delete"):
        risks.append(
            Risk(
                topic,
                "cleanup.policy",
                Weight.REFUSED,
                f"{topic} is compacted: all but the last record of each workflow will be lost",
                _alter(topic, cleanup_policy="delete"),
            )
        )
    if config.get("message.timestamp.type", "LogAppendTime") != "LogAppendTime":
        risks.append(
            Risk(
                topic,
                "message.timestamp.type",
                Weight.DOUBTFUL,
                f"{topic} takes the time from whoever writes: records carry as many clocks as there are workers",
                _alter(topic, message_timestamp_type="LogAppendTime"),
            )
        )
    return risks


def _expiring(topic: str, config: Mapping[str, str], weight: Weight, loss: str) -> list[Risk]:
    retention_ms, retention_bytes = config.get("retention.ms"), config.get("retention.bytes")
    if not {retention_ms, retention_bytes} - {None, "-1"}:
        return []
    return [
        Risk(
            topic,
            "retention",
            weight,
            f"{topic} deletes old records (retention.ms={retention_ms}, retention.bytes={retention_bytes}): {loss}",
            _alter(topic, retention_ms="-1", retention_bytes="-1"),
        )
    ]


def _meta_kept(topic: str, config: Mapping[str, str]) -> list[Risk]:
    """The record of what the namespace is must outlive everything."""
    expires = (
        config.get("retention.ms", "-1") != "-1" or config.get("retention.bytes", "-1") != "-1"
    )
    if "delete" not in config.get("cleanup.policy", "compact") or not expires:
        return []
    return [
        Risk(
            topic,
            "cleanup.policy",
            Weight.GRAVE,
            f"{topic} deletes old records: what the namespace is would be forgotten, and nothing could open it",
            _alter(topic, cleanup_policy="compact"),
        )
    ]


def _roomy(topic: str, config: Mapping[str, str]) -> list[Risk]:
    largest = int(config.get("max.message.bytes", MESSAGE_BYTES_MAX))
    if largest >= MESSAGE_BYTES_LEAST:
        return []
    return [
        Risk(
            topic,
            "max.message.bytes",
            Weight.DOUBTFUL,
            f"{topic} takes records of up to {largest:,} bytes: larger payloads are refused",
            _alter(topic, max_message_bytes=str(MESSAGE_BYTES_MAX)),
        )
    ]

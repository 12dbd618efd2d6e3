"""How far the brokers' clocks are from this machine's.

Kafka's protocol does not tell a broker's time. What tells it is the time that a broker gives to a record as it appends
it. So an empty reply that is for nobody is sent to each broker; like all replies it is deleted after some minutes. The
true difference lies within the time that the request took.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from refold.log.findings import Finding, fail, ok, warn
from refold.log.kafka_client import Clients, KafkaFailure, Sent, Unauthorized, reason

APART_WARN_S = 0.5
"""Timers and deadlines are kept by the worker's clock: this much is seen by nobody."""
APART_FAIL_S = 5.0
"""Two workers so far apart disagree about which timers are due, and what the history says when was wrong."""
NOBODY = "refold-doctor"
"""The key of the reply: the client of that name does not exist."""


def clock_findings(
    clients: Clients, topic: str, partitions: Sequence[Mapping[str, Any]]
) -> Iterator[Finding]:
    """Compare the clock of each broker that leads a partition of `topic`. Blocks.

    Args:
        clients: What makes a producer.
        topic: The replies.
        partitions: Its partitions, as the cluster describes them.
    """
    led = {part["leader_id"]: part["partition_index"] for part in partitions}
    led.pop(-1, None)
    producer = clients.producer(f"{clients.settings.client_id}-doctor", [topic])
    try:
        # Else the first answer would take as long as finding the way.
        clients.learn_partitions(producer, [topic])
        for broker, partition in sorted(led.items()):
            before = time.time()
            sent = producer.send(topic, b"", NOBODY.encode(), [], partition)
            yield _compared(broker, sent, before, clients.settings.delivery_timeout_ms / 1000)
    finally:
        producer.close(timeout=1.0)


def _compared(broker: int, sent: Sent, before: float, timeout_s: float) -> Finding:
    give_up_at = time.monotonic() + timeout_s
    while not sent.is_done and time.monotonic() < give_up_at:
        time.sleep(0.001)
    after = time.time()
    name = f"broker {broker}"
    # A producer without any right to write fails at its first request, under another error's name.
    if isinstance(sent.exception, Unauthorized) or "AuthorizationFailed" in str(sent.exception):
        told = f"the clock of {name} is not known: this user may not write replies"
        return warn("clock", told, "ask as a worker's user")
    if isinstance(sent.exception, KafkaFailure) or not sent.is_done:
        told = reason(sent.exception) if sent.exception else f"no answer within {timeout_s:g} s"
        return warn("clock", f"the clock of {name} is not known: {told}", "look at `in sync`")
    return compare(name, sent.value.timestamp / 1000, before, after)


def compare(name: str, told_s: float, before_s: float, after_s: float) -> Finding:
    """What a clock's reading means that was taken between two readings of ours, all in seconds since 1970."""
    early, late = before_s - told_s, told_s - after_s
    apart = max(early, late, 0.0)
    way = "behind" if early > late else "ahead of"
    if apart < APART_WARN_S:
        return ok(
            "clock", f"{name} and this machine agree within {after_s - before_s + apart:.2f} s"
        )
    advice = "let both follow a time server (NTP): timers are kept by workers' clocks"
    told = f"{name} is {apart:.1f} s {way} this machine"
    return (fail if apart >= APART_FAIL_S else warn)("clock", told, advice)

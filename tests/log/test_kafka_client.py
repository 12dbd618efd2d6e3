"""What KafkaLog makes of kafka-python, where no broker is needed to see it."""

from dataclasses import replace
from typing import cast

import kafka.errors as kafka_errors
import pytest

from kafka_backend import TEST_SETTINGS
from refold.log.errors import LogUnavailable
from refold.log.kafka_client import Clients, Producer


class Forgetful:
    """A producer that learns a topic's partitions at the third try."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def partitions_for(self, topic: str) -> set[int]:
        if self.failures:
            self.failures -= 1
            raise kafka_errors.KafkaTimeoutError(f"no metadata of {topic}")
        return {0}


def test_a_broker_that_answers_late_is_waited_for() -> None:
    """Given a busy broker, opening takes as long as a broker is looked for, not as long as a send may block."""
    producer = Forgetful(2)
    Clients(["localhost:1"], TEST_SETTINGS).learn_partitions(cast("Producer", producer), ["a"])
    assert producer.failures == 0


def test_a_broker_that_never_answers_is_not_waited_for() -> None:
    """Given no time left, the failure is told."""
    clients = Clients(["localhost:1"], replace(TEST_SETTINGS, connect_timeout_ms=1))
    with pytest.raises(LogUnavailable, match="asking for the topics' partitions"):
        clients.learn_partitions(cast("Producer", Forgetful(10**9)), ["a"])

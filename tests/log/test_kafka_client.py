"""What KafkaLog makes of kafka-python, where no broker is needed to see it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import kafka.errors as kafka_errors
import pytest

from kafka_backend import TEST_SETTINGS
from log_backend import PATIENCE_S
from refold.log import kafka_tail
from refold.log.errors import LogCorrupt, LogUnavailable
from refold.log.kafka_client import Clients, Producer, topic_partition
from refold.log.kafka_feed import Feed
from refold.log.kafka_scan import Readers
from refold.log.kafka_tail import Tails
from refold.log.protocol import Bounds, Record


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


def a_record(offset: int) -> Record:
    """A record of which only the offset matters."""
    return Record(offset, 0, None, b"", ())


def test_one_follower_that_fails_costs_others_nothing() -> None:
    """Given a poll with records of two partitions, when the first one's follower fails, the second one has its own."""
    one, other = topic_partition("t", 0), topic_partition("t", 1)

    def fails() -> None:
        raise ArithmeticError

    async def scenario() -> None:
        failures: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: failures.append(told))
        feed = Feed(Clients(["localhost:1"], TEST_SETTINGS), "feed", ["t"])
        came = asyncio.Event()
        feed.follow(one, 0, fails)
        feed.follow(other, 0, came.set)
        # As the thread hands over a poll.
        feed._arrived([(one, 1, [a_record(0)]), (other, 2, [a_record(0)])])  # pyright: ignore[reportPrivateUsage]
        await came.wait()
        assert feed.take(other) == [a_record(0)]
        assert [type(told["exception"]) for told in failures] == [ArithmeticError]

    asyncio.run(scenario())


def test_a_log_that_is_closed_says_so_to_who_reads_it() -> None:
    """Given readers that were closed while somebody was to read, reading fails as it does on a log that is closed."""

    async def scenario() -> None:
        readers = Readers(Clients(["localhost:1"], TEST_SETTINGS), [])
        await readers.close()
        with pytest.raises(LogUnavailable, match="closed"):
            await readers.bounds("t", 0)

    asyncio.run(scenario())


class Expired:
    """A feed whose records are gone the first time that they are taken."""

    def __init__(self) -> None:
        self.followed: list[int] = []
        self.on_ready: Callable[[], None] = lambda: None
        self.has_failed = False
        self.again = asyncio.Event()

    def follows(self, _place: object) -> bool:
        return False

    def follow(self, _place: object, offset: int, on_ready: Callable[[], None]) -> None:
        self.on_ready = on_ready
        self.followed.append(offset)
        if len(self.followed) > 1:
            self.again.set()

    def take(self, _place: object) -> list[Record]:
        if not self.has_failed:
            self.has_failed = True
            raise LogCorrupt("the replies have expired")
        return [Record(9, 0, "client", b"reply", ())]

    def drop(self, _place: object) -> None: ...


class Asleep:
    """Readers that reach no broker the second time."""

    def __init__(self) -> None:
        self.answers: list[Bounds | LogUnavailable] = [
            Bounds(0, 5),
            LogUnavailable("no broker answers"),
            Bounds(8, 9),
        ]

    async def bounds(self, _topic: str, _partition: int) -> Bounds:
        answer = self.answers.pop(0)
        if isinstance(answer, LogUnavailable):
            raise answer
        return answer


def test_who_listens_is_not_deaf_after_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given replies that have expired, and no broker that answers at first, they are listened to when one does."""
    monkeypatch.setattr(kafka_tail, "_LISTEN_AGAIN_S", 0)

    async def scenario() -> None:
        feed, heard = Expired(), asyncio.Event()
        clients = Clients(["localhost:1"], TEST_SETTINGS)
        tails = Tails(clients, cast("Readers", Asleep()), ["t"])
        tails._feeds.append(cast("Feed", feed))  # pyright: ignore[reportPrivateUsage] - no broker to make one for
        await tails.listen("t", 0, "client", lambda _: heard.set())
        feed.on_ready()
        async with asyncio.timeout(PATIENCE_S):
            await feed.again.wait()
        feed.on_ready()
        assert feed.followed == [5, 9]
        assert heard.is_set()

    asyncio.run(scenario())

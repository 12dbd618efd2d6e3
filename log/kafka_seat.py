"""A seat in a consumer group: it says which partitions should be this process's, and nothing else.

The group's protocol (cooperative-sticky, KIP-429) moves only what has to move and lets the rest work on.

The consumer that sits in the group fetches nothing, so that nothing but the group decides how long its polls last:
kafka-python 3.0.12 throws away a join that completes while nobody polls, and joins again. Offsets are committed for
the usual lag tools and never read.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Collection, Sequence

from refold.log.errors import LogError
from refold.log.kafka_client import (
    STABLE,
    Clients,
    Consumer,
    Fenced,
    KafkaFailure,
    TopicPartition,
    Unauthorized,
    all_understand_offers,
    committed,
    is_alone,
    is_fenced,
    reason,
    rebalance_listener,
)

logger = logging.getLogger(__name__)

# In a stable group a poll has nothing to wait for; commits go out between two of them.
_POLL_STABLE_MS = 100
# While the group agrees: longer than any round takes, for a round that ends between two polls is lost.
_POLL_JOINING_MS = 1_000
_PAUSE_S = 0.2
_CLOSE_MS = 3_000
_FENCED_ROUNDS = 3


class Seat:
    """A consumer that is a member of a group and fetches nothing, and the thread that polls it.

    Args:
        clients: What makes the consumer.
        group: The group's id.
        topic: The topic.
        partitions: Which of its partitions the group shares.
        name: Client id.
        gained: Called on the loop with partitions that this member should own.
        giving_up: Called on the consumer's thread, before the group hears that this member has let go of a partition.
        gave_up: Called on the loop with partitions that it should not own any more, and whether they are lost.
        died: Called on the loop when the thread can't go on.
        settled: Called on the consumer's thread after `gave_up`, before the group hears of it: may wait for a moment.
    """

    def __init__(  # noqa: PLR0913 - where it belongs, and four that are told
        self,
        clients: Clients,
        group: str,
        topic: str,
        partitions: Collection[int],
        name: str,
        *,
        gained: Callable[[Sequence[TopicPartition]], None],
        giving_up: Callable[[int], None],
        gave_up: Callable[[Sequence[TopicPartition], bool], None],
        died: Callable[[LogError], None],
        settled: Callable[[], None] = lambda: None,
    ) -> None:
        self._clients = clients
        self._group = group
        self._topic = topic
        self._partitions = partitions
        self._name = name
        self._gained = gained
        self._giving_up = giving_up
        self._gave_up = gave_up
        self._died = died
        self._settled = settled
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(
            target=self._run, name=f"refold-kafka-{name}-member", daemon=True
        )
        self._consumer: Consumer | None = None
        self._stop = threading.Event()
        # Offsets to commit, the newest map only: replaced by the loop, taken by the thread.
        self._to_commit: dict[TopicPartition, int] = {}
        self._complaint = ""
        self._fenced_rounds = 0

    async def open(self) -> None:
        """Join; `gained` is called when the group has agreed.

        Raises:
            LogUnavailable: No broker answers.
        """
        self._consumer = await asyncio.to_thread(
            self._clients.member, self._name, self._group, self._topic, self._partitions
        )
        self._consumer.subscribe([self._topic], listener=rebalance_listener(self))
        self._thread.start()

    @property
    def alone(self) -> bool:
        """Whether nobody else is in the group, as far as it is known here."""
        return self._consumer is not None and is_alone(self._consumer)

    @property
    def all_understand_offers(self) -> bool:
        """Whether every member is of a release that does."""
        return self._consumer is not None and all_understand_offers(self._consumer)

    async def close(self) -> None:
        """Leave the group. Leaving twice is no error."""
        if self._stop.is_set():
            return
        self._stop.set()
        if self._consumer is not None and self._thread.ident is not None:
            await asyncio.to_thread(self._leave, self._consumer)

    def _leave(self, consumer: Consumer) -> None:
        """Not on the poll's thread: its poll may last a second, and ends when the consumer is closed under it."""
        self._commit(consumer)
        consumer.close(autocommit=False, timeout_ms=_CLOSE_MS)
        self._thread.join()

    def commit(self, offsets: dict[TopicPartition, int]) -> None:
        """Let lag tools know these offsets, soon."""
        self._to_commit = {**self._to_commit, **offsets}

    # On the thread.

    def _run(self) -> None:
        consumer = self._consumer
        assert consumer is not None
        try:
            while not self._stop.is_set():
                self._round(consumer)
        except Exception as error:
            if self._stop.is_set():
                return  # `_leave` closed the consumer while it was polled
            logger.exception("%s ends", self._thread.name)
            failure = self._clients.translated(error, self._thread.name)
            consumer.close(autocommit=False, timeout_ms=_CLOSE_MS)
            self._tell(lambda: self._died(failure))

    def _round(self, consumer: Consumer) -> None:
        try:
            self._commit(consumer)
            stable = consumer.group_metadata().state == STABLE
            consumer.poll(_POLL_STABLE_MS if stable else _POLL_JOINING_MS, 1)
            self._complaint = ""
            self._look_for_another_of_this_name(consumer)
        except Fenced:
            raise
        except KafkaFailure as error:
            if self._stop.is_set():
                return  # `_leave` closed the consumer while it was polled
            complaint = reason(error)
            if isinstance(error, Unauthorized):
                complaint = str(self._clients.translated(error, "reading as a member"))
            if complaint != self._complaint:  # once, not five times a second
                logger.warning("%s goes on after: %s", self._thread.name, complaint)
                self._complaint = complaint
            self._stop.wait(_PAUSE_S)

    def _look_for_another_of_this_name(self, consumer: Consumer) -> None:
        """A static member that another one has replaced: kafka-python stops its heartbeats and tells nobody.

        Between joining and the first heartbeat it looks the same, but not for so long.
        """
        self._fenced_rounds = self._fenced_rounds + 1 if is_fenced(consumer) else 0
        if self._fenced_rounds >= _FENCED_ROUNDS:
            raise Fenced(self._clients.settings.group_instance_id)

    def _commit(self, consumer: Consumer) -> None:
        offsets, self._to_commit = self._to_commit, {}
        if offsets:
            consumer.commit_async({place: committed(offset) for place, offset in offsets.items()})

    # On the consumer's I/O thread: heartbeats wait, so these only note and pass on.

    def gained(self, partitions: Sequence[TopicPartition]) -> None:
        """Have the member fetch nothing; paused, it still wants a position, and any will do."""
        places = list(partitions)
        if self._consumer is not None:
            self._consumer.pause(*places)
            for place in places:
                self._consumer.seek(place, 0)
        self._tell(lambda: self._gained(places))

    def gave_up(self, partitions: Sequence[TopicPartition], lost: bool) -> None:
        """Pass it on."""
        places = list(partitions)
        for place in places:
            self._giving_up(place.partition)
        self._tell(lambda: self._gave_up(places, lost))
        if not lost:
            self._settled()

    def _tell(self, call: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # the loop is closed: nobody is left to tell
            self._stop.set()

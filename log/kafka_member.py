"""A worker's place in the consumer group on `commands`: who should own which partition, and its commands.

The group's protocol (cooperative-sticky, KIP-429) moves only what has to move and lets the rest work on. It says who
*should* own; claims in the events say who does, so a member need not finish anything before a partition moves.

Two consumers share the work. One is the group's member and fetches nothing, so that nothing but the group decides how
long its polls last: kafka-python 3.0.12 throws away a join that completes while nobody polls, and joins again. The
other reads commands from where `follow` says. Offsets are committed for the usual lag tools and never read.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence

from refold.log.errors import LogError
from refold.log.kafka_client import (
    STABLE,
    Clients,
    Consumer,
    Fenced,
    KafkaFailure,
    TopicPartition,
    Unauthorized,
    committed,
    is_fenced,
    reason,
    rebalance_listener,
)
from refold.log.kafka_feed import Feed
from refold.log.kafka_settings import Topics
from refold.log.protocol import Channel, Listener

logger = logging.getLogger(__name__)

# In a stable group a poll has nothing to wait for; commits go out between two of them.
_POLL_STABLE_MS = 100
# While the group agrees: longer than any round takes, for a round that ends between two polls is lost.
_POLL_JOINING_MS = 1_000
_PAUSE_S = 0.2
_COMMIT_EVERY_S = 1.0
_CLOSE_MS = 3_000
_FENCED_ROUNDS = 3


class KafkaMembership:
    """A `Membership` in the group `<namespace>.workers`. Made by `KafkaLog.join`; used on its event loop.

    Args:
        clients: What makes the consumers.
        topics: The namespace's topics and group.
        worker: Name of the worker, for brokers' logs and group tools.
        listener: Told of partitions and commands.
        partitions: How many the namespace was made with.
    """

    def __init__(
        self,
        clients: Clients,
        topics: Topics,
        worker: str,
        listener: Listener,
        *,
        partitions: int,
    ) -> None:
        self._partitions = partitions
        name = f"{clients.settings.client_id}-{worker}"
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._commands = Feed(clients, f"{name}-commands", [topics.of(Channel.COMMANDS)])
        self._member = _Member(
            clients,
            topics,
            name,
            gained=self._gained,
            giving_up=listener.revoking,
            gave_up=self._gave_up,
            died=self._died,
        )
        self._places: dict[int, TopicPartition] = {}
        self._wanted: set[int] = set()
        self._worked_through: dict[TopicPartition, int] = {}
        self._commit_due: asyncio.TimerHandle | None = None
        self._left = False

    async def open(self) -> None:
        """Enter the group; `assigned` comes when it has agreed.

        Raises:
            LogUnavailable: No broker answers.
        """
        await self._commands.open()
        try:
            await self._member.open()
        except LogError:
            await self._commands.close()
            raise

    def follow(self, partition: int, offset: int) -> None:
        """See `Membership`. A partition that is not ours is left alone: the group has moved on."""
        place = self._places.get(partition)
        if place is None or self._left:
            return
        self._wanted.add(partition)
        self._note(place, offset)
        if self._commands.next_offset(place) == offset:
            self._loop.call_soon(self._deliver, partition)
        else:
            self._commands.follow(place, offset, lambda: self._deliver(partition))

    def skip(self, partition: int, offset: int) -> None:
        """Nothing is done: the records are on their way, and to move a consumer costs more than to pass them over."""

    def release(self, partition: int) -> None:
        """See `Membership`. The group itself decides when somebody else has it."""
        self._wanted.discard(partition)
        place = self._places.get(partition)
        if place is not None:
            self._commands.drop(place)

    @property
    def waits_for_release(self) -> bool:
        """See `Membership`. The group waits for nobody."""
        return False

    @property
    def alone(self) -> bool:
        """See `Membership`. Only the group's leader knows who else is in it."""
        return False

    async def leave(self) -> None:
        """See `Membership`."""
        self._left = True
        self._wanted.clear()
        self._commit()
        await asyncio.gather(self._member.close(), self._commands.close())

    def _deliver(self, partition: int) -> None:
        place = self._places.get(partition)
        if place is None or partition not in self._wanted:
            return
        try:
            records = self._commands.take(place)
        except LogError as error:
            logger.error("partition %d is given up, its commands are lost: %s", partition, error)  # noqa: TRY400
            self._gave_up([place], lost=True)
            return
        if records:
            self._wanted.discard(partition)
            self._listener.deliver(partition, records)

    def _gained(self, places: Sequence[TopicPartition]) -> None:
        for place in () if self._left else sorted(places, key=lambda place: place.partition):
            if place.partition >= self._partitions:  # added under us; no id belongs there
                logger.error(
                    "%s/%d was added to the topic and is left alone: the namespace was made with %d partitions",
                    place.topic,
                    place.partition,
                    self._partitions,
                )
                continue
            self._places[place.partition] = place
            self._listener.assigned(place.partition)

    def _gave_up(self, places: Sequence[TopicPartition], lost: bool) -> None:
        for place in () if self._left else places:
            if self._places.pop(place.partition, None) is None:
                continue
            self._wanted.discard(place.partition)
            self._worked_through.pop(place, None)
            self._commands.drop(place)
            self._listener.revoked(place.partition, lost)

    def _died(self, error: LogError) -> None:
        if not self._left:
            logger.error("this worker is out of its group, start it again: %s", error)
            self._gave_up(list(self._places.values()), lost=True)

    def _note(self, place: TopicPartition, offset: int) -> None:
        """Let lag tools know, a second later at the latest, how far the commands are worked through."""
        self._worked_through[place] = offset
        if self._commit_due is None:
            self._commit_due = self._loop.call_later(_COMMIT_EVERY_S, self._commit)

    def _commit(self) -> None:
        if self._commit_due is not None:
            self._commit_due.cancel()
            self._commit_due = None
        if self._worked_through:
            self._member.commit(self._worked_through)
            self._worked_through = {}


class _Member:
    """The group's member: a consumer that fetches nothing, and the thread that polls it.

    Args:
        clients: What makes the consumer.
        topics: The namespace's topics and group.
        name: Client id.
        gained: Called on the loop with partitions that this member should own.
        giving_up: Called on the consumer's thread, before the group hears that this member has let go of a partition.
        gave_up: Called on the loop with partitions that it should not own any more, and whether they are lost.
        died: Called on the loop when the thread can't go on.
    """

    def __init__(
        self,
        clients: Clients,
        topics: Topics,
        name: str,
        *,
        gained: Callable[[Sequence[TopicPartition]], None],
        giving_up: Callable[[int], None],
        gave_up: Callable[[Sequence[TopicPartition], bool], None],
        died: Callable[[LogError], None],
    ) -> None:
        self._clients = clients
        self._topics = topics
        self._name = name
        self._gained = gained
        self._giving_up = giving_up
        self._gave_up = gave_up
        self._died = died
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
        self._consumer = await asyncio.to_thread(
            self._clients.member, self._name, self._topics.group
        )
        self._consumer.subscribe(
            [self._topics.of(Channel.COMMANDS)], listener=rebalance_listener(self)
        )
        self._thread.start()

    async def close(self) -> None:
        """Leave the group."""
        self._stop.set()
        if self._consumer is not None and self._thread.ident is not None:
            await asyncio.to_thread(self._leave, self._consumer)

    def _leave(self, consumer: Consumer) -> None:
        """Not on the poll's thread: its poll may last a second, and ends when the consumer is closed under it."""
        self._commit(consumer)
        consumer.close(autocommit=False, timeout_ms=_CLOSE_MS)
        self._thread.join()

    def commit(self, offsets: dict[TopicPartition, int]) -> None:
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

    def _tell(self, call: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # the loop is closed: nobody is left to tell
            self._stop.set()

"""A worker's place in the consumer group on `commands`: who should own which partition, and its commands.

The group says who *should* own; claims in the events say who does, so a member need not finish anything before a
partition moves, and goes on being delivered its commands until it has released it. Two consumers share the work: one
sits in the group (`kafka_seat.py`), the other reads commands from where `follow` says.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Mapping, Sequence

from refold.log.errors import LogError
from refold.log.kafka_client import Clients, TopicPartition, topic_partition
from refold.log.kafka_feed import Feed
from refold.log.kafka_group import Progress
from refold.log.kafka_seat import Seat
from refold.log.kafka_settings import Topics
from refold.log.layout import Layout
from refold.log.protocol import Backlog, Channel, Listener

logger = logging.getLogger(__name__)

_COMMIT_EVERY_S = 1.0
_LOOK_EVERY_S = 0.5
_OFFERING_S = 0.1
"""How long the group is kept waiting until partitions that are to move have been offered (a few ms, mostly)."""


class KafkaMembership:
    """A `Membership` in the group `<namespace>.workers`, or in a pool's. Made by `KafkaLog.join`, used on its loop.

    Args:
        clients: What makes the consumers.
        topics: The namespace's topics.
        worker: Name of the worker, for brokers' logs and group tools.
        listener: Told of partitions and commands.
        layout: The partitions that the namespace was made with.
        pool: The pool whose partitions the group shares; None for the common ones.
    """

    def __init__(
        self,
        clients: Clients,
        topics: Topics,
        worker: str,
        listener: Listener,
        *,
        layout: Layout,
        pool: str | None = None,
    ) -> None:
        self._partitions = layout.of(pool)
        group = topics.group(pool)
        name = f"{clients.settings.client_id}-{worker}"
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._commands = Feed(clients, f"{name}-commands", [topics.of(Channel.COMMANDS)])
        self._member = Seat(
            clients,
            group,
            topics.of(Channel.COMMANDS),
            self._partitions,
            name,
            gained=self._gained,
            giving_up=self._giving_up,
            gave_up=self._gave_up,
            died=self._died,
            settled=self._settle,
        )
        places = [topic_partition(topics.of(Channel.COMMANDS), p) for p in self._partitions]
        self._progress = Progress(clients, group, places)
        self._places: dict[int, TopicPartition] = {}
        self._moving: set[int] = set()  # of these, those that the group has given to others
        self._retired = False
        self._static = clients.settings.group_instance_id is not None
        # Partitions that are to move and have not been offered: filled by the member's thread, emptied by the loop.
        self._unsettled: set[int] = set()
        self._settling = threading.Condition()
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
        self.offered(partition)
        place = self._places.get(partition)
        if place is not None:
            self._commands.drop(place)
        if partition in self._moving:
            self._moving.discard(partition)
            del self._places[partition]

    @property
    def waits_for_release(self) -> bool:
        """See `Membership`. The group waits for nobody."""
        return False

    @property
    def alone(self) -> bool:
        """See `Membership`. Only the group's leader knows who else is in it, and somebody may come at any time."""
        return False

    @property
    def understands_offers(self) -> bool:
        """See `Membership`. Who is alone offers nothing to anybody, and who comes next may be of any release; so may
        whoever comes in a static member's place, of which the group hears nothing.
        """
        member = self._member
        return member.all_understand_offers and not member.alone and not self._static

    def offered(self, partition: int) -> None:
        """See `Membership`."""
        with self._settling:
            self._unsettled.discard(partition)
            self._settling.notify_all()

    async def retire(self) -> bool:
        """See `Membership`. Not for a static member, to which its partitions come back, nor for who is alone."""
        if self._static or self._member.alone:
            return False
        self._retired = True
        self._moving.update(self._places)
        self._commit()
        await self._member.close()
        return True

    async def worked_through(self) -> Mapping[int, Backlog]:
        """See `Membership`."""
        return await asyncio.to_thread(self._progress.read)

    async def deserted(self) -> None:
        """See `Membership`. Where the broker does not say, there may always be somebody."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            with contextlib.suppress(LogError):
                if await asyncio.to_thread(self._progress.is_deserted):
                    return

    async def leave(self) -> None:
        """See `Membership`."""
        self._left = True
        self._wanted.clear()
        self._commit()
        await asyncio.gather(self._member.close(), self._commands.close())
        await asyncio.to_thread(self._progress.close)

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
        for place in (
            () if self._left or self._retired else sorted(places, key=lambda place: place.partition)
        ):
            if place.partition not in self._partitions:
                # Added under us, where the group's leader is an older release: no id belongs there.
                logger.error(
                    "%s/%d was added to the topic and is left alone: the group has those from %d to %d",
                    place.topic,
                    place.partition,
                    self._partitions.start,
                    self._partitions.stop - 1,
                )
                continue
            self._moving.discard(place.partition)
            self._places[place.partition] = place
            self._listener.assigned(place.partition)

    def _gave_up(self, places: Sequence[TopicPartition], lost: bool) -> None:
        for place in () if self._left or self._retired else places:
            if place.partition not in self._places:
                self.offered(place.partition)  # nothing is done in it
                continue
            self._worked_through.pop(place, None)
            if lost:
                del self._places[place.partition]
                self._moving.discard(place.partition)
                self._wanted.discard(place.partition)
                self._commands.drop(place)
            else:
                self._moving.add(place.partition)
            self._listener.revoked(place.partition, lost)

    def _giving_up(self, partition: int) -> None:
        """On the member's thread."""
        if not (self._left or self._retired):
            if self.understands_offers:
                with self._settling:
                    self._unsettled.add(partition)
            self._listener.revoking(partition)

    def _settle(self) -> None:
        """On the member's thread: who is given these partitions next is to find in the log that they were offered."""
        with self._settling:
            self._settling.wait_for(lambda: not self._unsettled, _OFFERING_S)
            self._unsettled.clear()

    def _died(self, error: LogError) -> None:
        if not self._left:
            logger.error("this worker is out of its group, start it again: %s", error)
            self._gave_up(list(self._places.values()), lost=True)

    def _note(self, place: TopicPartition, offset: int) -> None:
        """Let lag tools know, a second later at the latest, how far the commands are worked through."""
        if place.partition in self._moving:
            return
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

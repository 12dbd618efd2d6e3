"""A reader's place in a consumer group on `events`: who should take in which partition.

Each group has all events, and standard tools see how far behind it is: offsets are committed as they are done. They are
never read here, for whoever takes in events keeps his own position, with what came of them.
"""

import asyncio
import logging
from collections.abc import Sequence

from refold.log.errors import LogError
from refold.log.kafka_client import Clients, TopicPartition
from refold.log.kafka_seat import Seat
from refold.log.kafka_settings import Topics
from refold.log.protocol import Channel, ShareListener

logger = logging.getLogger(__name__)

_COMMIT_EVERY_S = 1.0


class KafkaShare:
    """A `Share` in the group `<namespace>.<group>`. Made by `KafkaLog.share`; used on its event loop.

    Args:
        clients: What makes the consumer.
        topics: The namespace's.
        group: The group's name.
        reader: The reader's, for brokers' logs and group tools.
        listener: Told of partitions.
        partitions: How many the namespace was made with.
    """

    def __init__(  # noqa: PLR0917 - each another thing
        self,
        clients: Clients,
        topics: Topics,
        group: str,
        reader: str,
        listener: ShareListener,
        partitions: int,
    ) -> None:
        self._listener = listener
        self._partitions = partitions
        self._loop = asyncio.get_running_loop()
        self._seat = Seat(
            clients,
            topics.group_of(group),
            topics.of(Channel.EVENTS),
            range(partitions),
            f"{clients.settings.client_id}-{group}-{reader}",
            gained=self._gained,
            giving_up=lambda _: None,
            gave_up=self._gave_up,
            died=self._died,
        )
        self._places: dict[int, TopicPartition] = {}
        self._done: dict[TopicPartition, int] = {}
        self._commit_due: asyncio.TimerHandle | None = None
        self._left = False

    async def open(self) -> None:
        """Enter the group; `assigned` comes when it has agreed.

        Raises:
            LogUnavailable: No broker answers.
        """
        await self._seat.open()

    def done(self, partition: int, offset: int) -> None:
        """See `Share`. Committed a second later at the latest."""
        place = self._places.get(partition)
        if place is None or self._left:
            return
        self._done[place] = offset
        if self._commit_due is None:
            self._commit_due = self._loop.call_later(_COMMIT_EVERY_S, self._commit)

    def release(self, partition: int) -> None:
        """See `Share`. The group itself decides when somebody else has it."""

    async def leave(self) -> None:
        """See `Share`."""
        self._left = True
        self._commit()
        await self._seat.close()

    def _commit(self) -> None:
        if self._commit_due is not None:
            self._commit_due.cancel()
            self._commit_due = None
        if self._done:
            self._seat.commit(self._done)
            self._done = {}

    def _gained(self, places: Sequence[TopicPartition]) -> None:
        for place in () if self._left else sorted(places, key=lambda place: place.partition):
            if (
                place.partition < self._partitions
            ):  # else it was added under us; no id belongs there
                self._places[place.partition] = place
                self._listener.assigned(place.partition)

    def _gave_up(self, places: Sequence[TopicPartition], lost: bool) -> None:
        for place in () if self._left else places:
            if self._places.pop(place.partition, None) is not None:
                self._done.pop(place, None)
                self._listener.revoked(place.partition, lost)

    def _died(self, error: LogError) -> None:
        if not self._left:
            logger.error("this reader is out of its group, start it again: %s", error)
            self._gave_up(list(self._places.values()), lost=True)

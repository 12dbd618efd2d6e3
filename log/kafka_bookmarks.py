"""Bookmarks: where each partition's last checkpoint is, kept in the namespace's compacted meta topic."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing

from refold.log.kafka_append import Appender
from refold.log.kafka_scan import Readers
from refold.log.protocol import Entry

_PREFIX = "bookmark/"


class Bookmarks:
    """Reads and writes the keys `bookmark/<partition>`; the last write stands.

    Args:
        topic: The meta topic.
        readers: Reads it.
        appender: Writes it.
    """

    def __init__(self, topic: str, readers: Readers, appender: Appender) -> None:
        self._topic = topic
        self._readers = readers
        self._appender = appender
        self._known: dict[int, int] = {}
        self._next = 0
        self._asked = self._answered = 0
        self._one_at_a_time = asyncio.Lock()

    async def get(self, partition: int) -> int | None:
        """The bookmark as it is in the topic now."""
        return (await self.known()).get(partition)

    async def known(self) -> Mapping[int, int]:
        """All bookmarks, by partition, as they are in the topic now.

        Who asks while others' answer is being read hears with all who do so what is read next.
        """
        self._asked += 1
        asked = self._asked
        async with self._one_at_a_time:
            if self._answered >= asked:
                return self._known
            answers = self._asked
            start, end = await self._readers.bounds(self._topic, 0)
            async with aclosing(
                self._readers.read(self._topic, 0, max(start, self._next), end)
            ) as batches:
                async for batch in batches:
                    for record in batch:
                        self._note(record.key, record.value)
            self._next = end
            self._answered = answers
        return self._known

    async def set(self, partition: int, offset: int) -> None:
        """Write it; durable when this returns."""
        key = f"{_PREFIX}{partition}"
        await self._appender.append(self._topic, 0, [Entry(key, str(offset).encode())])

    def _note(self, key: str | None, value: bytes) -> None:
        """A bookmark is a hint: what can't be read as one is no bookmark, and history is folded from its start."""
        if key is None or not key.startswith(_PREFIX):
            return
        number = key.removeprefix(_PREFIX)
        if number.isdecimal() and value.isdigit():
            self._known[int(number)] = int(value)
        elif number.isdecimal():
            self._known.pop(int(number), None)

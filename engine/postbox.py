"""Commands of one partition's runs to other workflows, on their way to the log."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from refold.engine.effects import Post
from refold.log.codec import encode_command
from refold.log.commands import Command
from refold.log.errors import LogError
from refold.log.protocol import Channel, Log

MAX_POSTS: Final = 1_000
"""Commands to other workflows that go out together."""
MAX_BACKOFF_S: Final = 10.0

logger = logging.getLogger("refold.worker")


class Postbox:
    """Posts in order, what is for different partitions side by side.

    Args:
        log: Where the commands are appended.
        partition: The partition that they come from.
        posted: Told the number of a command when it and all before it have been appended.
        posted_to: Told what was appended to a partition: offsets and commands.
        random: Uniform in [0, 1), for the jitter of retries.
    """

    def __init__(
        self,
        log: Log,
        partition: int,
        posted: Callable[[int], None],
        posted_to: Callable[[int, Iterable[tuple[int, Command]]], None],
        random: Callable[[], float],
    ) -> None:
        self._log = log
        self._partition = partition
        self._posted = posted
        self._posted_to = posted_to
        self._random = random
        self._outgoing: list[Post] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, post: Post) -> None:
        """Post a command after those before it, once `send` is called."""
        self._outgoing.append(post)

    def send(self) -> None:
        """Post what was added."""
        if self._outgoing and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._send())

    def close(self) -> None:
        """Post nothing more: the partition is given up."""
        self._outgoing.clear()
        if self._task is not None:
            self._task.cancel()

    async def _send(self) -> None:
        backoff_s = 0.05
        try:
            while self._outgoing:
                posts = self._outgoing[:MAX_POSTS]
                try:
                    await self._post(posts)
                except LogError as error:
                    # Whatever was written is written again, in the same order: whoever gets it twice knows.
                    logger.warning(
                        "partition %d: messages to other workflows could not be sent, trying again: %s",
                        self._partition,
                        error,
                    )
                    await asyncio.sleep(backoff_s * (0.5 + self._random()))
                    backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)
                    continue
                backoff_s = 0.05
                del self._outgoing[: len(posts)]
                self._posted(posts[-1].number)
        finally:
            self._task = None

    async def _post(self, posts: Sequence[Post]) -> None:
        layout = self._log.layout
        batches: dict[int, list[Command]] = {}
        for post in posts:
            partition = layout.place(post.command.workflow_id)
            batches.setdefault(partition, []).append(post.command)
        if len(batches) == 1:  # mostly: spare the tasks
            ((partition, commands),) = batches.items()
            await self._post_to(partition, commands)
            return
        appends = (self._post_to(partition, commands) for partition, commands in batches.items())
        results = await asyncio.gather(*appends, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _post_to(self, partition: int, commands: Sequence[Command]) -> None:
        entries = [encode_command(command) for command in commands]
        # Lazily: an event that says that they are posted is appended after them, and else they are posted again.
        offsets = await self._log.append(Channel.COMMANDS, partition, entries, lazily=True)
        self._posted_to(partition, zip(offsets, commands, strict=True))

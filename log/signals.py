"""Wake-ups: who waits for new records of which partition, on one event loop."""

import asyncio
from collections.abc import Callable

from refold.log.protocol import Channel

Wake = Callable[[], None]


class Signals:
    """Subscribers by channel and partition. All methods are for the event loop that `bind` named.

    Args:
        changed: Called with True when the first subscriber comes and with False when the last has gone, so that
            a backend looks for other processes' records only while somebody waits for them.
    """

    def __init__(self, changed: Callable[[bool], None]) -> None:
        self._changed = changed
        self._subscribers: dict[tuple[Channel, int], list[Wake]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Name the loop on which subscribers are called."""
        self._loop = loop

    def subscribe(self, channel: Channel, partition: int, wake: Wake) -> Callable[[], None]:
        """Call `wake` after records were added, perhaps also for nothing. The result ends the subscription."""
        first = not self._subscribers
        wakes = self._subscribers.setdefault((channel, partition), [])
        wakes.append(wake)
        if first:
            self._changed(True)

        def unsubscribe() -> None:
            if wake not in wakes:
                return
            wakes.remove(wake)
            if not wakes:
                self._subscribers.pop((channel, partition), None)
                if not self._subscribers:
                    self._changed(False)

        return unsubscribe

    def notify(self, channel: Channel, partition: int, only: Wake | None = None) -> None:
        """Wake the partition's subscribers (or `only` one) in the loop's next round.

        Never at once: a subscriber that fails, or that appends, must not do so in the middle of the caller.
        """
        if self._loop is None:
            return
        for wake in (
            (only,) if only is not None else self._subscribers.get((channel, partition), ())
        ):
            self._loop.call_soon(wake)

    def notify_all(self) -> None:
        """Wake everybody."""
        for channel, partition in tuple(self._subscribers):
            self.notify(channel, partition)

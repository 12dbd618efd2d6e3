"""One path for blocking and async callers: whatever thread or loop a call comes from, it runs on the engine's loop."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from refold.engine.scope import current
from refold.log.errors import EngineClosed, UsageError

T = TypeVar("T")


class Bridge:
    """The way to an engine's event loop, which exists while the engine is open."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.ending = False  # the loop is about to be closed
        self._process = 0  # where the loop runs
        self._later: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """From here on calls run on the loop that this is called on."""
        self.loop = asyncio.get_running_loop()
        self._process = os.getpid()

    @property
    def forked(self) -> bool:
        """Whether this is a copy in a child process: `os.fork` leaves the loop's thread behind."""
        return self.loop is not None and self._process != os.getpid()

    def opened(self) -> asyncio.AbstractEventLoop:
        """The loop, for a call that is allowed.

        Raises:
            EngineClosed: The engine is not open, or was opened by the process that this one was forked from.
            UsageError: The caller is workflow code or a step.
        """
        loop = self.loop
        if loop is None or loop.is_closed():
            raise EngineClosed(
                "the engine is not open: use it inside `with Engine(...)` or `async with`"
            )
        if self.forked:
            raise EngineClosed(
                f"the engine was opened in process {self._process}, and only runs there: in a forked process open an"
                " Engine of its own, for the same log"
            )
        scope = current()
        if scope is not None:
            raise UsageError(
                f"an engine was used inside workflow {scope.workflow_id!r}: workflow code and steps can't "
                "start or ask for runs; return what is needed, and do it outside"
            )
        return loop

    def wait(self, work: Coroutine[Any, Any, T], instead: str) -> T:
        """Run `work` on the engine's loop from another thread, and wait.

        Args:
            work: What to do; closed where it can't be done.
            instead: The call that async code makes instead of this one.

        Raises:
            UsageError: The caller runs on the engine's loop, which waiting would block.
        """
        loop = self._opened_for(work)
        if running_loop() is loop:
            work.close()
            raise UsageError(
                f"this call would block the engine's own event loop: await {instead} there"
            )
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # interrupted here: nobody waits for it any more
            raise

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the engine's loop from any loop."""
        loop = self._opened_for(work)
        if running_loop() is loop:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))

    def run_later(self, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run what `make` gives on the engine's loop, and wait for nothing; not at all where the engine is closed."""
        loop = self.loop
        if loop is None:
            return

        def begin() -> None:
            if not self.ending:  # else all that ran there is being ended anyway
                task = loop.create_task(make())
                self._later.add(task)
                task.add_done_callback(self._later.discard)

        with contextlib.suppress(
            RuntimeError
        ):  # the loop has been closed, and with it all that ran there
            loop.call_soon_threadsafe(begin)

    def _opened_for(self, work: Coroutine[Any, Any, Any]) -> asyncio.AbstractEventLoop:
        try:
            return self.opened()
        except BaseException:
            work.close()
            raise


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that the caller runs on; None for plain threads."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None

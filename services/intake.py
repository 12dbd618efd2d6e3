"""A runner that catches up, with a bar on a terminal: how far it has come, of what is there."""

import asyncio
from contextlib import suppress
from typing import Final

from rich.progress import Progress

from refold.log.errors import LogError
from refold.projections.runner import Runner
from refold.services.terminal import progress_bars

LOOK_EVERY_S: Final = 0.2
"""Between two looks at how far it has come: for a person's eye."""


async def catch_up(runner: Runner, told: str = "events") -> None:
    """Take in what is there now.

    Args:
        runner: Has not run yet.
        told: What the bar is called.

    Raises:
        RefoldError: As `Runner.catch_up`.
    """
    with progress_bars() as bars:
        watching = asyncio.create_task(_watch(runner, bars, told))
        try:
            await runner.catch_up()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def _watch(runner: Runner, bars: Progress, told: str) -> None:
    task = bars.add_task(told, total=None)
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        with suppress(LogError):  # the runner says so
            standing = (await runner.standing()).values()
            bars.update(
                task,
                completed=sum(one.offset for one in standing),
                total=sum(one.end for one in standing) or None,
            )

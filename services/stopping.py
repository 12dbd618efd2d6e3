"""How a process that runs until it is told to stop is told so.

SIGTERM, SIGINT   the first: it ends in order, and with exit code 0
the same again    it ends at once; nothing is lost by it
"""

import asyncio
import logging
import os
import signal
from typing import Final

from refold.services.logs import say

SAME_SIGNAL_S: Final = 0.3
"""A signal so soon after the first is the same one: `timeout` sends it to the process and to its group."""


def stopping(logger: logging.Logger) -> asyncio.Event:
    """What the first signal sets, from now on.

    Args:
        logger: Under whose name it is said.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    told_at = 0.0

    def signalled(number: signal.Signals) -> None:
        nonlocal told_at
        if not stop.is_set():
            say(logger, "told to stop; once more to leave at once", {"signal": number.name})
            told_at = loop.time()
            stop.set()
        elif loop.time() - told_at > SAME_SIGNAL_S:
            say(logger, "leaving at once", {"signal": number.name}, logging.WARNING)
            logging.shutdown()
            os._exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled, number)
    return stop

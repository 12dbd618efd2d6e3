"""Ending a process although a step's thread still runs.

Python waits for pool threads before it exits, and a thread can't be stopped. A step that has outlasted the drain is
recorded by nobody here and runs again elsewhere, so waiting for it would only hold up the hand-over.
"""

import logging
import os
import sys
import threading
import time

from refold.services.terminal import warn

STEP_THREADS = "refold-step"
GRACE_S = 1.0
"""Idle pool threads end at once when they are told to; this is for a machine that is very busy."""


def leave_steps_behind(code: int) -> None:
    """End the process now with `code` if a `def` step still runs; else do nothing."""
    deadline = time.monotonic() + GRACE_S
    for thread in _steps():
        thread.join(max(0.0, deadline - time.monotonic()))
    left = _steps()
    if not left:
        return
    warn(f"{len(left)} step(s) still ran when the time to drain was over: they will run again")
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _steps() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(STEP_THREADS)]

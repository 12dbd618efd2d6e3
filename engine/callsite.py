"""Where in the user's code a call was made, as `file:line`, for messages and for the record of a divergence."""

import asyncio
import sys
from pathlib import Path
from types import FrameType
from typing import Final

_REFOLD: Final = f"{Path(__file__).parent.parent}/"
_ASYNCIO: Final = f"{Path(asyncio.__file__).parent}/"
_NOT_USER_CODE: Final = (_REFOLD, _ASYNCIO)

BOUNDARY: Final = "run_workflow_code"
"""Name of the functions of refold below which workflow code runs. What is further out is the worker's stack."""


def is_user_file(path: str) -> bool:
    """Whether code from the file `path` is neither refold's nor asyncio's."""
    return not path.startswith(_NOT_USER_CODE)


def is_boundary(frame: FrameType) -> bool:
    """Whether `frame` is where refold entered workflow code."""
    code = frame.f_code
    return code.co_name == BOUNDARY and code.co_filename.startswith(_REFOLD)


def call_source(frame: FrameType | None = None) -> str:
    """`file:line` of the innermost user frame on the stack of `frame`, by default the caller's.

    Without one (a task made directly of `asyncio.sleep(...)` has none) it is the innermost frame that is not
    refold's, which at least names the asyncio function.
    """
    if frame is None:
        frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage] - inspect's is twice as slow
    fallback: str | None = None
    while frame is not None:
        path = frame.f_code.co_filename
        if not path.startswith(_NOT_USER_CODE):
            return f"{path}:{frame.f_lineno}"
        if is_boundary(frame):
            break
        if fallback is None and path.startswith(_ASYNCIO):
            fallback = f"{path}:{frame.f_lineno}"
        frame = frame.f_back
    return fallback or "unknown"


def wait_source(awaited: object) -> str:
    """`file:line in function` of the innermost user frame at which a suspended coroutine waits.

    Args:
        awaited: The outermost coroutine; what it awaits is followed inwards.
    """
    found = "unknown"
    while awaited is not None:
        frame, awaited = _frame_and_awaited(awaited)
        if frame is not None and is_user_file(frame.f_code.co_filename):
            found = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
    return found


def _frame_and_awaited(awaited: object) -> tuple[FrameType | None, object]:
    """Frame of a coroutine, generator or async generator, and what that awaits in turn."""
    for prefix, inner in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
        frame = getattr(awaited, f"{prefix}_frame", None)
        if isinstance(frame, FrameType):
            return frame, getattr(awaited, inner, None)
    return None, None

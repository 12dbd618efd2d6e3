"""Where in the user's code a call was made, as `file:line`, for messages and for the record of a divergence."""

import asyncio
import re
import sys
import sysconfig
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

_REFOLD: Final = f"{Path(__file__).parent.parent}/"
_ASYNCIO: Final = f"{Path(asyncio.__file__).parent}/"
_NOT_USER_CODE: Final = (_REFOLD, _ASYNCIO)
_LIBRARIES: Final = (
    "<frozen ",
    *(f"{sysconfig.get_path(kind)}/" for kind in ("stdlib", "platstdlib", "purelib", "platlib")),
)

_FRAME: Final = re.compile(r'^ +File "(?P<path>[^"]+)", line (?P<line>\d+)', re.MULTILINE)
_MAX_KNOWN: Final = 10_000
_known: Final[dict[tuple[CodeType, int], str]] = {}
"""Places in user code that were asked for before: from code and instruction to `file:line`, which is slow to find."""

BOUNDARY: Final = "run_workflow_code"
"""Name of the functions of refold below which workflow code runs. What is further out is the worker's stack."""


def is_user_file(path: str) -> bool:
    """Whether code from the file `path` is neither refold's nor asyncio's."""
    return not path.startswith(_NOT_USER_CODE)


def is_own_file(path: str) -> bool:
    """Whether code from the file `path` is the user's own: neither refold's nor a library's."""
    return not path.startswith((*_NOT_USER_CODE, *_LIBRARIES))


def is_boundary(frame: FrameType) -> bool:
    """Whether `frame` is where refold entered workflow code."""
    code = frame.f_code
    return code.co_name == BOUNDARY and code.co_filename.startswith(_REFOLD)


def call_source() -> str:
    """`file:line` of the innermost user frame that is running on this thread.

    Without one (a task made directly of `asyncio.sleep(...)` has none) it is the innermost frame that is not
    refold's, which at least names the asyncio function.
    """
    # inspect.currentframe would cost another call, and this is on every step's way.
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    fallback: str | None = None
    while frame is not None:
        code = frame.f_code
        path = code.co_filename
        if not path.startswith(_NOT_USER_CODE):
            return _place(code, frame)
        if code.co_name == BOUNDARY and is_boundary(
            frame
        ):  # the name first: it spares a call a frame
            break
        if fallback is None and path.startswith(_ASYNCIO):
            fallback = f"{path}:{frame.f_lineno}"
        frame = frame.f_back
    return fallback or "unknown"


def _place(code: CodeType, frame: FrameType) -> str:
    key = code, frame.f_lasti
    place = _known.get(key)
    if place is None:
        if len(_known) >= _MAX_KNOWN:  # only where code is made anew all the time
            _known.clear()
        place = _known[key] = f"{code.co_filename}:{frame.f_lineno}"
    return place


def own_source(frame: FrameType | None) -> str:
    """`file:line` of the innermost line on the stack of `frame` that is the user's own, and not a library's.

    Without one it is the outermost below the boundary, which is the workflow's function.
    """
    outermost = "unknown"
    while frame is not None and not is_boundary(frame):
        path = frame.f_code.co_filename
        if not path.startswith(_NOT_USER_CODE):
            outermost = f"{path}:{frame.f_lineno}"
            if is_own_file(path):
                return outermost
        frame = frame.f_back
    return outermost


def stack_source(stack: str) -> str | None:
    """`file:line` of the innermost frame of a formatted stack that is the user's own; None where none is."""
    places = [(found["path"], found["line"]) for found in _FRAME.finditer(stack)]
    own = [place for place in places if is_own_file(place[0])]
    return ":".join(own[-1]) if own else None


def running_source() -> str | None:
    """`own_source` of the workflow code that some thread of this process runs now; None where none does."""
    for frame in sys._current_frames().values():  # pyright: ignore[reportPrivateUsage] - as above
        outer: FrameType | None = frame
        while outer is not None and not is_boundary(outer):
            outer = outer.f_back
        if outer is not None:
            return own_source(frame)
    return None


def wait_source(awaited: object) -> str:
    """`file:line in function` of the innermost user frame at which a suspended coroutine waits.

    Args:
        awaited: The outermost coroutine; what it awaits is followed inwards.
    """
    frame = wait_frame(awaited)
    if frame is None:
        return "unknown"
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def wait_frame(awaited: object) -> FrameType | None:
    """The innermost user frame at which a suspended coroutine waits; `awaited` as of `wait_source`."""
    found: FrameType | None = None
    while awaited is not None:
        frame, awaited = _frame_and_awaited(awaited)
        if frame is not None and is_user_file(frame.f_code.co_filename):
            found = frame
    return found


def _frame_and_awaited(awaited: object) -> tuple[FrameType | None, object]:
    """Frame of a coroutine, generator or async generator, and what that awaits in turn."""
    for prefix, inner in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
        frame = getattr(awaited, f"{prefix}_frame", None)
        if isinstance(frame, FrameType):
            return frame, getattr(awaited, inner, None)
    return None, None

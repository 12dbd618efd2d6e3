"""Refuses side effects in workflow code: files, sockets, processes, threads, blocking sleeps.

Workflow code runs again on every replay, so what it does to the world would happen again, and what it reads
could differ. CPython announces such acts to audit hooks (PEP 578) before it carries them out. Our hook refuses
them on threads that run workflow code at that moment, and nowhere else. It is no sandbox: C extensions and
`os.urandom` announce nothing, and clocks and random numbers don't either; nor do the start of a thread before
Python 3.12 and `time.sleep` before 3.13. What CPython does not announce is for a lint to find.

An audit hook can't be removed, so it is process-wide and stays; nobody else's may be weakened by a library that
comes and goes. Hence one hook, added when the first guarded run arms it, and one table of armed threads: this is the
only global state here, and a thread is in it only while it runs workflow code.

What goes on below an import, logging, a warning, a traceback, a debugger or a finalizer is let through: it happens
in workflow code without being its doing, and changes nothing that a replay could see.
"""

import inspect
import logging
import os
import sys
import sysconfig
import threading
import zoneinfo
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Final, Literal, get_args

from refold.engine.callsite import is_boundary, own_source
from refold.log.errors import SideEffectError, UsageError

GuardMode = Literal["raise", "warn", "off"]

_logger = logging.getLogger("refold.workflow")

_IN_STEP: Final = "move it into a @step"
_SLEEP: Final = (
    "use `await asyncio.sleep(...)` (or refold's sleep_sync in a `def` workflow), a durable timer"
)
_THREAD: Final = "use asyncio tasks for concurrency, and move blocking work into a @step"

_REFUSED: Final[Mapping[str, str]] = {
    "time.sleep": _SLEEP,
    "_thread.start_new_thread": _THREAD,
    "_thread.start_joinable_thread": _THREAD,
} | dict.fromkeys(
    [
        # files
        *("open", "mmap.__new__", "glob.glob", "pathlib.Path.glob", "pathlib.Path.rglob"),
        *("os.chdir", "os.chflags", "os.chmod", "os.chown", "os.getxattr", "os.link", "os.listdir"),
        *(
            "os.listdrives",
            "os.listmounts",
            "os.listvolumes",
            "os.listxattr",
            "os.lockf",
            "os.mkdir",
        ),
        *("os.remove", "os.removexattr", "os.rename", "os.rmdir", "os.scandir", "os.setxattr"),
        *("os.symlink", "os.truncate", "os.utime", "os.walk", "os.fwalk"),
        *("fcntl.fcntl", "fcntl.flock", "fcntl.ioctl", "fcntl.lockf"),
        *(
            "shutil.chown",
            "shutil.copyfile",
            "shutil.copymode",
            "shutil.copystat",
            "shutil.copytree",
        ),
        *("shutil.make_archive", "shutil.move", "shutil.rmtree", "shutil.unpack_archive"),
        *("tempfile.mkdtemp", "tempfile.mkstemp"),
        *("sqlite3.connect", "sqlite3.connect/handle", "dbm.open"),
        # processes and their environment
        *("os.exec", "os.fork", "os.forkpty", "os.kill", "os.killpg", "os.posix_spawn", "os.spawn"),
        *(
            "os.startfile",
            "os.startfile/2",
            "os.system",
            "os.putenv",
            "os.unsetenv",
            "os.add_dll_directory",
        ),
        *(
            "pty.spawn",
            "signal.pthread_kill",
            "subprocess.Popen",
            "webbrowser.open",
            "syslog.syslog",
        ),
        # networks
        *("ftplib.connect", "ftplib.sendcmd", "http.client.connect", "http.client.send"),
        *("imaplib.open", "imaplib.send", "nntplib.connect", "nntplib.putline", "poplib.connect"),
        *("poplib.putline", "smtplib.connect", "smtplib.send", "telnetlib.Telnet.open"),
        *("telnetlib.Telnet.write", "urllib.Request"),
        *(
            "socket.__new__",
            "socket.bind",
            "socket.connect",
            "socket.getaddrinfo",
            "socket.getnameinfo",
        ),
        *(
            "socket.gethostbyaddr",
            "socket.gethostbyname",
            "socket.gethostname",
            "socket.getservbyname",
        ),
        *("socket.getservbyport", "socket.sendmsg", "socket.sendto", "socket.sethostname"),
    ],
    _IN_STEP,
)
"""Audit events that are refused, and what to do instead. Their names: Python's "Audit events table"."""


_STDLIB: Final = sysconfig.get_path("stdlib")

_LET_THROUGH: Final = frozenset(
    {
        "<frozen importlib._bootstrap>",
        "<frozen importlib._bootstrap_external>",
        "<frozen zipimport>",
        *(
            f"{_STDLIB}/{module}.py"
            for module in (
                *(
                    "linecache",
                    "tokenize",
                    "inspect",
                    "traceback",
                    "warnings",
                    "_py_warnings",
                ),  # read source
                *("bdb", "pdb"),
                "weakref",  # runs finalizers
            )
        ),
    }
)
"""Files of code that does what it does without being asked to by the workflow."""

_LET_THROUGH_PARTS: Final = (
    f"{_STDLIB}/logging/",  # handlers, which open and rotate files
    f"{_STDLIB}/importlib/",
    f"{_STDLIB}/zoneinfo/",  # time zones are data, the same for everyone
    "/_pydevd_bundle/",
    "/debugpy/",
)


def check_mode(mode: GuardMode) -> GuardMode:
    """`mode` if it is one.

    Raises:
        UsageError: It is none. A slip must not weaken the guard.
    """
    if mode not in get_args(GuardMode):
        raise UsageError(f"guard={mode!r} can't be: it is one of {get_args(GuardMode)}")
    return mode


class Guard:
    """What is refused to one workflow's code.

    Args:
        workflow_id: For messages.
        mode: `raise` refuses with a SideEffectError; `warn` logs a warning, once for each line of code, and
            lets it through.
    """

    __slots__ = ("_mode", "_workflow_id")

    def __init__(self, workflow_id: str, mode: Literal["raise", "warn"]) -> None:
        self._workflow_id = workflow_id
        self._mode = mode

    def judge(self, event: str, args: tuple[object, ...]) -> None:
        """Refuse or report what `event` announces, unless it is no doing of the workflow's.

        Raises:
            SideEffectError: In mode `raise`.
        """
        if event == "open" and _is_time_zone(args):
            return
        frame = inspect.currentframe()
        if not _is_let_through(frame):
            self.refuse(event, args, own_source(frame))

    def refuse(self, event: str, args: tuple[object, ...], source: str) -> None:
        """Refuse or report what `event` announces, done at `source`.

        Raises:
            SideEffectError: In mode `raise`.
        """
        message = (
            f"workflow {self._workflow_id!r} tried {_act(event, args)} in workflow code ({source}); a replay would"
            f" do it again: {_REFUSED[event]}"
        )
        if self._mode == "raise":
            raise SideEffectError(message)
        if source not in _warned:
            _warned.add(source)
            _logger.warning("%s", message)


_armed: Final[dict[int, Guard]] = {}  # thread ident -> guard of the workflow whose code it runs
_warned: Final[set[str]] = (
    set()
)  # `file:line` reported in mode `warn`: as many as the code has lines
_installing = threading.Lock()
_installed = False


def arm(guard: Guard) -> None:
    """From here on this thread runs workflow code."""
    if not _installed:
        _install()
    _armed[threading.get_ident()] = guard


def disarm() -> None:
    """This thread no longer runs workflow code."""
    _armed.pop(threading.get_ident(), None)


@contextmanager
def unguarded() -> Generator[None, None, None]:
    """Inside, this thread does refold's own work, also where it runs workflow code otherwise."""
    ident = threading.get_ident()
    guard = _armed.pop(ident, None)
    try:
        yield
    finally:
        if guard is not None:
            _armed[ident] = guard


def _install() -> None:
    global _installed
    with _installing:
        if not _installed:
            sys.addaudithook(_hook)
            _installed = True


def _hook(event: str, args: tuple[object, ...]) -> None:
    """Called by CPython on every audit event of the process, so the common way out comes first."""
    if event not in _REFUSED:
        return
    guard = _armed.get(threading.get_ident())
    if guard is not None:
        guard.judge(event, args)


def _is_let_through(frame: FrameType | None) -> bool:
    """Whether what goes on in `frame` is no doing of the workflow's."""
    while frame is not None and not is_boundary(frame):
        code = frame.f_code
        path = code.co_filename
        if path in _LET_THROUGH or code.co_name == "__del__" or _has_let_through_part(path):
            return True
        frame = frame.f_back
    return False


def _has_let_through_part(path: str) -> bool:
    return any(part in path for part in _LET_THROUGH_PARTS)


def _is_time_zone(args: tuple[object, ...]) -> bool:
    """Whether a time zone's file is opened for reading: zoneinfo does that from C, with no frame of its own."""
    path, mode = args[0], args[1]
    return (
        isinstance(path, str)
        and mode in {"r", "rb"}
        and any(path.startswith(f"{folder}{os.sep}") for folder in zoneinfo.TZPATH)
    )


def _act(event: str, args: tuple[object, ...]) -> str:
    """What was tried, for a message. Only short, harmless arguments are named: others may hold secrets."""
    if event in {
        "open",
        "os.listdir",
        "os.scandir",
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.rmdir",
    }:
        return f"{event}({args[0]!r})"
    if event == "time.sleep":
        return f"time.sleep({args[0]!r})"
    return event

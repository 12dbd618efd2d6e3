"""`refold` processes forked from one that has imported it: each a process of its own, half a second sooner.

The nursery is a process that imports the command line and opens nothing. For each request it forks a child, which gets
its own directory, environment, arguments and standard streams, and runs what `python -m refold` would. The nursery ends
with the process that started it.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from refold.services.cli import main

MESSAGE_BYTES = 1_000_000
"""Arguments and environment of one process are far below."""


class Forked:
    """A process of the nursery, with as much of `subprocess.Popen` as tests use.

    Args:
        status: The pipe that tells its pid, and later its exit code.
        stdout: What it writes there.
        stderr: What it writes there.
    """

    def __init__(self, status: int, stdout: IO[str], stderr: IO[str]) -> None:
        self.stdout: IO[str] | None = stdout
        self.stderr: IO[str] | None = stderr
        self.returncode: int | None = None
        self._status = os.fdopen(status, "r")
        self.pid = int(self._status.readline())

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        return self._ended_within(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, at most so many seconds; returns the exit code."""
        code = self._ended_within(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("refold", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def completed(self, words: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        """All that it writes, and its exit code. It is killed if it takes longer than `timeout_s`."""
        assert self.stdout is not None
        assert self.stderr is not None
        alarm = threading.Timer(timeout_s, self.kill)
        alarm.start()
        with ThreadPoolExecutor(1) as thread, self.stdout, self.stderr:
            said = thread.submit(self.stderr.read)
            printed = self.stdout.read()
            code = self.wait(timeout_s)
            alarm.cancel()
            return subprocess.CompletedProcess(words, code, printed, said.result())

    def _ended_within(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], seconds)[0]:
            self.returncode = int(self._status.readline())
            self._status.close()
        return self.returncode


def begin(
    words: Sequence[str], cwd: Path, environment: Mapping[str, str], stdin: int | None = None
) -> Forked:
    """Start `refold` with these words.

    Args:
        words: Its arguments.
        cwd: Where it runs: modules are found there.
        environment: All of its environment.
        stdin: Descriptor to read from; nothing where None. It stays open here.
    """
    request = {"words": list(words), "cwd": str(cwd), "environment": dict(environment)}
    pipes = [os.pipe() for _ in range(3)]
    (out, _), (err, _), (status, _) = pipes
    with Path(os.devnull).open() as nothing:
        source = nothing.fileno() if stdin is None else stdin
        given = [source, *(ours for _, ours in pipes)]
        socket.send_fds(_nursery(), [json.dumps(request).encode()], given)
    for _, theirs in pipes:
        os.close(theirs)
    return Forked(status, os.fdopen(out, "r"), os.fdopen(err, "r"))


@functools.cache
def _nursery() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    code = f"import cli_nursery; cli_nursery.serve({theirs.fileno()})"
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        pass_fds=[theirs.fileno()],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def serve(descriptor: int) -> None:
    """The nursery's own process: forks for each request, and tells how each child ended."""
    woken, waker = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    children: dict[int, int] = {}  # pid -> where its exit code is told
    with socket.socket(fileno=descriptor) as requests:
        while True:
            ready, _, _ = select.select([requests.fileno(), woken], [], [])
            if woken in ready:
                os.read(woken, 4096)
                _bury(children)
            if requests.fileno() not in ready:
                continue
            message, given, _, _ = socket.recv_fds(requests, MESSAGE_BYTES, 4)
            if not message:
                break
            pid = os.fork()
            if pid == 0:
                requests.close()
                for other in (woken, waker, *children.values()):
                    os.close(other)
                _run(json.loads(message), given)
            for stream in given[:3]:
                os.close(stream)
            children[pid] = given[3]
            os.write(given[3], f"{pid}\n".encode())


def _bury(children: dict[int, int]) -> None:
    for pid in list(children):
        buried, status = os.waitpid(pid, os.WNOHANG)
        if buried:
            told = children.pop(pid)
            with contextlib.suppress(BrokenPipeError):
                os.write(told, f"{os.waitstatus_to_exitcode(status)}\n".encode())
            os.close(told)


def _run(request: Mapping[str, Any], given: Sequence[int]) -> None:
    """The child: becomes what was asked for, and ends as the interpreter would."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for target, stream in enumerate(given[:3]):
        os.dup2(stream, target)
    for stream in given:
        os.close(stream)
    # Anew: the nursery's own know where its streams stood.
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    sys.path.insert(0, request["cwd"])
    sys.argv = ["refold", *request["words"]]
    main()
    raise SystemExit

"""`refold` as people run it: processes of its own in a directory of its own, for tests.

refold = CommandLine(directory, "sqlite:///shop.db")
refold("start", "shop:checkout", "42", "--id", "order-42")     # to its end; the exit code is checked
with refold.begin("worker", "shop") as worker:                 # in the background, SIGKILL at the end of the block
    worker.until("owned=0")
    assert worker.stopped(signal.SIGTERM) == 0
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import cli_nursery

PATIENCE_S = 60.0
"""Far above what anything takes on a busy machine: only a hang gets there."""


class CommandLine:
    """The `refold` command in a directory.

    Args:
        directory: Where it runs: the user's modules are found there.
        url: The log, given by REFOLD_URL.
    """

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.url = url

    def __call__(
        self, *words: str, code: int = 0, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end, and check the exit code."""
        with tempfile.TemporaryFile("w+") as given:
            given.write(stdin or "")
            given.seek(0)
            process = cli_nursery.begin(words, self.directory, self._environment(), given.fileno())
        done = process.completed(words, PATIENCE_S)
        said = f"refold {' '.join(words)}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == code, f"exit code {done.returncode}, not {code}: {said}"
        return done

    def begin(self, *words: str) -> Running:
        """Start in the background."""
        return Running(cli_nursery.begin(words, self.directory, self._environment()))

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "REFOLD_URL": self.url, "COLUMNS": "100", "NO_COLOR": "1"}


class Running:
    """A process in the background. What it says on standard error is kept, line by line."""

    def __init__(self, process: subprocess.Popen[str] | cli_nursery.Forked) -> None:
        self.process = process
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._over = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    @property
    def said(self) -> str:
        """All that came on standard error so far."""
        with self._changed:
            return "\n".join(self._lines)

    def until(self, text: str) -> str:
        """Wait for a line with `text` in it; returns the line."""
        with self._changed:
            found = self._changed.wait_for(lambda: self._find(text) or self._over, PATIENCE_S)
            line = self._find(text)
        assert found, f"{text!r} was not said within {PATIENCE_S:.0f} s: {self.said}"
        assert line, f"the process ended without saying {text!r}: {self.said}"
        return line

    def stopped(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        self.process.send_signal(number)
        return self.ended()

    def told_until_ended(self, number: signal.Signals) -> int:
        """Send a signal again and again until the process has ended; returns the exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)
                break
        return self.ended()

    def ended(self) -> int:
        """Wait for the end; returns the exit code."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join()
        return code

    def result(self) -> str:
        """All of standard output, after the end."""
        assert self.process.stdout is not None
        return self.process.stdout.read()

    def _find(self, text: str) -> str | None:
        return next((line for line in self._lines if text in line), None)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()


class Gate:
    """A named pipe at which a step waits, so that a test knows where it is and says when it goes on.

    The step reads the file; that blocks until `open` here, which in turn blocks until the step is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)

    def reached(self) -> int:
        """Wait until a step is at the gate; returns the descriptor that holds it there."""
        return os.open(self.path, os.O_WRONLY)

    def open(self) -> None:
        """Wait until a step is at the gate, and let it pass."""
        os.close(self.reached())

    def leave_open(self) -> None:
        """Let every step that comes from now on pass without waiting."""
        self.path.with_name(f"{self.path.name}.open").touch()

"""Workers that are started fast enough to be killed by the hundred.

A worker is a process with an `Engine` of its own. The nursery is a process that has imported everything and has opened
nothing; each worker is a fork of it, which spares half a second of imports a life. A worker lives until it is killed,
or until its end of a pipe says that nobody wants it any more: then it drains. So no worker outlives the test.
"""

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from crash_company import COMPANY_WORKFLOWS
from crash_shapes import JOURNAL, WORKFLOWS
from kafka_backend import TEST_SETTINGS
from refold import Engine
from refold.log.kafka import KafkaLog
from refold.log.kafka_settings import KafkaSettings
from refold.log.protocol import Log
from refold.log.urls import open_log

DRAIN_S = 5.0

SESSION_MS = 2_500
"""A worker that was killed or stopped is missed soon, and no sooner than `MIN_TAKEOVER_S` allows."""


IMPATIENT = "REFOLD_CRASH_IMPATIENT"
"""Environment variable: if set, every timeout towards the broker is so short that an outage of seconds passes it."""


PATIENT = "REFOLD_CRASH_PATIENT"
"""Environment variable: if set, the session timeout is long enough that no slow machine passes it."""


def kafka_settings() -> KafkaSettings:
    """Settings with a short session timeout, which a broker that we did not start may not allow."""
    if os.environ.get(IMPATIENT):
        return IMPATIENT_SETTINGS
    if os.environ.get(PATIENT) or os.environ.get("KAFKA_BOOTSTRAP"):
        return TEST_SETTINGS
    return replace(TEST_SETTINGS, session_timeout_ms=SESSION_MS, heartbeat_interval_ms=200)


def log_of(url: str) -> Log:
    """The log that workers and their client share."""
    scheme, _, rest = url.partition("://")
    if scheme != "kafka":
        return open_log(url)
    servers, _, namespace = rest.partition("/")
    return KafkaLog(servers.split(","), namespace, kafka_settings())


IMPATIENT_SETTINGS = KafkaSettings(
    session_timeout_ms=SESSION_MS,
    heartbeat_interval_ms=200,
    request_timeout_ms=2_000,
    delivery_timeout_ms=5_000,
    connect_timeout_ms=2_000,
)


class Nursery:
    """Starts workers and buries them. Killing is the test's own: a pid is not used again before `bury`.

    Args:
        url: The log.
        journal: Where the steps write that they have begun.
    """

    def __init__(self, url: str, journal: Path) -> None:
        environment = {**os.environ, JOURNAL: str(journal)}
        here = str(Path(__file__).parent)
        environment["PYTHONPATH"] = os.pathsep.join(
            [here, *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", "import crash_nursery; crash_nursery.serve()", url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._started = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        stack: TracebackType | None,
    ) -> None:
        with self._process:  # waits, after closing the pipes
            if self._process.stdin is not None:
                self._process.stdin.close()

    def start(self) -> int:
        """A new worker's pid."""
        self._started += 1
        return self._ask(f"start worker-{self._started}")

    def bury(self, pid: int) -> int:
        """Wait for the death of a worker that was killed; returns its exit code as `subprocess` gives it."""
        return self._ask(f"bury {pid}")

    def retire(self, pid: int) -> int:
        """Tell a worker to drain and wait for its end; returns its exit code."""
        return self._ask(f"retire {pid}")

    def _ask(self, question: str) -> int:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(question + "\n")
        stdin.flush()
        answer = stdout.readline()
        assert answer, f"the nursery ended with {self._process.wait()} instead of an answer"
        return int(answer)


def serve() -> None:
    """The nursery's own process: carries out one line of standard input after the other."""
    log = partial(log_of, sys.argv[1])
    lifelines: dict[int, int] = {}  # pid -> our end of its pipe
    for line in sys.stdin:
        verb, _, what = line.strip().partition(" ")
        if verb == "start":
            answer = _fork(log, what, lifelines)
        else:
            pid = int(what)
            if verb == "retire":
                os.close(lifelines.pop(pid))
            _, status = os.waitpid(pid, 0)
            if pid in lifelines:
                os.close(lifelines.pop(pid))
            answer = os.waitstatus_to_exitcode(status)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()
    for pid, lifeline in lifelines.items():
        os.close(lifeline)
        os.waitpid(pid, 0)


def _fork(log: Callable[[], Log], name: str, lifelines: dict[int, int]) -> int:
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(theirs)
        for lifeline in lifelines.values():  # the siblings' must end with the nursery alone
            os.close(lifeline)
        os._exit(_work(log(), name, ours))
    os.close(ours)
    lifelines[pid] = theirs
    return pid


def _work(log: Log, name: str, lifeline: int) -> int:
    """A worker's life."""
    try:
        workflows = [*WORKFLOWS, *COMPANY_WORKFLOWS]
        with Engine(log, workflows=workflows, name=name, drain_s=DRAIN_S):
            os.read(lifeline, 1)  # returns when nobody holds the other end any more
    except BaseException:  # noqa: BLE001 - the process ends here: its exit code and standard error tell
        traceback.print_exc()
        return 1
    return 0

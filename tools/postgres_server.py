"""A real PostgreSQL for tests and benchmarks: a temporary cluster on loopback, gone with its maker.

    with find_or_start() as url: ...       # POSTGRES_URL if it is set, else a server of our own
    python tools/postgres_server.py        # start, print the address, run until Ctrl-C

PostgreSQL refuses to run as root: then it runs as the system's user `postgres`.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

from kafka_broker import free_ports
from watchdog import Watchdog

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
POLL_S = 0.05
LOG_TAIL_LINES = 20
SYSTEM_USER = "postgres"

# Where Debian keeps the binaries of its several versions, of which none is on PATH.
DEBIAN = Path("/usr/lib/postgresql")


class PostgresUnavailableError(RuntimeError):
    """No PostgreSQL can be had here; the message is one line that says what is missing."""


class PostgresFailedError(RuntimeError):
    """A server was started, or named, and does not serve; the message ends with its log."""


@contextmanager
def find_or_start(settings: Sequence[str] = ()) -> Generator[str, None, None]:
    """The URL of a database: `POSTGRES_URL` if it is set, else of a server started for the block.

    Args:
        settings: Of a server that is started, as in "fsync=off".

    Raises:
        PostgresUnavailableError: None is named and none can be started here.
        PostgresFailedError: The one that was started does not answer.
    """
    named = os.environ.get("POSTGRES_URL")
    if named:
        yield named
        return
    binaries = _binaries()
    user = _user()
    home = Path(tempfile.mkdtemp(prefix="refold-postgres-"))
    try:
        if user is not None:
            account = pwd.getpwnam(user)
            os.chown(home, account.pw_uid, account.pw_gid)
        _make_cluster(binaries, user, home)
        with _running(binaries, user, home, settings) as url:
            yield url
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _running(
    binaries: Path, user: str | None, home: Path, settings: Sequence[str]
) -> Generator[str, None, None]:
    port = free_ports(1)[0]
    own = (
        "listen_addresses=127.0.0.1",
        f"port={port}",
        "unix_socket_directories=",
        "max_connections=200",
        *settings,
    )
    options = [word for setting in own for word in ("-c", setting)]
    with (home / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [binaries / "postgres", "-D", home / "data", *options],
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the program that uses the server
        )
    watchdog = Watchdog(process.pid, home)
    url = f"postgresql://refold@127.0.0.1:{port}/postgres"
    try:
        _wait_for(url, process, home)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:  # a client is still connected
            process.kill()
            process.wait()
        watchdog.dismiss()


def _make_cluster(binaries: Path, user: str | None, home: Path) -> None:
    done = subprocess.run(
        [
            *(binaries / "initdb", "--pgdata", home / "data", "--username", "refold"),
            *("--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync"),
        ],
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        cwd=home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=READY_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise PostgresFailedError(f"initdb failed:\n{done.stdout.decode(errors='replace')}")


def _wait_for(url: str, process: "subprocess.Popen[bytes]", home: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError as error:
            if process.poll() is None and time.monotonic() < deadline:
                time.sleep(POLL_S)
                continue
            lines = (home / "server.log").read_text(errors="replace").splitlines()
            tail = "\n  ".join(lines[-LOG_TAIL_LINES:])
            raise PostgresFailedError(f"PostgreSQL does not serve: {error}\n  {tail}") from error
        return


def _binaries() -> Path:
    """The directory of `initdb` and `postgres`; of Debian's versions the newest."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    versions = [place for place in DEBIAN.glob("*/bin") if place.parent.name.isdecimal()]
    places += sorted(versions, key=lambda place: int(place.parent.name), reverse=True)
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    raise PostgresUnavailableError(
        "initdb and postgres were found neither on PATH nor in /usr/lib/postgresql"
    )


def _user() -> str | None:
    """Whom the server runs as, where that is not this process's user."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        raise PostgresUnavailableError(
            f"PostgreSQL refuses to run as root, and there is no user {SYSTEM_USER!r}"
        ) from None
    return SYSTEM_USER


if __name__ == "__main__":
    with find_or_start() as address:
        print(address, flush=True)
        input("Enter ends it. ")

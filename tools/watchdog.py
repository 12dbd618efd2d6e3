"""Ends a server that tests started, whatever end its maker comes to."""

import subprocess
from pathlib import Path


class Watchdog:
    """Kills a process and deletes its data when whoever started it has died.

    It is a shell that reads a pipe which only the maker holds open; the kernel closes it when the maker dies, of
    whatever cause. (Linux's parent-death signal would follow the thread that started the server, not the process.)

    Args:
        pid: The server.
        home: Its data.
    """

    def __init__(self, pid: int, home: Path) -> None:
        self._shell = subprocess.Popen(
            [
                *("sh", "-c", 'read -r _; kill -9 "$1"; rm -rf "$2"'),
                *("refold-watchdog", str(pid), str(home)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """The server has ended: leave its pid alone from now on."""
        self._shell.kill()
        self._shell.communicate()  # waits, and closes the pipe

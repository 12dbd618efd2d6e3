"""What a process holds, read from Linux's /proc: memory, open files, threads."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

MEGABYTE: Final = 1_000_000
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def held_by(pid: int) -> Mapping[str, float]:
    """What a process holds now; empty where it has ended.

    Returns:
        `memory` (resident, in MB), `files` (open descriptors), `threads`.
    """
    process = Path("/proc") / str(pid)
    try:
        resident = int((process / "statm").read_text().split()[1])
        files = sum(1 for _ in (process / "fd").iterdir())
        status = (process / "status").read_text()
    except OSError:
        return {}
    threads = next(line for line in status.splitlines() if line.startswith("Threads:"))
    return {
        "memory": resident * PAGE_BYTES / MEGABYTE,
        "files": float(files),
        "threads": float(threads.split()[1]),
    }

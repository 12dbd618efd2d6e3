"""A workflow without `async`: plain `def`, plain calls, and a nap that outlives the process.

    python examples/sync_workflow.py

A `def` workflow calls a `def` step as any function, an `async def` step by `.sync`, and any other function by
`run_step_sync`. It holds a thread only while it runs: in a long sleep it is put away, and replayed when it is time.
"""

import asyncio
import hashlib
from datetime import timedelta
from pathlib import Path

from refold import Engine, now, run_step_sync, sleep_sync, step, workflow


@step
def size_of(path: str) -> int:
    """Size of a file, in bytes."""
    return Path(path).stat().st_size


@step
async def checksum_of(path: str) -> str:
    """SHA-256 of a file; an `async def` step, which runs on the worker's event loop."""
    data = await asyncio.to_thread(Path(path).read_bytes)
    return hashlib.sha256(data).hexdigest()


def suffix_of(path: str) -> str:
    """No step by itself: `run_step_sync` makes it one where it is called."""
    return Path(path).suffix


@workflow
def inspect_file(path: str) -> str:
    """Describe a file."""
    began = now()
    size = size_of(path)
    checksum = checksum_of.sync(path)
    suffix = run_step_sync(suffix_of, path, name="suffix")
    sleep_sync(timedelta(milliseconds=50))
    waited = now() - began >= timedelta(milliseconds=50)
    return f"{size} bytes, {suffix}, sha256 {checksum[:12]}, {'rested' if waited else 'in a hurry'}"


if __name__ == "__main__":
    with Engine("memory://") as engine:
        print(engine.start(inspect_file, __file__).result())

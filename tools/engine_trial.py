"""What tests of whole engines share: waiting for conditions, and a look into the log past the engine."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from log_backend import PATIENCE_S, LogBackend, records_of
from refold import Engine, Workflow
from refold.engine.digest import digest
from refold.engine.reader import read_partition
from refold.log.partitioner import partition_of
from refold.log.protocol import Channel, Entry, Log, Record

T = TypeVar("T")

LOOK_EVERY_S = 0.002


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that another thread brings about; one that never comes is a failure."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for has not come"
        time.sleep(LOOK_EVERY_S)


def engine_on(
    backend: LogBackend,
    *workflows: Workflow[..., Any],
    worker: bool = True,
    max_payload_bytes: int | None = None,
) -> Engine:
    """An engine over a namespace, with these workflows and no others."""
    return Engine(
        backend.log(),
        workflows=workflows,
        worker=worker,
        max_payload_bytes=max_payload_bytes,
        drain_s=PATIENCE_S,
    )


def kinds(engine: Engine, run: str) -> list[str]:
    """The kinds of a run's events, in order."""
    return [getattr(event, "kind", "unreadable") for event in engine.history(run)]


def with_log(backend: LogBackend, use: Callable[[Log], Coroutine[Any, Any, T]]) -> T:
    """What `use` gives, with a log of its own over the namespace."""

    async def opened() -> T:
        log = backend.log()
        await log.open()
        try:
            return await use(log)
        finally:
            await log.close()

    return asyncio.run(opened())


def records(backend: LogBackend, channel: Channel = Channel.EVENTS) -> list[Record]:
    """All records of a channel, partition by partition."""

    async def read(log: Log) -> list[Record]:
        found: list[Record] = []
        for partition in range(log.partitions):
            found += await records_of(log, channel, partition)
        return found

    return with_log(backend, read)


def written(backend: LogBackend) -> int:
    """How many records there are about runs: all but the owners' claims."""
    found = [*records(backend), *records(backend, Channel.COMMANDS)]
    return sum(record.key is not None for record in found)


def append_raw(backend: LogBackend, channel: Channel, run: str, entries: Sequence[Entry]) -> None:
    """Write records into the partition of a run, as a foreign program would."""

    async def append(log: Log) -> None:
        await log.append(channel, partition_of(run, log.partitions), entries)

    with_log(backend, append)


def fold_digests(backend: LogBackend) -> list[str]:
    """Digest of each partition's fold."""

    async def fold(log: Log) -> list[str]:
        return [digest(await read_partition(log, p)) for p in range(log.partitions)]

    return with_log(backend, fold)

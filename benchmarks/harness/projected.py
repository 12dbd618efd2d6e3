"""Projections: how fast a log is taken in."""

import shutil
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from time import perf_counter
from typing import Final

from job import Job, tell
from refold.log.protocol import Channel, Log
from refold.log.urls import open_log
from refold.projections.places import store_for
from refold.projections.runner import Runner
from refold.projections.workflows import Workflows

TOOLS: Final = Path(__file__).resolve().parents[2] / "tools"


async def projection(job: Job) -> None:
    """Events a second from a built log into the workflows read model, in SQLite and in PostgreSQL."""
    log = open_log(job.url)
    await log.open()
    directory = tempfile.mkdtemp(prefix="refold-bench-views-")
    try:
        figures = {"sqlite_events_per_s": await _rate(log, directory)}
        with postgres() as url:
            figures["postgresql_events_per_s"] = await _rate(log, url)
    finally:
        shutil.rmtree(directory)
        await log.close()
    tell(figures)


def postgres() -> AbstractContextManager[str]:
    """A server as it comes: what is written is forced to the disk."""
    sys.path.append(str(TOOLS))  # children have the harness alone
    import postgres_server  # noqa: PLC0415 - found by way of the line above

    return postgres_server.find_or_start()


async def _rate(log: Log, place: str) -> float:
    store = store_for(Workflows(), log, place)
    runner = Runner(log, store, caught_up=store.switch)
    began = perf_counter()
    await runner.catch_up()
    elapsed_s = perf_counter() - began
    ends = [(await log.bounds(Channel.EVENTS, p)).end for p in range(log.partitions)]
    assert runner.events == sum(ends), "not everything was taken in"
    return runner.events / elapsed_s

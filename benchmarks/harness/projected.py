"""Projections: how fast a log is taken in."""

import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
from psycopg import sql

from histories import held_events, write_partition
from job import Job, tell
from refold.log.attributes import encode_attributes
from refold.log.events import Event, WorkflowStarted
from refold.log.memory import MemoryLog
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
        figures["sqlite_tagged_events_per_s"] = await _tagged_rate(job, directory)
        with postgres() as url:
            figures["postgresql_events_per_s"] = await _rate(log, url)
    finally:
        shutil.rmtree(directory)
        await log.close()
    tell(figures)


async def _tagged_rate(job: Job, directory: str) -> float:
    """The rate for such a log whose runs have two attributes each: one of few values, and one of its own."""
    log = MemoryLog("tagged", 1)
    await log.open()
    await write_partition(log, 0, job, _tagged_events)
    try:
        return await _rate(log, directory + "/tagged")
    finally:
        await log.close()


def _tagged_events(ids: list[str], steps: int, claim_offset: int) -> Iterator[Event]:
    for number, event in enumerate(held_events(ids, steps, claim_offset)):
        if isinstance(event, WorkflowStarted):
            tags = {"region": ("eu", "us")[number % 2], "number": number}
            yield replace(event, attributes=encode_attributes(tags))
        else:
            yield event


@contextmanager
def postgres() -> Generator[str, None, None]:
    """A database of a server as it comes: what is written is forced to the disk. Gone after the block."""
    sys.path.append(str(TOOLS))  # children have the harness alone
    import postgres_server  # noqa: PLC0415 - found by way of the line above

    name = f"refold_bench_{uuid4().hex[:12]}"
    with (
        postgres_server.find_or_start() as url,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield urlsplit(url)._replace(path=f"/{name}").geturl()
        finally:
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
            connection.execute(drop.format(sql.Identifier(name)))


async def _rate(log: Log, place: str) -> float:
    store = store_for(Workflows(), log, place)
    runner = Runner(log, store, caught_up=store.switch)
    began = perf_counter()
    await runner.catch_up()
    elapsed_s = perf_counter() - began
    ends = [(await log.bounds(Channel.EVENTS, p)).end for p in range(log.partitions)]
    assert runner.events == sum(ends), "not everything was taken in"
    return runner.events / elapsed_s

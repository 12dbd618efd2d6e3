"""`refold sink` on a real Kafka broker: processes that share the work for a target, and take over from each other."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import psycopg
import pytest

from cli_process import PATIENCE_S, CommandLine, Running
from event_receiver import Receiver, receiving
from kafka_backend import KafkaBackend
from refold.log.partitioner import partition_of
from refold.log.protocol import Log
from sink_story import write_story

PARTITIONS, WORKFLOWS, STEPS = 6, 30, 3
EXACT = ("parquet", "duckdb", "postgres", "jsonl")
STRANGER = "unreadable"
"""In place of an `event_id`: a record that nobody can read is passed on, as one."""


class Place:
    """Where the five sinks of one log write, and what is there.

    Args:
        directory: Of the files.
        postgres: A database.
        receiver: Of CloudEvents.
    """

    def __init__(self, directory: Path, postgres: str, receiver: Receiver) -> None:
        self._directory = directory
        self._postgres = postgres
        self._schema = f"kafka_{uuid4().hex[:12]}"
        self._receiver = receiver

    def words(self, kind: str) -> tuple[str, ...]:
        """What follows `refold sink` or `refold export`."""
        match kind:
            case "postgres":
                return (kind, self._postgres, "--schema", self._schema)
            case "http":
                state = str(self._directory / "state")
                return (kind, self._receiver.url, "--state", state, "--batch", "7")
            case _:
                return (kind, self.file(kind))

    def file(self, kind: str) -> str:
        return str(self._directory / f"events.{kind}")

    def ids(self, kind: str) -> list[str]:
        """The `event_id` of every row."""
        query = f"SELECT coalesce(event_id, '{STRANGER}') FROM "
        match kind:
            case "postgres":
                with psycopg.connect(self._postgres) as pg:
                    rows = pg.execute(f"{query} {self._schema}.events".encode()).fetchall()
            case "http":
                return [event["data"].get("event_id", STRANGER) for event in self._receiver.taken]
            case "duckdb":
                with duckdb.connect(self.file(kind), read_only=True) as db:
                    rows = db.sql(f"{query} events").fetchall()
            case _:
                read = "read_json('{}')" if kind == "jsonl" else "read_parquet('{}/*/*.parquet')"
                with duckdb.connect() as db:
                    rows = db.sql(query + read.format(self.file(kind))).fetchall()
        return [id_ for (id_,) in rows]

    def wait_for(self, kind: str, ids: set[str]) -> None:
        """Wait until a target has these and no others."""
        deadline = time.monotonic() + PATIENCE_S
        found: set[str] = set()
        while found != ids:
            assert time.monotonic() < deadline, f"{kind} lacks {ids - found}, and has {found - ids}"
            time.sleep(0.1)
            try:
                found = set(self.ids(kind))
            except duckdb.Error:  # a sink has the file, or has just merged the files
                continue


@pytest.mark.slow
def test_two_processes_share_each_target_and_the_survivor_takes_over(
    kafka_bootstrap: str, postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given two sinks of one target each, and SIGKILL of one, every event that counts is there once, no zombie's is."""
    monkeypatch.setenv("REFOLD_KAFKA_SESSION_TIMEOUT_MS", "3000")
    backend = KafkaBackend(kafka_bootstrap, PARTITIONS)
    refold = CommandLine(tmp_path, f"kafka://{kafka_bootstrap}/{backend.namespace}")
    told: set[str] = set()

    def write(*partitions: int) -> None:
        async def writing(log: Log) -> list[str]:
            return await write_story(log, WORKFLOWS, STEPS, partitions)

        told.update(_with_log(backend, writing))
        if partition_of("order-0", PARTITIONS) in partitions:
            told.add(STRANGER)

    with receiving() as receiver, ExitStack() as running:
        place = Place(tmp_path, postgres, receiver)
        kinds = (*EXACT, "http")

        def begin(kind: str) -> Running:
            return running.enter_context(refold.begin("sink", *place.words(kind), "--every-s", "0"))

        write(0, 1)
        first = {kind: begin(kind) for kind in kinds}
        for kind in kinds:
            place.wait_for(kind, told)
        second = {kind: begin(kind) for kind in kinds}
        for kind in kinds:
            second[kind].until("takes partition")
        write(2, 3)
        for kind in kinds:
            place.wait_for(kind, told)
            first[kind].process.kill()
        write(4, 5)
        for kind in kinds:
            place.wait_for(kind, told)
            assert "Traceback" not in first[kind].said + second[kind].said

        _are_once_and_in_order(place, told)
        before = len(receiver.taken)
        for kind in kinds:  # nothing is left, and nothing comes again
            assert "0 events written" in refold("export", *place.words(kind)).stderr
        assert len(receiver.taken) == before


def _are_once_and_in_order(place: Place, told: set[str]) -> None:
    for kind in EXACT:
        assert sorted(place.ids(kind)) == sorted(told)
    seen: dict[str, list[int]] = {}
    for id_ in dict.fromkeys(place.ids("http")):
        if id_.startswith("order-"):
            stream, position, _ = id_.split("/")
            seen.setdefault(stream, []).append(int(position))
    assert len(seen) == WORKFLOWS
    assert all(positions == sorted(positions) for positions in seen.values())


def _with_log(
    backend: KafkaBackend, use: Callable[[Log], Coroutine[Any, Any, list[str]]]
) -> list[str]:
    async def used() -> list[str]:
        log = backend.log()
        await log.open()
        try:
            return await use(log)
        finally:
            await log.close()

    return asyncio.run(used())

"""Exactly once, whatever is killed when: after 50 kills a sink has the rows of one that was left in peace."""

import asyncio
import os
import random
from pathlib import Path
from uuid import uuid4

import pytest

from crash_sink import killed, rows_of, write_all
from refold.log.urls import open_log
from sink_story import write_story

KILLS = 50
WORKFLOWS, STEPS = 400, 10

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A log in a file, longer than the writers come before they are killed."""

    made = f"sqlite:///{tmp_path_factory.mktemp('log')}/log.db?partitions=2"

    async def write() -> None:
        log = open_log(made)
        await log.open()
        await write_story(log, WORKFLOWS, STEPS)
        await log.close()

    asyncio.run(write())
    return made


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "duckdb", "postgres"])
def test_a_sink_killed_again_and_again_has_every_row_once(
    kind: str, url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Given a sink whose process is killed 50 times, its rows are those of a clean export, to the byte."""
    seed = int(os.environ.get("REFOLD_SEED", random.SystemRandom().getrandbits(32)))
    print(f"REFOLD_SEED={seed} brings the same moments back")  # as near as two processes allow
    kills = int(os.environ.get("REFOLD_KILLS", KILLS))

    def place(name: str) -> str:
        if kind == "postgres":
            return f"{request.getfixturevalue('postgres')}#{name}_{uuid4().hex[:12]}"
        return str(tmp_path / f"{name}.{kind}")

    clean, crashed = place("clean"), place("crashed")
    write_all(kind, clean, url)
    print(killed(kind, crashed, url, kills, seed))
    write_all(kind, crashed, url)
    assert rows_of(kind, crashed) == rows_of(kind, clean)

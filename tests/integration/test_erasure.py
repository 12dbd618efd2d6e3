"""Erasing a subject: keys in memory, workflows of pools, and a death between the keys and the record of it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine_trial import kinds, records, until
from log_backend import PATIENCE_S, MemoryBackend, SqliteBackend
from private_office import PLAIN, Flaky, Office
from refold import (
    CommandRefused,
    UsageError,
    WorkflowParked,
    receive,
    run_child,
    step,
    workflow,
)
from refold.engine.privacy import KEEP_NAMES_S, Privacy
from refold.log.codec import decode_event
from refold.log.errors import KeyMissing, PayloadErased
from refold.log.events import PartitionClaimed, SubjectErased
from refold.log.key_urls import open_keys
from refold.log.keys import PayloadKeys
from refold.log.partitioner import partition_of

POOLS = (("gpu", 2),)
TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(params=["memory", "sqlite"])
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Office:
    """A fresh namespace with partitions of a pool as well, in memory and in a file in turn."""
    backend = MemoryBackend(POOLS) if request.param == "memory" else SqliteBackend(tmp_path, POOLS)
    return Office(backend, tmp_path)


@step
async def look_up(email: str) -> str:
    return f"{email} is known"


@workflow
async def greet(email: str) -> str:
    return f"dear {email}"


@workflow
async def waiting(email: str) -> str:
    await look_up(email)
    return f"{email} {await receive('news', str)}"


@workflow(pool="gpu")
async def film(email: str) -> str:
    return await look_up(email)


@workflow(pool="gpu")
async def endless(email: str) -> str:
    return f"{await look_up(email)} {await receive('cut', str)}"


@workflow
async def advert(email: str) -> str:
    return await run_child(film, email)


def erasures(office: Office) -> list[SubjectErased]:
    found = [decode_event(record) for record in records(office.backend)]
    return [event for event in found if isinstance(event, SubjectErased)]


def owners(office: Office) -> dict[int, str]:
    """Who has claimed each common partition last."""
    claims = [decode_event(record) for record in records(office.backend)]
    return {
        claim.partition: claim.worker
        for claim in claims
        if isinstance(claim, PartitionClaimed) and claim.partition < 2
    }


# Keys in memory -----------------------------------------------------------------------------------------------


def test_what_another_process_has_read_it_does_not_read_again_once_it_is_erased(
    office: Office,
) -> None:
    """Given another process with the key in memory, it reads nothing more, and what it starts has new keys."""
    with office.engine(greet) as engine, office.engine(worker=False) as other:
        engine.start(greet, PLAIN, id="a", subject="bob").result(PATIENCE_S)
        assert other.handle("a").result(PATIENCE_S) == f"dear {PLAIN}"
        other.start(greet, PLAIN, id="b", subject="bob").result(PATIENCE_S)
        engine.erase("bob", why="x")
        with pytest.raises(PayloadErased):
            other.handle("a").result(PATIENCE_S)
        assert other.start(greet, PLAIN, id="c", subject="bob").result(PATIENCE_S)
    assert not office.holds()


def test_a_provider_that_does_not_tell_is_asked_again_in_time(office: Office) -> None:
    """Given a key store of somebody's own, what was erased there is read for `max_age_s` more and no longer."""
    now = [0.0]
    keys = PayloadKeys(Flaky(office.keys()), max_age_s=20)
    privacy = Privacy(keys, clock=lambda: now[0])
    ring = privacy.started_with("a", "bob")
    assert ring is not None
    text = privacy.protect('"x"', ring, "result", "a")
    office.keys().erase("subject:bob", 1, "ops", "gone")
    now[0] = KEEP_NAMES_S
    assert privacy.started_with("b", "bob") != ring
    now[0] = 19.9
    assert privacy.reveal(text, "result") == '"x"'
    now[0] = 20
    with pytest.raises(PayloadErased):
        privacy.reveal(text, "result")


def test_a_directory_of_keys_tells_at_once_and_when_it_is_away_what_is_kept_is_used(
    office: Office,
) -> None:
    """Given keys in a directory, a new key, an erased one and one that is gone are seen at the next use."""
    directory = office.keys()
    privacy = Privacy(PayloadKeys(directory))
    ring = privacy.started_with("a", "bob")
    assert ring is not None
    text = privacy.protect('"x"', ring, "result", "a")
    office.keys().rotate("subject:bob")
    assert privacy.protect('"x"', ring, "result", "a").startswith(f"enc:1:{ring}.2:")
    (path,) = (office.place / "keys").glob(f"*/{ring}.json")
    path.rename(path.with_suffix(".away"))
    with pytest.raises(KeyMissing):
        privacy.reveal(text, "result")
    path.with_suffix(".away").rename(path)
    assert privacy.reveal(text, "result") == '"x"'
    office.keys().erase("subject:bob", 1, "ops", "gone")
    with pytest.raises(PayloadErased):
        privacy.reveal(text, "result")


@pytest.mark.parametrize("text", ["0", "-1", "soon", "inf", "nan"])
def test_a_time_for_which_keys_are_used_from_memory_is_some_seconds(text: str) -> None:
    assert (
        open_keys("file:///k?max_age=2.5", {"REFOLD_MASTER_KEY": "A" * 43 + "="}).max_age_s == 2.5
    )
    with pytest.raises(UsageError, match="max_age"):
        open_keys(f"file:///k?max_age={text}", {"REFOLD_MASTER_KEY": "A" * 43 + "="})


def test_a_worker_hears_of_an_erasure_from_the_log(office: Office) -> None:
    """Given a worker with the key in memory and a store that does not tell, the partition that it takes over does."""
    keys = PayloadKeys(Flaky(office.keys()), max_age_s=1e9)
    with office.engine(greet, keys=keys) as later:
        until(lambda: len(owners(office)) == 2)
        first = owners(office)
        with office.engine(greet) as engine:
            until(lambda: owners(office) != first)
            mine = next(p for p, owner in owners(office).items() if owner != first[p])
            id_ = next(id_ for id_ in map(str, range(99)) if partition_of(id_, 2) == mine)
            engine.start(greet, PLAIN, id=id_, subject="bob").result(PATIENCE_S)
            assert later.handle(id_).result(PATIENCE_S)
            engine.erase("bob", why="x")

        def erased() -> bool:
            try:
                later.handle(id_).result(PATIENCE_S)
            except PayloadErased:
                return True
            return False

        until(erased)


# Pools --------------------------------------------------------------------------------------------------------


def test_a_subject_is_erased_in_the_partitions_of_pools_as_well(office: Office) -> None:
    """Given runs of a subject in a pool, ended and open, all are gone, and the open one is parked in its pool."""
    with (
        office.engine(advert, greet) as engine,
        office.engine(film, endless, worker=False, pools=["gpu"]) as studio,
    ):
        child = engine.start(advert, PLAIN, id="advert", subject="bob")
        assert child.result(PATIENCE_S) == f"{PLAIN} is known"
        # As a client of the pool's own code: the id says where it is.
        run = studio.start(endless, PLAIN, id="cut@gpu", subject="bob")
        until(lambda: "step.completed" in kinds(studio, run.id))
        assert not office.holds()
        with pytest.raises(CommandRefused, match="cut@gpu"):
            engine.erase("bob", why="x")
        erased = engine.erase("bob", why="ticket 9", force=True)
        assert (erased.runs, erased.parked, erased.unheard) == (3, ["cut@gpu"], [])
        with pytest.raises(WorkflowParked, match=r"erased.*ticket 9"):
            run.result(PATIENCE_S)
        with pytest.raises(PayloadErased):
            child.result(PATIENCE_S)
        run.terminate()
    assert {event.partition >= 2 for event in erasures(office)} == {False, True}
    assert office.chains_hold()
    assert not office.holds()


# Deaths -------------------------------------------------------------------------------------------------------

KILLED_BETWEEN = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from private_office import Flaky, Office
from log_backend import SqliteBackend
from pathlib import Path

class Deadly(Flaky):
    def erase(self, name, at, by, why):
        erased = super().erase(name, at, by, why)
        if name.startswith("workflow:"):
            os.kill(os.getpid(), signal.SIGKILL)
        return erased

place = Path(sys.argv[2])
office = Office(SqliteBackend(place, (("gpu", 2),)), place)
with office.engine(worker=False, keys=Deadly(office.keys())) as engine:
    engine.erase("bob", why="first try", force=True)
"""


def test_who_erases_is_killed_when_the_keys_are_destroyed_and_nobody_was_told(
    tmp_path: Path,
) -> None:
    """Given a process that is killed with kill -9 between the keys and the record of it, nothing can be read from then
    on, also by a worker that takes over meanwhile; and the next tries have it recorded."""
    office = Office(SqliteBackend(tmp_path, POOLS), tmp_path)
    with office.engine(greet, waiting) as engine:
        engine.start(greet, PLAIN, id="ended", subject="bob").result(PATIENCE_S)
        engine.start(waiting, PLAIN, id="open", subject="bob")
        until(lambda: "step.completed" in kinds(engine, "open"))
        done = subprocess.run(
            [sys.executable, "-c", KILLED_BETWEEN, str(TOOLS), str(tmp_path)],
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not erasures(office)
        with pytest.raises(PayloadErased):
            engine.handle("ended").result(PATIENCE_S)
    with office.engine(greet, waiting) as engine:  # recovers with no keys
        with pytest.raises(WorkflowParked, match=r"erased.*first try"):
            engine.handle("open").result(PATIENCE_S)
        engine.erase("bob", why="second try", force=True)
        engine.erase("bob", why="third try", force=True)
        engine.handle("open").terminate()
    assert {json.loads(event.payload)["reason"] for event in erasures(office)} == {
        "second try",
        "third try",
    }
    assert office.chains_hold()
    assert not office.holds()

"""Workers of pools, and those whose steps they carry out, killed and stopped at the worst moments."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from crash_audit import Journal
from crash_nursery import log_of
from crash_pools import FREEZE_AT_GRANT, Smithy, chain, forged, ordered
from engine_trial import until
from kafka_backend import KafkaBackend
from log_backend import PATIENCE_S
from refold import Engine, Handle, Status
from refold.log.events import Event, StepCompleted, Unreadable, WorkflowCompleted

PARTITIONS = 3
LINKS = 8
LOOK_EVERY_S = 0.2

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A namespace in a file and on a broker in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'log.db'}?partitions={PARTITIONS}"
    bootstrap: str = request.getfixturevalue("kafka_bootstrap")
    return f"kafka://{bootstrap}/{KafkaBackend(bootstrap, PARTITIONS).namespace}"


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def pooled_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A namespace with two partitions for the workflows of a pool, in a file and on a broker in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'log.db'}?partitions=2&pools=foundry:2"
    bootstrap: str = request.getfixturevalue("kafka_bootstrap")
    return f"kafka://{bootstrap}/{KafkaBackend(bootstrap, pools=(('foundry', 2),)).namespace}"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def begun(journal: Journal) -> int:
    journal.new()
    return len(journal.lines)


def is_stopped(process: "subprocess.Popen[bytes]") -> bool:
    state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "T"


def await_ends(client: Engine, *run_ids: str) -> None:
    """Wait until these runs have ended, by looks into the log: replies are lost with the owners that owe them."""

    def ended() -> bool:
        time.sleep(LOOK_EVERY_S)  # a look reads the whole log
        found = {info.workflow_id for info in client.list() if info.status is Status.COMPLETED}
        return found.issuperset(run_ids)

    until(ended)


def client_of(url: str) -> Engine:
    return Engine(log_of(url), worker=False, start_timeout_s=PATIENCE_S)


def test_a_dead_workers_step_goes_to_another(url: str, journal: Journal) -> None:
    """Given a worker of a pool that is killed in the midst of a step, another carries it out after the lease."""
    with Smithy(url, journal.path) as smithy, client_of(url) as client:
        smithy.start("owner")
        first = smithy.start("pool")
        run = client.start(forged, 7)
        until(lambda: begun(journal) == 1)
        smithy.start("pool")
        first.kill()
        smithy.open_gate()
        assert run.result(timeout_s=PATIENCE_S).value == 7
    until(lambda: begun(journal) == 2)
    assert {line.attempt for line in journal.lines} == {1}


def test_an_owners_death_costs_no_step(url: str, journal: Journal) -> None:
    """Given a run's worker that is killed while a pool is at its step, the next one records the pool's report."""
    with Smithy(url, journal.path) as smithy, client_of(url) as client:
        owner = smithy.start("owner")
        smithy.start("pool")
        run = client.start(forged, 7, id="f")
        until(lambda: begun(journal) == 1)
        owner.kill()
        smithy.start("owner")
        smithy.open_gate()
        await_ends(client, run.id)
    assert begun(journal) == 1


@pytest.mark.parametrize("is_let_go_on_early", [True, False])
def test_a_worker_stopped_at_its_grant_begins_nothing_that_is_recorded(
    url: str, journal: Journal, is_let_go_on_early: bool
) -> None:
    """Given a worker stopped between grant and begin, another does the step; woken up, the first leaves it alone.

    Woken up before its lease is over, it carries the step out itself.
    """
    with Smithy(url, journal.path) as smithy, client_of(url) as client:
        smithy.start("owner")
        smithy.open_gate()
        first = smithy.start(FREEZE_AT_GRANT)
        run = client.start(forged, 7, id="f")
        until(lambda: is_stopped(first))
        if not is_let_go_on_early:
            smithy.start("pool")
            assert run.result(timeout_s=PATIENCE_S).value == 7
        first.send_signal(signal.SIGCONT)
        assert run.result(timeout_s=PATIENCE_S).value == 7
        follow_up = client.start(forged, 8, id="g")
        assert follow_up.result(timeout_s=PATIENCE_S).value == 8
    begun(journal)
    ran_by = {line.workflow_id: line.pid for line in journal.lines}
    assert sorted(line.workflow_id for line in journal.lines) == ["f", "g"]
    assert (ran_by["f"] == first.pid) is is_let_go_on_early


def test_kills_under_load_lose_and_repeat_nothing_recorded(url: str, journal: Journal) -> None:
    """Given runs of many steps, owners and pools' workers killed at random, each run ends with what was recorded.

    No step begins once its outcome is recorded.
    """
    seed = int(os.environ.get("REFOLD_SEED", random.SystemRandom().getrandbits(32)))
    print(f"REFOLD_SEED={seed} brings the same kills back")
    chance = random.Random(seed)
    with Smithy(url, journal.path) as smithy, client_of(url) as client:
        living = {role: [smithy.start(role) for _ in range(2)] for role in ("owner", "pool")}
        runs: list[Handle[list[str]]] = [client.start(chain, LINKS) for _ in range(6)]
        for _ in range(4):
            goal = begun(journal) + 6
            until(lambda goal=goal: begun(journal) >= goal)  # type: ignore[misc]
            role = chance.choice(("owner", "pool"))
            victim = living[role].pop(0)
            living[role].append(smithy.start(role))
            victim.kill()
            # Unconfirmed: who asks a worker that dies would wait until it asks again.
            runs.extend(client.start(chain, LINKS, confirm=False) for _ in range(3))
        await_ends(client, *(run.id for run in runs))
        histories = {run.id: client.history(run.id) for run in runs}
    assert_as_recorded(journal, histories)


def test_kills_lose_no_child_of_a_pool(pooled_url: str, journal: Journal) -> None:
    """Given children in a pool of workflows, with their workers and their parents' killed, each ends as recorded."""
    seed = int(os.environ.get("REFOLD_SEED", random.SystemRandom().getrandbits(32)))
    print(f"REFOLD_SEED={seed} brings the same kills back")
    chance = random.Random(seed)
    with Smithy(pooled_url, journal.path) as smithy, client_of(pooled_url) as client:
        living = {role: [smithy.start(role) for _ in range(2)] for role in ("owner", "foundry")}
        runs: list[Handle[list[str]]] = [client.start(ordered, LINKS) for _ in range(6)]
        for _ in range(4):
            goal = begun(journal) + 6
            until(lambda goal=goal: begun(journal) >= goal)  # type: ignore[misc]
            role = chance.choice(("owner", "foundry"))
            victim = living[role].pop(0)
            living[role].append(smithy.start(role))
            victim.kill()
            # Unconfirmed: who asks a worker that dies would wait until it asks again.
            runs.extend(client.start(ordered, LINKS, confirm=False) for _ in range(3))
        await_ends(client, *(run.id for run in runs))
        children = {f"{run.id}/0@foundry": run for run in runs}
        histories = {child: client.history(child) for child in children}
        # By a client of its own: one that has waited since the start asks again only seconds after a reply was lost.
        with client_of(pooled_url) as asker:
            for child, run in children.items():
                end = histories[child][-1]
                assert isinstance(end, WorkflowCompleted)
                told = asker.handle(run.id, ordered).result(timeout_s=PATIENCE_S)
                assert told == json.loads(end.payload)
    assert_as_recorded(journal, histories)


def assert_as_recorded(
    journal: Journal, histories: Mapping[str, Sequence[Event | Unreadable]]
) -> None:
    """Each run of quick steps has returned what its steps recorded, and none began once its outcome was."""
    completed = {
        (run_id, event.step): event
        for run_id, events in histories.items()
        for event in events
        if isinstance(event, StepCompleted)
    }
    journal.new()
    for run_id, events in histories.items():
        end = events[-1]
        assert isinstance(end, WorkflowCompleted)
        tokens: list[str] = json.loads(end.payload)
        recorded = [completed[run_id, link].payload for link in range(LINKS)]
        assert all(token in payload for token, payload in zip(tokens, recorded, strict=True))
    late = [
        line
        for line in journal.lines
        if line.at_us > completed[line.workflow_id, line.step].recorded_at
    ]
    assert late == []
    assert {(line.workflow_id, line.step) for line in journal.lines} == set(completed)

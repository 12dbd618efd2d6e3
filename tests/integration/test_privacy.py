"""Encrypted payloads: never in the clear in any byte that is kept, and gone for good once their key is destroyed."""

import json
import re
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pytest

from engine_trial import append_raw, kinds, records, until, with_log
from kafka_backend import KafkaBackend
from log_backend import PATIENCE_S, MemoryBackend, SqliteBackend
from private_office import (
    LARGE,
    MASTER,
    PLAIN,
    Flaky,
    Office,
    everything,
    fail_with,
    greet,
    look_up,
    run_everything,
)
from refold import (
    CommandRefused,
    Personal,
    Retry,
    Status,
    UsageError,
    WorkflowConflict,
    WorkflowParked,
    continue_as_new,
    personal_fields,
    receive,
    run_step,
    step,
    stream,
    workflow,
)
from refold.engine.checkpoints import CheckpointSettings
from refold.engine.reader import read_partition
from refold.log.blob_garbage import collect, verify
from refold.log.blobs import blobs_of
from refold.log.codec import decode_event, encode_command, encode_event
from refold.log.commands import SendMessage
from refold.log.errors import KeysUnavailable, PayloadErased, PayloadError
from refold.log.events import CommandRefused as RefusedEvent
from refold.log.events import StepCompleted, SubjectErased, WorkflowCompleted
from refold.log.key_directory import DirectoryKeys
from refold.log.key_master import LocalMaster
from refold.log.keys import KEY_TAG, Erasure, PayloadKeys
from refold.log.partitioner import partition_of
from refold.log.protocol import Channel, Log


@pytest.fixture(params=["memory", "sqlite"])
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Office:
    """A fresh namespace, in memory and in a file in turn."""
    backend = MemoryBackend() if request.param == "memory" else SqliteBackend(tmp_path)
    return Office(backend, tmp_path)


@pytest.fixture(params=["memory", "sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def any_office(request: pytest.FixtureRequest, tmp_path: Path) -> Office:
    """A fresh namespace on each log in turn."""
    if request.param == "kafka":
        return Office(KafkaBackend(request.getfixturevalue("kafka_bootstrap")), tmp_path)
    backend = MemoryBackend() if request.param == "memory" else SqliteBackend(tmp_path)
    return Office(backend, tmp_path)


@workflow
async def failing(email: str) -> None:
    await fail_with(email)


@step(retry=Retry(attempts=1), on_exhausted="park")
async def used_up(email: str) -> None:
    raise LookupError(email)


@workflow
async def parking(email: str) -> None:
    await used_up(email)


@workflow
async def waiting(email: str) -> str:
    """Wait for news after a step."""
    await look_up(email)
    return f"{email} {await receive('news', str)}"


@workflow
async def turning(email: str, left: int) -> str:
    if left:
        continue_as_new(email, left - 1)
    return email


ALL = (everything, greet, failing, parking, waiting, turning)


def test_no_byte_that_is_kept_is_in_the_clear(any_office: Office) -> None:
    """Given a run whose input goes every way that a value can go, no record, blob or file has it; code reads it."""
    with any_office.engine(*ALL) as engine:
        assert run_everything(engine) == f"{PLAIN} {PLAIN} dear {PLAIN} {LARGE}"
        with pytest.raises(LookupError, match=PLAIN):
            engine.start(failing, PLAIN, subject="bob").result(PATIENCE_S)
        with pytest.raises(WorkflowParked, match=PLAIN):
            engine.start(parking, PLAIN, subject="bob").result(PATIENCE_S)
        assert engine.start(turning, PLAIN, 3, subject="bob").result(PATIENCE_S) == PLAIN
    assert not any_office.holds()
    with any_office.engine(*ALL, worker=False) as later:
        assert later.handle("run-1").result(PATIENCE_S).endswith(LARGE)


def test_an_erased_subject_is_gone_and_every_chain_holds(any_office: Office) -> None:
    """Given a subject that was erased, nobody reads it, it is said when and why, and the chains hold."""
    with any_office.engine(*ALL) as engine:
        run_everything(engine)
        engine.start(greet, "alice", id="alice-1", subject="alice").result(PATIENCE_S)
        before = kinds(engine, "run-1")
        erased = engine.erase("bob", why="ticket 7")
        assert (erased.parked, erased.unheard, erased.runs) == ([], [], 2)
        with pytest.raises(PayloadErased, match=r"run-1.*erased on 20.*ticket 7"):
            engine.handle("run-1").result(PATIENCE_S)
        assert engine.handle("alice-1").result(PATIENCE_S) == "dear alice"
        assert kinds(engine, "run-1") == before
        assert engine.status("run-1").status is Status.COMPLETED
    assert any_office.chains_hold()
    with any_office.engine(*ALL) as later:  # with no key in memory
        with pytest.raises(PayloadErased):
            later.handle("run-1").result(PATIENCE_S)
        with pytest.raises(PayloadErased):
            later.handle("run-1").value("problem")
        with pytest.raises(PayloadErased):
            list(later.handle("run-1").stream("mails"))


def test_erasing_is_an_event_with_who_when_and_why(office: Office) -> None:
    """Given a subject that was erased, each partition that has runs of it says so, and does not name the subject."""
    with office.engine(*ALL) as engine:
        engine.start(greet, PLAIN, id="a", subject="bob-the-subject").result(PATIENCE_S)
        keys = engine.erase("bob-the-subject", why="asked for").keys
    told = [event for event in _events(office) if isinstance(event, SubjectErased)]
    assert [json.loads(event.payload)["keys"] for event in told] == [keys]
    assert json.loads(told[0].payload)["reason"] == "asked for"
    assert json.loads(told[0].payload)["requested_by"]
    assert not office.holds("bob-the-subject")


def test_open_runs_hinder_an_erasure_unless_they_may_be_parked(office: Office) -> None:
    """Given an open run, its subject is not erased; by force it is, and the run is parked and says why."""
    with office.engine(*ALL) as engine:
        run = engine.start(waiting, PLAIN, id="open-1", subject="bob")
        until(lambda: "step.completed" in kinds(engine, "open-1"))
        with pytest.raises(CommandRefused, match="open-1"):
            engine.erase("bob", why="x")
        assert engine.status("open-1").status is Status.RUNNING
        assert engine.erase("bob", why="ticket 8", force=True).parked == ["open-1"]
        with pytest.raises(WorkflowParked, match=r"erased.*ticket 8"):
            run.result(PATIENCE_S)
        run.resume()
        with pytest.raises(WorkflowParked, match="was erased on"):
            run.result(PATIENCE_S)
        run.terminate()
    assert office.chains_hold()
    assert not office.holds()


def test_a_step_that_ends_after_its_subject_was_erased_is_recorded_empty(office: Office) -> None:
    """Given a step under way when its subject is erased, its end is recorded, and nothing of its result."""
    gate, begun = threading.Event(), threading.Event()

    @workflow
    async def slow(email: str) -> object:
        def work() -> str:
            begun.set()
            gate.wait(PATIENCE_S)
            return PLAIN

        return await run_step(work)

    with office.engine(slow) as engine:
        engine.start(slow, PLAIN, id="slow-1", subject="bob")
        assert begun.wait(PATIENCE_S)
        engine.erase("bob", why="now", force=True)
        gate.set()
        until(lambda: "step.completed" in kinds(engine, "slow-1"))
    ended = next(event for event in _events(office) if isinstance(event, StepCompleted))
    assert re.fullmatch(r"enc:1:[^:]*:[^:]*:-:", ended.payload)
    assert not office.holds()


def test_what_clients_sent_without_knowing_the_subject_is_erased_with_it(office: Office) -> None:
    """Given a message from a client that knows the run's id alone, it is encrypted, and erased as the rest."""
    with office.engine(*ALL) as engine:
        run = engine.start(waiting, PLAIN, id="w-1", subject="bob")
        with office.engine(worker=False) as other:
            other.handle("w-1").send("news", f"news of {PLAIN}")
        assert run.result(PATIENCE_S) == f"{PLAIN} news of {PLAIN}"
        assert not office.holds()
        assert len(engine.erase("bob", why="x").keys) == 2
        assert engine.erase("bob", why="again").keys  # the same ones: it is done
    names = office.keys().rings_of("workflow:w-1")
    assert [type(ring) for ring in names] == [Erasure]


def test_a_subject_that_comes_back_gets_new_keys(office: Office) -> None:
    with office.engine(*ALL) as engine:
        engine.start(greet, PLAIN, id="a", subject="bob").result(PATIENCE_S)
        engine.erase("bob", why="x")
        assert (
            engine.start(greet, PLAIN, id="b", subject="bob").result(PATIENCE_S) == f"dear {PLAIN}"
        )
        with pytest.raises(PayloadErased):
            engine.handle("a").result(PATIENCE_S)
        with pytest.raises(CommandRefused, match="no keys"):
            engine.erase("carol", why="x")


def test_the_same_start_gets_the_same_run_and_another_input_is_a_conflict(office: Office) -> None:
    """Given random nonces, inputs are compared all the same, small and large, open and ended, and after a rotation."""
    with office.engine(*ALL) as engine:
        for large in ("", LARGE):
            run = engine.start(everything, PLAIN, large, id=f"same-{len(large)}", subject="bob")
            office.keys().rotate("subject:bob")
            again = engine.start(everything, PLAIN, large, id=run.id, subject="bob")
            assert again.id == run.id
            for email, subject in (("other", "bob"), (PLAIN, "alice"), (PLAIN, None)):
                with pytest.raises(WorkflowConflict):
                    engine.start(everything, email, large, id=run.id, subject=subject)
            run.terminate()
            engine.start(everything, PLAIN, large, id=run.id, subject="bob")


def test_the_worker_after_a_rotation_reads_what_was_before(office: Office) -> None:
    """Given a run under way, a new data key and a new master key: it goes on, and what is new takes the new key."""
    with office.engine(*ALL) as engine:
        engine.start(waiting, PLAIN, id="w-1", subject="bob")
        until(lambda: "step.completed" in kinds(engine, "w-1"))
    office.keys().rotate("subject:bob")
    new = bytes(32)
    both = DirectoryKeys(office.place / "keys", LocalMaster([new, MASTER]))
    assert list(both.rewrap()) == [True]
    keys = office.keys(new)  # the former master key is not needed any more
    with office.engine(*ALL, keys=keys) as engine:
        run = engine.start(waiting, PLAIN, id="w-1", subject="bob")
        run.send("news", "n")
        assert run.result(PATIENCE_S) == f"{PLAIN} n"
        ring = engine.status("w-1").attributes[KEY_TAG]
        used = {
            getattr(event, "payload", "").partition(":1:")[2][:26]
            for event in engine.history("w-1")
        }
        assert {f"{ring}.1", f"{ring}.2"} <= used
    assert not office.holds()


@pytest.mark.parametrize("keys", ["none", "others", "wrong master"])
def test_a_worker_without_the_right_keys_parks_the_run_and_says_what_is_missing(
    office: Office, keys: str
) -> None:
    """Given a worker with no keys, or other ones: the run waits for a person; with the right ones it goes on."""
    with office.engine(*ALL) as engine:
        engine.start(waiting, PLAIN, id="w-1", subject="bob")
        until(lambda: "step.completed" in kinds(engine, "w-1"))
    given: dict[str, DirectoryKeys | None] = {
        "none": None,
        "others": DirectoryKeys(office.place / "others", LocalMaster([MASTER])),
        "wrong master": office.keys(bytes(32)),
    }
    with (
        office.engine(*ALL, keys=given[keys]) as engine,
        pytest.raises(WorkflowParked, match="key"),
    ):
        engine.handle("w-1").result(PATIENCE_S)
    with office.engine(*ALL) as engine:
        run = engine.handle("w-1")
        run.resume()
        run.send("news", "n")
        assert run.result(PATIENCE_S) == f"{PLAIN} n"
    assert not office.holds()


def test_nothing_is_parked_because_the_key_store_is_away_for_a_while(office: Office) -> None:
    """Given a key store that can't be reached, a client is told so, and a run waits until it is back."""
    with office.engine(*ALL) as engine:
        engine.start(waiting, PLAIN, id="w-1", subject="bob")
        until(lambda: "step.completed" in kinds(engine, "w-1"))
    keys = Flaky(office.keys())
    keys.away = True
    with office.engine(*ALL, keys=keys) as engine:
        with pytest.raises(KeysUnavailable):
            engine.start(greet, PLAIN, subject="carol")
        until(lambda: keys.asked > 3)
        assert engine.status("w-1").status is Status.RUNNING
        keys.away = False
        run = engine.handle("w-1")
        run.send("news", "n")
        assert run.result(PATIENCE_S) == f"{PLAIN} n"
        keys.away = True  # what is known is used meanwhile
        assert run.result(PATIENCE_S) == f"{PLAIN} n"


def test_a_payload_can_not_be_had_read_by_sending_it_to_another_workflow(office: Office) -> None:
    """Given somebody who may write commands and has no key, what they copy from the log is refused."""
    with office.engine(*ALL) as engine:
        engine.start(greet, PLAIN, id="a", subject="bob").result(PATIENCE_S)
        engine.start(waiting, "mallory", id="w-1")
        stolen = next(e.payload for e in _events(office) if isinstance(e, WorkflowCompleted))
        forged = SendMessage(
            command_id="x",
            workflow_id="w-1",
            reply_to=None,
            requested_at=0,
            name="news",
            payload=stolen,
            message_id="m",
        )
        append_raw(office.backend, Channel.COMMANDS, "w-1", [encode_command(forged)])
        until(lambda: any(isinstance(event, RefusedEvent) for event in _events(office)))
        assert engine.status("w-1").status is Status.RUNNING


def test_steps_of_pools_get_and_give_what_is_encrypted(office: Office) -> None:
    """Given a step that another process carries out, neither what it is given nor what it gives is in the clear."""

    @step(pool="desk")
    async def desk_work(email: str) -> str:
        stream("mails").write(email)
        return f"done for {email}"

    @step(pool="desk")
    async def desk_failure(email: str) -> None:
        raise LookupError(email)

    @workflow
    async def delegating(email: str) -> str:
        done = await desk_work(email)
        try:
            await desk_failure(email)
        except LookupError as error:
            return f"{done}, {error}"
        return done

    with office.engine(delegating) as engine, office.engine(worker=False, pools=["desk"]):
        run = engine.start(delegating, PLAIN, id="p-1", subject="bob")
        assert run.result(PATIENCE_S) == f"done for {PLAIN}, {PLAIN}"
        assert list(run.stream("mails")) == [PLAIN]
    assert not office.holds()


def test_a_fork_and_a_rewound_run_stay_encrypted(office: Office) -> None:
    """Given a run that is forked and one that is reopened, their histories are copied as they are, and readable."""
    with office.engine(*ALL) as engine:
        run = engine.start(waiting, PLAIN, id="w-1", subject="bob")
        run.send("news", PLAIN)
        assert run.result(PATIENCE_S) == f"{PLAIN} {PLAIN}"
        assert run.fork(id="w-2").result(PATIENCE_S) == f"{PLAIN} {PLAIN}"
        run.rewind(0)
        assert run.result(PATIENCE_S) == f"{PLAIN} {PLAIN}"
        engine.erase("bob", why="x")
        with pytest.raises(PayloadErased):
            engine.handle("w-2").result(PATIENCE_S)
    assert not office.holds()


def test_checkpoints_hold_what_is_encrypted_as_it_is(office: Office) -> None:
    """Given checkpoints at every turn, a worker that recovers from one goes on, and nothing is in the clear."""
    often = CheckpointSettings(min_bytes=1)
    with office.engine(*ALL, checkpoints=often) as engine:
        for number in range(5):
            engine.start(waiting, PLAIN, id=f"w-{number}", subject=f"bob-{number}")
        until(lambda: any(event.kind == "checkpoint.completed" for event in _events(office)))
    with office.engine(*ALL, checkpoints=often) as engine:
        for number in range(5):
            engine.handle(f"w-{number}").send("news", "n")
            assert engine.handle(f"w-{number}").result(PATIENCE_S) == f"{PLAIN} n"
    assert not office.holds()


def test_all_runs_are_encrypted_where_that_is_asked_for(office: Office) -> None:
    """Given encrypt by workflow, a run without a subject has keys of its own, which can be destroyed alone."""
    keys = PayloadKeys(office.keys(), scope="workflow")
    with office.engine(*ALL, keys=keys) as engine:
        assert engine.start(greet, PLAIN, id="own-1").result(PATIENCE_S) == f"dear {PLAIN}"
        assert KEY_TAG in engine.status("own-1").attributes
        assert engine.erase(workflow_id="own-1", why="x").runs == 1
    with office.engine(worker=False, keys=keys) as later, pytest.raises(PayloadErased):
        later.handle("own-1").result(PATIENCE_S)
    assert not office.holds()


def test_named_fields_are_encrypted_and_the_rest_stays_readable(office: Office) -> None:
    """Given rules that name fields, columns of analytics stay JSON with all but those, and code sees whole values."""

    @workflow
    async def shop(order: dict[str, Any]) -> dict[str, Any]:
        return {"total": order["total"], "lines": [{"customer": {"name": PLAIN}, "n": 2}]}

    keys = PayloadKeys(office.keys(), fields=("email", "customer.name"))
    order = {"total": 12, "email": PLAIN, "name": "not personal", "nested": {"email": None}}
    with office.engine(shop, keys=keys) as engine:
        run = engine.start(shop, order, id="o-1", subject="bob")
        assert engine.start(shop, order, id="o-1", subject="bob").id == "o-1"
        with pytest.raises(WorkflowConflict):
            engine.start(shop, {**order, "email": "other"}, id="o-1", subject="bob")
        assert run.result(PATIENCE_S) == {
            "total": 12,
            "lines": [{"customer": {"name": PLAIN}, "n": 2}],
        }
        started, completed = (
            json.loads(getattr(event, "payload", "")) for event in engine.history("o-1")
        )
        assert started["order"]["total"] == 12
        assert started["order"]["name"] == "not personal"
        assert (
            set(started["order"]["email"]) == set(started["order"]["nested"]["email"]) == {"$enc"}
        )
        assert completed["lines"][0]["n"] == 2
        assert not office.holds()
        engine.erase("bob", why="x")
        with pytest.raises(PayloadErased):
            run.result(PATIENCE_S)


def test_an_envelope_that_was_altered_in_the_log_parks_its_run(office: Office) -> None:
    """Given a step's result that somebody with the right to write events has altered, it is not read as anything."""
    with office.engine(*ALL) as engine:
        engine.start(waiting, PLAIN, id="w-1", subject="bob")
        until(lambda: "step.completed" in kinds(engine, "w-1"))
    state = with_log(office.backend, lambda log: read_partition(log, partition_of("w-1", 2)))
    done = next(event for event in _events(office) if isinstance(event, StepCompleted))
    head, _, body = done.payload.rpartition(":")
    forged = replace(
        done, position=2, step=1, payload=f"{head}:{'A' if body[0] != 'A' else 'B'}{body[1:]}"
    )
    entry, _ = encode_event(forged, state.chain)
    append_raw(office.backend, Channel.EVENTS, "w-1", [entry])
    with office.engine(*ALL, threshold=5_000) as engine:
        run = engine.handle("w-1")
        run.send("news", "n")  # wakes it
        with pytest.raises(WorkflowParked):
            run.result(PATIENCE_S)


def test_an_erasure_that_was_interrupted_is_gone_on_with(office: Office) -> None:
    """Given a process that died after the first of two keys was destroyed, the next try goes on."""
    with office.engine(*ALL) as engine:
        run = engine.start(waiting, PLAIN, id="w-1", subject="bob")
        with office.engine(worker=False) as other:
            other.handle("w-1").send("news", PLAIN)
        run.result(PATIENCE_S)
    office.keys().erase("subject:bob", 1, "ops", "first try")
    with office.engine(*ALL) as engine:
        assert len(engine.erase("bob", why="second try").keys) == 2
    (ring,) = office.keys().rings_of("workflow:w-1")
    assert isinstance(ring, Erasure)
    assert [event.kind for event in _events(office)].count("subject.erased") == 1


def test_large_encrypted_payloads_are_known_to_the_collector_and_the_check(office: Office) -> None:
    """Given a large payload that is encrypted, its blob is named by the log: it is kept, and verified."""
    with office.engine(*ALL) as engine:
        run_everything(engine)

    async def look(log: Log) -> tuple[int, int, int]:
        store = blobs_of(log)
        assert store is not None
        verified = await verify(log, store)
        collected = await collect([log], store, grace_s=3_600, now=time.time() + 4_000)
        return verified.named, len(verified.damages), collected.deleted

    named, damages, deleted = with_log(office.backend, look)
    assert named >= 3  # of the start's command, its event, and a step's result
    assert damages == 0
    with office.engine(worker=False) as engine:
        assert engine.handle("run-1").result(PATIENCE_S).endswith(LARGE)
    assert deleted <= 2  # what a client had put for commands that came twice


@dataclass
class Contact:
    """A person's."""

    email: Annotated[str, Personal()]
    city: str


def test_fields_are_marked_in_types() -> None:
    """Given types with fields that are marked, also within others, their names are found."""

    @dataclass
    class Order:
        contacts: list[Contact]
        phone: Annotated[str, Personal()] | None = None
        total: int = 0

    assert personal_fields(Order) == ("email", "phone")
    with pytest.raises(UsageError, match="Personal"):
        personal_fields(int)


def test_without_keys_a_subject_is_refused_and_nothing_else_changes(office: Office) -> None:
    with office.engine(*ALL, keys=None) as engine:
        with pytest.raises(UsageError, match="REFOLD_KEYS"):
            engine.start(greet, "x", subject="bob")
        with pytest.raises(UsageError, match="no keys"):
            engine.erase("bob", why="x")
        with pytest.raises(PayloadError, match="refold"):
            engine.start(greet, "x", attributes={KEY_TAG: "k"})
        assert engine.start(greet, "x").result(PATIENCE_S) == "dear x"


def _events(office: Office) -> list[Any]:
    return [decode_event(record) for record in records(office.backend)]

"""Queues in whole engines: no more runs at once than the limit, whichever worker has them."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from engine_trial import engine_on, kinds, until
from log_backend import PATIENCE_S, LogBackend
from refold import (
    DefinitionError,
    Engine,
    Runs,
    Status,
    UnknownQueue,
    UsageError,
    WorkflowCancelled,
    WorkflowNotFound,
    now,
    receive,
    run_child,
    step,
    workflow,
)


class Room:
    """Where steps are counted that are in it at once, until its door is open."""

    def __init__(self) -> None:
        self.door = threading.Event()
        self.ran: list[str] = []
        self.inside = self.most = 0
        self._lock = threading.Lock()

    def visit(self, who: str) -> None:
        with self._lock:
            self.ran.append(who)
            self.inside += 1
            self.most = max(self.most, self.inside)
        assert self.door.wait(PATIENCE_S)
        with self._lock:
            self.inside -= 1


ROOMS: list[Room] = []


@pytest.fixture(autouse=True)
def room() -> Iterator[Room]:
    """A room whose door is shut."""
    made = Room()
    ROOMS.append(made)
    yield made
    ROOMS.pop().door.set()


@step
def visit(who: str) -> str:
    ROOMS[-1].visit(who)
    return who


@workflow
def visiting(who: str) -> str:
    return visit(who)


@workflow(queue="narrow")
async def hearing() -> list[str]:
    return [await receive("said", str), now().isoformat()]


@workflow
async def hosting() -> str:
    return await run_child(visiting, "child", queue="narrow")


def test_no_more_run_at_once_than_the_limit(any_backend: LogBackend, room: Room) -> None:
    """Given a queue of two and two workers that share its runs, two run at a time, and in the end all have."""
    with engine_on(any_backend, visiting) as one, engine_on(any_backend, visiting) as other:
        one.set_queue("narrow", concurrency=2, reason="two chairs")
        started = [
            one.start(visiting, f"guest-{n}", id=f"guest-{n}", queue="narrow") for n in range(8)
        ]
        until(lambda: one.queue("narrow").running == 2 and room.inside == 2)
        assert one.queue("narrow").waiting == 6
        assert other.status("guest-7").status in {Status.QUEUED, Status.RUNNING}
        room.door.set()
        assert [run.result(PATIENCE_S) for run in started] == [f"guest-{n}" for n in range(8)]
        until(lambda: other.queue("narrow").running == 0)
    assert room.most <= 2
    assert sorted(room.ran) == [f"guest-{n}" for n in range(8)]


def test_a_higher_limit_lets_waiting_runs_go(backend: LogBackend, room: Room) -> None:
    """Given runs that wait, raising the limit lets them go while the first one still runs; who waits is listed."""
    with engine_on(backend, visiting) as engine:
        engine.set_queue("narrow", concurrency=1)
        started = [engine.start(visiting, f"{n}", id=f"run-{n}", queue="narrow") for n in range(3)]
        until(lambda: room.inside == 1)
        queued = engine.list(Runs(status=Status.QUEUED, queue="narrow"))
        assert len(queued) == 2
        engine.set_queue("narrow", concurrency=3)
        until(lambda: room.inside == 3)
        room.door.set()
        assert [run.result(PATIENCE_S) for run in started] == ["0", "1", "2"]
        assert {info.queue for info in engine.list()} == {"narrow"}


def test_one_that_is_cancelled_in_the_queue_never_runs(backend: LogBackend, room: Room) -> None:
    """Given a run that waits, to cancel it ends it: no code of it has run, and those after it go on."""
    with engine_on(backend, visiting) as engine:
        engine.set_queue("narrow", concurrency=1)
        first = engine.start(visiting, "first", id="first", queue="narrow")
        until(lambda: room.inside == 1)
        unwanted = engine.start(visiting, "unwanted", id="unwanted", queue="narrow")
        last = engine.start(visiting, "last", id="last", queue="narrow")
        unwanted.cancel("not any more")
        with pytest.raises(WorkflowCancelled, match="not any more"):
            unwanted.result(PATIENCE_S)
        room.door.set()
        assert (first.result(PATIENCE_S), last.result(PATIENCE_S)) == ("first", "last")
        ended = ["workflow.started", "workflow.cancel_requested", "workflow.cancelled"]
        assert kinds(engine, "unwanted") == ended
    assert room.ran == ["first", "last"]


def test_a_run_waits_on_when_workers_come_and_go(backend: LogBackend, room: Room) -> None:
    """Given runs that wait when the only worker is gone, the next one goes on with the queue as it stood."""
    with engine_on(backend, visiting) as engine:
        engine.set_queue("narrow", concurrency=1)
        engine.start(visiting, "held", id="held", queue="narrow")
        until(lambda: room.inside == 1)
        engine.start(visiting, "next", id="next", queue="narrow")
        room.door.set()
    with engine_on(backend, visiting) as engine:
        assert engine.handle("held", visiting).result(PATIENCE_S) == "held"
        assert engine.handle("next", visiting).result(PATIENCE_S) == "next"
        until(lambda: engine.queue("narrow").running == 0)


def test_what_comes_for_a_run_while_it_waits_is_kept(backend: LogBackend) -> None:
    """Given a workflow with a queue of its own, a message that comes before its turn is received in it; its clock
    begins with its turn.
    """
    with engine_on(backend, hearing) as engine:
        engine.set_queue("narrow", concurrency=1)
        first = engine.start(hearing, id="first")
        until(lambda: engine.status("first").status is Status.RUNNING)
        second = engine.start(hearing, id="second")
        second.send("said", "early")
        assert engine.status("second").status is Status.QUEUED
        first.send("said", "go")
        heard, at = second.result(PATIENCE_S)
        assert heard == "early"
        first_ended = engine.status("first").updated_at
        assert at >= first_ended.isoformat()


def test_children_wait_in_queues(backend: LogBackend, room: Room) -> None:
    """Given a child that is started in a queue, its parent waits until it had its turn."""
    room.door.set()
    with engine_on(backend, visiting, hosting) as engine:
        engine.set_queue("narrow", concurrency=1)
        assert engine.start(hosting, id="host").result(PATIENCE_S) == "child"
        assert engine.status("host/0").queue == "narrow"


def test_a_queue_that_nobody_has_set_is_refused(backend: LogBackend) -> None:
    """Given a misspelt queue, the start says so and nothing is started; so does a question about it."""
    with engine_on(backend, visiting) as engine:
        with pytest.raises(UnknownQueue, match="refold queue set narow"):
            engine.start(visiting, "x", id="x", queue="narow")
        with pytest.raises(WorkflowNotFound):
            engine.status("x")
        with pytest.raises(UnknownQueue, match="narow"):
            engine.queue("narow")


def test_what_is_no_limit_is_refused(backend: LogBackend) -> None:
    """Given a limit or a name that can't be one, the error says what can, and no queue is made."""
    with ExitStack() as stack:
        engine = stack.enter_context(engine_on(backend, visiting))
        for concurrency in (0, -3, 1.5, True):
            with pytest.raises(UsageError, match="no limit of a queue"):
                engine.set_queue("narrow", concurrency=concurrency)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="must not be empty"):
            engine.set_queue("", concurrency=1)
        with pytest.raises(UnknownQueue):
            engine.queue("narrow")


def test_a_queue_s_name_is_checked_where_it_is_written() -> None:
    """Given a workflow whose queue can't have that name, declaring it says so."""
    with pytest.raises((DefinitionError, UsageError), match="queue"):
        workflow(queue="")(lambda: None)


def test_a_client_alone_sets_and_looks(sqlite_backend: LogBackend) -> None:
    """Given a client beside a worker, it sets a queue and hears how it stands."""
    with engine_on(sqlite_backend, visiting), engine_on(sqlite_backend, worker=False) as client:
        _sets(client)


def _sets(client: Engine) -> None:
    client.set_queue("narrow", concurrency=4)
    info = client.queue("narrow")
    assert (info.concurrency, info.running, info.waiting) == (4, 0, 0)

"""Orders to one run: cancel, terminate, pause, resume, rewind; on runs that are open and on runs that have ended."""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine_trial import engine_on, fold_digests, kinds, until, written
from log_backend import PATIENCE_S, LogBackend
from refold import (
    CommandRefused,
    Engine,
    Handle,
    ResultTimeout,
    Status,
    UsageError,
    WorkflowCancelled,
    WorkflowEnded,
    WorkflowNotFound,
    WorkflowParked,
    WorkflowTerminated,
    publish,
    receive,
    receive_sync,
    set_attributes,
    sleep,
    start_child,
    step,
    stream,
    workflow,
)
from refold.engine.client import Client
from refold.engine.operator import Operator
from refold.engine.worker import wall_clock
from refold.log.commands import CopyHistory, SendMessage
from refold.log.events import (
    StepCompleted,
    StepFailed,
    WorkflowCancelRequested,
    WorkflowReopened,
    WorkflowRewound,
)
from refold.log.events import WorkflowTerminated as TerminatedEvent

RAN: list[str] = []
BROKEN = threading.Event()


@pytest.fixture(autouse=True)
def afresh() -> None:
    """Nothing has run, and nothing is broken."""
    RAN.clear()
    BROKEN.clear()


@step
def note(what: str) -> str:
    RAN.append(what)
    return what


@step
def fragile() -> str:
    RAN.append("fragile")
    if BROKEN.is_set():
        raise OSError("the line is down")
    return "whole"


@workflow
async def waits() -> str:
    """Waits for a message after a step; cleans up when it is cancelled."""
    await note.aio("begin")
    try:
        text = await receive("in", str)
    except asyncio.CancelledError:
        await note.aio("clean up")
        raise
    return text + await note.aio("end")


@workflow
def waits_in_a_thread() -> str:
    note("begin")
    try:
        text = receive_sync("in", str)
    except WorkflowCancelled:
        note("clean up")
        raise
    return text + note("end")


@workflow
async def three_steps() -> str:
    return await note.aio("one") + await fragile.aio() + await note.aio("three")


@workflow
async def two_then_waits() -> str:
    first, second = await note.aio("one"), await note.aio("two")
    return first + second + await receive("in", str)


both = pytest.mark.parametrize("waiting", [waits, waits_in_a_thread])


class TestCancel:
    @both
    def test_the_code_hears_of_it_and_cleans_up(
        self, any_backend: LogBackend, waiting: Any
    ) -> None:
        """Given a run that waits, cancelling lets it run a step to clean up; its result says who asked, and why."""
        with engine_on(any_backend, waiting) as engine:
            handle = engine.start(waiting, id="c")
            until(lambda: "step.completed" in kinds(engine, "c"))
            handle.cancel("no longer needed")
            with pytest.raises(WorkflowCancelled, match=r"'c'.*no longer needed"):
                handle.result()
            assert handle.status().status is Status.CANCELLED
            asked = [e for e in engine.history("c") if isinstance(e, WorkflowCancelRequested)]
            assert json.loads(asked[0].payload)["reason"] == "no longer needed"
        assert RAN == ["begin", "clean up"]

    def test_a_run_that_has_ended_is_not_cancelled(self, backend: LogBackend) -> None:
        """Given a run that has ended, or is not there, cancelling says so."""
        with engine_on(backend, three_steps) as engine:
            handle = engine.start(three_steps, id="t")
            handle.result()
            with pytest.raises(WorkflowEnded, match="'t' has ended"):
                handle.cancel()
            with pytest.raises(WorkflowNotFound, match="'nobody'"):
                engine.handle("nobody").cancel()
            assert handle.result() == "onewholethree"

    def test_a_deadline_cancels(self, backend: LogBackend) -> None:
        """Given a run with a deadline a moment away, it is cancelled then, and the result says so."""
        with engine_on(backend, waits) as engine:
            handle = engine.start(waits, deadline=timedelta(milliseconds=20))
            with pytest.raises(WorkflowCancelled, match="deadline"):
                handle.result()


class TestTerminate:
    def test_the_code_is_not_asked(self, any_backend: LogBackend) -> None:
        """Given a run that would clean up, terminating ends it at once, with who and why recorded."""
        with engine_on(any_backend, waits) as engine:
            handle = engine.start(waits, id="t")
            until(lambda: "step.completed" in kinds(engine, "t"))
            handle.terminate("out of control")
            with pytest.raises(WorkflowTerminated, match=r"'t' was terminated.*out of control"):
                handle.result()
            last = engine.history("t")[-1]
            assert isinstance(last, TerminatedEvent)
            assert json.loads(last.payload)["reason"] == "out of control"
            with pytest.raises(WorkflowEnded):
                handle.terminate()
        assert RAN == ["begin"]

    def test_a_parked_run_can_be_terminated(self, backend: LogBackend) -> None:
        """Given a run that is stuck, it is parked and can be ended for good."""

        @workflow
        async def stuck() -> None:
            await asyncio.get_running_loop().create_future()

        with engine_on(backend, stuck) as engine:
            handle = engine.start(stuck)
            with pytest.raises(WorkflowParked):
                handle.result()
            handle.terminate()
            with pytest.raises(WorkflowTerminated):
                handle.result()


class TestPause:
    @both
    def test_nothing_goes_on_until_it_is_resumed(
        self, any_backend: LogBackend, waiting: Any
    ) -> None:
        """Given a paused run, what it waits for comes and it stays as it is; resumed, it ends."""
        with engine_on(any_backend, waiting) as engine:
            handle = engine.start(waiting, id="p")
            until(lambda: "step.completed" in kinds(engine, "p"))
            handle.pause("let me look")
            handle.send("in", "news ")
            assert handle.status().status is Status.PAUSED
            with pytest.raises(ResultTimeout):
                handle.result(timeout_s=0.01)
            with pytest.raises(CommandRefused, match="'p' is paused"):
                handle.pause()
            handle.resume()
            assert handle.result() == "news end"
        assert RAN == ["begin", "end"]

    def test_it_stays_paused_in_the_next_life(self, backend: LogBackend) -> None:
        """Given a paused run, a new worker leaves it alone until it is resumed."""
        with engine_on(backend, waits) as engine:
            engine.start(waits, id="p").pause()
        with engine_on(backend, waits) as engine:
            handle = engine.handle("p", waits)
            handle.send("in", "x")
            assert handle.status().status is Status.PAUSED
            handle.resume()
            assert handle.result() == "xend"


class TestResume:
    def test_a_failed_run_goes_on_from_its_failed_step(self, any_backend: LogBackend) -> None:
        """Given a run whose second step failed, resuming does that step again and the third; the first is replayed."""
        BROKEN.set()
        with engine_on(any_backend, three_steps) as engine:
            handle = engine.start(three_steps, id="r")
            with pytest.raises(OSError, match="down"):
                handle.result()
            BROKEN.clear()
            handle.resume("the line is back")
            assert handle.result() == "onewholethree"
            assert RAN == ["one", "fragile", "fragile", "three"]
            events = engine.history("r")
            reopened = next(e for e in events if isinstance(e, WorkflowReopened))
            assert (reopened.step, json.loads(reopened.detail)["reason"]) == (1, "the line is back")
            assert handle.status().status is Status.COMPLETED
        with engine_on(any_backend, three_steps) as engine:
            assert engine.start(three_steps, id="r").result() == "onewholethree"
        assert RAN == ["one", "fragile", "fragile", "three"]
        assert fold_digests(any_backend) == fold_digests(any_backend)

    def test_a_run_that_fails_again_can_be_resumed_again(self, backend: LogBackend) -> None:
        """Given a resumed run that fails as before, its handle hears of it anew, and the next resume counts."""
        BROKEN.set()
        with engine_on(backend, three_steps) as engine:
            handle = engine.start(three_steps, id="r")
            for _ in range(3):
                with pytest.raises(OSError, match="down"):
                    handle.result()
                handle.resume()
            with pytest.raises(OSError, match="down"):
                handle.result()
            BROKEN.clear()
            handle.resume()
            assert handle.result() == "onewholethree"
            steps = [
                event.step
                for event in engine.history("r")
                if isinstance(event, StepCompleted | StepFailed)
            ]
            assert len(set(steps)) == len(steps)  # no number is used twice

    def test_a_terminated_run_goes_on(self, backend: LogBackend) -> None:
        """Given a run that was terminated while it waited, resuming it replays its step and waits again."""
        with engine_on(backend, waits) as engine:
            handle = engine.start(waits, id="t")
            until(lambda: "step.completed" in kinds(engine, "t"))
            handle.terminate()
            handle.resume()
            handle.send("in", "back ")
            assert handle.result() == "back end"
        assert RAN == ["begin", "end"]

    def test_a_run_that_its_deadline_ended_goes_on_without_it(self, backend: LogBackend) -> None:
        """Given a run that its deadline has cancelled, resuming it does not have it cancelled again."""

        @workflow
        async def patient() -> str:
            return await receive("in", str)

        with engine_on(backend, patient) as engine:
            handle = engine.start(patient, id="d", deadline=timedelta(milliseconds=5))
            with pytest.raises(WorkflowCancelled):
                handle.result()
            handle.resume()
            handle.send("in", "in time")
            assert handle.result() == "in time"

    def test_it_keeps_what_it_has_shown_and_what_was_sent(self, backend: LogBackend) -> None:
        """Given a failed run with a value, tags, a stream and a message not taken yet, resumed it has them all."""

        @workflow
        async def rich() -> str:
            publish("state", "begun")
            set_attributes({"customer": "c-1"})
            stream("log").write("one")
            await fragile.aio()
            stream("log").write("two")
            return await receive("in", str)

        BROKEN.set()
        with engine_on(backend, rich) as engine:
            handle = engine.start(rich, id="k", message=("in", "kept"), attributes={"plan": "gold"})
            with pytest.raises(OSError, match="down"):
                handle.result()
            BROKEN.clear()
            handle.resume()
            assert handle.result() == "kept"
            assert handle.value("state") == "begun"
            assert list(handle.stream("log")) == ["one", "two"]
            assert handle.status().attributes == {"plan": "gold", "customer": "c-1"}
        with engine_on(backend, worker=False) as client:
            assert client.handle("k").value("state") == "begun"

    @pytest.mark.parametrize("bytes_each", [10, 150_000])
    def test_a_long_history_is_copied_in_parts(self, backend: LogBackend, bytes_each: int) -> None:
        """Given a failed run with a hundred short outcomes, or ten long ones, resuming it brings all of them back."""
        count = 100 if bytes_each < 100 else 10

        @step
        async def text(number: int) -> str:
            RAN.append("text")
            return f"{number}: “" * (bytes_each // 4)

        @workflow
        async def long() -> int:
            total = sum([len(await text(number)) for number in range(count)])
            await fragile.aio()
            return total

        BROKEN.set()
        with engine_on(backend, long) as engine:
            handle = engine.start(long, id="l")
            with pytest.raises(OSError, match="down"):
                handle.result()
            BROKEN.clear()
            handle.resume()
            assert handle.result() > count * bytes_each // 4
            parts = kinds(engine, "l").count("history.copied")
            assert parts == 1 if bytes_each < 100 else parts > 1
        assert RAN.count("text") == count

    def test_a_parent_gets_the_ends_of_its_children(self, backend: LogBackend) -> None:
        """Given a parent that fails beside a child that outlives it, the resumed parent hears how the child ended."""

        @workflow
        async def child() -> str:
            return await receive("in", str)

        @workflow
        async def parent() -> str:
            started = await start_child(child, id="child", on_parent_end="abandon")
            await fragile.aio()
            return await started

        BROKEN.set()
        with engine_on(backend, parent, child) as engine:
            handle = engine.start(parent, id="parent")
            with pytest.raises(OSError, match="down"):
                handle.result()
            engine.handle("child").send("in", "grown up")
            assert engine.handle("child").result() == "grown up"
            BROKEN.clear()
            handle.resume()
            assert handle.result() == "grown up"

    def test_a_parent_waits_on_for_children_that_are_open(self, backend: LogBackend) -> None:
        """Given a parent that failed and a child that is still open, the resumed parent hears of its end later."""

        @workflow
        async def child() -> str:
            return await receive("in", str)

        @workflow
        async def parent() -> str:
            started = await start_child(child, id="child", on_parent_end="abandon")
            await fragile.aio()
            return await started

        BROKEN.set()
        with engine_on(backend, parent, child) as engine:
            handle = engine.start(parent, id="parent")
            with pytest.raises(OSError, match="down"):
                handle.result()
            BROKEN.clear()
            handle.resume()
            engine.handle("child").send("in", "grown up")
            assert handle.result() == "grown up"

    def test_what_can_not_be_resumed_says_why(self, backend: LogBackend) -> None:
        """Given a run that goes on, one that has completed and none at all, resume is refused with the reason."""
        with engine_on(backend, waits, three_steps) as engine:
            running = engine.start(waits, id="running")
            over = engine.start(three_steps, id="over")
            over.result()
            for handle, error, says in (
                (running, CommandRefused, "'running' is running"),
                (over, CommandRefused, "'over' has completed"),
                (engine.handle("nobody"), WorkflowNotFound, "'nobody'"),
            ):
                with pytest.raises(error, match=says):
                    handle.resume()


class TestRewind:
    def test_an_open_run_does_its_last_step_again(self, any_backend: LogBackend) -> None:
        """Given a run that waits after two steps, rewound to the second it does that again, and ends as it should."""
        with engine_on(any_backend, two_then_waits) as engine:
            handle = engine.start(two_then_waits, id="w")
            until(lambda: kinds(engine, "w").count("step.completed") == 2)
            handle.rewind(1, "the second was wrong")
            until(lambda: kinds(engine, "w").count("step.completed") == 3)
            handle.send("in", "!")
            assert handle.result() == "onetwo!"
            rewound = next(e for e in engine.history("w") if isinstance(e, WorkflowRewound))
            assert json.loads(rewound.payload)["reason"] == "the second was wrong"
        assert RAN == ["one", "two", "two"]

    def test_a_completed_run_does_its_last_steps_again(self, any_backend: LogBackend) -> None:
        """Given a run that has completed, rewound to its second step it does the second and third again."""
        with engine_on(any_backend, three_steps) as engine:
            handle = engine.start(three_steps, id="w")
            assert handle.result() == "onewholethree"
            handle.rewind(1)
            assert handle.result() == "onewholethree"
            assert kinds(engine, "w").count("workflow.completed") == 2
        assert RAN == ["one", "fragile", "three", "fragile", "three"]

    def test_messages_are_taken_again(self, backend: LogBackend) -> None:
        """Given a run that ended by a message, rewound to its beginning it takes the same message again."""
        with engine_on(backend, two_then_waits) as engine:
            handle = engine.start(two_then_waits, message=("in", "kept"))
            assert handle.result() == "onetwokept"
            handle.rewind(0)
            assert handle.result() == "onetwokept"

    @pytest.mark.parametrize("ended", [False, True])
    def test_a_step_that_is_not_there_is_refused(self, backend: LogBackend, ended: bool) -> None:
        """Given an open or ended run, a step past its end is refused, one that is no number before anything is sent."""
        with engine_on(backend, two_then_waits) as engine:
            handle = engine.start(two_then_waits, id="w")
            until(lambda: kinds(engine, "w").count("step.completed") == 2)
            if ended:
                handle.send("in", "!")
                handle.result()
            before = kinds(engine, "w")
            with pytest.raises(CommandRefused, match=r"'w' has no step 17"):
                handle.rewind(17)
            assert kinds(engine, "w") == before
            count = written(backend)
            with pytest.raises(UsageError, match="-1"):
                handle.rewind(-1)
            assert written(backend) == count


@asynccontextmanager
async def client_of(backend: LogBackend) -> AsyncGenerator[Client]:
    """A client with a log of its own."""
    log = backend.log()
    await log.open()
    client = Client(log, wall_clock)
    await client.open()
    try:
        yield client
    finally:
        client.close()
        await log.close()


class Talkative(Operator):
    """Sends a message to the run that it reopens, before it copies its history."""

    async def _copy(self, copies: Sequence[CopyHistory]) -> None:
        message = SendMessage(
            **self._client.envelope(copies[0].workflow_id),
            name="in",
            payload='"new"',
            message_id="new",
        )
        await self._client.ask(message, PATIENCE_S)
        await super()._copy(copies)


class Mortal(Operator):
    """Dies before it copies a history."""

    async def _copy(self, copies: Sequence[CopyHistory]) -> None:
        raise ConnectionError("the client is gone")


def test_what_comes_while_a_history_is_copied_is_kept(backend: LogBackend) -> None:
    """Given a run being reopened, a message that comes before its history is received after what it had received."""

    @workflow
    async def orderly() -> list[str]:
        first = await receive("in", str)
        await fragile.aio()
        return [first, await receive("in", str)]

    async def scenario() -> None:
        async with engine_on(backend, orderly) as engine, client_of(backend) as client:
            BROKEN.set()
            handle = await engine.start_async(orderly, id="o", message=("in", "old"))
            with pytest.raises(OSError, match="down"):
                await handle
            BROKEN.clear()
            await Talkative(client, PATIENCE_S).resume("o", None)
            assert await handle == ["old", "new"]

    asyncio.run(scenario())


def test_a_reopening_that_was_cut_off_loses_nothing(backend: LogBackend) -> None:
    """Given a client that dies while it copies a history, the run says so; terminated and resumed, it has it all."""

    async def scenario() -> None:
        async with engine_on(backend, three_steps) as engine, client_of(backend) as client:
            BROKEN.set()
            handle = await engine.start_async(three_steps, id="c")
            with pytest.raises(OSError, match="down"):
                await handle
            BROKEN.clear()
            with pytest.raises(ConnectionError):
                await Mortal(client, PATIENCE_S).resume("c", None)
            assert (await handle.status_async()).status is Status.COPYING
            with pytest.raises(CommandRefused, match="copying"):
                await handle.resume_async()
            await handle.terminate_async()
            await handle.resume_async()
            assert await handle == "onewholethree"

    asyncio.run(scenario())
    assert RAN == ["one", "fragile", "fragile", "three"]


ORDERS: list[Callable[[Handle[Any]], None]] = [
    lambda h: h.cancel(),
    lambda h: h.terminate(),
    lambda h: h.pause(),
    lambda h: h.resume(),
    lambda h: h.rewind(0),
]


@pytest.mark.parametrize("order", ORDERS)
def test_an_order_without_a_worker_times_out(
    backend: LogBackend, order: Callable[[Handle[Any]], None]
) -> None:
    """Given no worker, an order times out and says that it is durable and what to do."""
    with engine_on(backend, waits) as engine:
        engine.start(waits, id="w")
    with (
        Engine(backend.log(), worker=False, start_timeout_s=0.01) as client,
        pytest.raises(ResultTimeout, match=r"'w'.*start a worker"),
    ):
        order(client.handle("w"))


class TestDeadlines:
    @pytest.mark.parametrize(
        "deadline",
        [
            timedelta(0),
            timedelta(seconds=-1),
            datetime(2001, 1, 1, tzinfo=UTC),
            datetime(2101, 1, 1),  # noqa: DTZ001 - what is refused
            timedelta.max,
            5,
        ],
    )
    def test_bad_ones_are_refused(self, backend: LogBackend, deadline: Any) -> None:
        """Given a deadline that has passed, has no zone, is too far or is no time, nothing is written."""
        with engine_on(backend, waits) as engine:
            before = written(backend)
            with pytest.raises(UsageError, match=r"deadline|time zone|year 9999"):
                engine.start(waits, deadline=deadline)
            assert written(backend) == before

    def test_it_is_shown(self, backend: LogBackend) -> None:
        """Given a deadline as a time, the run's status tells it."""
        at = datetime(2101, 1, 1, tzinfo=UTC)
        with engine_on(backend, waits) as engine:
            assert engine.start(waits, deadline=at).status().deadline == at


def test_sleep_is_cancelled(backend: LogBackend) -> None:
    """Given a run that sleeps for a year, cancelling ends it now."""

    @workflow
    async def sleeps() -> None:
        await sleep(timedelta(days=365))

    with engine_on(backend, sleeps) as engine:
        handle = engine.start(sleeps)
        handle.cancel()
        with pytest.raises(WorkflowCancelled):
            handle.result()

"""What clients send to runs, ask of them and read from them: messages, questions, published values."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from engine_trial import engine_on, kinds, until, written
from log_backend import LogBackend
from refold import (
    AskRefused,
    DefinitionError,
    Engine,
    Handle,
    PayloadError,
    PayloadTooLarge,
    ResultTimeout,
    UsageError,
    WorkflowEnded,
    WorkflowNotFound,
    publish,
    receive,
    receive_sync,
    requests,
    workflow,
)
from refold.log.events import MessageReceived


@dataclass
class Order:
    item: str
    amount: int


@workflow
async def collects(count: int) -> list[str]:
    """Takes so many texts on the topic "in"."""
    return [await receive("in", str) for _ in range(count)]


@workflow
def takes_an_order() -> int:
    return receive_sync("orders", Order).amount


@workflow
async def sums_up() -> int:
    """Adds what it is asked to add, and ends at 100."""
    total = 0

    def check(number: int) -> None:
        if number < 0:
            raise ValueError("only what is positive can be added")

    async for request in requests("add", int, check):
        if request.value == 13:
            request.refuse("13 brings bad luck")
            continue
        total += request.value
        request.reply(total)
        if total >= 100:
            break
    return total


@workflow
async def publishes() -> str:
    publish("state", "begun")
    publish("order", Order("pen", 2))
    await receive("go on")
    publish("state", "done")
    return "end"


class TestMessages:
    def test_they_come_in_order_and_once(self, any_backend: LogBackend) -> None:
        """Given three messages, one of them sent twice under its id, the workflow receives three, in order."""
        with engine_on(any_backend, collects) as engine:
            handle = engine.start(collects, 3, id="c")
            handle.send("in", "first")
            handle.send("in", "second", message_id="m-2")
            handle.send("in", "second", message_id="m-2")
            handle.send("in", "third")
            assert handle.result() == ["first", "second", "third"]
            assert kinds(engine, "c").count("message.received") == 3

    def test_they_have_the_type_that_they_were_sent_with(self, backend: LogBackend) -> None:
        """Given a dataclass that is sent, the workflow receives an equal one."""
        with engine_on(backend, takes_an_order) as engine:
            handle = engine.start(takes_an_order)
            handle.send("orders", Order("pen", 7))
            assert handle.result() == 7

    def test_one_goes_with_the_start(self, any_backend: LogBackend) -> None:
        """Given a start with a message, the run has both; the same start again sends one more to the run there is."""
        with engine_on(any_backend, collects) as engine:
            handle = engine.start(collects, 2, id="c", message=("in", "with the start"))
            assert kinds(engine, "c") == ["workflow.started", "message.received"]
            again = engine.start(collects, 2, id="c", message=("in", "with the second"))
            assert handle.result() == again.result() == ["with the start", "with the second"]
            with pytest.raises(WorkflowEnded, match="'c' has ended"):
                engine.start(collects, 2, id="c", message=("in", "too late"))

    def test_a_run_that_ends_with_the_message_of_its_start_tells_its_result(
        self, backend: LogBackend
    ) -> None:
        """Given a run that needs one message, a start with it gives the result at once."""
        with engine_on(backend, collects) as engine:
            assert engine.start(collects, 1, message=("in", "all")).result() == ["all"]

    def test_one_that_was_recorded_counts_also_when_its_answer_was_lost(
        self, backend: LogBackend
    ) -> None:
        """Given a message that ended its run, sent again under its id it is no error, and a new one is."""
        with engine_on(backend, collects) as engine:
            handle = engine.start(collects, 1, id="c")
            handle.send("in", "the one", message_id="m-1")
            assert handle.result() == ["the one"]
            handle.send("in", "the one", message_id="m-1")
            with pytest.raises(WorkflowEnded, match="'c' has ended"):
                handle.send("in", "the one", message_id="m-2")
            assert kinds(engine, "c").count("message.received") == 1

    def test_a_paused_run_keeps_them(self, backend: LogBackend) -> None:
        """Given a paused run, what is sent to it is received when it is resumed."""
        with engine_on(backend, collects) as engine:
            handle = engine.start(collects, 1)
            handle.pause()
            handle.send("in", "meanwhile")
            handle.resume()
            assert handle.result() == ["meanwhile"]

    def test_nobody_to_receive_them_is_an_error(self, backend: LogBackend) -> None:
        """Given an id that nobody started, sending to it says so."""
        with (
            engine_on(backend, collects) as engine,
            pytest.raises(WorkflowNotFound, match="'nobody'"),
        ):
            engine.handle("nobody").send("in", "hello")


BAD_INPUT: list[tuple[Callable[[Handle[Any]], object], type[Exception], str]] = [
    (lambda h: h.send("", "x"), UsageError, "topic"),
    (lambda h: h.send("t" * 256, "x"), UsageError, "255"),
    (lambda h: h.send("in", object()), PayloadError, "message for workflow 'run'"),
    (lambda h: h.send("in", "x" * 900_000), PayloadTooLarge, "900,000"),
    (lambda h: h.send("in", "x", message_id=""), UsageError, "message"),
    (lambda h: h.ask("", "x"), UsageError, "topic"),
    (lambda h: h.ask("in", object()), PayloadError, "question to workflow 'run'"),
    (lambda h: h.ask("in", 1, threading.Lock), DefinitionError, "answer"),
    (lambda h: h.value(""), UsageError, "key"),
    (lambda h: h.value("k", threading.Lock), DefinitionError, "value"),
]


@pytest.mark.parametrize(("call", "error", "says"), BAD_INPUT)
def test_bad_input_is_refused_before_anything_is_written(
    backend: LogBackend, call: Callable[[Handle[Any]], object], error: type[Exception], says: str
) -> None:
    """Given a topic, id, value or type that can't be, the call says what is wrong and nothing is written."""
    with engine_on(backend, collects, max_payload_bytes=900_000) as engine:
        handle = engine.start(collects, 1, id="run")
        before = written(backend)
        with pytest.raises(error, match=says):
            call(handle)
        assert written(backend) == before


class TestQuestions:
    def test_the_answer_comes_back_typed(self, any_backend: LogBackend) -> None:
        """Given questions to a run, each gets its answer, and the run ends with their sum."""
        with engine_on(any_backend, sums_up) as engine:
            handle = engine.start(sums_up, id="sum")
            assert handle.ask("add", 40, int) == 40
            assert handle.ask("add", 60, int) == 100
            assert handle.result() == 100

    def test_one_that_the_validator_refuses_is_not_recorded(self, backend: LogBackend) -> None:
        """Given a question that does not fit, by its value or its type, it is refused and leaves no event."""
        with engine_on(backend, sums_up) as engine:
            handle = engine.start(sums_up, id="sum")
            handle.ask("add", 1)
            before = kinds(engine, "sum")
            for value, says in ((-1, "only what is positive"), ("many", "does not fit its type")):
                with pytest.raises(AskRefused, match=says):
                    handle.ask("add", value)
            assert kinds(engine, "sum") == before

    def test_one_that_the_code_refuses_is_an_error_to_the_one_who_asks(
        self, backend: LogBackend
    ) -> None:
        """Given a question that the code answers with a refusal, who asks gets it; the run goes on."""
        with engine_on(backend, sums_up) as engine:
            handle = engine.start(sums_up, id="sum")
            with pytest.raises(AskRefused, match="bad luck"):
                handle.ask("add", 13)
            assert handle.ask("add", 100) == 100

    def test_an_answer_of_another_type_is_told(self, backend: LogBackend) -> None:
        """Given an answer that is no text, asking for a text says so."""
        with engine_on(backend, sums_up) as engine:
            handle = engine.start(sums_up)
            with pytest.raises(PayloadError, match="answer of workflow"):
                handle.ask("add", 1, str)

    def test_one_that_nobody_answers_times_out(self, backend: LogBackend) -> None:
        """Given a workflow that takes no questions, asking with a timeout ends with it and names the topic."""
        with engine_on(backend, collects) as engine:
            handle = engine.start(collects, 1, id="deaf")
            with pytest.raises(ResultTimeout, match=r"'deaf'"):
                handle.ask("in", "anybody there?", timeout_s=0.01)

    def test_one_that_is_open_when_the_run_ends_is_told(self, backend: LogBackend) -> None:
        """Given a question that is waited for, when the run ends without an answer, who asked hears of it."""
        heard: list[Exception] = []
        with engine_on(backend, collects) as engine:
            handle = engine.start(collects, 1, id="deaf")

            def ask() -> None:
                try:
                    handle.ask("questions", "anybody there?")
                except WorkflowEnded as error:
                    heard.append(error)

            asking = threading.Thread(target=ask)
            asking.start()
            until(lambda: "ask.received" in kinds(engine, "deaf"))
            handle.send("in", "end")
            asking.join(60)
            assert "without an answer" in str(heard[0])
            with pytest.raises(WorkflowEnded, match="'deaf' has ended"):
                handle.ask("questions", "and now?")

    def test_nobody_to_ask_is_an_error(self, backend: LogBackend) -> None:
        """Given an id that nobody started, asking says so."""
        with engine_on(backend, collects) as engine, pytest.raises(WorkflowNotFound):
            engine.handle("nobody").ask("in", 1)


class TestValues:
    def test_they_are_read_while_the_run_goes_on_and_after_its_end(
        self, any_backend: LogBackend
    ) -> None:
        """Given a run that publishes, its values are there now, after its end, and for an engine without a worker."""
        with engine_on(any_backend, publishes) as engine:
            handle = engine.start(publishes, id="p")
            assert handle.value("state", str) == "begun"
            assert handle.value("order", Order) == Order("pen", 2)
            handle.send("go on", None)
            assert handle.result() == "end"
            assert handle.value("state") == "done"
        with engine_on(any_backend, worker=False) as client:
            assert client.handle("p").value("state", str) == "done"

    def test_one_that_is_not_there_yet_is_waited_for(self, backend: LogBackend) -> None:
        """Given a key that nothing is published under yet, the reader gets the value when it comes."""

        @workflow
        async def later() -> None:
            publish("late", await receive("in", str))

        got: list[str] = []
        with engine_on(backend, later) as engine:
            handle = engine.start(later, id="l")
            with pytest.raises(ResultTimeout, match="'late'"):
                handle.value("late", timeout_s=0.01)
            reading = threading.Thread(target=lambda: got.append(handle.value("late", str)))
            reading.start()
            handle.send("in", "here it is")
            reading.join(60)
        assert got == ["here it is"]

    def test_one_that_will_never_come_is_an_error(self, backend: LogBackend) -> None:
        """Given a run that has ended, a key that it did not publish says so, with a worker and without one."""
        with engine_on(backend, collects) as engine:
            engine.start(collects, 0, id="c").result()
            with pytest.raises(WorkflowEnded, match="'never'"):
                engine.handle("c").value("never")
            with pytest.raises(WorkflowNotFound, match="'nobody'"):
                engine.handle("nobody").value("never")
        with (
            engine_on(backend, worker=False) as client,
            pytest.raises(WorkflowEnded, match="'never'"),
        ):
            client.handle("c").value("never")

    def test_a_value_of_another_type_is_told(self, backend: LogBackend) -> None:
        """Given a value that is a text, reading it as a number says so."""
        with engine_on(backend, publishes) as engine:
            handle = engine.start(publishes, id="p")
            with pytest.raises(PayloadError, match="value of workflow 'p' under 'state'"):
                handle.value("state", int)


def test_messages_are_recorded_with_their_ids(backend: LogBackend) -> None:
    """Given a message without an id and one with, both are recorded, the one under its id."""
    with engine_on(backend, collects) as engine:
        handle = engine.start(collects, 3, id="c")
        handle.send("in", "a", message_id="mine")
        handle.send("in", "b")
        events = [e for e in engine.history("c") if isinstance(e, MessageReceived)]
        assert [event.payload for event in events] == ['"a"', '"b"']
        assert events[0].message_id == "mine"
        assert events[1].message_id not in {"", "mine"}


def test_workflow_code_and_steps_use_no_handles(backend: LogBackend) -> None:
    """Given workflow code that holds a handle, each of its calls is refused and nothing is sent."""
    held: list[Engine] = []

    @workflow
    def inside() -> list[str]:
        handle = held[0].handle("other")
        said: list[str] = []
        for call in (
            lambda: handle.send("in", 1),
            lambda: handle.ask("in", 1),
            lambda: handle.value("k"),
            lambda: handle.stream("s"),
            handle.cancel,
            handle.resume,
            handle.fork,
        ):
            try:
                call()
            except UsageError as error:
                said.append(str(error))
        return said

    with engine_on(backend, inside) as engine:
        held.append(engine)
        said = engine.start(inside, id="outer").result()
        assert len(said) == 7
        assert all("inside workflow 'outer'" in text for text in said)

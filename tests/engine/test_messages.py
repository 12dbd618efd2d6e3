"""Messages and questions as workflow code takes them, what it sends, and what it publishes."""

import asyncio
import gc
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from refold.engine.definitions import Workflow, step, workflow
from refold.engine.messages import (
    publish,
    receive,
    receive_sync,
    requests,
    send,
    send_sync,
)
from refold.engine.operations import EmitRequest, Returned, SendRequest, TimerRequest
from refold.engine.scope import StepContext, enter, now
from refold.engine.streams import stream
from refold.engine.sync_run import SyncRun
from refold.engine.thread_slots import ThreadSlots
from refold.log.errors import PayloadError, UsageError, WorkflowNotFound
from run_driver import SECOND_US, START_US, Driver, completed, make_run

KINDS = ["async def", "def"]


class Paid(BaseModel):
    amount: int


class Opaque:
    """A class with no JSON form."""


@step
async def work(name: str) -> str:
    raise AssertionError("a run never carries out a step by itself")


@step
def work_plainly(name: str) -> str:
    raise AssertionError("a run never carries out a step by itself")


@pytest.fixture
def slots() -> Iterator[ThreadSlots]:
    slots = ThreadSlots(2)
    yield slots
    slots.close()


@workflow
async def three_messages() -> list[Paid]:
    return [await receive("paid", Paid) for _ in range(3)]


@workflow
def three_messages_sync() -> list[Paid]:
    return [receive_sync("paid", Paid) for _ in range(3)]


@workflow
async def work_then_receive() -> list[str]:
    await work("a")
    return [await receive("greeting", str), await receive("greeting", str)]


@workflow
def work_then_receive_sync() -> list[str]:
    work_plainly("a")
    return [receive_sync("greeting", str), receive_sync("greeting", str)]


@workflow
async def patient(limit_s: float) -> str:
    try:
        return await receive("word", str, timeout=limit_s)
    except TimeoutError as error:
        return f"{error} {await receive('word', str)}"


@workflow
def patient_sync(limit_s: float) -> str:
    try:
        return receive_sync("word", str, timeout=limit_s)
    except TimeoutError as error:
        return f"{error} {receive_sync('word', str)}"


@workflow
async def receive_when_free() -> str:
    await work("a")
    return await receive("word", str, timeout=5)


@workflow
def receive_when_free_sync() -> str:
    work_plainly("a")
    return receive_sync("word", str, timeout=5)


@workflow
async def picky() -> str:
    try:
        await receive("paid", Paid)
    except PayloadError as error:
        assert (await receive("paid", Paid)).amount == 2
        return str(error)
    return "took it"


@workflow
def picky_sync() -> str:
    try:
        receive_sync("paid", Paid)
    except PayloadError as error:
        assert receive_sync("paid", Paid).amount == 2
        return str(error)
    return "took it"


def both(*pair: Workflow[..., Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("definition", pair, ids=KINDS)


# Receiving ------------------------------------------------------------------------------------------------


@both(three_messages, three_messages_sync)
def test_messages_are_taken_in_the_order_in_which_they_came(definition: Workflow[..., Any]) -> None:
    """Given a workflow that receives, each message wakes it, and none makes a request or takes a number."""
    driver = Driver.begin(definition)
    assert (driver.open, driver.run.waits_for_input, driver.ending) == ([], True, None)

    for amount in (1, 2, 3):
        driver.message("paid", f'{{"amount":{amount}}}')

    assert [paid["amount"] for paid in json.loads(driver.result())] == [1, 2, 3]
    assert driver.run.next_step == 0
    driver.check_replays()


@both(work_then_receive, work_then_receive_sync)
def test_messages_wait_until_the_code_receives_them(definition: Workflow[..., Any]) -> None:
    """Given messages that come while the code is at a step, they are kept, in order, apart from other topics."""
    driver = Driver.begin(definition)
    driver.message("greeting", '"first"')
    driver.message("other", '"elsewhere"')
    driver.message("greeting", '"second"')
    assert driver.open == [0]
    assert not driver.run.waits_for_input

    driver.complete(0, "done")

    assert json.loads(driver.result()) == ["first", "second"]
    driver.check_replays()


@both(patient, patient_sync)
def test_a_message_in_time_ends_the_timer(definition: Workflow[..., Any]) -> None:
    """Given a receive with a timeout, the message is taken and the timer cancelled."""
    driver = Driver.begin(definition, 5)
    timer = driver.request(0)
    assert isinstance(timer, TimerRequest)
    assert (timer.name, timer.due_at) == ("timer", START_US + 5 * SECOND_US)

    driver.message("word", '"hello"')

    assert json.loads(driver.result()) == "hello"
    assert driver.cancelled == [0]
    driver.check_replays()


@both(receive_when_free, receive_when_free_sync)
def test_a_message_that_is_there_needs_no_timer(definition: Workflow[..., Any]) -> None:
    """Given a receive with a timeout whose message is there already, it takes it without a number."""
    driver = Driver.begin(definition)
    driver.message("word", '"hello"')
    driver.complete(0, "done")

    assert json.loads(driver.result()) == "hello"
    assert driver.run.next_step == 1
    driver.check_replays()


@both(patient, patient_sync)
def test_a_message_that_is_late_is_kept(definition: Workflow[..., Any]) -> None:
    """Given a receive whose time is over, it raises TimeoutError, and the next receive gets what comes later."""
    driver = Driver.begin(definition, 5)
    driver.fire(0)
    assert driver.run.waits_for_input
    driver.message("word", '"late"')

    assert "no message on topic 'word' within 5 s late" in json.loads(driver.result())
    driver.check_replays()


@both(patient, patient_sync)
def test_a_timer_that_fired_after_the_message_is_nothing(definition: Workflow[..., Any]) -> None:
    """Given both in the log, message first, the timer's event is taken and ignored."""
    driver = Driver.begin(definition, 5)
    timer = driver.request(0)
    driver.message("word", '"hello"')
    before = driver.ending
    driver.fire(timer.step)

    assert isinstance(before, Returned)
    assert driver.ending == before
    driver.check_replays()


@both(patient, patient_sync)
def test_no_time_takes_only_what_is_there(definition: Workflow[..., Any]) -> None:
    """Given a timeout of 0 and no message, it is over at once, with no timer."""
    driver = Driver.begin(definition, 0)

    assert driver.open == []
    driver.message("word", '"x"')
    assert "within 0 s x" in driver.result()
    driver.check_replays()


@both(picky, picky_sync)
def test_a_message_of_another_type_is_dropped_with_an_error(
    definition: Workflow[..., Any],
) -> None:
    """Given a message that does not fit, the receive says what it was, and the next one gets the next."""
    driver = Driver.begin(definition)
    driver.message("paid", '{"sum":1}')
    driver.message("paid", '{"amount":2}')

    told = json.loads(driver.result())
    assert "message on topic 'paid'" in told
    assert "from a client" in told
    assert "['amount']" in told
    assert "It is dropped" in told
    driver.check_replays()


def test_messages_move_the_workflows_time() -> None:
    """Given a message, `now` is the time at which it was recorded."""

    @workflow
    async def timed() -> float:
        await receive("a")
        return now().timestamp()

    driver = Driver.begin(timed)
    driver.message("a", "null")

    assert json.loads(driver.result()) == START_US / SECOND_US + 1
    driver.check_replays()


def test_a_cancelled_receive_loses_no_message() -> None:
    """Given a receive that is cancelled, the next message goes to the one that receives then."""

    @workflow
    async def impatient() -> list[str]:
        waiting = asyncio.create_task(receive("word", str))
        await work("a")
        waiting.cancel()
        await work("b")
        return [await receive("word", str), await receive("word", str)]

    driver = Driver.begin(impatient)
    driver.complete(0, "done")
    assert not driver.run.waits_for_input
    driver.message("word", '"one"')
    driver.complete(1, "done")
    driver.message("word", '"two"')

    assert json.loads(driver.result()) == ["one", "two"]
    driver.check_replays()


def test_a_receive_that_is_cancelled_as_its_message_comes_loses_nothing() -> None:
    """Given a message that wakes one task, which at once cancels another that has been told too, both are kept."""

    @workflow
    async def racing() -> list[str]:
        async def first() -> str:
            word = await receive("a", str)
            second.cancel()
            return word

        waiting = asyncio.create_task(first())
        second = asyncio.create_task(receive("b", str))
        got = await waiting
        return [got, await receive("b", str)]

    driver = Driver.begin(racing)
    driver.message("a", '"1"')
    driver.message("b", '"2"')

    assert json.loads(driver.result()) == ["1", "2"]
    driver.check_replays()


def test_two_waiters_on_one_topic_are_refused() -> None:
    """Given a second task that waits on a topic, it gets the error, and the first goes on waiting."""

    @workflow
    async def crowded() -> list[str]:
        first = asyncio.create_task(receive("word", str))
        await asyncio.sleep(0)
        try:
            await receive("word", str)
        except UsageError as error:
            return [str(error), await first]
        return []

    driver = Driver.begin(crowded)
    driver.message("word", '"hello"')

    told, word = json.loads(driver.result())
    assert "waits for messages on topic 'word' already" in told
    assert word == "hello"
    driver.check_replays()


def test_questions_and_messages_on_one_name_do_not_meet() -> None:
    """Given a topic of both, each waits for its own kind."""

    @workflow
    async def mixed() -> list[str]:
        asked = requests("word", str)
        message, request = await asyncio.gather(receive("word", str), asked.receive())
        request.reply(None)
        return [message, request.value]

    driver = Driver.begin(mixed)
    driver.question("word", '"asked"')
    driver.message("word", '"sent"')

    assert json.loads(driver.result()) == ["sent", "asked"]
    driver.check_replays()


def test_a_suspended_run_waits_for_its_message(slots: ThreadSlots) -> None:
    """Given a `def` workflow that was put away while it waits with a timeout, nothing is asked for twice."""
    driver = Driver.begin(patient_sync, 5, slots=slots)
    run = driver.run
    assert isinstance(run, SyncRun)
    run.suspend()
    assert run.waits_for_input

    driver.message("elsewhere", "1")
    assert run.take() == []
    assert run.waits_for_input
    run.suspend()
    driver.message("word", '"hello"')

    assert json.loads(driver.result()) == "hello"
    assert driver.cancelled == [0]
    driver.check_replays()


def test_a_suspended_run_cancels_a_timer_once(slots: ThreadSlots) -> None:
    """Given a timer that was given up before the run was put away, it is not given up again when it begins again."""

    @workflow
    def several() -> list[str]:
        return [receive_sync("word", str, timeout=5) for _ in range(2)]

    driver = Driver.begin(several, slots=slots)
    driver.message("word", '"one"')
    assert isinstance(driver.run, SyncRun)
    driver.run.suspend()
    driver.message("word", '"two"')

    assert driver.cancelled == [0, 1]
    assert json.loads(driver.result()) == ["one", "two"]


@workflow
async def stubborn() -> None:
    while True:
        try:
            await receive("a")
        except BaseException:  # noqa: BLE001 - the worst that code can do
            continue


@workflow
def stubborn_sync() -> None:
    while True:
        try:
            receive_sync("a", timeout=5)
        except BaseException:  # noqa: BLE001 - the worst that code can do
            continue


@pytest.mark.filterwarnings("ignore:.*stubborn:pytest.PytestUnraisableExceptionWarning")
@both(stubborn, stubborn_sync)
def test_code_that_catches_everything_is_closed_all_the_same(
    definition: Workflow[..., Any],
) -> None:
    """Given code that receives again whatever comes, closing its run ends, and it takes and asks for nothing more."""
    driver = Driver.begin(definition)
    driver.message("c", "1")
    asked = dict(driver.asked)
    driver.run.close()

    assert driver.ending is None
    assert driver.run.take() == []
    assert driver.asked == asked
    del driver
    gc.collect()  # Python says here that the coroutine ignores being closed, and rightly


# Sending --------------------------------------------------------------------------------------------------


@workflow
async def sender() -> str:
    try:
        await send("wf-2", "paid", Paid(amount=3))
    except WorkflowNotFound as error:
        return str(error)
    return "sent"


@workflow
def sender_sync() -> str:
    try:
        send_sync("wf-2", "paid", Paid(amount=3))
    except WorkflowNotFound as error:
        return str(error)
    return "sent"


@both(sender, sender_sync)
def test_a_send_waits_until_it_is_recorded(definition: Workflow[..., Any]) -> None:
    """Given a send, it is a request with the message's JSON, and goes on when the delivery is confirmed."""
    driver = Driver.begin(definition)
    request = driver.request(0)
    assert isinstance(request, SendRequest)
    assert request[:4] == (0, "paid", "wf-2", '{"amount":3}')
    assert request.source.startswith(__file__)
    driver.confirm(0)

    assert json.loads(driver.result()) == "sent"
    driver.check_replays()


@both(sender, sender_sync)
def test_a_refused_send_raises(definition: Workflow[..., Any]) -> None:
    """Given a receiver that is not there, the sender gets that error, as its type."""
    driver = Driver.begin(definition)
    driver.refuse(0, WorkflowNotFound("no workflow has the id 'wf-2'"))

    assert json.loads(driver.result()) == "no workflow has the id 'wf-2'"
    driver.check_replays()


def test_a_send_in_a_task_names_the_line_of_the_call() -> None:
    """Given sends that tasks await, their source is where they were called."""

    @workflow
    async def many() -> None:
        await asyncio.gather(send("a", "t", 1), send("b", "t", 2))

    driver = Driver.begin(many)

    assert [str(driver.request(n).source).split(":")[0] for n in (0, 1)] == [__file__, __file__]
    driver.confirm(1)
    driver.confirm(0)
    driver.check_replays()


# Questions ------------------------------------------------------------------------------------------------


class Vote(BaseModel):
    choice: str


def known(vote: Vote) -> None:
    if vote.choice not in {"yes", "no"}:
        raise ValueError(f"no such choice: {vote.choice}")


@workflow
async def election(votes: int) -> list[str]:
    seen: list[str] = []
    async for request in requests("vote", Vote, validate=known):
        seen.append(request.value.choice)
        request.reply(len(seen))
        if len(seen) == votes:
            break
    return seen


@workflow
def election_sync(votes: int) -> list[str]:
    seen: list[str] = []
    for request in requests("vote", Vote, validate=known):
        seen.append(request.value.choice)
        request.reply(len(seen))
        if len(seen) == votes:
            break
    return seen


def emissions(driver: Driver) -> list[EmitRequest]:
    found = [driver.request(number) for number in sorted(driver.asked)]
    return [request for request in found if isinstance(request, EmitRequest)]


@both(election, election_sync)
def test_questions_are_answered_one_after_the_other(definition: Workflow[..., Any]) -> None:
    """Given questions, each is answered by its id; also the answer just before the end is recorded."""
    driver = Driver.begin(definition, 2)
    asked = [driver.question("vote", f'{{"choice":"{choice}"}}') for choice in ("yes", "no")]

    assert json.loads(driver.result()) == ["yes", "no"]
    assert [(e.kind, e.name, e.message_id, e.payload) for e in emissions(driver)] == [
        ("ask.answered", "vote", asked[0], "1"),
        ("ask.answered", "vote", asked[1], "2"),
    ]
    driver.check_replays()


@both(election, election_sync)
def test_a_question_is_checked_before_it_is_recorded(definition: Workflow[..., Any]) -> None:
    """Given the code's type and validator, the run says why it would refuse a question, and changes nothing."""
    driver = Driver.begin(definition, 1)

    assert driver.run.refusal("vote", '{"choice":"yes"}') is None
    assert driver.run.refusal("vote", '{"choice":"perhaps"}') == "no such choice: perhaps"
    assert "['choice']" in str(driver.run.refusal("vote", "{}"))
    assert driver.run.refusal("other", "{}") is None
    assert driver.history == []
    assert driver.asked == {}


@both(election, election_sync)
def test_a_question_that_slipped_in_is_refused_when_its_turn_comes(
    definition: Workflow[..., Any],
) -> None:
    """Given a recorded question that does not fit, it is answered with a refusal, and the code never sees it."""
    driver = Driver.begin(definition, 1)
    bad = driver.question("vote", '{"choice":"perhaps"}')
    unfit = driver.question("vote", "5")
    driver.question("vote", '{"choice":"no"}')

    assert json.loads(driver.result()) == ["no"]
    refused = emissions(driver)[:2]
    assert [e.message_id for e in refused] == [bad, unfit]
    assert [e.error_type for e in refused] == ["refold.log.errors:AskRefused"] * 2
    assert refused[0].error_message == "no such choice: perhaps"
    assert refused[0].payload is None
    driver.check_replays()


def test_a_validator_can_do_nothing_but_look() -> None:
    """Given a validator with a durable call or a side effect, the question is refused and nothing is asked for."""

    @workflow
    async def careless() -> None:
        def check(value: object) -> None:
            publish("seen", value)

        await requests("a", str, validate=check).receive()

    driver = Driver.begin(careless)

    assert "outside a workflow" in str(driver.run.refusal("a", '"x"'))
    assert driver.run.pending == {}


def test_a_question_has_one_answer() -> None:
    """Given a question that was answered, another answer is a UsageError, and so is a refusal without a reason."""

    @workflow
    async def twice() -> list[str]:
        told: list[str] = []
        request = await requests("a", str).receive(timeout=timedelta(seconds=5))
        answers: list[Callable[[], None]] = [
            lambda: request.refuse(""),
            lambda: request.reply(object()),
            lambda: request.refuse("no"),
            lambda: request.reply(1),
        ]
        for answer in answers:
            try:
                answer()
            except (UsageError, PayloadError) as error:
                told.append(str(error))
        return told

    driver = Driver.begin(twice)
    driver.question("a", '"x"')

    without_reason, unfit, second = json.loads(driver.result())
    assert "without a reason" in without_reason
    assert "reply on topic 'a'" in unfit
    assert "answered before" in second
    assert [e.error_message for e in emissions(driver)] == ["no"]
    driver.check_replays()


@workflow
async def waits_for_a_good_one() -> str:
    try:
        return (await requests("a", int).receive(timeout=10)).value.__repr__()
    except TimeoutError as error:
        return str(error)


@workflow
def waits_for_a_good_one_sync() -> str:
    try:
        return requests("a", int).receive_sync(timeout=10).value.__repr__()
    except TimeoutError as error:
        return str(error)


@both(waits_for_a_good_one, waits_for_a_good_one_sync)
def test_refused_questions_do_not_lengthen_the_wait(definition: Workflow[..., Any]) -> None:
    """Given a question that is refused on its turn, the rest of the time is waited, and not the whole anew."""
    driver = Driver.begin(definition)
    driver.question("a", '"no number"')

    [timer] = [r for r in driver.run.pending.values() if isinstance(r, TimerRequest)]
    assert timer.due_at == START_US + 10 * SECOND_US
    driver.fire(timer.step)
    assert "no question on topic 'a'" in driver.result()
    driver.check_replays()


# Published values, streams --------------------------------------------------------------------------------


@workflow
async def publishing() -> str:
    publish("status", "begun")
    stream("tokens").write("a")
    stream("tokens").write({"b": 1})
    await work("a")
    publish("status", None)
    return "done"


@workflow
def publishing_sync() -> str:
    publish("status", "begun")
    stream("tokens").write("a")
    stream("tokens").write({"b": 1})
    work_plainly("a")
    publish("status", None)
    return "done"


@both(publishing, publishing_sync)
def test_what_is_emitted_is_recorded_at_once_and_replayed(definition: Workflow[..., Any]) -> None:
    """Given emissions, the code goes on without waiting, and what it emitted last is there at the end."""
    driver = Driver.begin(definition)
    assert driver.open == [3]
    driver.complete(3, "done")

    assert json.loads(driver.result()) == "done"
    assert [(e.step, e.kind, e.name, e.payload) for e in emissions(driver)] == [
        (0, "value.published", "status", '"begun"'),
        (1, "stream.written", "tokens", '["a"]'),
        (2, "stream.written", "tokens", '[{"b":1}]'),
        (4, "value.published", "status", "null"),
    ]
    assert emissions(driver)[0].source.startswith(__file__)
    driver.check_replays()


@both(publishing, publishing_sync)
def test_the_last_emissions_outlive_the_end(definition: Workflow[..., Any]) -> None:
    """Given a run that has ended, what it emitted on the way to the end is still to be taken and recorded."""
    run = make_run(definition)
    run.start()
    for request in run.take():
        if isinstance(request, EmitRequest):
            run.emitted(request.step)
    run.deliver(completed(3, run.pending[3].name, '"x"', START_US + 1))

    assert isinstance(run.ending, Returned)
    assert [request.step for request in run.take()] == [4]
    assert list(run.pending) == [4]
    run.emitted(4)
    assert list(run.pending) == []


def test_emissions_do_not_move_the_time() -> None:
    """Given a recorded emission, `now` stays the time of the last event before it."""

    @workflow
    async def timed() -> bool:
        before = now()
        publish("a", 1)
        await asyncio.sleep(0)
        return now() == before

    driver = Driver.begin(timed)

    assert json.loads(driver.result()) is True


def test_a_step_writes_through_its_context() -> None:
    """Given a step's attempt, what it writes to a stream goes out with its context, as JSON."""
    written: list[tuple[str, str]] = []
    context = StepContext(
        namespace="n",
        workflow_id="w",
        step=0,
        attempt=1,
        write=lambda _, name, item: written.append((name, item)),
    )

    with enter(context):
        stream("tokens").write("a")
        stream("tokens").write(Paid(amount=1))

    assert written == [("tokens", '"a"'), ("tokens", '{"amount":1}')]


def test_a_step_with_nobody_to_write_to_says_so() -> None:
    """Given a context that no worker made, a write is refused and names the stream."""
    context = StepContext(namespace="n", workflow_id="w", step=0, attempt=1)

    with enter(context), pytest.raises(UsageError, match="stream 'tokens'"):
        stream("tokens").write("a")


# Bad input ------------------------------------------------------------------------------------------------

BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: send("", "t", 1), "id must not be empty"),
    (lambda: send("x" * 256, "t", 1), "at most 255 characters"),
    (lambda: send("a", "", 1), "name of a topic must not be empty"),
    (lambda: send("a", "t" * 256, 1), "name of a topic has at most 255"),
    (lambda: send("a", "t\n", 1), "can't be printed"),
    (lambda: send("a", "t", object()), "message for workflow 'a' on topic 't'"),
    (lambda: send("a", "t", {1: 2}), "message for workflow 'a' on topic 't'"),
    (lambda: send("a", "t", open), "has no JSON form"),
    (lambda: send("a", "t", "x" * 1_000_000), "the limit is 900,000"),
    (lambda: receive(""), "name of a topic must not be empty"),
    (lambda: receive(5), "named by a string, not by 5"),  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    (lambda: receive("t", int, timeout=-1), "can't wait for -1"),
    (lambda: receive("t", int, timeout=timedelta(seconds=-1)), "can't wait for datetime"),
    (lambda: receive("t", int, timeout=float("inf")), "can't wait for inf"),
    (lambda: receive("t", Opaque), "has no JSON form"),
    (lambda: requests(""), "name of a topic must not be empty"),
    (lambda: publish("", 1), "name of a key must not be empty"),
    (lambda: publish("k" * 256, 1), "name of a key has at most 255"),
    (lambda: publish("k", object()), "value published under key 'k'"),
    (lambda: stream(""), "name of a stream must not be empty"),
    (lambda: stream("s").write(object()), "item of stream 's'"),
    (lambda: receive_sync("t"), "write `await receive"),
    (lambda: send_sync("a", "t", 1), "write `await send"),
    (lambda: requests("t").receive_sync(), "write `await receive"),
]


@pytest.mark.parametrize(("act", "told"), BAD, ids=[told for _, told in BAD])
def test_bad_input_is_told_and_nothing_is_asked_for(act: Callable[[], object], told: str) -> None:
    """Given a call that can't be, the code gets an error that says why, and no request is made."""

    @workflow
    async def careless() -> None:
        act()

    driver = Driver.begin(careless)

    assert told in driver.error().error_message
    assert driver.error().error_type.startswith("refold.log.errors:")
    assert driver.asked == {}
    assert driver.run.next_step == 0


@pytest.mark.parametrize(
    "act",
    [lambda: receive("t"), lambda: send("a", "t", 1)],
    ids=["receive", "send"],
)
def test_what_is_awaited_has_its_own_spelling(act: Callable[[], object]) -> None:
    """Given a `def` workflow that calls what is to be awaited, the error names the right form."""

    @workflow
    def misspelled() -> None:
        act()

    assert "_sync(...) there" in Driver.begin(misspelled).error().error_message


CALLS: list[Callable[[], object]] = [
    lambda: send("a", "t", 1),
    lambda: send_sync("a", "t", 1),
    lambda: receive("t"),
    lambda: receive_sync("t"),
    lambda: requests("t"),
    lambda: publish("k", 1),
]


@pytest.mark.parametrize("act", CALLS)
def test_outside_workflow_code_there_are_no_messages(act: Callable[[], object]) -> None:
    """Given a step or plain code, each call is refused with what to do instead."""
    context = StepContext(namespace="n", workflow_id="w", step=3, attempt=1)

    with pytest.raises(UsageError, match="outside a workflow; "):
        act()
    with enter(context), pytest.raises(UsageError, match="in step 3 of workflow 'w'"):
        act()


def test_plain_code_writes_to_no_stream() -> None:
    """Given code outside of workflow and step, a write is refused."""
    with pytest.raises(UsageError, match="outside a workflow"):
        stream("s").write(1)

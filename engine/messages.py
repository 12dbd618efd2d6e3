"""Messages to and from a workflow, and what it lets others see: `send`, `receive`, `requests`, `publish`.

For use in workflow code. A message is recorded with its receiver before the code may take it, and is taken in the
order of the log. A question (`Engine`'s `ask`) is a message that somebody waits on the answer of; one that the code
would refuse anyway is refused before it is recorded, as with Temporal's updates.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar, overload

from refold.engine.callsite import call_source
from refold.engine.emissions import emission, encoded
from refold.engine.failures import type_name
from refold.engine.inbox import Message
from refold.engine.names import check_id, check_name
from refold.engine.operations import DurableScope, MakeCall, SendRequest
from refold.engine.payload import PayloadType, problems_of
from refold.engine.scope import async_scope, sync_scope, workflow_scope
from refold.log.errors import AskRefused, PayloadError, UsageError

T = TypeVar("T")

_MICROSECONDS: Final = 1_000_000
_REFUSED: Final = type_name(AskRefused)


# Sending --------------------------------------------------------------------------------------------------


def send(workflow_id: str, topic: str, value: object) -> Coroutine[Any, Any, None]:
    """In an `async def` workflow: send a message to another workflow and wait until it is recorded there.

    It arrives exactly once, and after those that this workflow had sent to it before.

    Args:
        workflow_id: The receiver.
        topic: The topic on which it receives, 1 to 255 characters.
        value: What is sent; its JSON is that of its own type.

    Raises:
        UsageError: The id or topic can't be used, or the caller is not an `async def` workflow.
        PayloadError: The value has no JSON form. Nothing was sent.
        WorkflowNotFound: There is no such workflow.
        WorkflowEnded: It has ended.
    """
    scope = async_scope("send()", "send_sync(...)", "use the send method of a workflow's handle")
    return _sent(scope, _message(scope, workflow_id, topic, value))


def send_sync(workflow_id: str, topic: str, value: object) -> None:
    """In a `def` workflow: send a message to another workflow; arguments and errors as of `send`."""
    scope = sync_scope("send_sync()", "send(...)", "use the send method of a workflow's handle")
    scope.call_sync(_message(scope, workflow_id, topic, value))


def _message(scope: DurableScope, workflow_id: str, topic: str, value: object) -> MakeCall:
    check_id(workflow_id)
    check_name(topic, "topic")
    what = f"message for workflow {workflow_id!r} on topic {topic!r}"
    payload = encoded(value, what, scope.max_payload_bytes)
    source = call_source()  # of the call: when it is awaited, a task may have it
    return lambda step, _source: SendRequest(step, topic, workflow_id, payload, source)


async def _sent(scope: DurableScope, message: MakeCall) -> None:
    await scope.call(message)


# Receiving ------------------------------------------------------------------------------------------------


@overload
def receive(
    topic: str, message_type: type[T], timeout: timedelta | float | None = None
) -> Coroutine[Any, Any, T]: ...
@overload
def receive(
    topic: str, message_type: object = Any, timeout: timedelta | float | None = None
) -> Coroutine[Any, Any, Any]: ...
def receive(
    topic: str, message_type: object = Any, timeout: timedelta | float | None = None
) -> Coroutine[Any, Any, Any]:
    """In an `async def` workflow: take the next message on a topic, waiting for it.

    Messages are kept until they are received, and come in the order in which they were recorded.

    Args:
        topic: The topic, 1 to 255 characters.
        message_type: What is expected; plain JSON values where not given.
        timeout: Longest wait, as a timedelta or in seconds (a durable timer); 0 takes only what is there.

    Returns:
        The awaitable message.

    Raises:
        UsageError: The topic or timeout can't be used, another task waits on the topic, or the caller is not an
            `async def` workflow.
        TimeoutError: None came in time. One that comes later is kept.
        PayloadError: The next message is of another type. It is dropped.
    """
    scope = async_scope("receive()", "receive_sync(...)", _SENT_THERE)
    expected = _expected(topic, message_type)
    return _received(scope, topic, expected, _timeout_s(timeout))


@overload
def receive_sync(
    topic: str, message_type: type[T], timeout: timedelta | float | None = None
) -> T: ...
@overload
def receive_sync(
    topic: str, message_type: object = Any, timeout: timedelta | float | None = None
) -> Any: ...
def receive_sync(
    topic: str, message_type: object = Any, timeout: timedelta | float | None = None
) -> Any:
    """In a `def` workflow: take the next message on a topic, waiting for it; arguments and errors as of `receive`."""
    scope = sync_scope("receive_sync()", "receive(...)", _SENT_THERE)
    expected = _expected(topic, message_type)
    return _decoded(expected, _next_sync(scope, topic, False, _timeout_s(timeout)))


_SENT_THERE: Final = "only workflows receive messages"


async def _received(
    scope: DurableScope, topic: str, expected: PayloadType[Any], timeout_s: float | None
) -> Any:
    return _decoded(expected, await _next(scope, topic, False, timeout_s))


async def _next(scope: DurableScope, topic: str, asks: bool, timeout_s: float | None) -> Message:
    if timeout_s is None or scope.has_message(topic, asks):  # then no timer is needed
        return await scope.receive(topic, asks)
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            return await scope.receive(topic, asks)
    except TimeoutError:
        if limit.expired():
            raise _none_came(scope, topic, asks, timeout_s) from None
        raise


def _next_sync(scope: DurableScope, topic: str, asks: bool, timeout_s: float | None) -> Message:
    try:
        return scope.receive_sync(topic, asks, timeout_s)
    except TimeoutError:
        raise _none_came(scope, topic, asks, timeout_s) from None


def _none_came(
    scope: DurableScope, topic: str, asks: bool, timeout_s: float | None
) -> TimeoutError:
    what = "question" if asks else "message"
    return TimeoutError(
        f"workflow {scope.workflow_id!r}: no {what} on topic {topic!r} within {timeout_s:g} s"
    )


def _decoded(expected: PayloadType[Any], message: Message) -> Any:
    try:
        return expected.decode(message.payload)
    except PayloadError as error:
        raise PayloadError(
            f"The {expected.what} ({message.message_id}, {_sender(message)}) does not fit the type that was asked for:"
            f" {_problem(error)}. It is dropped; receive again for the next."
        ) from error


def _sender(message: Message) -> str:
    parent = getattr(message, "parent_id", None)
    return "from a client" if parent is None else f"from workflow {parent!r}"


def _problem(error: PayloadError) -> str:
    cause = error.__cause__
    return problems_of(cause) if isinstance(cause, Exception) else str(error)


# Questions ------------------------------------------------------------------------------------------------


class Request(Generic[T]):
    """A question that somebody waits on the answer of. Made by `requests`."""

    def __init__(self, scope: DurableScope, topic: str, id: str, value: T) -> None:
        self._scope = scope
        self._topic = topic
        self._id = id
        self._value = value
        self._answered = False

    def __repr__(self) -> str:
        return f"<request {self._id!r} on topic {self._topic!r}>"

    @property
    def value(self) -> T:
        """What is asked."""
        return self._value

    @property
    def id(self) -> str:
        """The question's own id."""
        return self._id

    @property
    def topic(self) -> str:
        """The topic on which it came."""
        return self._topic

    def reply(self, value: object) -> None:
        """Answer; who asked gets `value`. Returns at once, in `def` and `async def` workflows.

        Raises:
            UsageError: It was answered before.
            PayloadError: The value has no JSON form. The question is still open.
        """
        self._check()
        what = f"reply on topic {self._topic!r}"
        self._answer(encoded(value, what, self._scope.max_payload_bytes), None)

    def refuse(self, reason: str) -> None:
        """Answer with an error: who asked gets an `AskRefused` that says `reason`.

        Raises:
            UsageError: It was answered before, or there is no reason.
        """
        self._check()
        if not reason:
            raise UsageError(f"{self!r} can't be refused without a reason: say what was wrong")
        self._answer(None, reason)

    def _check(self) -> None:
        if self._answered:
            raise UsageError(f"{self!r} was answered before: a question has one answer")

    def _answer(self, payload: str | None, reason: str | None) -> None:
        error = None if reason is None else (_REFUSED, reason)
        answer = emission("ask.answered", self._topic, payload, message_id=self._id, error=error)
        self._scope.emit(answer)
        self._answered = True


class Requests(Generic[T]):
    """The questions on one topic: an iterator without end, `async for` or, in `def` workflows, `for`."""

    def __init__(
        self,
        scope: DurableScope,
        topic: str,
        question: PayloadType[T],
        validate: Callable[[T], object] | None,
    ) -> None:
        self._scope = scope
        self._topic = topic
        self._question = question
        self._validate = validate
        scope.validate_with(topic, self._refusal)

    def __aiter__(self) -> AsyncIterator[Request[T]]:
        return self

    async def __anext__(self) -> Request[T]:
        return await self.receive()

    def __iter__(self) -> Iterator[Request[T]]:
        return self

    def __next__(self) -> Request[T]:
        return self.receive_sync()

    async def receive(self, timeout: timedelta | float | None = None) -> Request[T]:  # noqa: ASYNC109
        """In an `async def` workflow: the next question.

        Args:
            timeout: Longest wait, as a timedelta or in seconds; 0 takes only what is there.

        Raises:
            UsageError: The timeout can't be used, another task waits on the topic, or the caller is a `def` workflow.
            TimeoutError: None came in time.
        """
        scope = async_scope("Requests.receive()", "receive_sync(...)", _SENT_THERE)
        timeout_s = _timeout_s(timeout)
        until_us = _until_us(scope, timeout_s)
        while True:
            left_s = _left_s(scope, until_us)
            taken = self._taken(await _next(scope, self._topic, True, left_s))
            if taken is not None:
                return taken

    def receive_sync(self, timeout: timedelta | float | None = None) -> Request[T]:
        """In a `def` workflow: the next question; arguments and errors as of `receive`."""
        scope = sync_scope("Requests.receive_sync()", "receive(...)", _SENT_THERE)
        timeout_s = _timeout_s(timeout)
        until_us = _until_us(scope, timeout_s)
        while True:
            left_s = _left_s(scope, until_us)
            taken = self._taken(_next_sync(scope, self._topic, True, left_s))
            if taken is not None:
                return taken

    def _taken(self, message: Message) -> Request[T] | None:
        """The request of a message; None where it is refused, which it then is.

        It may have been recorded before the code had said what it takes, or when another question had not yet changed
        what that is.
        """
        reason = self._refusal(message.payload)
        if reason is None:
            value = self._question.decode(message.payload)
            return Request(self._scope, self._topic, message.message_id, value)
        Request(self._scope, self._topic, message.message_id, None).refuse(reason)
        return None

    def _refusal(self, payload: str) -> str | None:
        """Why a question with this payload is refused; None where it is not."""
        try:
            value = self._question.decode(payload)
        except PayloadError as error:
            return f"the question does not fit its type: {_problem(error)}"
        if self._validate is not None:
            try:
                self._validate(value)
            except Exception as error:  # noqa: BLE001 - whatever the user's validator raises is its refusal
                return str(error) or type(error).__qualname__
        return None


@overload
def requests(
    topic: str, message_type: type[T], validate: Callable[[T], object] | None = None
) -> Requests[T]: ...
@overload
def requests(
    topic: str, message_type: object = Any, validate: Callable[[Any], object] | None = None
) -> Requests[Any]: ...
def requests(
    topic: str, message_type: object = Any, validate: Callable[[Any], object] | None = None
) -> Requests[Any]:
    """The questions that clients ask this workflow on a topic, each to be answered once.

        async for request in requests("approve", Approval):
            request.reply(decide(request.value))

    Args:
        topic: The topic, 1 to 255 characters.
        message_type: What is asked; plain JSON values where not given. Others are refused.
        validate: Raises to refuse a question: who asked gets an `AskRefused` with its message. It is asked before the
            question is recorded, and again when its turn comes. It sees the workflow's state, and changes nothing.

    Raises:
        UsageError: The topic can't be used, or the caller is no workflow code.
    """
    scope = workflow_scope("requests()", "only workflows are asked; handles ask")
    return Requests(scope, topic, _expected(topic, message_type, "question"), validate)


# Published values -----------------------------------------------------------------------------------------


def publish(key: str, value: object) -> None:
    """Give a key a value that anyone can read, with `Handle.value`, also after the workflow's end.

    Returns at once, in `def` and `async def` workflows.

    Args:
        key: The key, 1 to 255 characters.
        value: The value; its JSON is that of its own type.

    Raises:
        UsageError: The key can't be used, or the caller is no workflow code.
        PayloadError: The value has no JSON form. Nothing was published.
    """
    scope = workflow_scope("publish()", "return the value to the workflow and publish it there")
    check_name(key, "key")
    payload = encoded(value, f"value published under key {key!r}", scope.max_payload_bytes)
    scope.emit(emission("value.published", key, payload))


# What they share ------------------------------------------------------------------------------------------


def _expected(topic: str, message_type: object, what: str = "message") -> PayloadType[Any]:
    check_name(topic, "topic")
    expected = PayloadType.of(
        object if message_type is Any else message_type, f"{what} on topic {topic!r}"
    )
    expected.check()
    return expected


def _timeout_s(timeout: timedelta | float | None) -> float | None:
    if timeout is None:
        return None
    timeout_s = timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)
    if not math.isfinite(timeout_s) or timeout_s < 0:
        raise UsageError(
            f"a workflow can't wait for {timeout!r}: give a finite time of 0 seconds or more, or None for no limit"
        )
    return timeout_s


def _until_us(scope: DurableScope, timeout_s: float | None) -> int | None:
    return None if timeout_s is None else scope.now_us + round(timeout_s * _MICROSECONDS)


def _left_s(scope: DurableScope, until_us: int | None) -> float | None:
    return None if until_us is None else max(0, until_us - scope.now_us) / _MICROSECONDS

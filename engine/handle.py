"""A run, by its id: its result, its messages, values and streams, and the orders that can be given to it.

Every method that waits has a twin for async code, with `_async` at the end of its name.
"""

import contextlib
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any, Generic, TypeVar, overload

from refold.engine.access import Access, expected_type
from refold.engine.client import Outcome
from refold.engine.names import check_name
from refold.engine.payload import PayloadType
from refold.engine.reader import WorkflowInfo, read_history, read_status
from refold.engine.replies import raise_answer, raise_failure
from refold.engine.stream_reader import StreamReader
from refold.log.commands import AskWorkflow, SendMessage, WatchValue
from refold.log.errors import EngineClosed, LogUnavailable, UsageError
from refold.log.events import Event, Unreadable

R = TypeVar("R")
T = TypeVar("T")


class Handle(Generic[R]):
    """A run, by its id. Made by `Engine.start` and `Engine.handle`; `await handle` gives the result in async code."""

    def __init__(self, access: Access, outcome: Outcome, result_type: PayloadType[R]) -> None:
        self._access = access
        self._bridge = access.bridge
        self._client = access.client
        self._operator = access.operator
        self._outcome = outcome
        self._result_type = result_type

    def __repr__(self) -> str:
        return f"<Handle of workflow {self.id!r}>"

    @property
    def id(self) -> str:
        """The run's id."""
        return self._outcome.workflow_id

    # How it stands ----------------------------------------------------------------------------------------

    def result(self, timeout_s: float | None = None) -> R:
        """Wait for the run's end and return what it returned. A run that is paused is waited for.

        Args:
            timeout_s: Longest wait in seconds; None waits for ever.

        Raises:
            ResultTimeout: It had not ended in time. It goes on.
            WorkflowParked: It waits for a person.
            WorkflowCancelled: It was asked to cancel, and ended by it.
            WorkflowTerminated: It was terminated.
            WorkflowNotFound: There is no such run.
            Exception: What the workflow raised, as the same type where that can be rebuilt, else `WorkflowError`.
        """
        return self._bridge.wait(self.result_async(timeout_s), "result_async()")

    async def result_async(self, timeout_s: float | None = None) -> R:
        """`result` for async code, with a timeout."""
        return await self._bridge.run(self._result(timeout_s))

    async def _result(self, timeout_s: float | None) -> R:
        reply = await self._client.wait(self._outcome, timeout_s)
        if reply.status != "completed":
            raise_failure(reply)
        return self._result_type.decode(reply.payload or "null")

    def __await__(self) -> Generator[Any, None, R]:
        return self.result_async().__await__()

    def status(self) -> WorkflowInfo:
        """How the run stands, read from the log.

        Raises:
            WorkflowNotFound: There is no such run.
        """
        return self._bridge.wait(self.status_async(), "status_async()")

    async def status_async(self) -> WorkflowInfo:
        """`status` for async code."""
        return await self._bridge.run(read_status(self._client.log, self.id))

    def history(self) -> Sequence[Event | Unreadable]:
        """The run's events, in order.

        Raises:
            WorkflowNotFound: There is no such run.
        """
        return self._bridge.wait(self.history_async(), "history_async()")

    async def history_async(self) -> Sequence[Event | Unreadable]:
        """`history` for async code."""
        return await self._bridge.run(read_history(self._client.log, self.id))

    # Messages and questions -------------------------------------------------------------------------------

    def send(self, topic: str, value: object, *, message_id: str | None = None) -> None:
        """Send a message, and wait until it is recorded: then it is received, or kept until it is.

        Args:
            topic: The topic on which the workflow receives, 1 to 255 characters.
            value: What is sent; its JSON is that of its own type.
            message_id: The message's own id: sent again with the same id, it counts once. Generated where not given.

        Raises:
            PayloadError: The value has no JSON form, or is too large. Nothing was sent.
            UsageError: The topic or id can't be used.
            WorkflowNotFound: There is no such run.
            WorkflowEnded: It has ended.
            ResultTimeout: No worker answered within the engine's `start_timeout_s`. The message is durable even so.
        """
        self._bridge.wait(self.send_async(topic, value, message_id=message_id), "send_async()")

    async def send_async(self, topic: str, value: object, *, message_id: str | None = None) -> None:
        """`send` for async code."""
        await self._bridge.run(self._send(topic, value, message_id))

    async def _send(self, topic: str, value: object, message_id: str | None) -> None:
        check_name(topic, "topic")
        if message_id is not None:
            check_name(message_id, "message")
        payload = self._access.encoded(value, f"message for workflow {self.id!r} on {topic!r}")
        envelope = self._client.envelope(self.id)
        message = SendMessage(
            **envelope,
            name=topic,
            payload=payload,
            message_id=message_id if message_id is not None else envelope["command_id"],
        )
        await self._client.ask(message, self._access.timeout_s)

    @overload
    def ask(
        self, topic: str, value: object, answer_type: type[T], *, timeout_s: float | None = None
    ) -> T: ...
    @overload
    def ask(
        self,
        topic: str,
        value: object,
        answer_type: object = Any,
        *,
        timeout_s: float | None = None,
    ) -> Any: ...
    def ask(
        self,
        topic: str,
        value: object,
        answer_type: object = Any,
        *,
        timeout_s: float | None = None,
    ) -> Any:
        """Ask the workflow's code a question and wait for its answer.

        Args:
            topic: The topic of the code's `requests`, 1 to 255 characters.
            value: What is asked; its JSON is that of its own type.
            answer_type: What is expected; plain JSON values where not given.
            timeout_s: Longest wait in seconds; None waits for ever.

        Returns:
            The answer.

        Raises:
            AskRefused: The code's validator refused it, and nothing was recorded; or the code answered with a refusal.
            PayloadError: The value has no JSON form, or the answer is of another type.
            WorkflowNotFound: There is no such run.
            WorkflowEnded: It has ended without an answer.
            ResultTimeout: No answer in time. One may still be given; nobody hears it.
        """
        return self._bridge.wait(
            self.ask_async(topic, value, answer_type, timeout_s=timeout_s), "ask_async()"
        )

    @overload
    async def ask_async(
        self, topic: str, value: object, answer_type: type[T], *, timeout_s: float | None = None
    ) -> T: ...
    @overload
    async def ask_async(
        self,
        topic: str,
        value: object,
        answer_type: object = Any,
        *,
        timeout_s: float | None = None,
    ) -> Any: ...
    async def ask_async(
        self,
        topic: str,
        value: object,
        answer_type: object = Any,
        *,
        timeout_s: float | None = None,
    ) -> Any:
        """`ask` for async code."""
        return await self._bridge.run(self._ask(topic, value, answer_type, timeout_s))

    async def _ask(
        self, topic: str, value: object, answer_type: object, timeout_s: float | None
    ) -> Any:
        check_name(topic, "topic")
        answer = expected_type(answer_type, f"answer of workflow {self.id!r} on {topic!r}")
        payload = self._access.encoded(value, f"question to workflow {self.id!r} on {topic!r}")
        question = AskWorkflow(**self._client.envelope(self.id), name=topic, payload=payload)
        reply = await self._client.ask(question, timeout_s)
        if reply.error_type is not None:
            raise_answer(reply)
        return answer.decode(reply.payload or "null")

    # What it shows ----------------------------------------------------------------------------------------

    @overload
    def value(self, key: str, value_type: type[T], *, timeout_s: float | None = None) -> T: ...
    @overload
    def value(
        self, key: str, value_type: object = Any, *, timeout_s: float | None = None
    ) -> Any: ...
    def value(self, key: str, value_type: object = Any, *, timeout_s: float | None = None) -> Any:
        """What the workflow has published under a key; waits for it while the workflow runs.

        Args:
            key: The key, 1 to 255 characters.
            value_type: What is expected; plain JSON values where not given.
            timeout_s: Longest wait in seconds; None waits for ever.

        Raises:
            WorkflowEnded: It has ended and has published nothing under that key.
            WorkflowNotFound: There is no such run.
            PayloadError: The value is of another type.
            ResultTimeout: Nothing was published in time.
        """
        return self._bridge.wait(
            self.value_async(key, value_type, timeout_s=timeout_s), "value_async()"
        )

    @overload
    async def value_async(
        self, key: str, value_type: type[T], *, timeout_s: float | None = None
    ) -> T: ...
    @overload
    async def value_async(
        self, key: str, value_type: object = Any, *, timeout_s: float | None = None
    ) -> Any: ...
    async def value_async(
        self, key: str, value_type: object = Any, *, timeout_s: float | None = None
    ) -> Any:
        """`value` for async code."""
        return await self._bridge.run(self._value(key, value_type, timeout_s))

    async def _value(self, key: str, value_type: object, timeout_s: float | None) -> Any:
        check_name(key, "key")
        value = expected_type(value_type, f"value of workflow {self.id!r} under {key!r}")
        watch = WatchValue(**self._client.envelope(self.id), name=key)
        reply = await self._client.ask(watch, timeout_s)
        return value.decode(reply.payload or "null")

    @overload
    def stream(
        self, name: str, item_type: type[T], *, start: int = 0
    ) -> Generator[T, None, None]: ...
    @overload
    def stream(
        self, name: str, item_type: object = Any, *, start: int = 0
    ) -> Generator[Any, None, None]: ...
    def stream(
        self, name: str, item_type: object = Any, *, start: int = 0
    ) -> Generator[Any, None, None]:
        """The items of one of the workflow's streams: what is there, then live what comes, to the workflow's end.

        An item that a step wrote appears once for each attempt that wrote it; what was rewound appears as it was, and
        then again. The items before a fork's beginning stand in its source's stream.

        Args:
            name: The stream's name, 1 to 255 characters.
            item_type: What is expected; plain JSON values where not given.
            start: Index of the first item that is wanted, from 0.

        Returns:
            An iterator of the items.

        Raises:
            UsageError: The name or index can't be used.
            WorkflowNotFound: There is no such run; raised by the iterator, as are the next two.
            PayloadError: An item is of another type.
            EngineClosed: The engine was closed.
        """
        self._bridge.opened()
        return self._blocking(self._reader(name, item_type, start))

    def _blocking(self, reader: StreamReader[T]) -> Generator[T, None, None]:
        batches = reader.batches()
        try:
            while items := self._bridge.wait(self._next(batches), "stream_async()"):
                yield from items
        finally:
            self._bridge.run_later(lambda: _closed(batches))

    @overload
    def stream_async(
        self, name: str, item_type: type[T], *, start: int = 0
    ) -> AsyncGenerator[T, None]: ...
    @overload
    def stream_async(
        self, name: str, item_type: object = Any, *, start: int = 0
    ) -> AsyncGenerator[Any, None]: ...
    def stream_async(
        self, name: str, item_type: object = Any, *, start: int = 0
    ) -> AsyncGenerator[Any, None]:
        """`stream` for async code. Leave it by `aclosing`, or when the loop collects it."""
        self._bridge.opened()
        return self._live(self._reader(name, item_type, start))

    async def _live(self, reader: StreamReader[T]) -> AsyncGenerator[T, None]:
        batches = reader.batches()
        try:
            while items := await self._bridge.run(self._next(batches)):
                for item in items:
                    yield item
        finally:
            self._bridge.run_later(lambda: _closed(batches))

    def _reader(self, name: str, item_type: object, start: int) -> StreamReader[Any]:
        check_name(name, "stream")
        _check_index(start)
        blobs = self._client.blobs
        return StreamReader(self._client.log, self.id, name, item_type, start, blobs=blobs)

    async def _next(self, batches: AsyncGenerator[Sequence[T], None]) -> Sequence[T]:
        """The next items; none at the end."""
        try:
            return await anext(batches)
        except StopAsyncIteration:
            return ()
        except LogUnavailable as error:
            if self._client.closed is None:
                raise
            raise EngineClosed("the engine was closed while a stream was read") from error

    # Orders -----------------------------------------------------------------------------------------------

    def cancel(self, reason: str | None = None) -> None:
        """Ask the run to cancel: its code is told at its next durable call, and may clean up first.

        Returns when that is recorded; `result` tells when it has ended. A second time tells the code again.

        Args:
            reason: Why, for the audit.

        Raises:
            WorkflowEnded: It has ended.
            WorkflowNotFound: There is no such run.
            ResultTimeout: No worker answered within the engine's `start_timeout_s`. The order is durable all the same.
        """
        self._bridge.wait(self.cancel_async(reason), "cancel_async()")

    async def cancel_async(self, reason: str | None = None) -> None:
        """`cancel` for async code."""
        await self._bridge.run(self._operator.cancel(self.id, reason))

    def terminate(self, reason: str | None = None) -> None:
        """End the run now, without asking its code.

        Args:
            reason: Why, for the audit.

        Raises:
            WorkflowEnded: It has ended.
            WorkflowNotFound: There is no such run.
            ResultTimeout: No worker answered within the engine's `start_timeout_s`. The order is durable all the same.
        """
        self._bridge.wait(self.terminate_async(reason), "terminate_async()")

    async def terminate_async(self, reason: str | None = None) -> None:
        """`terminate` for async code."""
        await self._bridge.run(self._operator.terminate(self.id, reason))

    def pause(self, reason: str | None = None) -> None:
        """Halt the run until it is resumed. Steps under way end and are recorded; messages are kept.

        Args:
            reason: Why, for the audit.

        Raises:
            CommandRefused: It is not running.
            WorkflowNotFound: There is no such run.
            ResultTimeout: No worker answered within the engine's `start_timeout_s`. The order is durable all the same.
        """
        self._bridge.wait(self.pause_async(reason), "pause_async()")

    async def pause_async(self, reason: str | None = None) -> None:
        """`pause` for async code."""
        await self._bridge.run(self._operator.pause(self.id, reason))

    def resume(self, reason: str | None = None) -> None:
        """Let the run go on from where it stopped: one that is parked or paused, has failed, or was ended from outside.

        A run that has ended is reopened with all that was recorded. Where the failure of a step, child or message was
        the last thing that its code heard, that operation is done again. A deadline that has passed no longer counts.

        Args:
            reason: Why, for the audit.

        Raises:
            CommandRefused: It is running, or has completed, or its history can't be followed.
            WorkflowNotFound: There is no such run.
            ResultTimeout: No worker answered within the engine's `start_timeout_s`. The order is durable all the same.
        """
        self._bridge.wait(self.resume_async(reason), "resume_async()")

    async def resume_async(self, reason: str | None = None) -> None:
        """`resume` for async code."""
        await self._bridge.run(self._operator.resume(self.id, reason))

    def rewind(self, step: int, reason: str | None = None) -> None:
        """Take the run back to before an operation: it and all later ones are done again; also where it has ended.

        What they did outside is not undone. Their numbers are not used again, so that idempotency keys are new ones.

        Args:
            step: Number of the first operation to be done again.
            reason: Why, for the audit.

        Raises:
            UsageError: The step is no whole number from 0 on.
            CommandRefused: The run has no such step, or its history can't be followed.
            WorkflowNotFound: There is no such run.
            ResultTimeout: No worker answered within the engine's `start_timeout_s`. The order is durable all the same.
        """
        self._bridge.wait(self.rewind_async(step, reason), "rewind_async()")

    async def rewind_async(self, step: int, reason: str | None = None) -> None:
        """`rewind` for async code."""
        await self._bridge.run(self._operator.rewind(self.id, step, reason))

    def fork(
        self,
        step: int | None = None,
        *,
        id: str | None = None,
        version: int | None = None,
        reason: str | None = None,
    ) -> "Handle[R]":
        """Copy the run into a new one, with the operations before `step` replayed and the others done anew.

        Args:
            step: The operation before which the copy ends; None for all that is recorded.
            id: The new run's id; made from this one's where not given.
            version: Version of its code; this run's own where not given.
            reason: Why, for the audit.

        Returns:
            The new run's handle.

        Raises:
            UsageError: There is no such step in this run's history, or the id or version can't be used.
            CommandRefused: A child that the copy would wait for is still open, or the history can't be followed.
            WorkflowConflict: The new id is taken.
            UnknownWorkflow: The worker has no such version.
            WorkflowNotFound: There is no run to be copied.
            ResultTimeout: No worker answered within the engine's `start_timeout_s`.
        """
        forked = self.fork_async(step, id=id, version=version, reason=reason)
        return self._bridge.wait(forked, "fork_async()")

    async def fork_async(
        self,
        step: int | None = None,
        *,
        id: str | None = None,
        version: int | None = None,
        reason: str | None = None,
    ) -> "Handle[R]":
        """`fork` for async code."""
        forked = self._operator.fork(self.id, step, id, version, reason)
        fork_id = await self._bridge.run(forked)
        return Handle(self._access, self._client.outcome(fork_id), self._result_type)


def _check_index(start: object) -> None:
    if isinstance(start, bool) or not isinstance(start, int) or start < 0:
        raise UsageError(f"a stream has no index {start!r}: it begins with 0")


async def _closed(batches: AsyncGenerator[Any, None]) -> None:
    """Close a reading; one that was interrupted while it waits is cancelled, and closes itself."""
    with contextlib.suppress(RuntimeError):
        await batches.aclose()

"""The client: asks for things by command, hears of them by reply, and asks again when it hears nothing.

A reply is a hint that may be lost; what is asked for is idempotent. So a client that has waited `ask_again_s` in
vain sends its question once more, for as long as its caller is patient, whatever has happened to the workers
meanwhile.
"""

import asyncio
import getpass
import logging
import uuid
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn
from weakref import WeakValueDictionary

from refold.engine.effects import Lookup
from refold.engine.failures import Failure, rebuild
from refold.engine.reader import read_ending
from refold.log.codec import decode_reply, encode_command
from refold.log.commands import Command, Reply, ResumeWorkflow, StartWorkflow, WatchWorkflow
from refold.log.errors import (
    CommandRefused,
    EngineClosed,
    InvalidInput,
    LogError,
    RefoldError,
    ResultTimeout,
    StepError,
    UnknownWorkflow,
    UsageError,
    WorkflowConflict,
    WorkflowError,
    WorkflowNotFound,
    WorkflowParked,
)
from refold.log.events import Unreadable
from refold.log.partitioner import partition_of
from refold.log.protocol import Channel, Log, Record

logger = logging.getLogger("refold.client")

LOOK_AFTER_S = 0.5
"""A worker answers within milliseconds; after this long without a word the log itself is asked."""

MAX_ID_LENGTH = 255
"""Characters of a workflow id: long enough for any natural key, short enough for headers and indexes."""

_REFUSALS: dict[str, type[RefoldError]] = {
    f"{error.__module__}:{error.__qualname__}": error
    for error in (CommandRefused, WorkflowConflict, UnknownWorkflow, InvalidInput, WorkflowNotFound)
}


class _Question:
    """A command whose acceptance is waited for. `age` counts the rounds without an answer."""

    __slots__ = ("age", "command", "reply")

    def __init__(self, command: Command, reply: asyncio.Future[Reply]) -> None:
        self.command = command
        self.reply = reply
        self.age = 0

    def give_up(self, timeout_s: float) -> None:
        """Let the caller know that nobody answered."""
        if not self.reply.done():
            error = ResultTimeout(
                f"no worker answered within {timeout_s:g} s about workflow {self.command.workflow_id!r}. The "
                "command is in the log and will be carried out: start a worker, or look whether one runs"
            )
            self.reply.set_exception(error)


@dataclass(slots=True, weakref_slot=True)
class Outcome:
    """How a run ended, once it is known. Shared by all handles of one run, gone with the last of them.

    Args:
        workflow_id: The run.
        reply: The last word about it, None while there is none.
        watched: Whether its partition's owner has been asked to tell.
        heard: Whether the owner has said that it will.
        failure: Why this process can't hear of it (its partition is halted); raised once.
        age: Rounds that the waiters have waited without a reply.
        waiters: Callers that wait for the reply.
    """

    workflow_id: str
    reply: Reply | None = None
    watched: bool = False
    heard: bool = False
    failure: RefoldError | None = None
    age: int = 0
    waiters: list[asyncio.Future[None]] = field(default_factory=list[asyncio.Future[None]])

    def told(self, reply: Reply) -> None:
        """Take the reply and let the waiters go on."""
        self.reply = reply
        self.wake()

    def wake(self) -> None:
        """Let the waiters look again."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Client:
    """Starts, watches and resumes runs; needs no workflow code and runs none.

    Args:
        log: An open log.
        clock: Wall clock, microseconds since 1970-01-01 UTC.
        ask_again_s: How long to wait for a reply before asking again, in seconds.
        requested_by: Who asks, for the audit; the operating system's user where not given.
    """

    def __init__(
        self,
        log: Log,
        clock: Callable[[], int],
        ask_again_s: float = 5.0,
        requested_by: str | None = None,
    ) -> None:
        self.log = log
        self.client_id = f"client-{uuid.uuid4().hex[:16]}"
        self._clock = clock
        self._ask_again_s = ask_again_s
        self._requested_by = requested_by or _user()
        self._asked: dict[str, _Question] = {}  # by command id
        self._questions = 0
        self._round: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._outcomes: WeakValueDictionary[str, Outcome] = WeakValueDictionary()
        self._closed: RefoldError | None = None

    async def open(self) -> None:
        """Begin to listen for replies."""
        await self.log.listen(self.client_id, self._deliver)
        self._round = asyncio.get_running_loop().call_later(self._ask_again_s, self._ask_again)

    def close(self, error: RefoldError | None = None) -> None:
        """Let everybody who waits know that no reply will come."""
        self._closed = error or EngineClosed(
            "the engine was closed; open it again to go on waiting"
        )
        if self._round is not None:
            self._round.cancel()
        for task in self._background:
            task.cancel()
        for question in self._asked.values():
            if not question.reply.done():
                question.reply.set_exception(self._closed)
        for outcome in list(self._outcomes.values()):
            outcome.wake()

    def outcome(self, workflow_id: str) -> Outcome:
        """The shared place where a run's end will be noted."""
        outcome = self._outcomes.get(workflow_id)
        if outcome is None:
            outcome = self._outcomes[workflow_id] = Outcome(workflow_id)
        return outcome

    # Asking -----------------------------------------------------------------------------------------------

    async def start(
        self,
        workflow: str,
        payload: str,
        workflow_id: str,
        *,
        timeout_s: float | None,
        confirm: bool,
        attributes: dict[str, str] | None = None,
    ) -> Outcome:
        """Ask for a run and, with `confirm`, wait until it is accepted.

        Raises:
            WorkflowConflict: The id belongs to a run with another workflow or input.
            UnknownWorkflow: The worker has no such workflow.
            ResultTimeout: No worker answered in time. The command is durable: the run will start.
            LogError: The command could not be written.
        """
        check_id(workflow_id)
        command = StartWorkflow(
            command_id=self._next_id(),
            workflow_id=workflow_id,
            reply_to=self.client_id,
            requested_at=self._clock(),
            requested_by=self._requested_by,
            workflow=workflow,
            payload=payload,
            attributes=attributes,
        )
        outcome = self.outcome(workflow_id)
        outcome.watched = True
        if confirm:
            await self._ask(command, timeout_s)
        else:
            await self._send(command)
        return outcome

    async def resume(self, workflow_id: str, reason: str | None, timeout_s: float | None) -> None:
        """Let a parked run go on.

        Raises:
            CommandRefused: It is not parked, or its history is broken.
            WorkflowNotFound: No run has that id.
            ResultTimeout: No worker answered in time.
        """
        check_id(workflow_id)
        outcome = self._outcomes.get(workflow_id)
        if outcome is not None:
            outcome.reply, outcome.watched = None, False
        command = ResumeWorkflow(
            command_id=self._next_id(),
            workflow_id=workflow_id,
            reply_to=self.client_id,
            requested_at=self._clock(),
            requested_by=self._requested_by,
            reason=reason,
        )
        await self._ask(command, timeout_s)

    async def wait(self, outcome: Outcome, timeout_s: float | None) -> Reply:
        """Wait for a run's end.

        Raises:
            WorkflowNotFound: No run has that id.
            ResultTimeout: It has not ended in time. It goes on.
            EngineClosed: The engine was closed meanwhile.
        """
        if outcome.reply is not None and outcome.reply.status == "parked":
            outcome.reply, outcome.watched = None, False  # it may have been resumed since
        if timeout_s is None:
            return await self._wait(outcome)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._wait(outcome)
        except TimeoutError as error:
            raise ResultTimeout(
                f"workflow {outcome.workflow_id!r} has not ended within {timeout_s:g} s. It goes on: "
                "ask again, or see how it stands with `refold show`"
            ) from error

    async def _wait(self, outcome: Outcome) -> Reply:
        while (reply := outcome.reply) is None:
            if self._closed is not None:
                raise self._closed
            if not outcome.watched:
                outcome.watched, outcome.heard = True, False
                await self._send(self._watch(outcome.workflow_id))
                asyncio.get_running_loop().call_later(LOOK_AFTER_S, self._look, outcome)
            elif outcome.failure is not None:
                failure, outcome.failure, outcome.watched = outcome.failure, None, False
                raise failure
            else:
                waiter = asyncio.get_running_loop().create_future()
                outcome.waiters.append(waiter)
                outcome.age = 0
                await waiter
        if reply.status == "refused":
            outcome.reply, outcome.watched = None, False
            raise_refusal(reply)
        return reply

    def _look(self, outcome: Outcome) -> None:
        """Nobody has answered for a while: perhaps no worker runs. An ended run's result stands in the log."""
        if outcome.reply is None and not outcome.heard and self._closed is None:
            self._in_background(self._look_up(outcome))

    async def _look_up(self, outcome: Outcome) -> None:
        partition = partition_of(outcome.workflow_id, self.log.partitions)
        lookup = Lookup(outcome.workflow_id, self.client_id, "")
        reply = await read_ending(self.log, partition, lookup)
        if reply.status != "unknown" and outcome.reply is None:
            outcome.told(reply)

    def _next_id(self) -> str:
        """A command id: unique because the client's is."""
        self._questions += 1
        return f"{self.client_id}/{self._questions}"

    def _watch(self, workflow_id: str) -> WatchWorkflow:
        return WatchWorkflow(
            command_id=self._next_id(),
            workflow_id=workflow_id,
            reply_to=self.client_id,
            requested_at=self._clock(),
            requested_by=self._requested_by,
        )

    async def _ask(self, command: Command, timeout_s: float | None) -> None:
        """Send a command and wait until it is accepted."""
        if self._closed is not None:
            raise self._closed
        loop = asyncio.get_running_loop()
        question = _Question(command, loop.create_future())
        self._asked[command.command_id] = question
        timer = (
            None if timeout_s is None else loop.call_later(timeout_s, question.give_up, timeout_s)
        )
        try:
            await self._send(command)
            reply = await question.reply
        finally:
            del self._asked[command.command_id]
            question.reply.cancel()
            if timer is not None:
                timer.cancel()
        if reply.status == "refused":
            raise_refusal(reply)

    def _ask_again(self) -> None:
        """Every `ask_again_s`: what was asked a whole round ago and not answered is asked again."""
        loop = asyncio.get_running_loop()
        self._round = loop.call_later(self._ask_again_s, self._ask_again)
        for question in list(self._asked.values()):
            question.age += 1
            # After 2, 4, 8, ... rounds: a worker that is behind is not helped by more to do. A resume is not sent
            # twice, for it would be refused where only the first one's reply was lost.
            due = question.age > 1 and question.age & (question.age - 1) == 0
            if due and not isinstance(question.command, ResumeWorkflow):
                self._in_background(self._send(question.command))
        for outcome in list(self._outcomes.values()):
            if outcome.waiters:
                outcome.age += 1
                if outcome.age > 1 and outcome.age & (outcome.age - 1) == 0:
                    outcome.watched = False
                    outcome.wake()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.warning(
                "a question could not be asked again, another try follows: %s", task.exception()
            )

    async def _send(self, command: Command) -> None:
        entry = encode_command(command)
        partition = partition_of(command.workflow_id, self.log.partitions)
        await self.log.append(Channel.COMMANDS, partition, [entry])

    # Hearing ----------------------------------------------------------------------------------------------

    def take(self, client_id: str, reply: Reply) -> bool:
        """Offer a reply made in this process; returns whether it was for this client."""
        if client_id != self.client_id:
            return False
        self._hear(reply)
        return True

    def halted(self, partition: int, error: LogError) -> None:
        """A partition of this process's worker can't go on: tell those who wait for its runs."""
        for question in self._asked.values():
            there = partition_of(question.command.workflow_id, self.log.partitions) == partition
            if there and not question.reply.done():
                question.reply.set_exception(error)
        for outcome in list(self._outcomes.values()):
            if partition_of(outcome.workflow_id, self.log.partitions) == partition:
                outcome.failure = error
                outcome.wake()

    def _deliver(self, records: Sequence[Record]) -> None:
        for record in records:
            reply = decode_reply(record)
            if not isinstance(reply, Unreadable):  # unreadable: ask again
                self._hear(reply)

    def _hear(self, reply: Reply) -> None:
        question = self._asked.get(reply.command_id)
        if reply.status == "accepted" or (reply.status == "refused" and question is not None):
            outcome = self._outcomes.get(reply.workflow_id)
            if outcome is not None:
                outcome.heard = True
            if question is not None and not question.reply.done():
                question.reply.set_result(reply)
            return
        if (
            reply.status == "unknown" and question is not None
        ):  # the owner has changed: ask the new one
            if not isinstance(question.command, ResumeWorkflow):
                question.age = 0
                self._in_background(self._send(question.command))
            return
        outcome = self._outcomes.get(reply.workflow_id)
        if outcome is None:
            return
        if reply.status == "unknown":
            outcome.watched = False
            outcome.wake()
        else:
            outcome.told(reply)


def check_id(workflow_id: str) -> None:
    """Refuse ids that can't be keys.

    Raises:
        UsageError: The id is empty, too long, or holds control characters or surrogates.
    """
    if not workflow_id:
        raise UsageError("a workflow id must not be empty: give a name that means this one run")
    if len(workflow_id) > MAX_ID_LENGTH:
        raise UsageError(
            f"a workflow id has at most {MAX_ID_LENGTH} characters, this one has {len(workflow_id)}: "
            f"{workflow_id[:40]!r}... Use a shorter key, or a digest of the long one"
        )
    if not workflow_id.isprintable():
        raise UsageError(
            f"workflow id {workflow_id!r} holds characters that can't be printed: use letters, digits, "
            "punctuation and spaces"
        )


def raise_refusal(reply: Reply) -> NoReturn:
    """Raise the error that a refusal names."""
    raise _REFUSALS.get(reply.error_type or "", CommandRefused)(reply.error_message or "refused")


def raise_failure(reply: Reply) -> NoReturn:
    """Raise what a failed or parked run has to say."""
    if reply.status == "parked":
        raise WorkflowParked(reply.error_message or f"workflow {reply.workflow_id!r} is parked")
    error = rebuild(
        Failure(
            reply.error_type or "",
            reply.error_message or "",
            reply.error_stack or "",
            reply.payload,
        )
    )
    if type(error) is StepError and reply.error_type != "refold.log.errors:StepError":
        raise WorkflowError(
            f"workflow {reply.workflow_id!r} failed with an error whose type can't be rebuilt here: {error}"
        ) from error
    error.add_note(f"workflow {reply.workflow_id!r} failed; see `refold show {reply.workflow_id}`")
    raise error


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user in this container
        return None

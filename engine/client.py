"""The client: asks for things by command, hears of them by reply, and asks again when it hears nothing.

A reply is a hint that may be lost. What changes nothing when it comes twice is sent again, ever more rarely, for as
long as its caller is patient, whatever has happened to the workers meanwhile. An order is given once: what became of
it stands in the log, and is looked up there (`engine/settling.py`).
"""

import asyncio
import getpass
import logging
import os
import socket
import uuid
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypedDict
from weakref import WeakValueDictionary

from refold.engine.blobs import IN_RECORDS, Blobs
from refold.engine.effects import Lookup
from refold.engine.names import check_id
from refold.engine.questions import Outcome, Question
from refold.engine.reader import read_ending
from refold.engine.replies import is_refused_as_ended, raise_refusal
from refold.engine.settling import (
    Repeatable,
    known_value,
    message_reply,
    order_reply,
    question_reply,
)
from refold.log.codec import decode_reply, encode_command
from refold.log.commands import (
    AskWorkflow,
    Command,
    Reply,
    SendMessage,
    StartWorkflow,
    WatchValue,
    WatchWorkflow,
)
from refold.log.errors import (
    EngineClosed,
    LogError,
    RecordTooLarge,
    RefoldError,
    ResultTimeout,
    UsageError,
)
from refold.log.events import Unreadable
from refold.log.keys import KEY_TAG
from refold.log.protocol import Channel, Log, Record

__all__ = ["LOOK_AFTER_S", "Client", "Envelope", "Outcome", "check_id"]

logger = logging.getLogger("refold.client")

LOOK_AFTER_S = 0.5
"""A worker answers within milliseconds; after this long without a word the log itself is asked."""
READS_AT_ONCE = 4
"""So many such questions at a time: each may hold some megabytes, and a thousand handles may wait for one worker."""


class Envelope(TypedDict):
    """The part of a command that is the same for all kinds."""

    command_id: str
    workflow_id: str
    reply_to: str
    requested_at: int
    requested_by: str | None


class Client:
    """Sends commands to runs and waits for what they come to; needs no workflow code and runs none.

    Args:
        log: An open log.
        clock: Wall clock, microseconds since 1970-01-01 UTC.
        ask_again_s: How long to wait for a reply before asking again, in seconds.
        requested_by: Who asks, for the audit; the operating system's user and machine, as in anna@desk-3, where not
            given.
        blobs: Where large payloads are put and read.
    """

    def __init__(
        self,
        log: Log,
        clock: Callable[[], int],
        ask_again_s: float = 5.0,
        requested_by: str | None = None,
        *,
        blobs: Blobs = IN_RECORDS,
    ) -> None:
        self.log = log
        self.blobs = blobs
        self.client_id = f"client-{uuid.uuid4().hex[:16]}"
        self.clock = clock
        self._ask_again_s = ask_again_s
        self.requested_by = requested_by or _user()
        self._asked: dict[str, Question] = {}  # by command id
        self._questions = 0
        self._round: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._reading = asyncio.Semaphore(READS_AT_ONCE)
        self._outcomes: WeakValueDictionary[str, Outcome] = WeakValueDictionary()
        self._closed: RefoldError | None = None
        self.known_queues: set[str] = set()

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
            question.fail(self._closed)
        for outcome in list(self._outcomes.values()):
            outcome.wake()

    @property
    def closed(self) -> RefoldError | None:
        """Why nothing can be asked any more; None while it can."""
        return self._closed

    def outcome(self, workflow_id: str) -> Outcome:
        """The shared place where a run's end will be noted."""
        outcome = self._outcomes.get(workflow_id)
        if outcome is None:
            outcome = self._outcomes[workflow_id] = Outcome(workflow_id)
        return outcome

    def envelope(self, workflow_id: str) -> Envelope:
        """The common part of the next command to a run.

        Raises:
            UsageError: The id can't be one.
        """
        check_id(workflow_id)
        self._questions += 1
        return {
            "command_id": f"{self.client_id}/{self._questions}",  # unique because the client's is
            "workflow_id": workflow_id,
            "reply_to": self.client_id,
            "requested_at": self.clock(),
            "requested_by": self.requested_by,
        }

    # Asking -----------------------------------------------------------------------------------------------

    async def start(  # noqa: PLR0913 - each a keyword with a default
        self,
        workflow: str,
        payload: str,
        workflow_id: str,
        *,
        timeout_s: float | None,
        confirm: bool,
        attributes: dict[str, str] | None = None,
        version: int | None = None,
        due_at: int | None = None,
        message: tuple[str, str] | None = None,
        subject: str | None = None,
        queue: str | None = None,
    ) -> Outcome:
        """Ask for a run and, with `confirm`, wait until it is accepted.

        Args:
            workflow: Name of the workflow.
            payload: JSON of its input.
            workflow_id: The run's id.
            timeout_s: Longest wait in seconds; None waits for ever.
            confirm: Wait until it is accepted.
            attributes: Its tags, as `log/attributes.py` writes them.
            version: Version of its code; None for the newest that the worker has.
            due_at: Deadline, microseconds since 1970-01-01 UTC.
            message: Topic and JSON of a message that goes with it.
            subject: With whose keys its payloads are encrypted; None for none, or for keys of its own.
            queue: The queue in which it waits; None for its workflow's own, if it has one.

        Raises:
            UsageError: There is a subject, and no keys are given here.
            KeysUnavailable: The key store can't be reached now. Nothing was sent.
            WorkflowConflict: The id belongs to a run with another workflow or input.
            UnknownWorkflow: The worker has no such workflow.
            ResultTimeout: No worker answered in time. The command is durable: the run will start.
            LogError: The command could not be written.
        """
        topic, text = message or (None, None)
        attributes = await self._with_key(workflow_id, subject, attributes)
        command = StartWorkflow(
            **self.envelope(workflow_id),
            workflow=workflow,
            payload=payload,
            version=version,
            attributes=attributes,
            due_at=due_at,
            name=topic,
            message=text,
            queue=queue,
        )
        outcome = self.outcome(workflow_id)
        if outcome.reply is not None:
            outcome.forget()  # it may have ended so long ago that this starts another run
        if message is None:
            # A run that ends with the message that came with its start is not watched by that start.
            outcome.watched, outcome.question = True, command.command_id
        try:
            if confirm:
                await self.ask(command, timeout_s)
            else:
                await self._send(command)
        except BaseException:
            outcome.forget()  # a run that was there before is not watched by a start that was refused
            raise
        return outcome

    async def _with_key(
        self, workflow_id: str, subject: str | None, attributes: dict[str, str] | None
    ) -> dict[str, str] | None:
        """The tags of a run that is about to be started, with that of its keys."""
        privacy = self.blobs.privacy
        if privacy is None:
            if subject is not None:
                raise UsageError(
                    f"workflow {workflow_id!r} can't be started for a subject, no keys are given here: give them by "
                    "keys=, in the log's URL, or by the variable REFOLD_KEYS. Nothing was sent"
                )
            return attributes
        ring = await asyncio.to_thread(privacy.started_with, workflow_id, subject)
        return attributes if ring is None else {**(attributes or {}), KEY_TAG: ring}

    async def ask(self, command: Command, timeout_s: float | None) -> Reply:
        """Send a command and wait for what it comes to.

        Args:
            command: The command; for `AskWorkflow` and `WatchValue` the answer is waited for, for others that it is
                accepted.
            timeout_s: Longest wait in seconds; None waits for ever.

        Raises:
            CommandRefused: It was refused; the class says why.
            WorkflowNotFound: No run has that id.
            ResultTimeout: No answer in time.
            EngineClosed: The engine was closed meanwhile.
            LogError: The command could not be written.
            BlobMissing, BlobCorrupt: The answer is in a blob store that is not given here, or is damaged.
        """
        if self._closed is not None:
            raise self._closed
        loop = asyncio.get_running_loop()
        question = Question(command, loop.create_future())
        self._asked[command.command_id] = question
        timers: list[asyncio.TimerHandle] = []
        if timeout_s is not None:
            timers.append(loop.call_later(timeout_s, question.give_up, timeout_s))
        if isinstance(command, WatchValue):
            timers.append(loop.call_later(LOOK_AFTER_S, self._look_for_value, question, command))
        try:
            await self._put(question)
            reply = await question.reply
        finally:
            del self._asked[command.command_id]
            question.reply.cancel()
            for timer in timers:
                timer.cancel()
        reply = await self.blobs.read_reply(reply)
        if reply.status == "refused":
            raise_refusal(reply)
        return reply

    async def wait(self, outcome: Outcome, timeout_s: float | None) -> Reply:
        """Wait for a run's end.

        Raises:
            WorkflowNotFound: No run has that id.
            ResultTimeout: It has not ended in time. It goes on.
            EngineClosed: The engine was closed meanwhile.
        """
        if outcome.reply is not None and outcome.reply.status not in {"completed", "refused"}:
            outcome.forget()  # it may have been resumed since
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
                command = WatchWorkflow(**self.envelope(outcome.workflow_id))
                outcome.watched, outcome.heard = True, False
                outcome.question = command.command_id
                await self._send(command)
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
        return await self.blobs.read_reply(reply)

    # Asking again -----------------------------------------------------------------------------------------

    def _ask_again(self) -> None:
        """Every `ask_again_s`: what was asked a whole round ago and not answered is asked again.

        After 2, 4, 8, ... rounds: a worker that is behind is not helped by more to do. A run's end is asked for every
        second round for as long as it is waited for: who would have told of it may have died.
        """
        loop = asyncio.get_running_loop()
        self._round = loop.call_later(self._ask_again_s, self._ask_again)
        for question in list(self._asked.values()):
            question.age += 1
            if _is_due(question.age):
                self._in_background(self._put(question))
        for outcome in list(self._outcomes.values()):
            if outcome.waiters:
                outcome.age += 1
                if _is_due(outcome.age):
                    outcome.watched = False
                    outcome.wake()

    async def _put(self, question: Question) -> None:
        """Put a question to the log: send it, again where it may come twice, or else look what became of it."""
        command, offset = question.command, question.offset
        if question.sent == 0 or isinstance(command, Repeatable):
            question.sent += 1
            question.offset = await self._send(command)
        elif offset is not None:
            async with self._reading:
                reply = await order_reply(self.log, command, offset)
            if reply is not None:
                question.settle(reply)

    def _look(self, outcome: Outcome) -> None:
        """Nobody has answered for a while: perhaps no worker runs. An ended run's result stands in the log."""
        if outcome.reply is None and not outcome.heard and self._closed is None:
            self._in_background(self._look_up(outcome))

    async def _look_up(self, outcome: Outcome) -> None:
        async with self._reading:
            if outcome.reply is not None or outcome.heard:  # since its turn was waited for
                return
            partition = self.log.layout.place(outcome.workflow_id)
            reply = await read_ending(self.log, partition, Lookup(outcome.workflow_id, "", ""))
        if reply.status != "unknown" and outcome.reply is None:
            outcome.told(reply)

    def _look_for_value(self, question: Question, command: WatchValue) -> None:
        async def look() -> None:
            async with self._reading:
                reply = None if question.heard else await known_value(self.log, command)
            if reply is not None:
                question.settle(reply)

        if not question.heard and self._closed is None:
            self._in_background(look())

    async def _refused_as_ended(self, question: Question, reply: Reply) -> None:
        """A run that has ended takes nothing more, but what it took before counts: an answer to that was lost."""
        command = question.command
        before: Reply | None = None
        if isinstance(command, AskWorkflow):
            before = await question_reply(self.log, command)
        elif isinstance(command, StartWorkflow | SendMessage):
            before = await message_reply(self.log, command)
        question.settle(before or reply)

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

    async def _send(self, command: Command) -> int:
        partition = self.log.layout.place(command.workflow_id)
        limit = self.log.max_record_bytes
        try:
            entry = encode_command(await self.blobs.put_payloads(command))
            return (await self.log.append(Channel.COMMANDS, partition, [entry]))[0]
        except RecordTooLarge:
            if self.blobs.store is None or self.log.max_record_bytes == limit:
                raise
        # The log has learnt of a lower limit by this: what does not fit any more goes to the store.
        entry = encode_command(await self.blobs.put_payloads(command))
        return (await self.log.append(Channel.COMMANDS, partition, [entry]))[0]

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
            if self.log.layout.place(question.command.workflow_id) == partition:
                question.fail(error)
        for outcome in list(self._outcomes.values()):
            if self.log.layout.place(outcome.workflow_id) == partition:
                outcome.failure = error
                outcome.wake()

    def _deliver(self, records: Sequence[Record]) -> None:
        for record in records:
            reply = decode_reply(record)
            if not isinstance(reply, Unreadable):  # unreadable: ask again
                self._hear(reply)

    def _hear(self, reply: Reply) -> None:
        question = self._asked.get(reply.command_id)
        outcome = self._outcomes.get(reply.workflow_id)
        if outcome is not None and outcome.question == reply.command_id:
            outcome.heard = outcome.heard or reply.status == "accepted"
        match reply.status:
            case "accepted" | "refused" | "answered" | "value" if question is not None:
                self._hear_answer(question, reply)
            case "unknown" if question is not None:  # the owner has changed: ask the new one
                question.age = 0
                self._in_background(self._put(question))
            case "accepted" | "answered" | "value":
                pass
            case "refused" if outcome is not None and outcome.question != reply.command_id:
                pass  # another command's, whose caller has gone
            case "unknown" if outcome is not None:
                outcome.watched = False
                outcome.wake()
            case _ if outcome is not None:
                outcome.told(reply)
            case _:
                pass

    def _hear_answer(self, question: Question, reply: Reply) -> None:
        question.heard = True
        waits_on = isinstance(question.command, AskWorkflow | WatchValue)
        if reply.status == "accepted" and waits_on:
            return
        may_have_come = question.sent > 1 or isinstance(question.command, SendMessage)
        if is_refused_as_ended(reply) and may_have_come:
            self._in_background(self._refused_as_ended(question, reply))
        else:
            question.settle(reply)


def _is_due(age: int) -> bool:
    return age > 1 and age & (age - 1) == 0


def _user() -> str:
    host = socket.gethostname()
    try:
        return f"{getpass.getuser()}@{host}"
    except (OSError, KeyError):  # no such user in this container
        return f"{os.getuid()}@{host}"

"""What a client waits for: answers to its commands, and the ends of runs."""

import asyncio
from dataclasses import dataclass, field

from refold.log.commands import AskWorkflow, Command, Reply, WatchValue
from refold.log.errors import RefoldError, ResultTimeout


class Question:
    """A command whose answer is waited for.

    Args:
        command: The command.
        reply: Where its answer goes.

    Attributes:
        age: Rounds without an answer.
        sent: How often it was sent.
        offset: Where it stands among its partition's commands; None until that is known.
        heard: Whether a worker has said that it knows of it.
    """

    __slots__ = ("age", "command", "heard", "offset", "reply", "sent")

    def __init__(self, command: Command, reply: asyncio.Future[Reply]) -> None:
        self.command = command
        self.reply = reply
        self.age = 0
        self.sent = 0
        self.offset: int | None = None
        self.heard = False

    def settle(self, reply: Reply) -> None:
        """Give the answer to the one who waits."""
        if not self.reply.done():
            self.reply.set_result(reply)

    def fail(self, error: Exception) -> None:
        """Let the one who waits know that no answer will come."""
        if not self.reply.done():
            self.reply.set_exception(error)

    def give_up(self, timeout_s: float) -> None:
        """Let the caller know that nobody answered in time."""
        workflow_id = self.command.workflow_id
        if isinstance(self.command, AskWorkflow | WatchValue) and self.heard:
            what = "a question" if isinstance(self.command, AskWorkflow) else "a published value"
            self.fail(
                ResultTimeout(
                    f"workflow {workflow_id!r} had no answer to {what} on {self.command.name!r} within "
                    f"{timeout_s:g} s. It goes on: ask again, with more time"
                )
            )
        else:
            self.fail(
                ResultTimeout(
                    f"no worker answered within {timeout_s:g} s about workflow {workflow_id!r}. The "
                    "command is in the log and will be carried out: start a worker, or look whether one runs"
                )
            )


@dataclass(slots=True, weakref_slot=True)
class Outcome:
    """How a run ended, once it is known. Shared by all handles of one run, gone with the last of them.

    Args:
        workflow_id: The run.
        reply: The last word about it, None while there is none.
        watched: Whether its partition's owner has been asked to tell.
        question: Id of the command that asked it.
        heard: Whether the owner has said that it will.
        failure: Why this process can't hear of it (its partition is halted); raised once.
        age: Rounds that the waiters have waited without a reply.
        waiters: Callers that wait for the reply.
    """

    workflow_id: str
    reply: Reply | None = None
    watched: bool = False
    question: str = ""
    heard: bool = False
    failure: RefoldError | None = None
    age: int = 0
    waiters: list[asyncio.Future[None]] = field(default_factory=list[asyncio.Future[None]])

    def told(self, reply: Reply) -> None:
        """Take the reply and let the waiters go on."""
        self.reply = reply
        self.wake()

    def forget(self) -> None:
        """The run may have gone on since its last word: ask anew."""
        self.reply, self.watched = None, False
        self.wake()

    def wake(self) -> None:
        """Let the waiters look again."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

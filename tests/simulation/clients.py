"""Clients and operators of a simulated world: each call makes a command of its own."""

from collections.abc import Callable
from typing import Any, TypedDict

from refold.engine.definitions import Workflow
from refold.log.commands import (
    AskWorkflow,
    CancelWorkflow,
    LookAtQueue,
    PauseWorkflow,
    ResumeWorkflow,
    RewindWorkflow,
    SendMessage,
    SetQueue,
    StartWorkflow,
    TerminateWorkflow,
    WatchValue,
    WatchWorkflow,
)


class _Envelope(TypedDict):
    command_id: str
    workflow_id: str
    reply_to: str
    requested_at: int


class Clients:
    """Makes commands.

    Args:
        clock: Microseconds since 1970-01-01 UTC.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._commands = 0

    def start(
        self,
        workflow_id: str,
        workflow: Workflow[..., Any],
        *args: object,
        due_at: int | None = None,
        message: tuple[str, str] | None = None,
        queue: str | None = None,
    ) -> StartWorkflow:
        """Start a run; `message` is a topic and JSON that goes with it."""
        topic, text = message or (None, None)
        return StartWorkflow(
            **self._envelope("start", workflow_id),
            workflow=workflow.name,
            payload=workflow.bind(*args).payload,
            due_at=due_at,
            name=topic,
            message=text,
            queue=queue,
        )

    def set_queue(self, queue: str, limit: int) -> SetQueue:
        """Set how many of a queue's runs run at once."""
        return SetQueue(**self._envelope("queue", queue), payload=f'{{"concurrency":{limit}}}')

    def look_at_queue(self, queue: str) -> LookAtQueue:
        """Ask how a queue stands."""
        return LookAtQueue(**self._envelope("look", queue))

    def watch(self, workflow_id: str) -> WatchWorkflow:
        """Ask how a run ends."""
        return WatchWorkflow(**self._envelope("watch", workflow_id))

    def value(self, workflow_id: str, key: str) -> WatchValue:
        """Ask what a run has published."""
        return WatchValue(**self._envelope("value", workflow_id), name=key)

    def send(
        self, workflow_id: str, topic: str, payload: str, message_id: str | None = None
    ) -> SendMessage:
        """Send a message."""
        envelope = self._envelope("send", workflow_id)
        message_id = message_id or envelope["command_id"]
        return SendMessage(**envelope, name=topic, payload=payload, message_id=message_id)

    def ask(self, workflow_id: str, topic: str, payload: str) -> AskWorkflow:
        """Ask a question."""
        return AskWorkflow(**self._envelope("ask", workflow_id), name=topic, payload=payload)

    def cancel(self, workflow_id: str) -> CancelWorkflow:
        """Ask a run to cancel."""
        return CancelWorkflow(**self._envelope("cancel", workflow_id), reason="enough")

    def terminate(self, workflow_id: str) -> TerminateWorkflow:
        """End a run."""
        return TerminateWorkflow(**self._envelope("terminate", workflow_id), reason="enough")

    def pause(self, workflow_id: str) -> PauseWorkflow:
        """Halt a run."""
        return PauseWorkflow(**self._envelope("pause", workflow_id))

    def resume(self, workflow_id: str) -> ResumeWorkflow:
        """Let a run go on."""
        return ResumeWorkflow(**self._envelope("resume", workflow_id))

    def rewind(self, workflow_id: str, step: int) -> RewindWorkflow:
        """Take a run back to before an operation."""
        return RewindWorkflow(**self._envelope("rewind", workflow_id), step=step)

    def envelope(self, what: str, workflow_id: str) -> _Envelope:
        """What every command carries, with an id and a client of its own."""
        return self._envelope(what, workflow_id)

    def _envelope(self, what: str, workflow_id: str) -> _Envelope:
        self._commands += 1
        return {
            "command_id": f"{what}-{self._commands}",
            "workflow_id": workflow_id,
            "reply_to": f"client-{self._commands}",
            "requested_at": self._clock(),
        }

"""What an owner wants done, and what it is told of steps: values that cross between state machine and shell."""

from dataclasses import dataclass
from typing import NamedTuple

from refold.engine.failures import Failure
from refold.engine.operations import StepCall
from refold.log.commands import Command, Reply


class Launch(NamedTuple):
    """Carry out one attempt of a step.

    Args:
        workflow_id: The workflow that waits for it.
        workflow: Name of the workflow's definition.
        step: Operation number in code order.
        attempt: 1 for the first.
        call: What to call, and how.
        first_started_at: Start of the step's first attempt, microseconds since 1970-01-01 UTC; None when this
            is the first: `total_timeout_s` counts from it.
        key: Names the keys with which what is told of it is encrypted; None where it is not.
    """

    workflow_id: str
    workflow: str
    step: int
    attempt: int
    call: StepCall
    first_started_at: int | None
    key: str | None = None


class Answer(NamedTuple):
    """Send a reply to a client."""

    client_id: str
    reply: Reply


class Grant(NamedTuple):
    """Send a reply that lets a pool's worker begin a step: only where the partition is known to be ours right now."""

    client_id: str
    reply: Reply


class Lookup(NamedTuple):
    """Find in the log how a closed run ended, and tell the client: the owner keeps recent results only.

    Args:
        workflow_id: The run.
        client_id: The client.
        command_id: What it asked.
        key: Find what the run published under it instead; None for how it ended.
        forgotten: The owner does not know whether there ever was such a run.
        offset: Where its end is, or a little before; None where that is not known.
        claim: The claim that its end was written under.
    """

    workflow_id: str
    client_id: str
    command_id: str
    key: str | None = None
    forgotten: bool = False
    offset: int | None = None
    claim: int = -1


class Post(NamedTuple):
    """Send a command to another workflow.

    Args:
        number: How many the partition has posted with this one, since its beginning.
        command: The command.
    """

    number: int
    command: Command


class Bookmark(NamedTuple):
    """Note in the log where the checkpoint is that has just been completed.

    Args:
        sequence: Sequence number of the event that it began with (`Owner.offset_of`).
    """

    sequence: int


Effect = Launch | Answer | Grant | Lookup | Post | Bookmark


@dataclass(frozen=True, slots=True)
class Succeeded:
    """An attempt returned; `payload` is the JSON of the result, `started_at` when the attempt began."""

    payload: str
    started_at: int


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt raised, timed out, or gave a result with no JSON form.

    Args:
        failure: The error.
        retryable: Whether the step's retry policy names such an error.
        started_at: When the attempt began, microseconds since 1970-01-01 UTC.
    """

    failure: Failure
    retryable: bool
    started_at: int


StepResult = Succeeded | AttemptFailed

"""What a partition's owner and the workers of a pool tell each other, as JSON in commands and replies.

    pool's worker                               owner
    OfferWork    what it has, free slots   ->
                                           <-   `step`      an attempt to carry out
    BeginStep    may it begin              ->
                                           <-   `granted`   yes, until the lease is over; or `cancel`
    KeepStep     it goes on                ->               the lease begins anew
    ReportStep   what became of it         ->               recorded

A reply can be lost like any other: what is not answered is asked again, what is not begun is given again.
"""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from refold.engine.effects import Launch
from refold.engine.privacy import Privacy
from refold.engine.redaction import to_json
from refold.log.commands import OfferWork, Reply
from refold.log.errors import LogCorrupt

T = TypeVar("T")


class PoolStep(NamedTuple):
    """A step by its pool and its recorded name."""

    pool: str
    name: str


class Attempted(NamedTuple):
    """An attempt at a step."""

    workflow_id: str
    step: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a pool's worker offers to the owner of one partition.

    Args:
        slots: Most attempts that it takes from this partition at once.
        steps: The steps that it has; none where it goes away.
        lasts_s: After how many seconds without a further offer it is to be forgotten.
        declined: Attempts that it was given and does not carry out.
    """

    slots: int
    steps: Collection[PoolStep]
    lasts_s: float
    declined: Collection[Attempted] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """An attempt as it is given to a pool's worker.

    Args:
        workflow_id: The workflow that waits for it.
        workflow: Name of its definition.
        step: Operation number.
        attempt: 1 for the first.
        pool: The step's pool.
        name: Its recorded name.
        input: JSON object of its arguments, or what is encrypted of it.
        first_started_at: Start of the step's first attempt, microseconds since 1970-01-01 UTC; None for the first.
        key: Names the keys with which what is reported is encrypted; None where it is not.
    """

    workflow_id: str
    workflow: str
    step: int
    attempt: int
    pool: str
    name: str
    input: str
    first_started_at: int | None
    key: str | None = None

    @property
    def attempted(self) -> Attempted:
        """Which attempt it is."""
        return Attempted(self.workflow_id, self.step, self.attempt)


def offer_text(offer: Offer) -> str:
    """The JSON of an offer."""
    return json.dumps(
        {
            "slots": offer.slots,
            "steps": sorted(offer.steps),
            "lasts_s": offer.lasts_s,
            "declined": list(offer.declined),
        }
    )


def read_offer(command: OfferWork) -> Offer:
    """The offer that a command makes.

    Raises:
        LogCorrupt: It is not what `offer_text` writes.
    """

    def read() -> Offer:
        told = json.loads(command.payload)
        return Offer(
            slots=int(told["slots"]),
            steps=frozenset(PoolStep(*map(str, step)) for step in told["steps"]),
            lasts_s=float(told["lasts_s"]),
            declined=[_attempted(value) for value in told["declined"]],
        )

    return _read(read, f"the offer of {command.reply_to!r}")


def task_reply(launch: Launch, command_id: str, privacy: Privacy | None = None) -> Reply:
    """The reply that gives an attempt to a pool's worker.

    Args:
        launch: The attempt.
        command_id: The offer that it answers.
        privacy: With what its arguments are encrypted.
    """
    call = launch.call
    given = call.input or "{}"
    if privacy is not None and launch.key is not None:
        given = to_json(privacy.protect(given, launch.key, "step", launch.workflow_id))
    told = {
        "workflow": launch.workflow,
        "step": launch.step,
        "attempt": launch.attempt,
        "pool": call.options.pool,
        "name": call.name,
        "first_started_at": launch.first_started_at,
        # Not as text: its quotes would take a backslash each, and a reply has room for about a megabyte.
        "input": json.loads(given),
        "key": launch.key,
    }
    return Reply(
        command_id=command_id,
        workflow_id=launch.workflow_id,
        status="step",
        payload=json.dumps(told, ensure_ascii=False),
    )


def read_task(reply: Reply) -> Task:
    """The attempt that a reply gives.

    Raises:
        LogCorrupt: It is not what `task_reply` writes.
    """

    def read() -> Task:
        told = json.loads(reply.payload or "")
        first = told["first_started_at"]
        return Task(
            workflow_id=reply.workflow_id,
            workflow=str(told["workflow"]),
            step=int(told["step"]),
            attempt=int(told["attempt"]),
            pool=str(told["pool"]),
            name=str(told["name"]),
            input=told["input"]
            if isinstance(told["input"], str)
            else json.dumps(told["input"], ensure_ascii=False),
            key=told.get("key"),
            first_started_at=None if first is None else int(first),
        )

    return _read(read, f"a step of workflow {reply.workflow_id!r}")


def granted_reply(attempted: Attempted, command_id: str, lease_s: float) -> Reply:
    """The reply that lets a pool's worker begin, for `lease_s` seconds unless it says that it goes on."""
    return Reply(
        command_id=command_id,
        workflow_id=attempted.workflow_id,
        status="granted",
        payload=json.dumps({"lease_s": lease_s}),
    )


def read_lease_s(reply: Reply) -> float:
    """For how long a step may go on without a word.

    Raises:
        LogCorrupt: The reply is not what `granted_reply` makes.
    """
    return _read(lambda: float(json.loads(reply.payload or "")["lease_s"]), "a grant")


def cancel_reply(attempted: Attempted, command_id: str) -> Reply:
    """The reply that says that nobody waits for this attempt any more."""
    return Reply(
        command_id=command_id,
        workflow_id=attempted.workflow_id,
        status="cancel",
        payload=json.dumps([attempted.step, attempted.attempt]),
    )


def read_cancelled(reply: Reply) -> Attempted:
    """The attempt that nobody waits for.

    Raises:
        LogCorrupt: The reply is not what `cancel_reply` makes.
    """
    return _read(
        lambda: _attempted([reply.workflow_id, *json.loads(reply.payload or "")]), "a cancellation"
    )


def _attempted(value: Any) -> Attempted:
    workflow_id, step, attempt = value
    return Attempted(str(workflow_id), int(step), int(attempt))


def _read(read: Callable[[], T], what: str) -> T:
    try:
        return read()
    except (ValueError, TypeError, KeyError) as error:
        raise LogCorrupt(f"{what} can't be read: {error!r}") from error

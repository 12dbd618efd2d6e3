"""What code makes of a recorded history, found out with no effect: the worker's own replay, and nothing after it.

A run is made and told its history exactly as a new owner would do it (`OpenRuns._replay`), and what would follow is
judged instead of carried out: nothing is appended, no step is launched, no timer is set. What the code asks for beyond
its history is looked at by name and dropped. `refold check` does this to all runs of a log (`engine/histories.py` reads
them), `refold shadow` to runs as they grow (`engine/shadow.py`).
"""

import json
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from refold.engine.active import Runs, facts_of
from refold.engine.blobs import IN_RECORDS, Blobs
from refold.engine.callsite import stack_source
from refold.engine.failures import capture, raised
from refold.engine.operations import (
    Blocked,
    Cancelled,
    Continued,
    Diverged,
    EmitRequest,
    Ending,
    Raised,
    Returned,
    Run,
    Stuck,
)
from refold.engine.payload import check_size
from refold.engine.requests import disagreement
from refold.engine.state import ENDED_AS, Ended, Status, WorkflowState
from refold.log.errors import (
    PayloadErased,
    PayloadError,
    PayloadsUnavailable,
    PayloadTooLarge,
    PayloadUnreadable,
    UnknownWorkflow,
)
from refold.log.events import (
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowTerminated,
)


class Verdict(StrEnum):
    """What came of a rehearsal."""

    GOES_ON = "goes on"
    ENDS = "ends"
    DIVERGES = "diverges"
    FAILS = "fails"
    STUCK = "stuck"
    INPUT = "input"
    UNEXPECTED = "unexpected"
    TOO_LONG = "too long"
    ENDS_OTHERWISE = "ends otherwise"
    NO_CODE = "no code"
    PAYLOAD = "payload"
    ERASED = "erased"
    UNREADABLE = "unreadable"


BREAKING: Final = frozenset(
    {
        Verdict.DIVERGES,
        Verdict.FAILS,
        Verdict.STUCK,
        Verdict.INPUT,
        Verdict.UNEXPECTED,
        Verdict.TOO_LONG,
        Verdict.ENDS_OTHERWISE,
    }
)
"""Verdicts that are the code's doing: the run would be parked, would fail, or would hold up its worker."""


@dataclass(frozen=True, slots=True)
class History:
    """What is recorded of a run.

    Args:
        workflow_id: Its id.
        state: Its fold; of a run that has ended, that before its end.
        ended: How it ended; None while it is open.
    """

    workflow_id: str
    state: WorkflowState
    ended: Ended | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one run's rehearsal.

    Args:
        workflow_id: The run.
        workflow: Name of its workflow; "?" where its start can't be read.
        version: Version of its code.
        status: How it stands in the log.
        told: How many entries of its history the code was told.
        verdict: What came of it.
        message: What is wrong, in words; empty where nothing is.
        source: `file:line` in the code where it shows.
        divergence: How code and history differ, where they do.
    """

    workflow_id: str
    workflow: str
    version: int
    status: Status
    told: int
    verdict: Verdict
    message: str = ""
    source: str | None = None
    divergence: Diverged | None = None

    @property
    def breaks(self) -> bool:
        """Whether this code would break the run. One that is parked is broken already."""
        return self.verdict in BREAKING and self.status is not Status.PARKED


def rehearse(runs: Runs, history: History, blobs: Blobs = IN_RECORDS) -> Finding:
    """Replay a run's history against the code that is here.

    Args:
        runs: Makes runs of the code.
        history: The run.
        blobs: Where payloads are read that are not in the records.

    Raises:
        PayloadsUnavailable: The store of blobs or keys can't be read now.
    """
    state = history.state
    if state.started is None or state.broken is not None:
        return judged(history, Verdict.UNREADABLE, state.broken or "its start is not in the log")
    try:
        run = runs.create(facts_of(history.workflow_id, state), state.started.payload)
    except UnknownWorkflow as error:
        return judged(history, Verdict.NO_CODE, str(error))
    except PayloadUnreadable as error:
        return unreadable(history, error)
    except PayloadError as error:
        return judged(history, Verdict.INPUT, str(error))
    try:
        run.replay(state.outcomes)
        return verdict_on(history, run, blobs)
    except PayloadsUnavailable:
        raise
    except PayloadUnreadable as error:
        return unreadable(history, error)
    except Exception as error:  # noqa: BLE001 - a worker parks the run for any, and no other run is to suffer
        return unexpected(history, error)
    finally:
        run.close()


def judged(
    history: History,
    verdict: Verdict,
    message: str = "",
    source: str | None = None,
    divergence: Diverged | None = None,
) -> Finding:
    """A finding on a run."""
    state, started = history.state, history.state.started
    return Finding(
        history.workflow_id,
        "?" if started is None else started.workflow,
        1 if started is None else started.version,
        state.status if history.ended is None else ENDED_AS[history.ended.kind],
        len(state.outcomes),
        verdict,
        message,
        source,
        divergence,
    )


def verdict_on(history: History, run: Run, blobs: Blobs = IN_RECORDS) -> Finding:
    """What an owner would do with a run that has been told all of its history.

    Raises:
        PayloadUnreadable: The code needs a payload that can't be read here, or the end with which it is compared can't.
        PayloadsUnavailable: The store of blobs or keys can't be read now.
    """
    ending = run.ending
    if ending is None:
        for request in run.take():
            if not isinstance(request, EmitRequest):
                problem = disagreement(history.state, request)
                if problem is not None:
                    return diverges(history, problem)
    match ending:
        case Diverged():
            return diverges(history, ending)
        case Stuck():
            return judged(history, Verdict.STUCK, ending.message)
        case Blocked():
            raise ending.error
        case _:
            ending = _as_recorded(history.workflow_id, ending, blobs.max_payload_bytes)
    if history.ended is not None:
        return _beside(history, _readable(history.ended, blobs), ending)
    match ending:
        case None:
            return judged(history, Verdict.GOES_ON)
        case Raised():
            message = f"{ending.error_type}: {ending.error_message}"
            return judged(history, Verdict.FAILS, message, stack_source(ending.error_stack))
        case _:
            return judged(history, Verdict.ENDS, described(ending))


def unreadable(history: History, error: PayloadUnreadable) -> Finding:
    """The finding that a payload can't be had, or is gone for ever."""
    verdict = Verdict.ERASED if isinstance(error, PayloadErased) else Verdict.PAYLOAD
    return judged(history, verdict, str(error))


def _readable(ended: Ended, blobs: Blobs) -> Ended:
    """How a run ended, with its texts as they are.

    Raises:
        PayloadUnreadable: They can't be read here.
        PayloadsUnavailable: The store of blobs or keys can't be read now.
    """
    what = f"end of workflow {ended.workflow_id!r}"
    if isinstance(ended, WorkflowCompleted):
        return replace(ended, payload=blobs.read(ended.payload, what))
    if isinstance(ended, WorkflowFailed):
        return replace(ended, error_message=blobs.read_note(ended.error_message, what))
    return ended


def _as_recorded(
    workflow_id: str,
    ending: Returned | Raised | Cancelled | Continued | None,
    max_payload_bytes: int,
) -> Returned | Raised | Cancelled | Continued | None:
    """An ending as an owner records it: a result that is too large is a failure."""
    if not isinstance(ending, Returned | Continued):
        return ending
    try:
        check_size(ending.payload, max_payload_bytes, f"result of workflow {workflow_id!r}")
    except PayloadTooLarge as error:
        return raised(error)
    return ending


def unexpected(history: History, error: Exception) -> Finding:
    """The finding that refold itself could not replay a run."""
    failure = capture(error)
    message = f"refold could not replay it: {failure.error_type}: {failure.error_message}"
    return judged(history, Verdict.UNEXPECTED, message, stack_source(failure.error_stack or ""))


def diverges(history: History, problem: Diverged) -> Finding:
    """The finding that code and history differ."""
    message = (
        f"operation {problem.step} was {problem.expected}, and the code asks for {problem.found}"
    )
    return judged(history, Verdict.DIVERGES, message, problem.source, problem)


def _beside(history: History, ended: Ended, ending: Ending | None) -> Finding:
    """A run that has ended, beside what the code makes of its history."""
    source = None
    match ended, ending:
        case WorkflowTerminated(), None:  # its code was not asked
            same = True
        case WorkflowCompleted(), Returned():
            same = same_payload(ended.payload, ending.payload)
        case WorkflowFailed(), Raised():
            same = (ended.error_type, ended.error_message) == (
                ending.error_type,
                ending.error_message,
            )
            source = stack_source(ending.error_stack)
        case WorkflowCancelled(), Cancelled():
            same = True
        case _:
            same = False
            if isinstance(ending, Raised):
                source = stack_source(ending.error_stack)
    if same:
        return judged(history, Verdict.ENDS)
    message = f"it {_told(ended)}, and with this code it {described(ending)}"
    return judged(history, Verdict.ENDS_OTHERWISE, message, source)


def same_payload(recorded: str, made: str) -> bool:
    """Whether a recorded payload is the JSON that the code has made: where fields are encrypted, not to the letter."""
    return recorded == made or json.loads(recorded) == json.loads(made)


def _told(ended: Ended) -> str:
    match ended:
        case WorkflowCompleted():
            return f"completed with {_short(ended.payload)}"
        case WorkflowFailed():
            return f"failed with {_error(ended.error_type, ended.error_message)}"
        case WorkflowCancelled():
            return "was cancelled"
        case WorkflowTerminated():
            return "was terminated"


def described(ending: Ending | None) -> str:
    """An ending in words that follow "it"."""
    match ending:
        case None:
            return "goes on"
        case Returned():
            return f"completes with {_short(ending.payload)}"
        case Raised():
            return f"fails with {_error(ending.error_type, ending.error_message)}"
        case Cancelled():
            return "is cancelled"
        case Continued():
            return f"continues as new with {_short(ending.payload)}"
        case Diverged():
            return f"asks for {ending.found} where there was {ending.expected}"
        case Stuck():
            return "is stuck"
        case Blocked():
            return f"can't go on: {ending.error}"


def _error(kind: str, message: str) -> str:
    return f"{kind.rpartition(':')[2]}: {_short(message)}"


def _short(text: str, limit: int = 200) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else f"{flat[: limit - 1]}…"


def shown(blobs: Blobs, payload: str, what: str) -> str:
    """A recorded payload for a person: its JSON, or why it can't be read here.

    Raises:
        PayloadsUnavailable: The store of blobs or keys can't be read now.
    """
    try:
        return blobs.read(payload, what)
    except PayloadErased:
        return "(erased)"
    except PayloadUnreadable:
        return "(can't be read here)"

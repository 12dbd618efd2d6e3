"""What code makes of a recorded history, found out with no effect: the worker's own replay, and nothing after it.

A run is made and told its history exactly as a new owner would do it (`OpenRuns._replay`), and what would follow is
judged instead of carried out: nothing is appended, no step is launched, no timer is set. What the code asks for beyond
its history is looked at by name and dropped. `refold check` does this to all runs of a log (`engine/histories.py` reads
them), `refold shadow` to runs as they grow (`engine/shadow.py`).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from refold.engine.active import Runs, facts_of
from refold.engine.blobs import IN_RECORDS
from refold.engine.callsite import stack_source
from refold.engine.failures import capture
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
from refold.engine.state import Ended, Status, WorkflowState
from refold.log.blobs import reference_in, reference_to
from refold.log.errors import (
    BlobCorrupt,
    BlobMissing,
    PayloadError,
    PayloadsUnavailable,
    PayloadTooLarge,
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


def rehearse(
    runs: Runs, history: History, max_payload_bytes: int = IN_RECORDS.max_payload_bytes
) -> Finding:
    """Replay a run's history against the code that is here.

    Args:
        runs: Makes runs of the code.
        history: The run.
        max_payload_bytes: Largest JSON of a result.

    Raises:
        PayloadsUnavailable: The blob store can't be read now.
    """
    state = history.state
    if state.started is None or state.broken is not None:
        return judged(history, Verdict.UNREADABLE, state.broken or "its start is not in the log")
    try:
        run = runs.create(facts_of(history.workflow_id, state), state.started.payload)
    except UnknownWorkflow as error:
        return judged(history, Verdict.NO_CODE, str(error))
    except (BlobMissing, BlobCorrupt) as error:
        return judged(history, Verdict.PAYLOAD, str(error))
    except PayloadError as error:
        return judged(history, Verdict.INPUT, str(error))
    try:
        run.replay(state.outcomes)
        return verdict_on(history, run, max_payload_bytes)
    except PayloadsUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 - a worker parks the run for any, and no other run is to suffer
        failure = capture(error)
        message = f"refold could not replay it: {failure.error_type}: {failure.error_message}"
        return judged(history, Verdict.UNEXPECTED, message, stack_source(failure.error_stack or ""))
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
        state.status if history.ended is None else _STATUSES[history.ended.kind],
        len(state.outcomes),
        verdict,
        message,
        source,
        divergence,
    )


_STATUSES: Final = {
    WorkflowCompleted.kind: Status.COMPLETED,
    WorkflowFailed.kind: Status.FAILED,
    WorkflowCancelled.kind: Status.CANCELLED,
    WorkflowTerminated.kind: Status.TERMINATED,
}


def verdict_on(history: History, run: Run, max_payload_bytes: int) -> Finding:
    """What an owner would do with a run that has been told all of its history."""
    ending = run.ending
    if ending is None:
        for request in run.take():
            if not isinstance(request, EmitRequest):
                problem = disagreement(history.state, request)
                if problem is not None:
                    return _diverges(history, problem)
    match ending:
        case Diverged():
            return _diverges(history, ending)
        case Stuck():
            return judged(history, Verdict.STUCK, ending.message)
        case Blocked(PayloadsUnavailable() as error):
            raise error
        case Blocked():
            return judged(history, Verdict.PAYLOAD, str(ending.error))
        case _:
            ending = _as_recorded(history.workflow_id, ending, max_payload_bytes)
    if history.ended is not None:
        return _beside(history, history.ended, ending)
    match ending:
        case None:
            return judged(history, Verdict.GOES_ON)
        case Raised():
            message = f"{ending.error_type}: {ending.error_message}"
            return judged(history, Verdict.FAILS, message, stack_source(ending.error_stack))
        case _:
            return judged(history, Verdict.ENDS, described(ending))


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
        failure = capture(error)
        return Raised(failure.error_type, failure.error_message, failure.error_stack or "", None)
    return ending


def _diverges(history: History, problem: Diverged) -> Finding:
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
    """Whether a recorded payload, or the reference to it, is the JSON that the code has made."""
    reference = reference_in(recorded)
    return recorded == made if reference is None else reference == reference_to(made.encode())


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
            return "can't read a payload"


def _error(kind: str, message: str) -> str:
    return f"{kind.rpartition(':')[2]}: {_short(message)}"


def _short(text: str, limit: int = 200) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else f"{flat[: limit - 1]}…"

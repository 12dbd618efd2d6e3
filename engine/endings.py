"""How runs of a partition end, begin afresh, or are parked."""

import json
from collections import deque
from dataclasses import asdict

from refold.engine.active import Active, OwnerSettings, Runs
from refold.engine.books import Books
from refold.engine.failures import raised, type_name
from refold.engine.ledger import Ledger
from refold.engine.matching import cancel_message
from refold.engine.operations import (
    Blocked,
    Cancelled,
    Continued,
    Diverged,
    Ending,
    Raised,
    Returned,
    Stuck,
)
from refold.engine.payload import check_size
from refold.engine.residents import Residents
from refold.engine.watchers import Watchers, ended_reply, parked_reply
from refold.log import errors
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
    WorkflowContinued,
    WorkflowFailed,
    WorkflowParked,
    WorkflowTerminated,
)


class Endings:
    """Records how runs end, and tells those who wait.

    Args:
        active: The open runs, by id; those that end are taken out.
        ledger: Where answers are held.
        books: Where events are recorded.
        residents: The runs in memory.
        watchers: Who hears how runs end.
        settings: Limits.
        runs: Knows the newest code.
    """

    def __init__(
        self,
        *,
        active: dict[str, Active],
        ledger: Ledger,
        books: Books,
        residents: Residents,
        watchers: Watchers,
        settings: OwnerSettings,
        runs: Runs,
    ) -> None:
        self.again: deque[Active] = deque()  # continued as new, to be begun by the next tick
        self._active = active
        self._ledger = ledger
        self._books = books
        self._residents = residents
        self._watchers = watchers
        self._settings = settings
        self._runs = runs

    def end(self, active: Active, ending: Ending, now: int) -> None:
        """Record how a run ended, or why it can't go on."""
        match ending:
            case Returned():
                self._return(active, ending, now)
            case Raised():
                self._fail(active, ending, now)
            case Cancelled():
                event = WorkflowCancelled(
                    **self._books.header(active, now),
                    error_type=type_name(errors.WorkflowCancelled),
                    error_message=ending.message,
                    next_step=active.next_step,
                )
                self.close(active, event)
            case Continued():
                self._continue(active, ending, now)
            case Diverged():
                self.diverged(active, ending, now)
            case Stuck():
                self.park(active, "stuck", ending.message, None, now)
            case Blocked():
                if isinstance(ending.error, PayloadsUnavailable):
                    # Nothing is wrong with the run: the partition is begun again until the store is back.
                    raise ending.error
                self.unreadable(active, ending.error, now)

    def _return(self, active: Active, ending: Returned, now: int) -> None:
        try:
            what = f"result of workflow {active.workflow_id!r}"
            check_size(ending.payload, self._settings.max_payload_bytes, what)
        except PayloadTooLarge as error:
            self._fail(active, raised(error), now)
            return
        completed = WorkflowCompleted(
            **self._books.header(active, now), payload=ending.payload, next_step=active.next_step
        )
        self.close(active, completed)

    def _fail(self, active: Active, ending: Raised, now: int) -> None:
        event = WorkflowFailed(
            **self._books.header(active, now),
            error_type=ending.error_type,
            error_message=ending.error_message,
            error_stack=ending.error_stack,
            payload=ending.payload,
            encoding="json" if ending.payload is not None else None,
            next_step=active.next_step,
        )
        self.close(active, event)

    def _continue(self, active: Active, ending: Continued, now: int) -> None:
        """Begin afresh, with the newest code that takes the input."""
        started = active.state.started
        assert started is not None, "a run was made of it"
        version, payload = started.version, ending.payload
        try:
            check_size(payload, self._settings.max_payload_bytes, "input of continue_as_new()")
        except PayloadTooLarge as error:
            self._fail(active, raised(error), now)
            return
        try:
            newest = self._runs.resolve(started.workflow, None)
            payload = self._runs.canonical(started.workflow, newest, payload)
            version = newest
        except (UnknownWorkflow, PayloadError):
            pass  # the new code takes another input: the run stays with its own
        event = WorkflowContinued(
            **self._books.header(active, now),
            payload=payload,
            next_step=max(active.next_step or 0, active.state.next_step),
            detail=json.dumps(ending.kept),
            version=version,
            code_version=self._runs.code_version(started.workflow, version),
        )
        self._books.record(active, event)
        self._residents.suspend(active)
        self._books.cancel_all(active)
        active.in_flight.clear()
        self.again.append(active)
        asked = set(active.state.exchange.asked)
        for answer in self._watchers.disappointed(active.workflow_id, asked):
            self._ledger.hold(active.last_sequence, answer)

    def close(
        self,
        active: Active,
        event: WorkflowCompleted | WorkflowFailed | WorkflowCancelled | WorkflowTerminated,
    ) -> None:
        """Record how a run ended, and tell those who wait for that."""
        event = self._books.record(active, event)
        self._residents.suspend(active)
        self._books.cancel_all(active)
        del self._active[active.workflow_id]
        reply = ended_reply(event)
        self._watchers.keep(active.workflow_id, reply)
        for answer in self._watchers.told(active.workflow_id, reply):
            self._ledger.hold(active.last_sequence, answer)
        for answer in self._watchers.disappointed(active.workflow_id):
            self._ledger.hold(active.last_sequence, answer)

    def cancelled_in_queue(self, active: Active, now: int) -> None:
        """End a run that waits in a queue, if it was asked to cancel; its code is not run for that."""
        asked = active.state.exchange.cancel
        if asked is not None:
            self.end(active, Cancelled(cancel_message(asked)), now)

    def used_up(self, active: Active, step: int, name: str, error: str, now: int) -> None:
        """Park a run one of whose steps has no attempt left."""
        message = f"step {step} '{name}' has used up its attempts ({error})"
        self.park(active, "attempts_used_up", message, {"step": step, "name": name}, now)

    def diverged(self, active: Active, ending: Diverged, now: int) -> None:
        """Park a run whose code asks for something else than its history says."""
        where = f" at {ending.source}" if ending.source else ""
        message = (
            f"the code no longer matches the history: step {ending.step} was {ending.expected}, "
            f"and the code asks for {ending.found}{where} ({ending.cause})"
        )
        self.park(active, "diverged", message, asdict(ending), now)

    def unreadable(self, active: Active, error: PayloadUnreadable, now: int) -> None:
        """Park a run whose code needs a payload that can't be read here, or that was erased."""
        reason = "erased" if isinstance(error, PayloadErased) else "payload"
        self.park(active, reason, str(error), None, now)

    def park(
        self, active: Active, name: str, message: str, detail: dict[str, object] | None, now: int
    ) -> None:
        """Record that a run waits for a person, and tell those who wait for its end."""
        self._books.record(
            active,
            WorkflowParked(
                **self._books.header(active, now),
                name=name,
                error_message=message,
                payload=json.dumps(detail) if detail is not None else None,
                encoding="json" if detail is not None else None,
                next_step=active.next_step,
            ),
        )
        self._residents.suspend(active)
        reply = parked_reply(active.workflow_id, active.state)
        for answer in self._watchers.told(active.workflow_id, reply):
            self._ledger.hold(active.last_sequence, answer)

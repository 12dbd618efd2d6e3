"""Drives a run in tests as its owner does: takes its requests, tells it outcomes, and keeps the history.

driver = Driver(lambda: make_run(checkout, order))
driver.start()
driver.complete(0, 42)
assert driver.result() == "paid"
driver.check_replays()
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypedDict, cast

from refold.engine.async_run import AsyncRun
from refold.engine.definitions import Workflow
from refold.engine.failures import capture
from refold.engine.operations import (
    EmitRequest,
    Emitted,
    Ending,
    Outcome,
    Raised,
    Request,
    Returned,
    Run,
    RunFacts,
    StepRequest,
    TimerRequest,
)
from refold.engine.sync_run import SyncRun
from refold.engine.thread_slots import ThreadSlots
from refold.log.events import (
    AskReceived,
    ChildCompleted,
    ChildFailed,
    DeliveryConfirmed,
    DeliveryRefused,
    MessageReceived,
    StepCompleted,
    StepFailed,
    TimerFired,
    WorkflowCancelRequested,
)

START_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
SECOND_US = 1_000_000


def make_run(
    workflow: Workflow[..., Any],
    *args: object,
    workflow_id: str = "wf-1",
    guard: Literal["raise", "warn", "off"] = "raise",
    slots: ThreadSlots | None = None,
    facts: RunFacts | None = None,
) -> AsyncRun | SyncRun:
    """A run of `workflow` that was started at `START_US`, not yet begun."""
    if facts is None:
        facts = RunFacts(workflow_id, workflow.name, workflow.version, START_US)
    if workflow.is_async:
        return AsyncRun(
            workflow.fn,
            args,
            {},
            facts=facts,
            result_type=workflow.result_type,
            encode_input=workflow.input_type.encode,
            guard=guard,
        )
    return SyncRun(
        workflow.fn,
        args,
        {},
        facts=facts,
        result_type=workflow.result_type,
        encode_input=workflow.input_type.encode,
        slots=slots or ThreadSlots(2),
        guard=guard,
    )


class Header(TypedDict):
    """What every event carries."""

    workflow_id: str
    position: int
    recorded_at: int
    claim: int
    command: int
    posted: int
    worker: str


class Driver:
    """A run and what it has been told.

    Args:
        make: Makes the run, and makes it anew for a replay.
    """

    def __init__(self, make: Callable[[], Run]) -> None:
        self._make = make
        self.run = make()
        self.history: list[Outcome] = []
        self.asked: dict[int, tuple[str, ...]] = {}
        self.cancelled: list[int] = []
        self._requests: dict[int, Request] = {}

    @classmethod
    def begin(cls, workflow: Workflow[..., Any], *args: object, **options: Any) -> Driver:
        """A driver whose run has been started; options are `make_run`'s."""
        driver = cls(lambda: make_run(workflow, *args, **options))
        driver.start()
        return driver

    # As the owner -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the run."""
        self.run.start()
        self._look()

    def complete(self, step: int, value: object = None) -> None:
        """Step `step` returned `value`."""
        request = self._requests[step]
        assert isinstance(request, StepRequest), f"operation {step} is a timer"
        payload = request.call.result_type.encode(value)
        self.tell(completed(step, request.name, payload, self._next_time(), len(self.history) + 1))

    def fail(self, step: int, error: BaseException) -> None:
        """Step `step` failed with `error`."""
        failure = capture(error)
        self.tell(
            StepFailed(
                workflow_id="wf-1",
                position=len(self.history) + 1,
                recorded_at=self._next_time(),
                claim=0,
                command=0,
                posted=0,
                worker="test",
                step=step,
                name=self._requests[step].name,
                attempt=1,
                started_at=START_US,
                error_type=failure.error_type,
                error_message=failure.error_message,
                error_stack=failure.error_stack,
                payload=failure.payload,
            )
        )

    def fire(self, step: int) -> None:
        """The time of timer `step` came."""
        request = self._requests[step]
        assert isinstance(request, TimerRequest), f"operation {step} is a step"
        time = max(self._next_time(), request.due_at)
        self.tell(fired(step, request.name, time, len(self.history) + 1))

    def confirm(self, step: int) -> None:
        """What request `step` sent is recorded with the other workflow."""
        name = self._requests[step].name
        self.tell(DeliveryConfirmed(**self._header(), step=step, name=name))

    def refuse(self, step: int, error: BaseException) -> None:
        """What request `step` sent was refused."""
        failure = capture(error)
        self.tell(
            DeliveryRefused(
                **self._header(),
                step=step,
                name=self._requests[step].name,
                error_type=failure.error_type,
                error_message=failure.error_message,
            )
        )

    def finish_child(self, step: int, payload: str) -> None:
        """The child that request `step` started returned the JSON `payload`."""
        name = self._requests[step].name
        self.tell(ChildCompleted(**self._header(), step=step, name=name, payload=payload))

    def fail_child(self, step: int, error: BaseException) -> None:
        """The child that request `step` started failed with `error`."""
        failure = capture(error)
        self.tell(
            ChildFailed(
                **self._header(),
                step=step,
                name=self._requests[step].name,
                error_type=failure.error_type,
                error_message=failure.error_message,
                error_stack=failure.error_stack,
                payload=failure.payload,
            )
        )

    def message(self, topic: str, payload: str) -> None:
        """A message with the JSON `payload` came from a client."""
        message_id = f"m{len(self.history)}"
        self.tell(
            MessageReceived(**self._header(), name=topic, payload=payload, message_id=message_id)
        )

    def question(self, topic: str, payload: str) -> str:
        """A question with the JSON `payload` came; returns its id."""
        message_id = f"q{len(self.history)}"
        self.tell(AskReceived(**self._header(), name=topic, payload=payload, message_id=message_id))
        return message_id

    def cancel(self, reason: str | None = None) -> None:
        """Somebody asks the run to cancel."""
        payload = json.dumps({"requested_by": "ann", "reason": reason})
        self.tell(WorkflowCancelRequested(**self._header(), name="request", payload=payload))

    def tell(self, outcome: Outcome) -> None:
        """Tell `outcome`, whatever it is."""
        self.history.append(outcome)
        self.run.deliver(outcome)
        self._look()

    # What came of it --------------------------------------------------------------------------------------

    @property
    def open(self) -> list[int]:
        """Numbers of the requests that wait."""
        return list(self.run.pending)

    @property
    def ending(self) -> Ending | None:
        """How the run ended."""
        return self.run.ending

    def request(self, step: int) -> Request:
        """The request of that number."""
        return self._requests[step]

    def step_with(self, argument: object) -> int:
        """Number of the last step that was asked for with that first argument."""
        return next(
            number
            for number, request in reversed(self._requests.items())
            if isinstance(request, StepRequest) and _first_argument(request) == argument
        )

    def timer_due(self, after_s: float) -> int:
        """Number of the open timer that is due so many seconds after the start."""
        due_at = START_US + round(after_s * SECOND_US)
        return next(
            number
            for number, request in self.run.pending.items()
            if isinstance(request, TimerRequest) and request.due_at == due_at
        )

    def result(self) -> str:
        """JSON of what the workflow returned."""
        ending = self.run.ending
        assert isinstance(ending, Returned), f"not returned: {ending}"
        return ending.payload

    def error(self) -> Raised:
        """What the workflow raised."""
        ending = self.run.ending
        assert isinstance(ending, Raised), f"not raised: {ending}"
        return ending

    def check_replays(self) -> None:
        """A run that is told any part of the history, and then the rest, asks for the same and ends the same."""
        for cut in range(len(self.history) + 1):
            again = Driver(self._make)
            again.replay(self.history[:cut])
            for outcome in self.history[cut:]:
                if not isinstance(
                    outcome, Emitted
                ):  # what is emitted live is recorded by the driver
                    again.tell(outcome)
            assert again.asked == self.asked, f"replay up to {cut} asked for something else"
            assert again.cancelled == self.cancelled, f"replay up to {cut} cancelled something else"
            assert again.history == self.history, f"replay up to {cut} emitted something else"
            assert _without_stack(again.ending) == _without_stack(self.ending)
            assert again.open == self.open
            assert again.run.waits_for_input == self.run.waits_for_input
            assert again.run.next_step == self.run.next_step
            again.run.close()

    def replay(self, outcomes: list[Outcome]) -> None:
        """Start, and tell all of `outcomes` before anything is taken."""
        self.run.start()
        for outcome in outcomes:
            for number, request in self.run.pending.items():
                self._note(number, request)
            self.history.append(outcome)
            self.run.deliver(outcome)
        self._look()

    def _look(self) -> None:
        taken = self.run.take()
        for request in taken:
            assert request.step in self.run.pending
        for number, request in self.run.pending.items():
            self._note(number, request)
        for request in taken:
            if isinstance(request, EmitRequest):
                self.history.append(Emitted(request.step, request.kind, request.name, None))
                self.run.emitted(request.step)
        self.cancelled += self.run.take_cancelled()

    def _note(self, number: int, request: Request) -> None:
        self._requests[number] = request
        details = () if isinstance(request, StepRequest) else tuple(map(str, request[2:]))
        self.asked[number] = (request.name, request.source, *details)

    def _header(self) -> Header:
        return {
            "workflow_id": "wf-1",
            "position": len(self.history) + 1,
            "recorded_at": self._next_time(),
            "claim": 0,
            "command": 0,
            "posted": 0,
            "worker": "test",
        }

    def _next_time(self) -> int:
        times = [told.recorded_at for told in self.history if not isinstance(told, Emitted)]
        return (times[-1] if times else START_US) + SECOND_US


def _first_argument(request: StepRequest) -> object:
    call = cast(
        "partial[object]", request.call.call
    )  # the definitions make a partial of every call
    return cast("tuple[object, ...]", call.args)[0]


def completed(
    step: int, name: str, payload: str, recorded_at: int, position: int = 1
) -> StepCompleted:
    """The event that step `step` returned `payload`."""
    return StepCompleted(
        workflow_id="wf-1",
        position=position,
        recorded_at=recorded_at,
        claim=0,
        command=0,
        posted=0,
        worker="test",
        step=step,
        name=name,
        payload=payload,
        attempt=1,
        started_at=START_US,
    )


def fired(step: int, name: str, recorded_at: int, position: int = 1) -> TimerFired:
    """The event that timer `step` fired."""
    return TimerFired(
        workflow_id="wf-1",
        position=position,
        recorded_at=recorded_at,
        claim=0,
        command=0,
        posted=0,
        worker="test",
        step=step,
        name=name,
    )


def _without_stack(ending: Ending | None) -> object:
    """Stacks name refold's own lines, which differ between a start and a replay."""
    if isinstance(ending, Raised):
        return ending.error_type, ending.error_message, ending.payload
    return ending

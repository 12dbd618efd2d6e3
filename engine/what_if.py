"""What if a step had come to something else: a recorded run and the same run supposed otherwise, side by side.

Both are replays of the run's own code: the recorded one as a worker would replay it, the other on a course of its own
(`engine/supposed.py`). Nothing is carried out, and nothing is written.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from refold.engine.blobs import Blobs
from refold.engine.definitions import Catalogue, Workflow
from refold.engine.histories import read_run
from refold.engine.matching import described_request
from refold.engine.operations import (
    Blocked,
    ChildRequest,
    Diverged,
    EmitRequest,
    Ending,
    Raised,
    Request,
    Returned,
    SendRequest,
    StepRequest,
    TimerRequest,
)
from refold.engine.places import Named, read_place, told
from refold.engine.rehearsal import History, described, shown
from refold.engine.scope import datetime_of
from refold.engine.supposed import (
    MAX_BEYOND,
    Came,
    RecordedAsync,
    RecordedRuns,
    RecordedSync,
    Settled,
    SupposedRun,
    arguments_of,
    kind_of,
    recorded_as,
)
from refold.engine.thread_slots import ThreadSlots
from refold.log.errors import PayloadError, UsageError
from refold.log.protocol import Log
from refold.log.urls import open_log

MAX_ARGUMENT_CHARS = 80
"""Of one argument in a call: its `repr` may be a whole document."""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation on a run's course.

    Args:
        step: Its number.
        kind: `step`, `timer`, `delivery`, or the kind of the event that it emits.
        name: Its name.
        call: The call as the code made it, with its arguments.
        source: `file:line` of the call.
        came: How it came to its outcome; `open` where it has none: it would be carried out.
        value: JSON of what the code got; None where it got nothing.
        error: What was raised instead, as "type: message".
    """

    step: int
    kind: str
    name: str
    call: str
    source: str
    came: Came
    value: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Course:
    """What a run's code does, from its start to where it ends or waits.

    Args:
        operations: All that it asks for, in code order.
        ending: How it ended, in words that follow "it"; "waits" where it has not.
        result: JSON of what it returned; None where it did not return.
        error: What it raised, as "type: message"; None where it did not raise.
    """

    operations: tuple[Operation, ...]
    ending: str
    result: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class WhatIf:
    """A run's recorded course beside another.

    Args:
        workflow_id: The run.
        recorded: What it did.
        supposed: What it would have done.
    """

    workflow_id: str
    recorded: Course
    supposed: Course


def what_if(
    url: str | Log,
    workflow_id: str,
    outcomes: Mapping[str | int, object] | None = None,
    *,
    stubs: Mapping[str, object] | None = None,
    workflows: Iterable[Workflow[..., Any]] | None = None,
) -> WhatIf:
    """Replay a run with other outcomes than the recorded ones. No step runs, and nothing is written.

    Args:
        url: The log, as of `Engine`.
        workflow_id: The run, open or ended.
        outcomes: What operations came to instead, by number (`3`), name (`"charge"`) or both (`"charge#3"`, as
            `refold show` says it): a value that the step may return, or an `Exception` that it raised.
        stubs: What stands for steps that the history has no outcome of, by name: a value, an `Exception`, or a function
            that is called with the step's arguments. Without one, the run waits where such a step would be carried out.
        workflows: The code; all workflows that were declared in this process where not given.

    Returns:
        Both courses.

    Raises:
        WorkflowNotFound: No run has that id.
        UsageError: It has no such operation, or the code is not that of its history.
        PayloadError: A value does not fit what its step returns, or a recorded one can't be read here, or was erased.
        LogError: The log can't be read.
    """
    return asyncio.run(what_if_async(url, workflow_id, outcomes, stubs=stubs, workflows=workflows))


async def what_if_async(
    url: str | Log,
    workflow_id: str,
    outcomes: Mapping[str | int, object] | None = None,
    *,
    stubs: Mapping[str, object] | None = None,
    workflows: Iterable[Workflow[..., Any]] | None = None,
) -> WhatIf:
    """`what_if` for code on an event loop."""
    log = open_log(url) if isinstance(url, str) else url
    await log.open()
    try:
        history = await read_run(log, workflow_id)
    finally:
        await log.close()
    catalogue = Catalogue.declared() if workflows is None else Catalogue.of(workflows)
    return suppose(catalogue, history, outcomes or {}, stubs or {}, Blobs.of(log))


def suppose(
    workflows: Catalogue,
    history: History,
    outcomes: Mapping[str | int, object],
    stubs: Mapping[str, object],
    blobs: Blobs,
) -> WhatIf:
    """`what_if` of a history that was read. Values may also be `Json`. Raises as that does."""
    runs = RecordedRuns(workflows, "raise", ThreadSlots(2), blobs)
    as_recorded = runs.of(history)
    try:
        as_recorded.replay(history.state.outcomes)
        recorded = _recorded_course(as_recorded, history, blobs)
        asked = tuple(as_recorded.asked)
    finally:
        as_recorded.close()
    supposed = _numbered(history.workflow_id, asked, outcomes)
    run = runs.of(history)
    try:
        course = SupposedRun(run, history, asked, supposed, stubs)
        course.go()
        supposed_course = _course(run, course.settled, blobs, stopped=course.stopped)
        return WhatIf(history.workflow_id, recorded, supposed_course)
    finally:
        run.close()


def _numbered(
    workflow_id: str, asked: Sequence[Request], outcomes: Mapping[str | int, object]
) -> dict[int, object]:
    """What is supposed, by the number of the recorded operation.

    Raises:
        UsageError: There is no such operation, or there are several.
    """
    settable = [
        Named(request.step, request.name)
        for request in asked
        if isinstance(request, StepRequest | ChildRequest)
    ]
    numbered: dict[int, object] = {}
    for text, outcome in outcomes.items():
        place = read_place(text)
        meant = [operation for operation in settable if place.means(operation)]
        if not meant:
            raise UsageError(
                f"workflow {workflow_id!r} has no step or child {place}: {told(settable)}. What comes after its "
                "history can be given a stub"
            )
        if len(meant) > 1:
            raise UsageError(
                f"workflow {workflow_id!r} has {len(meant)} operations {place}, name one of them: {told(meant)}"
            )
        if meant[0].step in numbered:
            raise UsageError(f"operation {place} of workflow {workflow_id!r} was given twice")
        numbered[meant[0].step] = outcome
    return numbered


def _recorded_course(run: RecordedAsync | RecordedSync, history: History, blobs: Blobs) -> Course:
    ending = run.ending
    if isinstance(ending, Diverged):
        raise UsageError(
            f"the code that is here is not that of workflow {history.workflow_id!r}: operation {ending.step} was "
            f"{ending.expected}, and the code asks for {ending.found}. Use the code that it ran with"
        )
    abandoned = dict.fromkeys(run.take_cancelled(), Settled(Came.ABANDONED))
    settled = abandoned | recorded_as(history.state.outcomes)
    return _course(run, settled, blobs, stopped=False)


def _course(
    run: RecordedAsync | RecordedSync,
    settled: Mapping[int, Settled],
    blobs: Blobs,
    *,
    stopped: bool,
) -> Course:
    """What a run did.

    Raises:
        PayloadError: Something that is supposed does not fit where the code takes it.
        PayloadUnreadable: A payload that the code needs can't be read here, or was erased.
        PayloadsUnavailable: The store of blobs or keys can't be read now.
    """
    ending = run.ending
    if isinstance(
        ending, Diverged
    ):  # a child's result, which nobody could look at before its code takes it
        raise PayloadError(f"operation {ending.step}: {ending.found}. Nothing was recorded")
    if isinstance(ending, Blocked):
        raise ending.error
    left = Settled(Came.OPEN if ending is None else Came.ABANDONED)
    operations = tuple(
        _operation(request, settled.get(request.step, left), blobs) for request in run.asked
    )
    return Course(
        operations,
        _ending(ending, run, stopped),
        ending.payload if isinstance(ending, Returned) else None,
        f"{ending.error_type.rpartition(':')[2]}: {ending.error_message}"
        if isinstance(ending, Raised)
        else None,
    )


def _ending(ending: Ending | None, run: RecordedAsync | RecordedSync, stopped: bool) -> str:
    if ending is not None:
        return described(ending)
    if stopped:
        return f"goes on: {MAX_BEYOND:,} operations beyond its history were enough"
    if run.waits_for_input:
        return "waits for a message, or for the end of a child"
    return "waits"


def _operation(request: Request, settled: Settled, blobs: Blobs) -> Operation:
    if isinstance(request, EmitRequest):
        settled = Settled(Came.EMITTED, request.payload)
    kind = kind_of(request)
    return Operation(
        request.step,
        kind.kind,
        kind.name,
        called(request),
        request.source,
        settled.came,
        None if settled.value is None else shown(blobs, settled.value, request.name),
        None if settled.error is None else blobs.read_note(settled.error, request.name),
    )


def called(request: Request) -> str:
    """A request as a call, with its arguments."""
    match request:
        case StepRequest():
            args, kwargs = arguments_of(request.call)
            texts = [*map(_shown, args), *(f"{name}={_shown(arg)}" for name, arg in kwargs.items())]
            return f"{request.name}({', '.join(texts)})"
        case TimerRequest():
            return f"{request.name} until {datetime_of(request.due_at):%Y-%m-%d %H:%M:%S} UTC"
        case SendRequest() | ChildRequest():
            what = described_request(request)
            return f"{what} to {request.target_id!r}: {_cut(request.payload)}"
        case _:
            return described_request(request)


def _shown(argument: object) -> str:
    try:
        return _cut(repr(argument))
    except Exception as error:  # noqa: BLE001 - the user's own __repr__
        return f"<its __repr__ raised {type(error).__qualname__}>"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_ARGUMENT_CHARS else f"{text[: MAX_ARGUMENT_CHARS - 1]}…"


def pairs(recorded: Course, supposed: Course) -> list[tuple[Operation | None, Operation | None]]:
    """The operations of both courses, side by side where they are the same one."""
    ours, others = recorded.operations, supposed.operations
    matcher = SequenceMatcher(
        None,
        [(operation.kind, operation.name) for operation in ours],
        [(operation.kind, operation.name) for operation in others],
        autojunk=False,
    )
    rows: list[tuple[Operation | None, Operation | None]] = []
    for how, start, stop, other_start, other_stop in matcher.get_opcodes():
        left, right = ours[start:stop], others[other_start:other_stop]
        if how == "equal":
            rows.extend(zip(left, right, strict=True))
        else:
            rows.extend((operation, None) for operation in left)
            rows.extend((None, operation) for operation in right)
    return rows

"""What a fork or a reopened run begins with, assembled from the log.

An owner keeps little of a run that has ended, and nothing of another partition's runs. So whoever wants a copy reads
the source's stream, folds it by the same `evolve`, and sends what is kept. Rules:

1. A run is taken as it stood before it ended. One that was being copied when it ended counts as it stood before that.
2. What is kept of operations is what `kept_before` keeps. A fork has numbers of its own, so it goes on with the number
   at which the copy ends; a reopened run never uses a number again.
3. Positions in a fork's copied history are negative: none of them is the position of an event of its own.
4. What a reopened run had sent and heard no answer to, and how its children have ended since, is looked up with the
   workflows that it was sent to: they have answered, and nobody was there to hear it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from refold.engine.copied import Copied, read_copied
from refold.engine.fold import evolve, has_step, kept_before, rewound
from refold.engine.ledger import Header, unwritten
from refold.engine.operations import Answered, Emitted, Numbering, Outcome
from refold.engine.reader import beheaded, missing, trimmed_away
from refold.engine.state import Ended, PartitionState, Sent, Status, WorkflowState
from refold.log.accepted import Accepted
from refold.log.chain_walk import beginning
from refold.log.codec import decode_event
from refold.log.errors import CommandRefused
from refold.log.events import (
    AttributesSet,
    ChildCompleted,
    ChildFailed,
    ChildRequested,
    DeliveryConfirmed,
    DeliveryRefused,
    Event,
    HistoryCopied,
    StepFailed,
    StreamWritten,
    Unreadable,
    ValuePublished,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowReopened,
    WorkflowStarted,
)
from refold.log.events import CommandRefused as RefusedEvent
from refold.log.protocol import Channel, Log


@dataclass(slots=True)
class Shown:
    """What others can see of a run: values, tags and streams.

    Args:
        before: Only what operations before this one have shown counts; None for all.
        values: Published values by key.
        streams: Next index of each stream.
        tags: Tags that its code has set.
    """

    before: int | None = None
    values: dict[str, ValuePublished] = field(default_factory=dict[str, ValuePublished])
    streams: dict[str, int] = field(default_factory=dict[str, int])
    tags: dict[str, str] | None = None

    def take(self, event: Event) -> None:
        """Take an event that counts."""
        match event:
            case ValuePublished() if self._counts(event.step):
                self.values[event.name] = event
            case StreamWritten() if self._counts(event.step):
                self.streams[event.name] = event.index + event.count
            case AttributesSet() if self._counts(event.step):
                self.tags = {**(self.tags or {}), **(event.attributes or {})}
            case HistoryCopied():
                copied = read_copied(event.payload)
                self.values.update(
                    {key: value for key, value in copied.values.items() if self._counts(value.step)}
                )
                self.streams.update(copied.streams)
                self.tags = copied.tags if copied.tags is not None else self.tags
            case _:
                pass

    def _counts(self, step: int) -> bool:
        return self.before is None or step < self.before


@dataclass(slots=True)
class Source:
    """A run that is to be copied, as the log has it.

    Args:
        workflow_id: Its id.
        run: Its fold, as of before its end.
        started: Its start.
        events: Number of events in its stream.
        ending: How it ended; None while it is open.
        shown: What it has shown before the operation that was asked for.
        streams: Next index of each of its streams.
    """

    workflow_id: str
    run: WorkflowState
    started: WorkflowStarted
    events: int
    ending: Ended | None
    shown: Shown
    streams: dict[str, int]

    @property
    def next_step(self) -> int:
        """A number that no operation has had, as far as that is known."""
        asked_for = self.ending.next_step if self.ending is not None else None
        return max(self.run.next_step, asked_for or 0)

    @property
    def tags(self) -> dict[str, str] | None:
        """Its tags, where its code has set some."""
        if self.shown.tags is None:
            return None
        return {**(self.started.attributes or {}), **self.shown.tags}


class _Fold:
    """One stream, folded; keeps hold of the run's state when the stream closes."""

    def __init__(self, workflow_id: str, before: int | None, claim: int) -> None:
        self.ending: Ended | None = None
        self.current: WorkflowState | None = None
        self.whole: WorkflowState | None = None  # the last one that was not being copied
        self.shown = Shown(before)
        self.all = Shown()
        self._workflow_id = workflow_id
        self._state = PartitionState(claim=claim)

    def take(self, event: Event | Unreadable, offset: int) -> None:
        """Fold a record."""
        counts = not isinstance(event, Unreadable) and event.claim == self._state.claim
        self._state = evolve(self._state, event, offset)
        current = self._state.open.get(self._workflow_id)
        if current is not None:
            self.current, self.ending = current, None
        elif self.current is not None and counts and isinstance(event, Ended):
            self.ending = event
        if self.current is not None and self.current.status is not Status.COPYING:
            self.whole = self.current
        if isinstance(event, WorkflowStarted) and counts:  # perhaps of an id that was used before
            self.shown, self.all = Shown(self.shown.before), Shown()
        elif counts and not isinstance(event, Unreadable):
            self.shown.take(event)
            self.all.take(event)

    def run(self) -> WorkflowState | None:
        """The run's state: before an unfinished copying, where that was the last thing (rule 1)."""
        if self.current is None or self.whole is None or self.whole is self.current:
            return self.whole
        news = self.current.outcomes[self.current.exchange.copied :]
        self.whole.outcomes = [*self.whole.outcomes, *news]
        return self.whole


async def read_source(log: Log, workflow_id: str, before: int | None) -> Source:
    """The run of that id, to be copied.

    Args:
        log: An open log.
        workflow_id: The run.
        before: The operation before which the copy is to end, for what it shows; None for all.

    Raises:
        WorkflowNotFound: No run has that id.
        CommandRefused: Its history can't be followed, or is not all there.
        LogTrimmed: Its first events were trimmed.
    """
    partition = log.layout.place(workflow_id)
    start = await beginning(log, partition)
    fold = _Fold(workflow_id, before, start.claim)
    async for batch in log.read(Channel.EVENTS, partition, start.offset, key=workflow_id):
        for record in batch:
            fold.take(decode_event(record), record.offset)
    current = fold.current
    if current is None:
        raise await missing(log, workflow_id, start)
    if start.offset > 0 and current.started is None:
        raise beheaded(workflow_id, start)
    if current.broken is not None:
        raise CommandRefused(
            f"workflow {workflow_id!r} can't be copied, its history can't be followed: {current.broken}"
        )
    run = fold.run()
    if run is None or (current.status is Status.COPYING and fold.ending is None):
        raise CommandRefused(
            f"workflow {workflow_id!r} is a copy that is not whole: fork its source anew, or wait until all is there"
        )
    assert run.started is not None, "what is not broken has a start"
    return Source(
        workflow_id,
        run,
        run.started,
        current.position,
        fold.ending,
        fold.shown,
        fold.all.streams,
    )


def step_problem(source: Source, step: int) -> str | None:
    """Why a run can't be taken back to before operation `step`; None where it can."""
    run, after = source.run, source.next_step
    stretched = replace(run, next_step=after)
    if has_step(stretched, step):
        return None
    return (
        f"workflow {source.workflow_id!r} has no step {step} in its history, which has "
        f"{_steps(run.numbering, after)}; see `refold show {source.workflow_id}`"
    )


def _steps(numbering: Numbering, after: int) -> str:
    """The numbers that a run has given to operations, in words."""
    ranges: list[str] = []
    first = numbering.base
    for at, to in (*numbering.jumps, (after, after)):
        if first < at:
            ranges.append(f"{first}" if first == at - 1 else f"{first} to {at - 1}")
        first = to
    return f"steps {', '.join(ranges)}" if ranges else "no steps"


def fork_of(source: Source, step: int | None, fork_id: str) -> Copied:
    """What a fork begins with.

    Args:
        source: Its source, read with `before=step`.
        step: The operation before which the copy ends, one that the source has; None for all of it.
        fork_id: The fork's id.

    Raises:
        CommandRefused: A child of the source that the fork would wait for has not ended.
    """
    run = source.run
    numbering = run.numbering
    outcomes = list(run.outcomes)
    if step is not None:
        outcomes = kept_before(run.outcomes, step)
        jumps = tuple(jump for jump in numbering.jumps if jump[1] <= step)
        numbering = Numbering(numbering.base, jumps)
    children = [
        child
        for number, child in run.exchange.children.items()
        if numbering.base <= number and (step is None or number < step)
    ]
    if children:
        first = min(children, key=lambda child: child.step)
        raise CommandRefused(
            f"workflow {source.workflow_id!r} can't be forked there: its child {first.target_id!r} has not ended, and "
            f"the fork would wait for it for ever. Fork from step {first.step}, which starts the child anew, or wait"
        )
    return Copied(
        outcomes=[_moved(outcome, fork_id, -source.events) for outcome in outcomes],
        numbering=numbering,
        next_step=source.next_step if step is None else step,
        patches=sorted(run.exchange.patches),
        streams=source.shown.streams,
        values=source.shown.values,
        seen=list(run.exchange.seen),
        tags=source.tags,
    )


def step_that_failed(outcomes: Sequence[Outcome]) -> int | None:
    """The operation whose failure was the last thing that a run's code was told of its operations, if it was one."""
    for outcome in reversed(outcomes):
        if isinstance(outcome, StepFailed | ChildFailed | DeliveryRefused):
            return outcome.step
        if isinstance(outcome, Answered | ChildCompleted):
            return None
    return None


async def continuation_of(log: Log, source: Source, step: int | None) -> Copied:
    """What a run that is reopened begins with.

    Args:
        log: An open log.
        source: The run, which has ended; read with `before=step`.
        step: The first operation that is done again, one that it has; None where all that was recorded stays.
    """
    run = source.run
    numbering, after = run.numbering, source.next_step
    if step is not None:
        after = max(after, step + 1)
        numbering = rewound(numbering, step, after)
    cut = after if step is None else step
    copied = Copied(
        outcomes=kept_before(run.outcomes, cut),
        numbering=numbering,
        next_step=after,
        patches=sorted(run.exchange.patches),
        streams=source.streams,
        values=source.shown.values,
        seen=list(run.exchange.seen),
        tags=source.tags,
    )
    sent: dict[int, Sent] = {**run.exchange.children, **run.exchange.requests}
    for number, request in sorted(sent.items()):
        if number < cut:
            await _ask_receiver(log, source, request, copied)
    return copied


async def _ask_receiver(log: Log, source: Source, request: Sent, copied: Copied) -> None:
    """Add what has become of a request that was open when the run ended (rule 4)."""
    found = await _find(log, source.workflow_id, request)
    number = request.step
    in_reach = number >= source.run.numbering.base
    header = _header(source)
    if number in source.run.exchange.requests and in_reach:
        match found.answer:
            case None:
                return  # the code asks for it anew; whoever gets it twice knows
            case RefusedEvent() as refused:
                copied.outcomes.append(
                    DeliveryRefused(
                        **header,
                        step=number,
                        name=request.name,
                        error_type=refused.error_type,
                        error_message=refused.error_message,
                    )
                )
                return
            case _:
                copied.outcomes.append(DeliveryConfirmed(**header, step=number, name=request.name))
    if not isinstance(request, ChildRequested) or request.policy == "detached":
        return
    if found.ending is None:
        copied.children[number] = request
    elif in_reach:
        copied.outcomes.append(_end_of_child(request, found.ending, header))


@dataclass(slots=True)
class _Found:
    """What a receiver's stream says: its answer to the request, and how it has ended since."""

    answer: Event | None = None
    ending: Ended | None = None


async def _find(log: Log, sender: str, request: Sent) -> _Found:
    partition = log.layout.place(request.target_id)
    start = await beginning(log, partition)
    found, accepted, whole = _Found(), Accepted(start.claim), start.offset == 0
    async for batch in log.read(Channel.EVENTS, partition, start.offset, key=request.target_id):
        for record in batch:
            event = accepted.take(record)
            if event is None or isinstance(event, Unreadable):
                continue
            whole = whole or isinstance(event, WorkflowStarted)
            parent = getattr(event, "parent_id", None), getattr(event, "parent_step", None)
            if parent == (sender, request.step) and found.answer is None:
                found.answer = event
            if isinstance(event, Ended):
                found.ending = event
            elif isinstance(event, WorkflowReopened):
                found.ending = None
    if found.answer is None and not whole:
        told = f"what workflow {request.target_id!r} made of {request.kind} from workflow {sender!r} was trimmed"
        raise trimmed_away(told, start)
    return found


def _end_of_child(child: ChildRequested, ending: Ended, header: Header) -> Outcome:
    match ending:
        case WorkflowCompleted():
            return ChildCompleted(
                **header, step=child.step, name=child.name, payload=ending.payload
            )
        case WorkflowFailed():
            return ChildFailed(
                **header,
                step=child.step,
                name=child.name,
                error_type=ending.error_type,
                error_message=ending.error_message,
                error_stack=ending.error_stack,
                payload=ending.payload,
                encoding=ending.encoding,
            )
        case _:
            return ChildFailed(
                **header,
                step=child.step,
                name=child.name,
                error_type=ending.error_type,
                error_message=ending.error_message,
            )


def _header(source: Source) -> Header:
    """Common fields of an outcome that is no event of the run's own stream."""
    ending = source.ending
    at = source.run.updated_at if ending is None else ending.recorded_at
    return unwritten(source.workflow_id, at)


def _moved(outcome: Outcome, workflow_id: str, shift: int) -> Outcome:
    """An outcome as it stands in a fork (rule 3)."""
    position = None if outcome.position is None else outcome.position + shift
    if isinstance(outcome, Emitted):
        return outcome._replace(position=position)
    return replace(outcome, workflow_id=workflow_id, position=position)

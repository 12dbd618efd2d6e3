"""A partition's state as text, and back: the content of a checkpoint.

The text is lines of JSON. Each is an array whose first element says what it is:

    ["refold", 2]                               the format, first; 1 is read, which knew no queues, others are not
    ["partition", {...}]                        floor, forgotten_before, steps handed over, an offer
    ["post", {...}]                             a command of the outbox; in order
    ["run", workflow_id, {...}]                 an open run, but for its outcomes
    ["outcomes", workflow_id, [...]]            some of its outcomes; in order, after its "run"; those of a kind that
                                                follow each other as one table
    ["queue", name, limit]                      a queue
    ["running", name, [workflow_id, position], ...]    some of its runs that have a slot
    ["waiting", name, [workflow_id, position], ...]    some that wait for one; in order
    ["closed", [workflow_id, ...], ...]         some runs that have ended; in order
    ["end"]                                     nothing is missing

Claim, owner, command, posted and chain are those of the event `checkpoint.begun` and are not repeated. The text is cut
into parts anywhere. What is read back folds on exactly as the state that was written would: their digests are equal.

While parts are written the partition lives on. So `Snapshot` copies a run just before its first change; what has not
changed is turned to text when its turn comes (copy on write, as a database's consistent snapshot, or Redis's fork).
"""

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, Final, cast

from refold.engine.operations import Emitted, Numbering, Outcome
from refold.engine.state import (
    NO_EXCHANGE,
    Attempts,
    Closed,
    Exchange,
    Handed,
    Origin,
    PartitionState,
    Queue,
    Status,
    Ticket,
    WorkflowState,
)
from refold.log.commands import COMMAND_CLASSES, Command
from refold.log.errors import LogCorrupt
from refold.log.events import EVENT_CLASSES, Event

FORMAT: Final = 2
"""Another one with each release that has new kinds of events or more to keep. An older one then folds from the
beginning, and a newer one knows which were written by a release that may not have understood all that it had read."""
READABLE: Final = (1, FORMAT)
TOGETHER: Final = 500
"""Outcomes, or ended runs, in one line."""
SAMPLED: Final = 100
"""Runs from which the size of all is estimated."""
CLOSED_BYTES: Final = 190
"""About what one that has ended takes."""
TICKET_BYTES: Final = 40
"""About what a run in a queue takes there."""

_KINDS: Final[dict[str, type]] = {cls.kind: cls for cls in (*EVENT_CLASSES, *COMMAND_CLASSES)}
_FIELDS: Final[dict[type, tuple[tuple[str, object], ...]]] = {
    cls: tuple((f.name, f.default) for f in dataclasses.fields(cls) if f.name != "chain")
    for cls in _KINDS.values()
}
_END: Final = '["end"]'
_CLOSED_FIELDS: Final = tuple(f.name for f in dataclasses.fields(Closed))
_ORIGIN: Final = _CLOSED_FIELDS.index("origin")


class Snapshot:
    """The state of a partition at one moment, turned to text little by little while the state goes on.

    Args:
        state: The state. `changes` must be called before each change of an open run of it.
    """

    def __init__(self, state: PartitionState) -> None:
        self._pending: dict[str, WorkflowState] = dict(state.open)
        self._copied: dict[str, WorkflowState] = {}
        self._closed = list(state.closed.items())
        self._queues = [
            (name, queue.limit, list(queue.running), list(queue.waiting))
            for name, queue in state.queues.items()
        ]
        self._head = [*_head(state)]
        self._lines = self._all_lines()
        self._rest = ""

    def changes(self, workflow_id: str) -> None:
        """The run is about to change: keep what it was."""
        run = self._pending.get(workflow_id)
        if run is not None and workflow_id not in self._copied:
            self._copied[workflow_id] = _copy(run)

    def next_part(self, size: int) -> str | None:
        """The next piece of the text, of about `size` characters; None when there is none left."""
        pieces = [self._rest]
        length = len(self._rest)
        for line in self._lines:
            pieces.append(line)
            length += len(line)
            if length >= size:
                break
        text = "".join(pieces)
        self._rest = text[size:]
        return text[:size] or None

    def _all_lines(self) -> Iterator[str]:
        yield from self._head
        for workflow_id in list(self._pending):
            run = self._copied.pop(workflow_id, None) or self._pending[workflow_id]
            # Whole before anything else happens: from here on its changes need no copy.
            lines = [*_run_lines(workflow_id, run)]
            del self._pending[workflow_id]
            yield from lines
        for name, limit, running, waiting in self._queues:
            yield _line(["queue", name, limit])
            for what, tickets in (("running", running), ("waiting", waiting)):
                for first in range(0, len(tickets), TOGETHER):
                    yield _line([what, name, *tickets[first : first + TOGETHER]])
        for first in range(0, len(self._closed), TOGETHER):
            some = self._closed[first : first + TOGETHER]
            yield _line(["closed", *([id_, *_closed_values(run)] for id_, run in some)])
        yield _END + "\n"


def estimate(state: PartitionState, gone: int = 0) -> int:
    """About how long the text of a state is, in characters: from a sample of its runs.

    Args:
        state: The state.
        gone: How many of the runs that have ended will be forgotten before.
    """
    count = len(state.open)
    sample = list(state.open.items())[:: max(1, count // SAMPLED)]
    length = sum(len(line) for id_, run in sample for line in _run_lines(id_, run))
    opened = length * count // max(1, len(sample))
    tickets = sum(len(queue.running) + len(queue.waiting) for queue in state.queues.values())
    small = len(state.closed) - gone + len(state.outbox)
    return opened + small * CLOSED_BYTES + tickets * TICKET_BYTES


class Text(ABC):
    """A checkpoint's text as it is read, part by part."""

    def __init__(self) -> None:
        self._rest = ""
        self.is_older = False
        self._begun = False
        self._ended = False

    def take(self, text: str) -> None:
        """Take the next part.

        Raises:
            LogCorrupt: It is not what this release writes.
        """
        *lines, self._rest = (self._rest + text).split("\n")
        try:
            for line in lines:
                if not self._begun:
                    self._begin(json.loads(line))
                elif line == _END:
                    self._ended = True
                else:
                    self._take(line)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise LogCorrupt(f"its text can't be read: {error!r}") from error

    def check_whole(self) -> None:
        """See that nothing is missing.

        Raises:
            LogCorrupt: Something is.
        """
        if not self._ended or self._rest:
            raise LogCorrupt("its text breaks off")

    def _begin(self, line: list[Any]) -> None:
        if line not in [["refold", number] for number in READABLE]:
            raise LogCorrupt(f"its format is not one that this release reads: {line!r}")
        self.is_older = line != ["refold", FORMAT]
        self._begun = True

    @abstractmethod
    def _take(self, line: str) -> None: ...


class Search(Text):
    """Looks for one run in a checkpoint's text; what it says of others is not even parsed.

    Args:
        workflow_id: The run.
    """

    def __init__(self, workflow_id: str) -> None:
        super().__init__()
        self.is_there = False
        self.origin: Origin | None = None
        self._id = workflow_id
        self._mark = json.dumps(workflow_id, ensure_ascii=False)

    def _take(self, line: str) -> None:
        if self._mark not in line:
            return
        what, *values = json.loads(line)
        if what == "run" and values[0] == self._id:
            self.is_there, self.origin = True, _origin(values[1].get("origin"))
        elif what == "closed":
            for id_, *closed in values:
                if id_ == self._id:
                    self.is_there, self.origin = True, _read_closed(closed).origin


class Restoration(Text):
    """Reads a state back from a checkpoint's text.

    Args:
        state: With claim, owner, command, posted and chain of the event that the checkpoint began with.
    """

    def __init__(self, state: PartitionState) -> None:
        super().__init__()
        self.state = state
        self._readers: Mapping[str, Callable[[list[Any]], None]] = {
            "partition": self._partition,
            "post": self._post,
            "run": self._run,
            "outcomes": self._outcomes,
            "queue": self._queue,
            "running": self._tickets,
            "waiting": self._tickets,
            "closed": self._closed,
        }

    def whole(self) -> PartitionState:
        """The state.

        Raises:
            LogCorrupt: Something is missing.
        """
        self.check_whole()
        return self.state

    def _take(self, line: str) -> None:
        values = json.loads(line)
        self._readers[values[0]](values)

    def _partition(self, line: list[Any]) -> None:
        values = line[1]
        self.state.floor = values["floor"]
        self.state.forgotten_before = values["forgotten_before"]
        for workflow_id, step, attempt, due_at in values["handed"]:
            self.state.handed[workflow_id, step] = Handed(attempt, due_at)
        self.state.offered_until = values.get("offered_until", 0)

    def _post(self, line: list[Any]) -> None:
        self.state.outbox.append(cast(Command, _from_json(line[1])))

    def _run(self, line: list[Any]) -> None:
        _, workflow_id, values = line
        run = _read_run(values)
        if self.is_older and run.broken is not None:  # by an event that this release may well know
            raise LogCorrupt(
                f"the older release that wrote it could not follow the history of {workflow_id!r}: {run.broken}"
            )
        self.state.open[workflow_id] = run

    def _outcomes(self, line: list[Any]) -> None:
        _, workflow_id, outcomes = line
        run = self.state.open[workflow_id]
        for entry in _rows(outcomes):
            outcome = cast(Outcome, _from_json(entry))
            run.add_outcome(outcome)

    def _queue(self, line: list[Any]) -> None:
        _, name, limit = line
        self.state.queues[name] = Queue(limit)

    def _tickets(self, line: list[Any]) -> None:
        what, name, *tickets = line
        queue = self.state.queues[name]
        held = queue.running if what == "running" else queue.waiting
        held.update((Ticket(*ticket), None) for ticket in tickets)

    def _closed(self, line: list[Any]) -> None:
        closed = self.state.closed
        for workflow_id, *values in line[1:]:
            closed[workflow_id] = _read_closed(values)


# Writing --------------------------------------------------------------------------------------------------


def _line(values: list[Any]) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n"


def _head(state: PartitionState) -> Iterator[str]:
    yield _line(["refold", FORMAT])
    handed = [[*key, *step] for key, step in state.handed.items()]
    yield _line(
        [
            "partition",
            {
                "floor": state.floor,
                "forgotten_before": state.forgotten_before,
                "handed": handed,
                **({"offered_until": state.offered_until} if state.offered_until else {}),
            },
        ]
    )
    for command in state.outbox:
        yield _line(["post", _to_json(command)])


def _run_lines(workflow_id: str, run: WorkflowState) -> Iterator[str]:
    values: dict[str, Any] = {
        "started": _to_json(run.started),
        "position": run.position,
        "status": run.status,
        "updated_at": run.updated_at,
        "first_started_at": run.first_started_at,
        "input_digest": run.input_digest.hex() if run.input_digest is not None else None,
        "next_step": run.next_step,
        "numbering": [run.numbering.base, run.numbering.jumps],
        "resolved": _ranges(run.resolved),
        "attempts": [
            [n, a.name, a.failed, a.started_at, a.due_at] for n, a in run.attempts.items()
        ],
        "timers": [_to_json(timer) for timer in run.timers.values()],
        "exchange": None if run.exchange is NO_EXCHANGE else _exchange_to_json(run.exchange),
        "parked": _to_json(run.parked),
        "broken": run.broken,
        "origin": run.origin,
        "ticket": None if run.ticket is None else [run.ticket, run.waits],
    }
    yield _line(["run", workflow_id, {name: value for name, value in values.items() if value}])
    outcomes = run.outcomes
    for first in range(0, len(outcomes), TOGETHER):
        some = outcomes[first : first + TOGETHER]
        yield _line(["outcomes", workflow_id, [*_tables(map(_to_json, some))]])


def _exchange_to_json(exchange: Exchange) -> dict[str, Any]:
    return {
        "requests": [[n, _to_json(sent)] for n, sent in exchange.requests.items()],
        "children": [[n, _to_json(child)] for n, child in exchange.children.items()],
        "values": [_to_json(value) for value in exchange.values.values()],
        "streams": exchange.streams,
        "seen": list(exchange.seen),
        "asked": [_to_json(ask) for ask in exchange.asked.values()],
        "answers": [_to_json(answer) for answer in exchange.answers.values()],
        "patches": sorted(exchange.patches),
        "tags": exchange.tags,
        "cancel": _to_json(exchange.cancel),
        "parts": exchange.parts,
        "copied": exchange.copied,
    }


def _to_json(value: Outcome | Event | Command | None) -> Any:
    """An event or a command as an object, without fields that have their default."""
    if value is None:
        return None
    if isinstance(value, Emitted):
        return list(value)
    found: dict[str, Any] = {"kind": value.kind}
    for name, default in _FIELDS[type(value)]:
        field = getattr(value, name)
        if field != default and not (field is None and default is dataclasses.MISSING):
            found[name] = field
    return found


def _tables(entries: Iterable[Any]) -> Iterator[Any]:
    """Those of one shape that follow each other as one: what is the same in all, and a column for all else.

    Most of an outcome is as in the one before it; and the shorter a checkpoint, the less there is to fold after it.
    """
    for shape, group in groupby(entries, _shape):
        rows = [*group]
        if shape is None or len(rows) == 1:
            yield from rows
            continue
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        each = {
            name: values
            for name, values in columns.items()
            if name == "position" or any(value != values[0] for value in values)
        }
        yield {
            "same": {name: values[0] for name, values in columns.items() if name not in each},
            "each": each,
        }


def _shape(entry: Any) -> tuple[str, ...] | None:
    """Kind and names of an object's fields; None for what is no object."""
    if not isinstance(entry, dict):
        return None
    fields = cast("dict[str, Any]", entry)
    return (fields["kind"], *fields)


def _ranges(numbers: Any) -> list[int]:
    """Numbers as first and last of each unbroken run of them, in order: those of operations are mostly one."""
    ranges: list[int] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1] + 1:
            ranges[-1] = number
        else:
            ranges += [number, number]
    return ranges


def _closed_values(run: Closed) -> list[Any]:
    return [
        value.hex() if isinstance(value := getattr(run, name), bytes) else value
        for name in _CLOSED_FIELDS
    ]


def _copy(run: WorkflowState) -> WorkflowState:
    """A run as it is now, safe from what happens to it later; what never changes is shared."""
    exchange = run.exchange
    if exchange is not NO_EXCHANGE:
        exchange = dataclasses.replace(
            exchange,
            requests=dict(exchange.requests),
            children=dict(exchange.children),
            values=dict(exchange.values),
            streams=dict(exchange.streams),
            seen=dict(exchange.seen),
            asked=dict(exchange.asked),
            answers=dict(exchange.answers),
            patches=set(exchange.patches),
        )
    return dataclasses.replace(
        run,
        outcomes=list(run.outcomes),
        resolved=set(run.resolved),
        attempts={n: dataclasses.replace(a) for n, a in run.attempts.items()},
        timers=dict(run.timers),
        exchange=exchange,
    )


# Reading --------------------------------------------------------------------------------------------------


def _rows(entries: Iterable[Any]) -> Iterator[Any]:
    """What `_tables` was given."""
    for entry in entries:
        if not isinstance(entry, dict) or "each" not in entry:
            yield entry
            continue
        same = cast("dict[str, Any]", entry["same"])
        each = cast("dict[str, list[Any]]", entry["each"])
        for values in zip(*each.values(), strict=True):
            yield {**same, **dict(zip(each, values, strict=True))}


def _read_run(values: dict[str, Any]) -> WorkflowState:
    base, jumps = values["numbering"]
    ranges: list[int] = values.get("resolved", [])
    resolved: set[int] = set()
    for first, last in zip(ranges[::2], ranges[1::2], strict=True):
        resolved.update(range(first, last + 1))
    digest: str | None = values.get("input_digest")
    run = WorkflowState(
        started=_from_json(values.get("started")),
        position=values.get("position", 0),
        status=Status(values["status"]),
        updated_at=values.get("updated_at", 0),
        first_started_at=values.get("first_started_at", 0),
        input_digest=bytes.fromhex(digest) if digest is not None else None,
        next_step=values.get("next_step", 0),
        parked=_from_json(values.get("parked")),
        broken=values.get("broken"),
        origin=_origin(values.get("origin")),
    )
    run.ticket, run.waits = values.get("ticket", (None, False))
    if base or jumps:
        run.numbering = Numbering(base, tuple((at, to) for at, to in jumps))
    if resolved:
        run.resolved = resolved
    attempts: dict[int, Attempts] = {n: Attempts(*a) for n, *a in values.get("attempts", [])}
    if attempts:
        run.attempts = attempts
    for entry in values.get("timers", []):
        timer = _from_json(entry)
        run.timers[timer.step] = timer
    if "exchange" in values:
        run.exchange = _read_exchange(values["exchange"])
    return run


def _read_closed(values: list[Any]) -> Closed:
    values[2] = bytes.fromhex(values[2])
    values[3] = Status(values[3])
    if len(values) > _ORIGIN:
        values[_ORIGIN] = _origin(values[_ORIGIN])
    return Closed(*values)


def _origin(values: list[int] | None) -> Origin | None:
    return None if values is None else Origin(*values)


def _read_exchange(values: dict[str, Any]) -> Exchange:
    return Exchange(
        requests={n: _from_json(sent) for n, sent in values["requests"]},
        children={n: _from_json(child) for n, child in values["children"]},
        values={value.name: value for value in map(_from_json, values["values"])},
        streams=values["streams"],
        seen=dict.fromkeys(values["seen"]),
        asked={ask.message_id: ask for ask in map(_from_json, values["asked"])},
        answers={answer.message_id: answer for answer in map(_from_json, values["answers"])},
        patches=set(values["patches"]),
        tags=values["tags"],
        cancel=_from_json(values["cancel"]),
        parts=values["parts"],
        copied=values["copied"],
    )


def _from_json(entry: Any) -> Any:
    if entry is None:
        return None
    if isinstance(entry, list):
        return Emitted(*entry)
    cls = _KINDS[entry.pop("kind")]
    for name, default in _FIELDS[cls]:
        if name not in entry and default is dataclasses.MISSING:
            entry[name] = None  # a field that has no default may be None
    return cls(**entry)

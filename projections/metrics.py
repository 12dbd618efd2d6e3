"""Metrics from history: numbers that are folded from events, so that one invented today has values for last year.

    @metric(unit="EUR", by=("workflow", "attribute:country"), kinds="step.completed", aggregate="sum")
    def revenue(event: Event, context: MetricContext) -> float | None:
        return context.value["amount"] if event.name == "charge" else None

The function is called for each event that counts, once, in the order of its partition, and gives a number or None.
What becomes of a run's steps when it is rewound, or copied into a fork, is no second event: each happened once and
counts once. Numbers are summed up by labels and by windows of time (`recorded_at`), so memory is bounded by windows
times label values, and by the runs that are open.
"""

import hashlib
import inspect
import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final, Literal, TypeVar

from refold.log.attributes import Tag, decode_attributes
from refold.log.blobs import reference_in
from refold.log.envelope import PREFIX
from refold.log.errors import DefinitionError, RefoldError
from refold.log.events import Event
from refold.projections.sieve import kinds_of

Aggregate = Literal["count", "sum", "rate", "percentiles"]
AGGREGATES: Final = ("count", "sum", "rate", "percentiles")
Number = int | float | Decimal | timedelta
LABELS: Final = ("workflow", "version", "step", "kind", "worker", "error")
ATTRIBUTE: Final = "attribute:"

MAX_LABEL_CHARS: Final = 200
_NAME_CHARS: Final = 60

F = TypeVar("F", bound=Callable[..., Number | None])


class MetricFailed(RefoldError):
    """A metric's own code raised on an event, or gave what is no number. Mend it: nothing was kept of that batch."""


@dataclass(frozen=True, slots=True)
class MetricContext:
    """What a metric's function knows beside the event.

    Args:
        workflow_id: The event's run; empty for the partition's own events.
        workflow: Name of its workflow.
        version: Version of its code, as of the event.
        started_at: When it was first started, microseconds since 1970-01-01 UTC.
        tags: Its attributes as they are recorded, as of the event.
        parked_s: How long it had been parked, in seconds, where this event ended that; None otherwise.
        event: The event.
    """

    workflow_id: str
    workflow: str
    version: int
    started_at: int
    tags: Mapping[str, str]
    parked_s: float | None
    event: Event

    @property
    def attributes(self) -> Mapping[str, Tag]:
        """The run's attributes, as of the event."""
        return decode_attributes(self.tags)

    @property
    def value(self) -> Any:
        """The event's payload: of a step that completed, what it returned. None where there is none, or where the whole
        of it is encrypted; encrypted fields of it are objects with `$enc`.

        Raises:
            MetricFailed: It is in a blob store, which metrics don't read.
        """
        payload: str | None = getattr(self.event, "payload", None)
        if payload is None or payload.startswith(PREFIX):
            return None
        if reference_in(payload) is not None:
            raise MetricFailed(
                f"the payload of {self.event.kind} at position {self.event.position} of workflow "
                f"{self.workflow_id!r} is in a blob store, which metrics don't read: return what is measured apart"
            )
        return json.loads(payload)

    def seconds_since(self, time: int) -> float:
        """Seconds from a time (microseconds since 1970-01-01 UTC) to the event."""
        return (self.event.recorded_at - time) / 1_000_000


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric; made by `metric`.

    Args:
        name: Its name.
        function: Gives the number of an event, or None.
        unit: Of the numbers; "s" is shown as times are said.
        by: What tells its series apart.
        kinds: The kinds of event that the function is called for; empty for all.
        aggregate: What is shown of the numbers.
        version: Raise it where the function's helpers change: what was kept is then folded anew.
        about: One line on what it is.
    """

    name: str
    function: Callable[[Event, MetricContext], Number | None]
    unit: str
    by: tuple[str, ...]
    kinds: frozenset[str]
    aggregate: Aggregate
    version: int
    about: str

    def __call__(self, event: Event, context: MetricContext) -> Number | None:
        """The plain function, for tests."""
        return self.function(event, context)

    def number(self, event: Event, context: MetricContext) -> float | None:
        """The number of an event.

        Raises:
            MetricFailed: The function raised, or gave no number.
        """
        where = f"metric {self.name!r} on {event.kind} at position {event.position} of workflow {event.workflow_id!r}"
        try:
            value = self.function(event, context)
        except Exception as error:
            raise MetricFailed(f"{where}: {type(error).__name__}: {error}") from error
        if value is None:
            return None
        number = value.total_seconds() if isinstance(value, timedelta) else _number(value)
        if number is None or not math.isfinite(number):
            raise MetricFailed(f"{where}: {value!r} is no finite number")
        return number

    def labels(self, event: Event, context: MetricContext) -> tuple[str, ...]:
        """The series that an event belongs to."""
        return tuple(_label(name, event, context)[:MAX_LABEL_CHARS] for name in self.by)

    def identity(self) -> str:
        """A text that changes when what it measures does, as far as can be told."""
        try:
            source = inspect.getsource(self.function)
        except (OSError, TypeError):  # typed at a prompt, or compiled
            source = ""
        parts = (self.name, self.unit, self.by, sorted(self.kinds), self.aggregate, self.version)
        return json.dumps([*parts, source])


def metric(
    *,
    unit: str = "",
    by: Collection[str] = ("workflow", "version"),
    kinds: str | Collection[str] = (),
    aggregate: Aggregate = "percentiles",
    name: str | None = None,
    version: int = 1,
) -> Callable[[Callable[[Any, MetricContext], Number | None]], Metric]:
    """Declare a metric: a decorator for a function of an event and its context that gives a number or None.

    The function must depend on these two alone (no clock, nothing outside), so that the past has the same numbers
    whenever it is asked.

    Args:
        unit: Of the numbers, for whoever reads them: "s", "EUR", "tokens".
        by: What tells its series apart: workflow, version, step (its name), kind, worker, error (its type), and
            attribute:NAME. Keep it to what has few values.
        kinds: Call it for events of this kind, or these, alone; `step` stands for all that begin with `step.`.
        aggregate: What is shown: percentiles (with count and sum), sum, count (how many were not None), or rate (the
            share of True).
        name: The metric's name; the function's if not given.
        version: Raise it where what the function calls has changed.

    Raises:
        DefinitionError: There is no such label or aggregate, or the name can't be.
        UsageError: There is no such kind.
    """
    unknown = [label for label in by if label not in LABELS and not label.startswith(ATTRIBUTE)]
    if isinstance(by, str) or unknown:
        raise DefinitionError(
            f"a metric has no label {by if isinstance(by, str) else unknown[0]!r}: give a tuple of "
            f"{', '.join(LABELS)}, {ATTRIBUTE}NAME"
        )
    if aggregate not in AGGREGATES:
        raise DefinitionError(
            f"a metric can't be aggregated as {aggregate!r}: give one of {', '.join(AGGREGATES)}"
        )
    meant = kinds_of([kinds] if isinstance(kinds, str) else kinds)

    def declare(function: Callable[[Any, MetricContext], Number | None]) -> Metric:
        called = name or str(getattr(function, "__name__", ""))
        if not (called.isidentifier() and called.isascii() and len(called) <= _NAME_CHARS):
            raise DefinitionError(
                f"{called!r} can't name a metric: use letters, digits and '_', at most {_NAME_CHARS}"
            )
        about = (inspect.getdoc(function) or "").partition("\n")[0]
        return Metric(called, function, unit, tuple(by), meant, aggregate, version, about)

    return declare


def digest_of(metrics: Collection[Metric], every: int) -> str:
    """A short name for some metrics in windows of `every` microseconds: another one where any of them differs."""
    texts = sorted(one.identity() for one in metrics)
    return hashlib.sha256(json.dumps([every, *texts]).encode()).hexdigest()[:12]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float | Decimal) else None


def _label(name: str, event: Event, context: MetricContext) -> str:
    match name:
        case "workflow":
            return context.workflow
        case "version":
            return str(context.version)
        case "step":
            return str(getattr(event, "name", "")) if event.kind.startswith("step.") else ""
        case "kind":
            return event.kind
        case "worker":
            return event.worker
        case "error":
            return str(getattr(event, "error_type", "") or "")
        case _:
            tag = context.attributes.get(name.removeprefix(ATTRIBUTE))
            return "" if tag is None else str(tag)

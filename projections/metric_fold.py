"""The fold of metrics: what has to be known of open runs, and the cells that events add to.

A cell is of one metric, one window of time and one series of labels. Windows are counted from a Monday, 1970-01-05, so
that days and weeks begin where people have them begin (in UTC).
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from refold.log.errors import UsageError
from refold.log.events import (
    AttributesSet,
    Event,
    HistoryCopied,
    Unreadable,
    WorkflowCancelled,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowContinued,
    WorkflowFailed,
    WorkflowParked,
    WorkflowReopened,
    WorkflowResumed,
    WorkflowRewound,
    WorkflowStarted,
    WorkflowTerminated,
)
from refold.projections.feed import Logged
from refold.projections.histogram import Cell
from refold.projections.metrics import Metric, MetricContext
from refold.projections.sieve import KINDS, copied_tags

MONDAY: Final = 4 * 86_400 * 1_000_000
"""1970-01-05 00:00 UTC, microseconds since 1970-01-01: all windows are counted from here."""

MAX_SERIES: Final = 10_000
"""Series of one metric: more are a label with too many values, and would fill memory and every table."""

_ENDINGS = (WorkflowCompleted, WorkflowFailed, WorkflowCancelled, WorkflowTerminated)
_UNPARKING = (*_ENDINGS, WorkflowResumed, WorkflowRewound, WorkflowCancelRequested)


@dataclass(slots=True)
class Facts:
    """What is known of an open run.

    Args:
        workflow: Name of its workflow.
        version: Version of its code.
        started_at: When it was first started, microseconds since 1970-01-01 UTC.
        parked_at: Since when it has been parked; None where it is not.
        attributes: Its tags, as recorded.
    """

    workflow: str = "?"
    version: int = 0
    started_at: int = 0
    parked_at: int | None = None
    attributes: dict[str, str] = field(default_factory=dict[str, str])


class Key(NamedTuple):
    """A cell's place: the metric, where its window begins (microseconds since 1970-01-01 UTC), the labels' values."""

    metric: str
    at: int
    labels: tuple[str, ...]


Cells = dict[Key, Cell]


class MetricFold:
    """Folds events into cells.

    Args:
        metrics: The metrics; no two of one name.
        every: Length of a window, in microseconds.

    Raises:
        UsageError: Two have one name, there is none, or a window has no length.
    """

    def __init__(self, metrics: Collection[Metric], every: int) -> None:
        names = [one.name for one in metrics]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not names:
            told = f"two metrics are named {twice[0]!r}" if twice else "there are no metrics"
            raise UsageError(f"{told}: give each a name of its own, with @metric(name=...)")
        if every < 1:
            raise UsageError("a window of no length holds nothing: give one as in 1h or 1d")
        self.metrics = tuple(metrics)
        self.every = every
        self._series: dict[str, set[tuple[str, ...]]] = {name: set() for name in names}
        self._of_kind = {
            kind: [one for one in metrics if not one.kinds or kind in one.kinds] for kind in KINDS
        }

    def apply(self, batch: Iterable[Logged], runs: dict[str, Facts], cells: Cells) -> None:
        """Fold events, in the order of each partition.

        Args:
            batch: The events.
            runs: What is known of open runs: read, and changed.
            cells: The cells that are added to.

        Raises:
            MetricFailed: A metric's function can't cope with an event.
            UsageError: A metric has too many series.
        """
        for logged in batch:
            event = logged.event
            if not isinstance(event, Unreadable):
                self._take(event, runs, cells)

    def _take(self, event: Event, runs: dict[str, Facts], cells: Cells) -> None:
        id_ = event.workflow_id if event.position is not None else None
        facts = Facts("", 0, event.recorded_at) if id_ is None else _advanced(event, runs, id_)
        metrics = self._of_kind[event.kind]
        if metrics:
            context = _context(event, facts)
            at = (event.recorded_at - MONDAY) // self.every * self.every + MONDAY
            for one in metrics:
                number = one.number(event, context)
                if number is not None:
                    key = Key(one.name, at, one.labels(event, context))
                    cell = cells.get(key)
                    if cell is None:
                        cell = cells[key] = Cell()
                        self._check_series(one, key.labels)
                    cell.add(number, spread=one.aggregate == "percentiles")
        if id_ is not None and isinstance(event, _UNPARKING):
            facts.parked_at = None
            if isinstance(event, _ENDINGS):
                del runs[id_]

    def _check_series(self, one: Metric, labels: tuple[str, ...]) -> None:
        series = self._series[one.name]
        series.add(labels)
        if len(series) > MAX_SERIES:
            raise UsageError(
                f"metric {one.name!r} has more than {MAX_SERIES:,} series: by={one.by} has too many values, the latest "
                f"are {labels}. Leave out the label that tells single runs apart"
            )


def _advanced(event: Event, runs: dict[str, Facts], id_: str) -> Facts:
    """What is known of a run with an event of it."""
    facts = runs.get(id_)
    if facts is None or isinstance(event, WorkflowStarted | WorkflowReopened):
        facts = runs[id_] = Facts()
    match event:
        case WorkflowStarted() | WorkflowReopened():
            facts.workflow, facts.version = event.workflow, event.version
            if isinstance(event, WorkflowStarted):
                facts.started_at = event.recorded_at
            else:
                facts.started_at = event.started_at
            facts.attributes = dict(event.attributes or {})
        case WorkflowContinued():
            facts.version = event.version
        case AttributesSet():
            facts.attributes |= event.attributes or {}
        case HistoryCopied():
            tags = copied_tags(event)
            facts.attributes = facts.attributes if tags is None else tags
        case WorkflowParked() if facts.parked_at is None:
            facts.parked_at = event.recorded_at
        case _:
            pass
    return facts


def _context(event: Event, facts: Facts) -> MetricContext:
    parked_s = None
    if facts.parked_at is not None and isinstance(event, _UNPARKING):
        parked_s = (event.recorded_at - facts.parked_at) / 1_000_000
    return MetricContext(
        event.workflow_id or "",
        facts.workflow,
        facts.version,
        facts.started_at,
        facts.attributes,
        parked_s,
        event,
    )

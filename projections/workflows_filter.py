"""Which runs are meant, as conditions on the tables of the workflows read model."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from refold.log.attributes import Tag, encode_attributes
from refold.log.errors import PayloadError, UsageError
from refold.projections.projection import Dialect, Value
from refold.projections.workflows_rows import VALUE_START_CHARS

MIN_SEARCH_CHARS: Final = 3
"""What the search index is made of: for shorter texts every error is looked at."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RunFilter:
    """The runs for which everything holds that is given.

    Args:
        status: How they stand: one of these, or this one.
        workflow: Name of their workflow.
        version: Version of their code.
        queue: The queue in which they waited or wait for their turn.
        parent_id: The workflow that started them as children.
        attributes: Tags that they have, with these values.
        error: A text that stands in the error with which they ended, or in the reason why they are parked.
        started_after: They were started then or later; with a time zone.
        started_before: They were started before that; with a time zone.

    Raises:
        UsageError: A tag can't be one, or a time has no zone.
    """

    status: Collection[str] | None = None
    workflow: str | None = None
    version: int | None = None
    queue: str | None = None
    parent_id: str | None = None
    attributes: Mapping[str, Tag] = field(default_factory=dict[str, Tag])
    error: str | None = None
    started_after: datetime | None = None
    started_before: datetime | None = None

    def __post_init__(self) -> None:
        if isinstance(self.status, str):  # a collection too, of its letters
            object.__setattr__(self, "status", (self.status,))
        try:
            encode_attributes(self.attributes)
        except PayloadError as error:
            raise UsageError(f"no run can be found by these attributes: {error}") from error
        for time in (self.started_after, self.started_before):
            if time is not None and time.utcoffset() is None:
                raise UsageError(f"{time.isoformat()} has no time zone: give it one")

    @property
    def is_tallied(self) -> bool:
        """Whether `tallies` knows how many these are."""
        found_otherwise = (self.queue, self.parent_id, self.error) != (None, None, None)
        return not found_otherwise and not self.attributes


ALL: Final = RunFilter()


@dataclass(slots=True)
class Source:
    """The runs that a filter means, as a part of a query.

    Args:
        tables: What stands after FROM: `runs`, perhaps found by way of a tag's rows (`tag`).
        clauses: Conditions.
        parameters: Their parameters.
    """

    tables: str
    clauses: list[str]
    parameters: list[Value]

    @property
    def where(self) -> str:
        """The WHERE, where there is a condition."""
        return and_(self.clauses)


def source(
    where: RunFilter, dialect: Dialect, by_tag: str | None = None, *, walked: bool = False
) -> Source:
    """The runs that a filter means.

    Args:
        where: The filter.
        dialect: Whose SQL is wanted.
        by_tag: Name of the tag by whose rows they are to be found; of the others it is looked up, run by run.
        walked: Whether all runs are to be walked past in the order that is asked for. A + keeps SQLite from finding
            them by a condition's index instead, and sorting them.
    """
    plus = "+" if walked and dialect == "sqlite" else ""
    clauses, parameters = tally_conditions(where)
    clauses = [f"{plus}runs.{clause}" for clause in clauses]
    times, values = time_conditions(where, f"{plus}runs")
    clauses.extend(times)
    parameters.extend(values)
    if where.queue is not None:
        clauses.append(f"{plus}runs.queue = ?")
        parameters.append(where.queue)
    if where.parent_id is not None:
        clauses.append("runs.parent_id = ?")
        parameters.append(where.parent_id)
    for name, value in encode_attributes(where.attributes).items():
        tagged, values = tag_conditions(name, value)
        if name == by_tag:
            clauses.extend([*tagged, "runs.workflow_id = tag.workflow_id"])
        else:
            held = " AND ".join(["tag.workflow_id = runs.workflow_id", *tagged])
            clauses.append(f"EXISTS (SELECT 1 FROM attributes AS tag WHERE {held})")  # noqa: S608 - our own
        parameters.extend(values)
    if where.error is not None:
        _add_search(where.error, dialect, clauses, parameters, plus)
    tables = "runs" if by_tag is None else "attributes AS tag CROSS JOIN runs"
    return Source(tables, clauses, parameters)


def tag_conditions(name: str, value: str) -> tuple[list[str], list[Value]]:
    """Conditions on the rows `tag` of `attributes`. Where the beginning is the whole, the index alone answers."""
    start = value[:VALUE_START_CHARS]
    clauses, parameters = ["tag.name = ?", "tag.value_start = ?"], list[Value]((name, start))
    if len(value) >= VALUE_START_CHARS:
        clauses.append("tag.value = ?")
        parameters.append(value)
    return clauses, parameters


def _add_search(
    text: str, dialect: Dialect, clauses: list[str], parameters: list[Value], plus: str
) -> None:
    if dialect == "postgresql":
        found, values = error_rows(text, dialect)
        clauses.append(f"runs.workflow_id IN (SELECT workflow_id FROM {found})")  # noqa: S608 - our own
        parameters.extend(values)
        return
    if plus:  # as it is walked past, every error can be looked at
        clauses.append("runs.error IS NOT NULL AND instr(runs.error, ?) > 0")
        parameters.append(text)
        return
    found, values = error_rows(text, dialect)
    clauses.append(f"runs.row_id IN (SELECT rowid FROM {found})")  # noqa: S608 - our own
    parameters.extend(values)
    if len(text) >= MIN_SEARCH_CHARS:  # the index knows no case
        clauses.append("instr(runs.error, ?) > 0")
        parameters.append(text)


def error_rows(text: str, dialect: Dialect) -> tuple[str, list[Value]]:
    """Rows, one for each run that may have a text in its error: what stands after FROM, and its parameters.

    In SQLite, where a text is longer than the index's pieces, a few may have it in other letters, small or capital.
    """
    if dialect == "postgresql":
        escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        return "run_errors WHERE error LIKE ?", [f"%{escaped}%"]
    if len(text) >= MIN_SEARCH_CHARS:
        words = '"{}"'.format(text.replace('"', '""'))
        return "run_errors WHERE run_errors MATCH ?", [words]
    has = "runs INDEXED BY runs_error WHERE error IS NOT NULL AND instr(error, ?) > 0"
    return has, [text]


def tally_conditions(where: RunFilter) -> tuple[list[str], list[Value]]:
    """Conditions on what `tallies` and `runs` both have, and their parameters."""
    clauses: list[str] = []
    parameters: list[Value] = []
    if where.status is not None:
        statuses = sorted(where.status)
        clauses.append(f"status IN ({', '.join('?' * len(statuses)) or 'NULL'})")
        parameters.extend(statuses)
    if where.workflow is not None:
        clauses.append("workflow = ?")
        parameters.append(where.workflow)
    if where.version is not None:
        clauses.append("version = ?")
        parameters.append(where.version)
    return clauses, parameters


def time_conditions(where: RunFilter, table: str = "runs") -> tuple[list[str], list[Value]]:
    """Conditions on the time of start, and their parameters."""
    clauses: list[str] = []
    parameters: list[Value] = []
    for sign, time in ((">=", where.started_after), ("<", where.started_before)):
        if time is not None:
            clauses.append(f"{table}.started_at {sign} ?")
            parameters.append(microseconds(time))
    return clauses, parameters


def microseconds(time: datetime) -> int:
    """A time as it stands in the tables."""
    return (time - EPOCH) // timedelta(microseconds=1)


def and_(clauses: Sequence[str]) -> str:
    """The WHERE of a query, where there is a condition."""
    return f" WHERE {' AND '.join(clauses)}" if clauses else ""

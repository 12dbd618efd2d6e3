"""How many runs: in all, and of each kind."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Literal

from refold.log.attributes import encode_attributes
from refold.projections.projection import Value
from refold.projections.workflows_filter import (
    EPOCH,
    RunFilter,
    and_,
    error_rows,
    source,
    tally_conditions,
    time_conditions,
)
from refold.projections.workflows_rows import DAY_US, VALUE_START_CHARS
from refold.projections.workflows_scout import Scout
from refold.projections.workflows_tallies import Query

RunGroup = Literal["status", "workflow", "version", "day", "error_type", "queue", "parent"]

_GROUPS: Final[Mapping[RunGroup, str]] = {
    "status": "status",
    "workflow": "workflow",
    "version": "version",
    "day": f"started_at / {DAY_US}",
    "error_type": "error_type",
    "queue": "queue",
    "parent": "parent_id",
}
_NOT_TALLIED: Final = ("error_type", "queue", "parent")
_GREATEST: Final = "GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT ?"
_NO_LIMIT: Final = 2**62


class Counts:
    """Counts runs.

    Args:
        query: Carries out a query, with `?` for parameters.
        scout: Looks how many there are.
    """

    def __init__(self, query: Query, scout: Scout) -> None:
        self._query = query
        self._scout = scout

    def count(self, where: RunFilter) -> int:
        """See `WorkflowsView.count`."""
        dialect = self._scout.dialect
        if where.is_tallied:
            return sum(self._scout.tallies.counts("1", where).values())
        tags = encode_attributes(where.attributes)
        if (
            len(tags) == 1
            and where == _only(where, attributes=True)
            and not any(map(_is_cut, tags.values()))
        ):
            ((name, value),) = tags.items()
            clauses, parameters = _tag_tallied(where, name)
            clauses.append("value_start = ?")
            return self._total(
                "coalesce(sum(runs), 0)", f"tag_tallies{and_(clauses)}", [*parameters, value]
            )
        if (
            where.error is not None
            and where == RunFilter(error=where.error)
            and dialect == "postgresql"
        ):
            return self._total("count(*)", *error_rows(where.error, dialect))
        asked = source(where, dialect, self._scout.found(where).tag)
        return self._total("count(*)", f"{asked.tables}{asked.where}", asked.parameters)

    def group(self, by: RunGroup, where: RunFilter, limit: int | None) -> Mapping[str, int]:
        """See `WorkflowsView.group`."""
        column = _GROUPS[by]
        if where.is_tallied and by not in _NOT_TALLIED:
            counts = self._scout.tallies.counts(column, where)
        else:
            asked = source(where, self._scout.dialect, self._scout.found(where).tag)
            if by in _NOT_TALLIED:
                asked.clauses.append(f"runs.{column} IS NOT NULL")
            rows = self._query(
                f"SELECT runs.{column}, count(*) FROM {asked.tables}{asked.where} {_GREATEST}",  # noqa: S608 - as above
                [*asked.parameters, _NO_LIMIT if limit is None or by == "day" else limit],
            )
            counts = dict(rows)
        if by == "day":
            days = sorted(counts, reverse=True)[:limit]
            return {str((EPOCH + timedelta(days=day)).date()): counts[day] for day in days}
        ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
        return {str(key): count for key, count in ordered[:limit]}

    def group_by_attribute(
        self, name: str, where: RunFilter, limit: int | None
    ) -> Mapping[str, int]:
        """See `WorkflowsView.group_by_attribute`."""
        tallied = self._tallied_values(name, where, _NO_LIMIT if limit is None else limit)
        if tallied is not None:
            counts = {str(value): int(runs) for value, runs in tallied}
            if not any(map(_is_cut, counts)):
                return counts
        return self._looked_at(name, where, limit)

    def _tallied_values(
        self, name: str, where: RunFilter, limit: int
    ) -> Sequence[tuple[Any, ...]] | None:
        """Values that `tag_tallies` knows, where no more is asked for than a status, or a time."""
        if where == _only(where):
            clauses, parameters = _tag_tallied(where, name)
            query = f"SELECT value_start, sum(runs) FROM tag_tallies{and_(clauses)} {_GREATEST}"  # noqa: S608 - as above
            return self._query(query, [*parameters, limit])
        if where != RunFilter(
            started_after=where.started_after, started_before=where.started_before
        ):
            return None
        times, parameters = time_conditions(where, "tag")
        same = and_(["tag.name = ?", "tag.value_start = known.value_start", *times])
        known = "(SELECT DISTINCT value_start FROM tag_tallies WHERE name = ?) AS known"
        counted = f"SELECT value_start, (SELECT count(*) FROM attributes AS tag{same}) AS runs FROM {known}"  # noqa: S608 - as above
        return self._query(
            f"SELECT value_start, runs FROM ({counted}) AS counted WHERE runs > 0 ORDER BY 2 DESC, 1 LIMIT ?",  # noqa: S608 - as above
            [name, *parameters, name, limit],
        )

    def _looked_at(self, name: str, where: RunFilter, limit: int | None) -> Mapping[str, int]:
        """Groups by an attribute, from the rows of all runs that have it."""
        most = _NO_LIMIT if limit is None else limit
        asked = source(where, self._scout.dialect, self._scout.found(where).tag)
        tables = f"{asked.tables} CROSS JOIN attributes AS grouped"
        clauses = ["grouped.workflow_id = runs.workflow_id", "grouped.name = ?", *asked.clauses]
        values = [name, *asked.parameters]
        counts = dict(self._values("value_start", tables, clauses, values, most))
        if any(map(_is_cut, counts)):  # several values may count as one: the greatest may be others
            counts = dict(self._values("value_start", tables, clauses, values, _NO_LIMIT))
        for start in list(filter(_is_cut, counts)):
            del counts[start]
            same = [*clauses, "grouped.value_start = ?"]
            counts |= dict(self._values("value", tables, same, [*values, start], most))
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return dict(ordered[:limit])

    def _total(self, number: str, rows: str, parameters: Sequence[Value]) -> int:
        ((total,),) = self._query(f"SELECT {number} FROM {rows}", parameters)  # noqa: S608 - as above
        return int(total)

    def _values(
        self,
        column: str,
        tables: str,
        clauses: Sequence[str],
        parameters: Sequence[Value],
        most: int,
    ) -> Sequence[tuple[Any, ...]]:
        return self._query(
            f"SELECT grouped.{column}, count(*) FROM {tables}{and_(clauses)} {_GREATEST}",  # noqa: S608 - as above
            [*parameters, most],
        )


def _is_cut(start: str) -> bool:
    return len(start) >= VALUE_START_CHARS


def _only(where: RunFilter, *, attributes: bool = False) -> RunFilter:
    """What `tag_tallies` knows of a filter."""
    return RunFilter(status=where.status, attributes=where.attributes if attributes else {})


def _tag_tallied(where: RunFilter, name: str) -> tuple[list[str], list[Value]]:
    """Conditions on the rows of `tag_tallies`, and their parameters."""
    clauses, parameters = tally_conditions(RunFilter(status=where.status))
    return ["name = ?", *clauses], [name, *parameters]

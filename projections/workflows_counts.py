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
    source,
    tag_conditions,
    time_conditions,
)
from refold.projections.workflows_rows import DAY_US, VALUE_START_CHARS
from refold.projections.workflows_scout import Scout
from refold.projections.workflows_tallies import Query

RunGroup = Literal["status", "workflow", "version", "day", "error_type", "parent"]

_GROUPS: Final[Mapping[RunGroup, str]] = {
    "status": "status",
    "workflow": "workflow",
    "version": "version",
    "day": f"started_at / {DAY_US}",
    "error_type": "error_type",
    "parent": "parent_id",
}
_NOT_TALLIED: Final = ("error_type", "parent")
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
        if where.is_tallied:
            return sum(self._scout.tallies.counts("1", where).values())
        if where == RunFilter(attributes=where.attributes) and len(where.attributes) == 1:
            ((name, value),) = encode_attributes(where.attributes).items()
            clauses, parameters = tag_conditions(name, value)
            query = f"SELECT count(*) FROM attributes AS tag{and_(clauses)}"  # noqa: S608 - our own, with marks for what is asked
        else:
            asked = source(where, self._scout.dialect, self._scout.found(where).tag)
            query = f"SELECT count(*) FROM {asked.tables}{asked.where}"  # noqa: S608 - as above
            parameters = asked.parameters
        ((count,),) = self._query(query, parameters)
        return int(count)

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
        most = _NO_LIMIT if limit is None else limit
        if where == RunFilter(
            started_after=where.started_after, started_before=where.started_before
        ):
            times, parameters = time_conditions(where, "tag")
            tables, clauses = "attributes AS tag", ["tag.name = ?", *times]
        else:
            asked = source(where, self._scout.dialect)
            tables = f"{asked.tables} CROSS JOIN attributes AS tag"
            clauses = ["tag.workflow_id = runs.workflow_id", "tag.name = ?", *asked.clauses]
            parameters = asked.parameters
        values = [name, *parameters]
        counts = dict(self._values("value_start", tables, clauses, values, most))
        if any(map(_is_cut, counts)):  # several values may count as one: the greatest may be others
            counts = dict(self._values("value_start", tables, clauses, values, _NO_LIMIT))
        for start in list(filter(_is_cut, counts)):
            del counts[start]
            same = [*clauses, "tag.value_start = ?"]
            counts |= dict(self._values("value", tables, same, [*values, start], most))
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return dict(ordered[:limit])

    def _values(
        self,
        column: str,
        tables: str,
        clauses: Sequence[str],
        parameters: Sequence[Value],
        most: int,
    ) -> Sequence[tuple[Any, ...]]:
        return self._query(
            f"SELECT tag.{column}, count(*) FROM {tables}{and_(clauses)} {_GREATEST}",  # noqa: S608 - as above
            [*parameters, most],
        )


def _is_cut(start: str) -> bool:
    return len(start) >= VALUE_START_CHARS

"""How many runs there are, from the tallies of the workflows read model."""

from collections.abc import Callable, Sequence
from typing import Any

from refold.projections.projection import Value
from refold.projections.workflows_filter import RunFilter, and_, microseconds, tally_conditions
from refold.projections.workflows_rows import DAY_US

Query = Callable[[str, Sequence[Value]], Sequence[tuple[Any, ...]]]


class Tallies:
    """Counts by what `tallies` knows of runs: status, workflow, version, day of start.

    Args:
        query: Carries out a query, with `?` for parameters.
    """

    def __init__(self, query: Query) -> None:
        self._query = query

    def counts(self, column: str, where: RunFilter, *, days_only: bool = False) -> dict[Any, int]:
        """Counts from `tallies` for whole days, and from `runs` for the parts of days at both ends.

        With `days_only`, days that are cut in two count whole.
        """
        clauses, parameters = tally_conditions(where)
        first, cut_off = (
            None if time is None else microseconds(time)
            for time in (where.started_after, where.started_before)
        )
        parts: list[tuple[int, int]] = []
        if first is not None:
            day = first // DAY_US if days_only else -(-first // DAY_US)
            parts.append((first, day * DAY_US))
            clauses.append("day >= ?")
            parameters.append(day)
        if cut_off is not None:
            day = -(-cut_off // DAY_US) if days_only else cut_off // DAY_US
            parts.append((day * DAY_US, cut_off))
            clauses.append("day < ?")
            parameters.append(day)
        if first is not None and cut_off is not None and cut_off // DAY_US <= first // DAY_US:
            parts = [(first, cut_off)]  # within one day
        tallied = column.replace("started_at", f"day * {DAY_US}")
        rows = list(
            self._query(
                f"SELECT {tallied}, sum(runs) FROM tallies{and_(clauses)} GROUP BY 1",  # noqa: S608 - as above
                parameters,
            )
        )
        for start, stop in () if days_only else parts:
            if start < stop:
                rows.extend(self._counted(column, where, start, stop))
        counts: dict[Any, int] = {}
        for key, count in rows:
            counts[key] = counts.get(key, 0) + int(count)
        return counts

    def _counted(
        self, column: str, where: RunFilter, start: int, stop: int
    ) -> Sequence[tuple[Any, int]]:
        clauses, parameters = tally_conditions(where)
        clauses.extend(("started_at >= ?", "started_at < ?"))
        return self._query(
            f"SELECT {column}, count(*) FROM runs{and_(clauses)} GROUP BY 1",  # noqa: S608 - as above
            [*parameters, start, stop],
        )

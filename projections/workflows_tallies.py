"""How many runs there are, from the tallies of the workflows read model."""

from collections.abc import Callable, Sequence
from typing import Any

from refold.projections.projection import Value
from refold.projections.workflows_filter import RunFilter, and_, microseconds, tally_conditions
from refold.projections.workflows_rows import HOUR_US

Query = Callable[[str, Sequence[Value]], Sequence[tuple[Any, ...]]]


class Tallies:
    """Counts by what `tallies` knows of runs: status, workflow, version, hour of start.

    Args:
        query: Carries out a query, with `?` for parameters.
    """

    def __init__(self, query: Query) -> None:
        self._query = query

    def counts(self, column: str, where: RunFilter, *, hours_only: bool = False) -> dict[Any, int]:
        """Counts from `tallies` for whole hours, and from `runs` for the parts of hours at both ends.

        With `hours_only`, hours that are cut in two count whole.
        """
        clauses, parameters = tally_conditions(where)
        first, cut_off = (
            None if time is None else microseconds(time)
            for time in (where.started_after, where.started_before)
        )
        parts: list[tuple[int, int]] = []
        if first is not None:
            hour = first // HOUR_US if hours_only else -(-first // HOUR_US)
            parts.append((first, hour * HOUR_US))
            clauses.append("hour >= ?")
            parameters.append(hour)
        if cut_off is not None:
            hour = -(-cut_off // HOUR_US) if hours_only else cut_off // HOUR_US
            parts.append((hour * HOUR_US, cut_off))
            clauses.append("hour < ?")
            parameters.append(hour)
        if first is not None and cut_off is not None and cut_off // HOUR_US <= first // HOUR_US:
            parts = [(first, cut_off)]  # within one hour
        tallied = column.replace("started_at", f"hour * {HOUR_US}")
        rows = list(
            self._query(
                f"SELECT {tallied}, sum(runs) FROM tallies{and_(clauses)} GROUP BY 1",  # noqa: S608 - as above
                parameters,
            )
        )
        for start, stop in () if hours_only else parts:
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

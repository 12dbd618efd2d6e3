"""A look at how many runs a filter means, before they are asked for: SQLite does not know, and must be told the way.

Few are found and sorted. Of many, the runs are walked past in the order that is wanted, until a page is full.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from refold.log.attributes import encode_attributes
from refold.projections.projection import Dialect, Value
from refold.projections.workflows_filter import (
    RunFilter,
    and_,
    error_rows,
    tag_conditions,
    time_conditions,
)
from refold.projections.workflows_tallies import Query, Tallies

FEW: Final = 5_000
"""So many runs are sorted in less time than it takes to walk past a million others in their order."""


class Found(NamedTuple):
    """The rarest of the tags, to find the runs by, and whether they are few for all that is known."""

    tag: str | None
    few: bool


class Scout:
    """Looks how many runs there are.

    Args:
        query: Carries out a query, with `?` for parameters.
        dialect: Whose SQL it takes. PostgreSQL knows its rows' numbers itself, and is asked nothing.
    """

    def __init__(self, query: Query, dialect: Dialect) -> None:
        self._query = query
        self.dialect: Dialect = dialect
        self.tallies = Tallies(query)

    def found(self, where: RunFilter) -> Found:
        """Where to begin."""
        if self.dialect == "postgresql":
            return Found(None, few=False)
        if where.parent_id is not None:
            return Found(None, few=True)
        if where.attributes:
            counts = {
                name: self._up_to_few(f"attributes AS tag{and_(clauses)}", parameters)
                for name, value in encode_attributes(where.attributes).items()
                for clauses, parameters in (tag_conditions(name, value),)
            }
            rarest = min(counts, key=counts.__getitem__)
            return Found(rarest, counts[rarest] <= FEW)
        return Found(None, self._are_few(where))

    def _are_few(self, where: RunFilter) -> bool:
        if (
            where.error is not None
            and self._up_to_few(*error_rows(where.error, self.dialect)) <= FEW
        ):
            return True
        if (
            where.queue is not None
            and self._up_to_few("runs WHERE queue = ?", [where.queue]) <= FEW
        ):
            return True
        clauses, times = time_conditions(where)
        if clauses and self._up_to_few(f"runs{and_(clauses)}", times) <= FEW:
            return True
        counts = self.tallies.counts("1", where, days_only=True)
        return sum(counts.values()) <= FEW

    def _up_to_few(self, rows: str, parameters: Sequence[Value]) -> int:
        query = f"SELECT count(*) FROM (SELECT 1 FROM {rows} LIMIT ?) AS some"  # noqa: S608 - our own, with marks for what is asked
        ((count,),) = self._query(query, [*parameters, FEW + 1])
        return int(count)

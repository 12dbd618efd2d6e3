"""Pages of runs, in any order: found by key and not counted off."""

from dataclasses import replace
from typing import Any, Final

from refold.projections.workflows import Run
from refold.projections.workflows_filter import RunFilter, source
from refold.projections.workflows_order import ORDERS, Key, RunOrder, place_after, place_of
from refold.projections.workflows_runs import RunPage, key_of, row_of
from refold.projections.workflows_scout import Found, Scout
from refold.projections.workflows_tables import RUN_COLUMNS
from refold.projections.workflows_tallies import Query

COLUMNS: Final = ", ".join(f"runs.{column}" for column in RUN_COLUMNS)


class Pages:
    """Finds runs.

    Args:
        query: Carries out a query, with `?` for parameters.
        scout: Looks how many there are.
    """

    def __init__(self, query: Query, scout: Scout) -> None:
        self._query = query
        self._scout = scout

    def page(
        self, where: RunFilter, order: RunOrder, limit: int, after: str | None, *, descending: bool
    ) -> RunPage:
        """See `WorkflowsView.runs`."""
        place = None if after is None else place_after(after, order)
        runs = self._runs(where, order, limit + 1, place, descending)
        following = None
        if len(runs) > limit:
            del runs[limit:]
            following = place_of(order, key_of(order, runs[-1]))
        return RunPage([row_of(run) for run in runs], following)

    def _runs(
        self, where: RunFilter, order: RunOrder, limit: int, place: Key | None, descending: bool
    ) -> list[Run]:
        found = self._scout.found(where)
        of_kinds = order in {"workflow", "status", "version"}
        if of_kinds and not found.few and self._scout.dialect == "sqlite":
            return self._kind_by_kind(where, order, limit, place, descending)
        return self._in_order(where, order, limit, place, descending, found)

    def _kind_by_kind(
        self, where: RunFilter, order: RunOrder, limit: int, place: Key | None, descending: bool
    ) -> list[Run]:
        """Runs of one workflow, status or version after those of another; `tallies` knows which there are."""
        known = replace(where, queue=None, parent_id=None, attributes={}, error=None)
        kinds = sorted(self._scout.tallies.counts(order, known, days_only=True), reverse=descending)
        runs: list[Run] = []
        for kind in kinds:
            start: Key | None = None
            if place is not None:
                first, *rest = place
                if kind == first:
                    start = tuple(rest)
                elif (kind > first) == descending:
                    continue
            wanted = limit - len(runs)
            runs += self._runs(_of_kind(where, order, kind), "started", wanted, start, descending)
            if len(runs) == limit:
                break
        return runs

    def _in_order(  # noqa: PLR0917 - all that `page` is asked for
        self,
        where: RunFilter,
        order: RunOrder,
        limit: int,
        place: Key | None,
        descending: bool,
        found: Found,
    ) -> list[Run]:
        # By a tag's rows: in their own order, or all of them, to be sorted.
        in_order = order == "started" and not found.few
        by_tag = found.tag if found.few or in_order else None
        # What has an index stands in it by time of start; but for errors.
        walked = not found.few and (order != "started" or where.error is not None)
        asked = source(where, self._scout.dialect, by_tag, walked=walked)
        table = "tag" if by_tag is not None and in_order else "runs"
        keys = [key.format(table) for key in (*ORDERS[order].columns, "{}.workflow_id")]
        direction, beyond = ("DESC", "<") if descending else ("ASC", ">")
        if place is not None:
            asked.clauses.append(f"({', '.join(keys)}) {beyond} ({', '.join('?' * len(place))})")
            asked.parameters.extend(place)
        plus = "+" if found.few else ""  # few are sorted, and not walked past all others
        rows = self._query(
            f"SELECT {COLUMNS} FROM {asked.tables}{asked.where} "  # noqa: S608 - our own, with marks for what is asked
            f"ORDER BY {', '.join(f'{plus}{key} {direction}' for key in keys)} LIMIT ?",
            [*asked.parameters, limit],
        )
        return [Run(*row) for row in rows]


def _of_kind(where: RunFilter, order: RunOrder, kind: Any) -> RunFilter:
    match order:
        case "workflow":
            return replace(where, workflow=kind)
        case "version":
            return replace(where, version=kind)
        case _:
            return replace(where, status={kind})

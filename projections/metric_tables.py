"""Where metrics are kept: in memory for one reading of the log, or as a projection, with the position beside them."""

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Final

from refold.projections.feed import Logged, Position
from refold.projections.histogram import Cell
from refold.projections.metric_fold import Cells, Facts, Key, MetricFold
from refold.projections.metrics import digest_of
from refold.projections.projection import Dialect, Transaction
from refold.projections.target import PositionMoved, Step

_IDS_TOGETHER: Final = 500
"""Ids in one query: SQLite of old takes 999 parameters."""


class MemoryMetrics:
    """A target that keeps metrics in memory, for one reading of the log.

    Args:
        fold: The metrics.
    """

    name = "metrics"

    def __init__(self, fold: MetricFold) -> None:
        self._fold = fold
        self._runs: dict[str, Facts] = {}
        self._cells: Cells = {}
        self._positions: dict[int, Position] = {}
        self._mutex = threading.Lock()

    def open(self) -> None:
        """See `Target`."""

    def positions(self) -> Mapping[int, Position]:
        """See `Target`."""
        return dict(self._positions)

    def write(self, logged: Sequence[Logged], steps: Mapping[int, Step]) -> None:
        """See `Target`."""
        for partition, step in steps.items():
            if self._positions.get(partition) != step.before:
                raise PositionMoved(f"the metrics in memory are not at {step.before}")
        with self._mutex:
            self._fold.apply(logged, self._runs, self._cells)
        self._positions.update({partition: step.after for partition, step in steps.items()})

    def close(self) -> None:
        """See `Target`."""

    def cells(self) -> Cells:
        """A copy of the cells; on any thread."""
        with self._mutex:
            return {key: Cell.of_json(cell.to_json()) for key, cell in self._cells.items()}


class MetricTables:
    """Metrics as a projection: the cells and what is known of open runs in tables, with the position beside them.

    Its name has a digest of the metrics in it: where one is changed or added, new tables are filled from the log's
    start.

    Args:
        fold: The metrics.
    """

    version = 1

    def __init__(self, fold: MetricFold) -> None:
        self._fold = fold
        self.name = f"metrics_{digest_of(fold.metrics, fold.every)}"

    def tables(self, dialect: Dialect) -> list[str]:
        """See `Projection`."""
        return [
            "CREATE TABLE metric_runs (workflow_id TEXT PRIMARY KEY, facts TEXT NOT NULL)",
            """CREATE TABLE metric_cells (metric TEXT NOT NULL, at BIGINT NOT NULL, labels TEXT NOT NULL,
                count BIGINT NOT NULL, sum DOUBLE PRECISION NOT NULL, cell TEXT NOT NULL,
                PRIMARY KEY (metric, at, labels))""",
        ]

    def apply(self, transaction: Transaction, logged: Logged) -> None:
        """See `Projection`."""
        self.apply_all(transaction, [logged])

    def apply_all(self, transaction: Transaction, batch: Sequence[Logged]) -> None:
        """See `BulkProjection`."""
        ids = sorted({id_ for one in batch if (id_ := one.event.workflow_id) is not None})
        runs = _known(transaction, ids)
        before = set(runs)
        cells: Cells = {}
        self._fold.apply(batch, runs, cells)
        ended = [(id_,) for id_ in before - runs.keys()]
        transaction.execute_many("DELETE FROM metric_runs WHERE workflow_id = ?", ended)
        transaction.execute_many(
            "INSERT INTO metric_runs VALUES (?, ?) ON CONFLICT (workflow_id) DO UPDATE SET facts = excluded.facts",
            [(id_, json.dumps(asdict(facts))) for id_, facts in sorted(runs.items())],
        )
        for key in sorted(cells):
            _add(transaction, key, cells[key])


def cells_of(rows: Iterable[tuple[str, int, str, str]]) -> Cells:
    """Cells from rows of `metric_cells`: metric, at, labels, cell."""
    return {
        Key(metric, at, tuple(json.loads(labels))): Cell.of_json(cell)
        for metric, at, labels, cell in rows
    }


def _known(transaction: Transaction, ids: Sequence[str]) -> dict[str, Facts]:
    runs: dict[str, Facts] = {}
    for first in range(0, len(ids), _IDS_TOGETHER):
        some = ids[first : first + _IDS_TOGETHER]
        marks = ", ".join("?" * len(some))
        rows = transaction.query(
            f"SELECT workflow_id, facts FROM metric_runs WHERE workflow_id IN ({marks})",  # noqa: S608 - marks
            some,
        )
        runs.update({id_: Facts(**json.loads(facts)) for id_, facts in rows})
    return runs


def _add(transaction: Transaction, key: Key, cell: Cell) -> None:
    place = (key.metric, key.at, json.dumps(key.labels, ensure_ascii=False))
    rows = transaction.query(
        "SELECT cell FROM metric_cells WHERE metric = ? AND at = ? AND labels = ?", place
    )
    if rows:
        cell.merge(Cell.of_json(rows[0][0]))
    transaction.execute(
        "INSERT INTO metric_cells VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (metric, at, labels) DO UPDATE SET"
        " count = excluded.count, sum = excluded.sum, cell = excluded.cell",
        (*place, cell.count, cell.sum, cell.to_json()),
    )

"""Metrics from history for Prometheus, over HTTP: what the log adds up to, from its first event to its last.

refold_<name>[_<unit>]          histogram, of a metric with percentiles
refold_<name>[_<unit>]_total    counter, of a metric that counts or sums (a gauge without `_total` where it may fall)
refold_<name>_total, refold_<name>_hits_total    counters, of a rate: of how many, and how many of them were True
"""

import re
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Final

from refold.log.errors import UsageError
from refold.projections.histogram import Cell
from refold.projections.metric_fold import Cells
from refold.projections.metrics import Metric
from refold.services.metric_view import Series, series_of

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )
    from prometheus_client.core import Metric as Family
    from prometheus_client.registry import Collector

    from refold.services.exposition import exposed
except ImportError as error:
    raise UsageError(
        "--port needs prometheus-client, which is not installed: pip install 'refold[metrics]'"
    ) from error

BOUNDS: Final = tuple(step * 10.0**power for power in range(-3, 7) for step in (1.0, 2.5, 5.0))
"""Of a histogram's buckets: from a millisecond to two months, where the unit is seconds."""

_UNITS: Final = {"s": "seconds", "%": "percent"}


class HistoryCollector(Collector):
    """Turns cells into what Prometheus reads.

    Args:
        metrics: The metrics.
        cells: Gives the cells; called from the server's threads.
    """

    def __init__(self, metrics: Sequence[Metric], cells: Callable[[], Cells]) -> None:
        self._metrics = metrics
        self._cells = cells

    def collect(self) -> Iterable[Family]:
        """The metrics now."""
        cells = self._cells()
        for one in self._metrics:
            yield from families_of(one, series_of(cells, one, None, None))


def families_of(one: Metric, series: Sequence[Series]) -> Iterable[Family]:
    """What Prometheus is told of one metric."""
    labels = [_name(label) for label in one.by]
    unit = _name(_UNITS.get(one.unit, one.unit)) if one.unit else ""
    name = f"refold_{one.name}_{unit}" if unit else f"refold_{one.name}"
    about = one.about or one.name
    match one.aggregate:
        case "percentiles":
            spread = HistogramMetricFamily(name, about, labels=labels)
            for each in series:
                spread.add_metric(each.labels, _buckets(each.whole), each.whole.sum)
            return [spread]
        case "sum" if any(each.whole.low < 0 for each in series):
            gauge = GaugeMetricFamily(name, about, labels=labels)
            for each in series:
                gauge.add_metric(each.labels, each.whole.sum)
            return [gauge]
        case "sum" | "count":
            counter = CounterMetricFamily(name, about, labels=labels)
            for each in series:
                whole = each.whole
                counter.add_metric(
                    each.labels, whole.sum if one.aggregate == "sum" else whole.count
                )
            return [counter]
        case "rate":
            of = CounterMetricFamily(f"refold_{one.name}", f"{about} Of how many.", labels=labels)
            hits = CounterMetricFamily(f"refold_{one.name}_hits", about, labels=labels)
            for each in series:
                of.add_metric(each.labels, each.whole.count)
                hits.add_metric(each.labels, each.whole.sum)
            return [of, hits]


def _buckets(cell: Cell) -> list[tuple[str, float]]:
    counted = [(f"{bound:g}", float(cell.up_to(bound))) for bound in BOUNDS]
    return [*counted, ("+Inf", float(cell.count))]


def _name(text: str) -> str:
    """As a label or a unit is written in Prometheus."""
    return re.sub(r"[^A-Za-z0-9_]", "_", text)


@contextmanager
def served(
    metrics: Sequence[Metric], cells: Callable[[], Cells], address: str, port: int
) -> Generator[int, None, None]:
    """Serve metrics at `http://address:port/metrics` inside the block.

    Args:
        metrics: The metrics.
        cells: Gives the cells.
        address: The address to listen at.
        port: The port; 0 for any that is free.

    Yields:
        The port.

    Raises:
        UsageError: The port can't be listened at.
    """
    registry = CollectorRegistry()
    registry.register(HistoryCollector(metrics, cells))
    with exposed(registry, address, port, "--") as port_taken:
        yield port_taken

"""Metrics for programs: what they come to over a whole log, now."""

from collections.abc import Collection
from datetime import timedelta

from refold.log.urls import open_existing
from refold.projections.metric_fold import Cells, MetricFold
from refold.projections.metric_tables import MemoryMetrics
from refold.projections.metrics import Metric
from refold.projections.runner import Runner

_MICROSECOND = timedelta(microseconds=1)


async def read_metrics(
    url: str, metrics: Collection[Metric], *, every: timedelta = timedelta(days=1)
) -> Cells:
    """Fold metrics from a log's first event to its last.

    Args:
        url: The log's.
        metrics: Which metrics; no two of one name.
        every: Length of a window of time. Windows are counted from a Monday, 00:00 UTC.

    Returns:
        For each metric, window and values of its labels (in the order of `by`), the cell that was added up: `count`,
        `sum`, `mean`, `low`, `high`, and for metrics with percentiles `percentile(0.95)`.

    Raises:
        LogTrimmed: The log's beginning was trimmed: name its archive in the URL.
        MetricFailed: A metric's function can't cope with an event.
        UsageError: Two metrics have one name, or one has too many series.
        LogError: The log can't be read.
    """
    kept = MemoryMetrics(MetricFold(metrics, every // _MICROSECOND))
    log = open_existing(url)
    try:
        await log.open()
        await Runner(log, kept).catch_up()
    finally:
        await log.close()
    return kept.cells()

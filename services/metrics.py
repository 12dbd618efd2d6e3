"""A worker's numbers for Prometheus, over HTTP. They are counted when somebody asks.

refold_open_runs{workflow, status}     gauge    open runs of the partitions that this worker owns
refold_owned_partitions                gauge    partitions that it owns
refold_halted_partitions               gauge    partitions that it should own and can't go on with: to be alerted of
refold_longest_history                 gauge    entries of the longest history among its open runs
refold_history_warnings_total          counter  warnings of a history that grows
refold_events_total                    counter  events that it has written
refold_steps_waiting_for_pool{pool}    gauge    steps of its runs that wait for a worker of their pool
refold_runs_in_memory                  gauge    runs whose code is in its memory
refold_runs_waiting                    gauge    runs that wait for room there: --max-runs, --max-memory-mb
refold_steps_waiting                   gauge    steps that wait for room here: --max-steps
refold_projection_running{projection}  gauge    of each projection that it keeps: 1, or 0 once it has stopped

Those of `refold project`:

refold_projection_behind_events{projection, partition}  gauge    records that are not in it yet
refold_projection_events_total{projection}              counter  events that this process has taken in
refold_projection_running{projection}                   gauge    1, or 0 once it has stopped

Those of `refold api`:

refold_api_answers_total{status}  counter  answers, by HTTP status
refold_api_seconds_total          counter  time that they took
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager

from refold.engine.stats import Stats
from refold.log.errors import EngineClosed, UsageError
from refold.services.logs import say
from refold.services.project_service import Report, logger

try:
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector

    from refold.services.exposition import exposed
except ImportError as error:
    raise UsageError(
        "--metrics-port needs prometheus-client, which is not installed: pip install 'refold[metrics]'"
    ) from error


class StatsCollector(Collector):
    """Turns a worker's numbers into metrics.

    Args:
        stats: Gives them; called from the server's threads.
    """

    def __init__(self, stats: Callable[[], Stats]) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        """The metrics now; none where the worker has been closed."""
        try:
            stats = self._stats()
        except EngineClosed:
            return []
        open_runs = GaugeMetricFamily(
            "refold_open_runs",
            "Open runs of the partitions that this worker owns.",
            labels=("workflow", "status"),
        )
        for (workflow, status), count in sorted(stats.open_runs.items()):
            open_runs.add_metric((workflow, status.value), count)
        for_pools = GaugeMetricFamily(
            "refold_steps_waiting_for_pool",
            "Steps of this worker's runs that wait for a worker of their pool.",
            labels=("pool",),
        )
        for pool, count in sorted(stats.waiting_for_pools.items()):
            for_pools.add_metric((pool,), count)
        return [
            open_runs,
            for_pools,
            _running(stats.projections),
            GaugeMetricFamily(
                "refold_owned_partitions",
                "Partitions that this worker owns.",
                value=stats.owned_partitions,
            ),
            GaugeMetricFamily(
                "refold_halted_partitions",
                "Partitions that this worker should own and can't go on with: their workflows stand still.",
                value=stats.halted_partitions,
            ),
            GaugeMetricFamily(
                "refold_runs_in_memory",
                "Runs whose code is in this worker's memory.",
                value=stats.runs_in_memory,
            ),
            GaugeMetricFamily(
                "refold_runs_waiting",
                "Runs that are to be taken into memory and have no room there.",
                value=stats.runs_waiting,
            ),
            GaugeMetricFamily(
                "refold_steps_waiting",
                "Steps that are to begin here and have no room.",
                value=stats.steps_waiting,
            ),
            GaugeMetricFamily(
                "refold_longest_history",
                "Entries of the longest history among this worker's open runs.",
                value=stats.longest_history,
            ),
            CounterMetricFamily(
                "refold_history_warnings_total",
                "Warnings of a history that grows, written by this worker.",
                value=stats.history_warnings,
            ),
            CounterMetricFamily(
                "refold_events_total", "Events written by this worker.", value=stats.events
            ),
        ]


class ProjectionCollector(Collector):
    """Turns projections' standing into metrics.

    Args:
        reports: Gives it, by projection; called from the server's threads.
    """

    def __init__(self, reports: Callable[[], Mapping[str, Report]]) -> None:
        self._reports = reports

    def collect(self) -> Iterable[Metric]:
        """The metrics now."""
        behind = GaugeMetricFamily(
            "refold_projection_behind_events",
            "Records of the log that are not in the projection yet, of the partitions that this process takes in.",
            labels=("projection", "partition"),
        )
        events = CounterMetricFamily(
            "refold_projection_events",
            "Events that this process has taken into the projection.",
            labels=("projection",),
        )
        reports = self._reports()
        for name, report in reports.items():
            events.add_metric((name,), report.events)
            for partition, standing in report.standing.items():
                behind.add_metric((name, str(partition)), standing.behind)
        return [behind, events, _running({name: r.error is None for name, r in reports.items()})]


def _running(projections: Mapping[str, bool]) -> GaugeMetricFamily:
    running = GaugeMetricFamily(
        "refold_projection_running", "1, or 0 once it has stopped.", labels=("projection",)
    )
    for name, goes_on in projections.items():
        running.add_metric((name,), float(goes_on))
    return running


class ApiCollector(Collector):
    """Turns the numbers of the HTTP API into metrics.

    Args:
        numbers: Gives them, answers by status and seconds in all; called from the server's threads.
    """

    def __init__(self, numbers: Callable[[], tuple[Mapping[int, int], float]]) -> None:
        self._numbers = numbers

    def collect(self) -> Iterable[Metric]:
        """The metrics now."""
        by_status, seconds = self._numbers()
        answers = CounterMetricFamily(
            "refold_api_answers", "Answers, by HTTP status.", labels=("status",)
        )
        for status, count in sorted(by_status.items()):
            answers.add_metric((str(status),), count)
        return [
            answers,
            CounterMetricFamily("refold_api_seconds", "Time that they took.", value=seconds),
        ]


@contextmanager
def serving(collector: Collector, address: str, port: int) -> Generator[int, None, None]:
    """Serve numbers at `http://address:port/metrics` inside the block.

    Args:
        collector: Gives the numbers.
        address: The address to listen at; 127.0.0.1 is reached from this machine only.
        port: The port; 0 for any that is free.

    Yields:
        The port.

    Raises:
        UsageError: The port can't be listened at.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    # Not asked when it is registered: the worker is not open yet, and would be asked from its own thread.
    registry.register(collector)
    with exposed(registry, address, port, "--metrics-") as bound:
        say(logger, "metrics", {"url": f"http://{address}:{bound}/metrics"})
        yield bound

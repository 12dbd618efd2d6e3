"""The median and the tail of latencies."""

import statistics


def percentiles(took_ms: list[float]) -> dict[str, float]:
    """p50, p95 and p99 of two values or more, by linear interpolation."""
    cuts = statistics.quantiles(took_ms, n=100, method="inclusive")
    return {"p50_ms": cuts[49], "p95_ms": cuts[94], "p99_ms": cuts[98]}

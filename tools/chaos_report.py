"""The report of a fault run: a page to read, and the same numbers as JSON."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Final

from chaos_case import Case
from chaos_charts import OUTCOMES, hand_overs, timeline
from chaos_checker import RULES, Violation
from chaos_figures import Figures, quantile
from chaos_page import key, page, table, tiles

PAGE: Final = "report.html"
NUMBERS: Final = "report.json"


def write_report(
    directory: Path, again: str, figures: Figures, found: Sequence[Violation], case: Case
) -> None:
    """Write `report.html` and `report.json` into a run's directory.

    Args:
        directory: The run's.
        again: The command that runs it again.
        figures: Its numbers.
        found: Its violations.
        case: What was judged.
    """
    numbers = {
        "again": again,
        "violations": [asdict(violation) for violation in found],
        **asdict(figures),
        "hand_overs_s": figures.gaps_by_cause(),
    }
    (directory / NUMBERS).write_text(json.dumps(numbers, indent=1), encoding="utf-8")
    verdict = f"{len(found)} violations"
    body = _body(again, figures, found, case)
    (directory / PAGE).write_text(page("Fault run", not found, verdict, body), encoding="utf-8")


def _body(again: str, figures: Figures, found: Sequence[Violation], case: Case) -> Iterable[str]:
    yield (
        '<p class="dim">Clients, workers and brokers as processes on one machine; what was broken follows from the '
        f"seed. Again: <code>{escape(again)}</code></p>"
    )
    faults = sum(figures.faults.values())
    runs = figures.counts.get("runs in the log", 0)
    yield tiles(
        [
            (f"{figures.operations_in_all:,}", "operations"),
            (f"{faults:,}", "faults"),
            (f"{len(found):,}", "violations"),
            (f"{runs:,}", "runs"),
            (f"{len(figures.gaps):,}", "hand-overs"),
            (f"{figures.length_s:,.0f} s", "under load"),
            (f"{len(RULES)}", "rules checked"),
        ]
    )
    yield from _violations(found)
    yield "<h2>What was broken, and what became of the load</h2>"
    yield key(("broker", "worker", "client", "link"))
    yield timeline(figures, case.recorded.faults)
    yield from _gaps(figures)
    yield from _tables(figures)


def _violations(found: Sequence[Violation]) -> Iterable[str]:
    if not found:
        return
    yield "<h2>Violations</h2>"
    for violation in found:
        lines = escape("\n".join(violation.evidence))
        yield (
            f"<details><summary><b>{escape(violation.rule)}</b>: {escape(violation.text)}</summary>"
            f"<pre>{lines}</pre></details>"
        )


def _gaps(figures: Figures) -> Iterable[str]:
    yield "<h2>Hand-over: how long partitions stood without an owner</h2>"
    by_cause = figures.gaps_by_cause()
    if not by_cause:
        yield '<p class="dim">None was handed over.</p>'
        return
    yield (
        '<p class="dim">From the fault to the next accepted claim; where a partition merely moved, or was drained, '
        "from its last owner's last event. The line is the median.</p>"
    )
    yield hand_overs(figures)
    yield table(
        ("what had become of the owner", "hand-overs", "median", "p95", "longest"),
        (
            (
                cause,
                str(len(lengths)),
                *(f"{quantile(lengths, share):.2f} s" for share in (0.5, 0.95, 1.0)),
            )
            for cause, lengths in by_cause.items()
        ),
    )


def _tables(figures: Figures) -> Iterable[str]:
    yield '<h2>Counts</h2><div class="side">'
    yield table(
        ("operation", *OUTCOMES),
        (
            (kind, *(f"{outcomes.get(outcome, 0):,}" for outcome in OUTCOMES))
            for kind, outcomes in figures.operations.items()
        ),
    )
    yield table(("fault", "times"), ((kind, str(n)) for kind, n in figures.faults.items()))
    yield table(("what", "how many"), ((what, f"{n:,}") for what, n in figures.counts.items()))
    yield "</div>"

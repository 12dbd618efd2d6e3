"""The atlas's front page, as Markdown."""

from collections.abc import Sequence

from atlas.model import Country, Source, total_findings

LARGEST = 20


def report_text(origin: Source, countries: Sequence[Country], year: int) -> str:
    """The page: totals, the largest countries, the loneliest airports, what was found in the data."""
    return "\n\n".join(
        [
            "# An atlas of the world's airports",
            f"{origin.airports:,} airports in {len(countries)} countries and {len(origin.zones)} time zones "
            f"(offsets of {year}), from airportsdata {origin.version} (MIT licence).",
            "## The largest",
            _largest(countries),
            "## The loneliest",
            _loneliest(countries),
            "## Found in the data",
            _found(countries),
            "",
        ]
    )


def _in_order(countries: Sequence[Country]) -> list[Country]:
    """The countries with the most airports."""
    return sorted(countries, key=lambda one: (-one.cleaned.airports, one.cleaned.country))


def _largest(countries: Sequence[Country]) -> str:
    lines = ["| country | airports | with IATA code | highest | feet |", "|---|--:|--:|---|--:|"]
    for one in _in_order(countries)[:LARGEST]:
        rows = one.cleaned
        feet = "" if rows.elevation_max_ft is None else f"{rows.elevation_max_ft:,.0f}"
        lines.append(
            f"| {rows.country} | {rows.airports:,} | {rows.with_iata:,} | {rows.highest or ''} | {feet} |"
        )
    return "\n".join(lines)


def _loneliest(countries: Sequence[Country]) -> str:
    lines = ["| airport | country | km to its country's next |", "|---|---|--:|"]
    known = [
        (one.neighbours.loneliest_km, one.neighbours.loneliest, one.cleaned.country)
        for one in countries
        if one.neighbours.loneliest_km is not None
    ]
    for km, name, code in sorted(known, reverse=True, key=lambda one: one[0])[:LARGEST]:
        lines.append(f"| {name} | {code} | {km:,.0f} |")
    return "\n".join(lines)


def _found(countries: Sequence[Country]) -> str:
    findings = total_findings(countries)
    return "\n".join(f"- {rule}: {rows:,} rows" for rule, rows in findings.items())

"""One country's part of the atlas: check its rows, measure its distances, write its files."""

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from atlas.files import compressed, csv_bytes
from atlas.geography import Place, nearest_neighbours
from atlas.model import Cleaned, Neighbours
from atlas.source import read_rows

Row = Mapping[str, str]

SOURCE_COLUMNS = (
    *("icao", "iata", "name", "city", "subd", "country"),
    *("elevation", "lat", "lon", "tz", "lid"),
)
NEIGHBOUR_COLUMNS = ("icao", "nearest_icao", "nearest_km")
ADDED_COLUMNS = ("utc_offset_min", "utc_offset_max", "nearest_icao", "nearest_km")

# The lowest strip lies by the Dead Sea at -1,240 ft, the highest in Tibet at 14,472 ft.
ELEVATIONS_FT = (-1_300.0, 15_000.0)


class BadRowError(ValueError):
    """A row that no atlas can have: the release must not go out."""


def clean(rows: Sequence[Row], country: str, zones: Sequence[str]) -> Cleaned:
    """Check a country's rows, and count what a reader of the atlas should know about them.

    Raises:
        BadRowError: An identifier is missing or there twice, a coordinate is not on the globe, a zone is unknown.
    """
    findings: Counter[str] = Counter()
    seen: set[str] = set()
    spots: set[tuple[str, str]] = set()
    for row in rows:
        _require_sound(row, country, zones, seen)
        seen.add(row["icao"])
        findings.update(_findings(row, spots))
        spots.add((row["lat"], row["lon"]))
    given = [(float(row["elevation"]), row["name"]) for row in rows if float(row["elevation"]) != 0]
    highest = max(given, default=None)
    return Cleaned(
        country,
        airports=len(rows),
        with_iata=sum(1 for row in rows if row["iata"]),
        zones=tuple(sorted({row["tz"] for row in rows})),
        highest=highest[1] if highest else None,
        elevation_max_ft=highest[0] if highest else None,
        elevation_mean_ft=statistics.fmean(feet for feet, _ in given) if given else None,
        findings=dict(findings),
    )


def _require_sound(row: Row, country: str, zones: Sequence[str], seen: set[str]) -> None:
    icao = row["icao"]
    if not icao or icao in seen:
        raise BadRowError(f"{country}: the identifier {icao!r} is missing or there twice")
    if not (-90 <= float(row["lat"]) <= 90 and -180 <= float(row["lon"]) <= 180):
        raise BadRowError(f"{icao}: {row['lat']}, {row['lon']} is no place on the globe")
    if row["country"] != country or row["tz"] not in zones:
        raise BadRowError(f"{icao}: country {row['country']!r} or zone {row['tz']!r} is not known")


def _findings(row: Row, spots: set[tuple[str, str]]) -> list[str]:
    """What is odd about a row and no reason to leave it out."""
    feet = float(row["elevation"])
    odd = {
        "no elevation": feet == 0,
        "elevation beyond belief": not ELEVATIONS_FT[0] <= feet <= ELEVATIONS_FT[1],
        "no city": not row["city"],
        "IATA code not three letters": bool(row["iata"]) and not _is_iata(row["iata"]),
        "same spot as another": (row["lat"], row["lon"]) in spots,
    }
    return [rule for rule, holds in odd.items() if holds]


def _is_iata(code: str) -> bool:
    return len(code) == 3 and code.isascii() and code.isalpha() and code.isupper()


def measure(rows: Sequence[Row]) -> tuple[Neighbours, list[dict[str, object]]]:
    """A country's distances in figures, and each airport's nearest neighbour as rows for a file."""
    places = [Place(float(row["lat"]), float(row["lon"])) for row in rows]
    nearest = nearest_neighbours(places)
    table: list[dict[str, object]] = []
    distances: list[tuple[float, str]] = []
    for row, neighbour in zip(rows, nearest, strict=True):
        found: dict[str, object] = {"icao": row["icao"], "nearest_icao": "", "nearest_km": ""}
        if neighbour is not None:
            found["nearest_icao"] = rows[neighbour.place]["icao"]
            found["nearest_km"] = f"{neighbour.km:.4f}"
            distances.append((neighbour.km, row["name"]))
        table.append(found)
    if not distances:
        return Neighbours(None, None, None), table
    km, loneliest = max(distances)
    median_km = statistics.median(km for km, _ in distances)
    return Neighbours(loneliest, km, median_km), table


def joined(
    cleaned: Path, neighbours: Path, offsets_min: Mapping[str, tuple[int, int]]
) -> list[dict[str, str]]:
    """A country's rows with all that was added to them."""
    nearest = {row["icao"]: row for row in read_rows(neighbours)}
    rows: list[dict[str, str]] = []
    for row in read_rows(cleaned):
        least, greatest = offsets_min[row["tz"]]
        added = {"utc_offset_min": str(least), "utc_offset_max": str(greatest)}
        rows.append({**row, **added, **nearest[row["icao"]]})
    return rows


def as_csv(rows: Sequence[Row]) -> bytes:
    """A country's table, compressed."""
    return compressed(csv_bytes((*SOURCE_COLUMNS, *ADDED_COLUMNS), rows))


def as_geojson(rows: Sequence[Row]) -> bytes:
    """A country's map (RFC 7946: longitude first), compressed."""
    features = [
        {
            "type": "Feature",
            "id": row["icao"],
            "geometry": {"type": "Point", "coordinates": [float(row["lon"]), float(row["lat"])]},
            "properties": {
                "name": row["name"],
                "city": row["city"],
                "iata": row["iata"] or None,
                "elevation_ft": float(row["elevation"]) or None,
                "tz": row["tz"],
                "nearest": row["nearest_icao"] or None,
                "nearest_km": float(row["nearest_km"]) if row["nearest_km"] else None,
            },
        }
        for row in rows
    ]
    collection = {"type": "FeatureCollection", "features": features}
    return compressed(json.dumps(collection, ensure_ascii=False, indent=1).encode("utf-8"))

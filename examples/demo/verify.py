"""The data check: DuckDB computes the atlas again from the package's file, and reads every file that was written.

Nothing of the job's own computing is used here. Rows are compared by SQL, distances by brute force over all pairs
(chords between unit vectors, where the job used haversines and a sweep), time zones every third hour (where the
job bisected), checksums from the bytes on the disk.
"""

import csv
import hashlib
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb

from atlas.source import airports_csv, zone_file
from audit import Check

TOLERANCE_KM = 0.001
PROBLEMS_SHOWN = 5
LOOK_EVERY = timedelta(hours=3)
SECOND = timedelta(seconds=1)

# Numbers for keys, and products rather than powers: brute force over 170 million pairs in seconds.
NEAREST = """
CREATE TABLE points AS
    SELECT icao, row_number() OVER ()::INTEGER AS id, dense_rank() OVER (ORDER BY country)::INTEGER AS land,
           cos(radians(lat::DOUBLE)) * cos(radians(lon::DOUBLE)) AS x,
           cos(radians(lat::DOUBLE)) * sin(radians(lon::DOUBLE)) AS y, sin(radians(lat::DOUBLE)) AS z
    FROM source;
CREATE TABLE chords AS
    SELECT a.id, min((a.x - b.x) * (a.x - b.x) + (a.y - b.y) * (a.y - b.y) + (a.z - b.z) * (a.z - b.z)) AS squared
    FROM points a JOIN points b ON a.land = b.land AND a.id <> b.id GROUP BY a.id;
CREATE TABLE nearest AS
    SELECT icao, country, 2 * 6371.0088 * asin(sqrt(squared) / 2) AS km
    FROM chords JOIN points USING (id) JOIN source USING (icao);
"""

COUNTRIES = """
SELECT country, count(*), count(iata), count(DISTINCT tz), max(feet), avg(feet),
       (SELECT max(km) FROM nearest WHERE nearest.country = s.country),
       (SELECT median(km) FROM nearest WHERE nearest.country = s.country)
FROM (SELECT *, nullif(elevation::DOUBLE, 0) AS feet FROM source) s GROUP BY country ORDER BY country
"""


class Verification:
    """The checks of one atlas.

    Args:
        directory: Where it was written.
        year: The year of its time zones.
    """

    def __init__(self, directory: Path, year: int) -> None:
        self._directory = directory
        self._year = year
        self._db = duckdb.connect()
        self._db.execute("SET TimeZone = 'UTC'")
        self._load("source", str(airports_csv()))
        self._load("written", str(directory / "countries" / "*" / "airports.csv.gz"))

    def checks(self) -> list[Callable[[], Check]]:
        """Each check, to be called."""
        return [self.files, self.rows, self.maps, self.neighbours, self.catalogue, self.zones]

    def files(self) -> Check:
        """Every file of the manifest is there, byte for byte, and no other."""
        listed: dict[str, dict[str, object]] = json.loads(
            (self._directory / "manifest.json").read_bytes()
        )["files"]
        problems: list[str] = []
        size = 0
        for name, said in listed.items():
            data = (self._directory / name).read_bytes()
            size += len(data)
            found = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            if found != said:
                problems.append(f"{name} is {found}, the manifest says {said}")
        there = {
            str(path.relative_to(self._directory))
            for path in (self._directory / "countries").rglob("*")
            if path.is_file()
        }
        problems += [f"{name} is in no manifest" for name in sorted(there - listed.keys())]
        claim = f"{len(listed)} files, {size / 1e6:.1f} MB, read again: sizes and SHA-256 as in the manifest"
        return _check(claim, problems)

    def rows(self) -> Check:
        """The tables hold the source's rows, all of them, and none else."""
        columns = "icao, iata, name, city, subd, country, elevation, lat, lon, tz, lid"
        both_ways = (
            ("source", "written", "is missing"),
            ("written", "source", "is not in the source"),
        )
        problems = [
            f"{icao} {problem}"
            for one, other, problem in both_ways
            for (icao,) in self._all(
                f"SELECT icao FROM (SELECT {columns} FROM {one} EXCEPT ALL SELECT {columns} FROM {other})"
            )
        ]
        count = self._all("SELECT count(*) FROM written")[0][0]
        return _check(f"{count:,} rows in the tables equal those of the package's file", problems)

    def maps(self) -> Check:
        """The GeoJSON files hold the same airports at the same places."""
        pattern = _quoted(str(self._directory / "countries" / "*" / "airports.geojson.gz"))
        self._db.execute(f"""
            CREATE TABLE features AS
                SELECT f.id, f.geometry.coordinates[1] AS lon, f.geometry.coordinates[2] AS lat,
                       f.properties.name AS name
                FROM (SELECT unnest(features) AS f FROM read_json({pattern}, maximum_object_size=100000000))
        """)
        problems = [
            f"{icao} differs"
            for (icao,) in self._all(
                "SELECT coalesce(s.icao, f.id) FROM source s FULL JOIN features f ON s.icao = f.id"
                " WHERE s.lat::DOUBLE IS DISTINCT FROM f.lat OR s.lon::DOUBLE IS DISTINCT FROM f.lon"
                " OR s.name IS DISTINCT FROM f.name"
            )
        ]
        count = self._all("SELECT count(*) FROM features")[0][0]
        return _check(f"{count:,} points in the maps stand where the source has them", problems)

    def neighbours(self) -> Check:
        """The distance to each nearest neighbour is the least over all pairs."""
        self._db.execute(NEAREST)
        problems = [
            f"{icao}: {said} km, computed {km} km"
            for icao, said, km in self._all(
                "SELECT w.icao, w.nearest_km, n.km FROM written w LEFT JOIN nearest n USING (icao)"
                " WHERE (w.nearest_km IS NULL) <> (n.km IS NULL)"
                f" OR abs(w.nearest_km::DOUBLE - n.km) > {TOLERANCE_KM}"
            )
        ]
        pairs = self._all(
            "SELECT sum(n * (n - 1)) FROM (SELECT count(*) n FROM source GROUP BY country)"
        )[0][0]
        return _check(
            f"nearest neighbours equal the least of {int(pairs):,} distances, to the metre",
            problems,
        )

    def catalogue(self) -> Check:
        """The catalogue's figures are those of SQL over the source."""
        with closing(sqlite3.connect(self._directory / "catalogue.db")) as connection:
            said = connection.execute(
                "SELECT country, airports, with_iata, zones, elevation_max_ft, elevation_mean_ft, loneliest_km,"
                " median_km FROM countries ORDER BY country"
            ).fetchall()
        computed = self._all(COUNTRIES)
        problems = (
            [f"{len(said)} countries, computed {len(computed)}"]
            if len(said) != len(computed)
            else []
        )
        for one, other in zip(said, computed, strict=False):
            if not all(_close(left, right) for left, right in zip(one, other, strict=True)):
                problems.append(f"{one}, computed {other}")
        return _check(
            f"{len(said)} countries in the catalogue have the figures that SQL finds", problems
        )

    def zones(self) -> Check:
        """Each zone's table of changes gives, all the year, what the zone's file gives."""
        changes: dict[str, list[tuple[datetime, int]]] = {}
        with (self._directory / "time-zones.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                change = datetime.fromisoformat(row["from_utc"]), int(row["offset_s"])
                changes.setdefault(row["zone"], []).append(change)
        wanted = {zone for (zone,) in self._all("SELECT DISTINCT tz FROM source")}
        problems = [f"{zone} is missing or too many" for zone in wanted ^ changes.keys()]
        problems += [
            zone for zone, table in changes.items() if not _zone_agrees(zone, table, self._year)
        ]
        claim = f"{len(changes)} time zones agree with their TZif files all through {self._year}"
        return _check(claim, problems)

    def _load(self, table: str, pattern: str) -> None:
        self._db.execute(
            f"CREATE TABLE {table} AS FROM read_csv({_quoted(pattern)}, header=true, all_varchar=true, quote='\"')"
        )

    def _all(self, query: str) -> list[tuple[str, ...]]:
        return self._db.execute(query).fetchall()


def _check(claim: str, problems: list[str]) -> Check:
    shown = problems[:PROBLEMS_SHOWN]
    if len(problems) > len(shown):
        shown.append(f"... and {len(problems) - len(shown)} more")
    return Check(claim, tuple(shown))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _close(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= max(TOLERANCE_KM, 1e-9 * abs(other))
    return one == other


def _zone_agrees(zone: str, table: list[tuple[datetime, int]], year: int) -> bool:
    """Whether the offset is as the table says at each change, every third hour after, and a second before the next."""
    with zone_file(zone).open("rb") as file:
        rules = ZoneInfo.from_file(file, key=zone)
    end = datetime(year + 1, 1, 1, tzinfo=UTC)
    if table[0][0] != datetime(year, 1, 1, tzinfo=UTC):
        return False
    for (begin, offset_s), (until, _) in pairwise([*table, (end, 0)]):
        offset, at = timedelta(seconds=offset_s), begin
        while at < until:
            if rules.fromutc(at.replace(tzinfo=rules)).utcoffset() != offset:
                return False
            at = min(at + LOOK_EVERY, until - SECOND) if at < until - SECOND else until
    return True

"""The durable job: some 1,300 steps that read and write real files, in any order that their results allow.

    snapshot ─ split ┬─ zone_offsets, for each zone ─────┬─ for each country: ────────┬─ publish_zones
                     └─ clean_country, for each country ─┘    measure_country,        └─ manifest
                                                              publish_country,            └─ report
                                                              catalogue_country

Every step may be killed at any moment and run again: it writes whole files under fixed names, and the same input
gives the same bytes.
"""

import asyncio
import hashlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from atlas import catalogue, country, source, zones
from atlas.files import csv_bytes, write_durably
from atlas.journal import note_execution
from atlas.model import (
    Atlas,
    Cleaned,
    Country,
    Neighbours,
    Release,
    Source,
    WrittenFile,
    ZoneYear,
    total_findings,
)
from atlas.report import report_text
from refold import Retry, step, step_context, workflow

T = TypeVar("T")

SNAPSHOT = "source/airports.csv"
CATALOGUE = "catalogue.db"
MANIFEST = "manifest.json"
REPORT = "REPORT.md"
ZONES = "time-zones.csv"

KINDS = (
    *("snapshot", "split", "zone_offsets", "clean_country", "measure_country"),
    *("publish_country", "catalogue_country", "publish_zones", "manifest", "report"),
)


def expected_steps(countries: int, zones: int) -> int:
    """How many steps the job has for so many countries and time zones."""
    once = len(KINDS) - 5
    return once + zones + 4 * countries


# Steps ----------------------------------------------------------------------------------------------------


@step(name="snapshot")
def snapshot(release: Release) -> Source:
    """Take a copy of the source: everything after is made from it, also if the package is upgraded meanwhile."""
    note_execution(release.journal, "snapshot")
    data = source.airports_csv().read_bytes()
    written = write_durably(Path(release.directory), SNAPSHOT, data)
    rows = list(source.read_rows(Path(release.directory, SNAPSHOT)))
    return Source(
        version=source.package(source.AIRPORTS).version,
        sha256=written.sha256,
        airports=len(rows),
        countries=tuple(sorted({row["country"] for row in rows})),
        zones=tuple(sorted({row["tz"] for row in rows})),
    )


@step(name="split")
def split(release: Release) -> int:
    """Divide the snapshot into a file for each country; returns the number of files."""
    note_execution(release.journal, "split")
    parts: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
    for row in source.read_rows(Path(release.directory, SNAPSHOT)):
        parts[row["country"]].append(row)
    for code, rows in parts.items():
        data = csv_bytes(country.SOURCE_COLUMNS, rows)
        write_durably(Path(release.directory), f"work/{code}.csv", data)
    return len(parts)


@step(name="zone_offsets")
def zone_offsets(release: Release, zone: str) -> ZoneYear:
    """Read a time zone's file: when its clocks change in the release's year."""
    note_execution(release.journal, "zone_offsets")
    return zones.zone_year(zone, release.year)


@step(name="clean_country")
def clean_country(release: Release, code: str, known_zones: tuple[str, ...]) -> Cleaned:
    """Check a country's rows and put them in order."""
    note_execution(release.journal, "clean_country")
    rows = sorted(source.read_rows(_part(release, code)), key=lambda row: row["icao"])
    cleaned = country.clean(rows, code, known_zones)
    data = csv_bytes(country.SOURCE_COLUMNS, rows)
    write_durably(Path(release.directory), f"work/{code}.clean.csv", data)
    return cleaned


@step(name="measure_country")
def measure_country(release: Release, code: str) -> Neighbours:
    """Find each airport's nearest neighbour."""
    note_execution(release.journal, "measure_country")
    neighbours, table = country.measure(list(source.read_rows(_part(release, f"{code}.clean"))))
    data = csv_bytes(country.NEIGHBOUR_COLUMNS, table)
    write_durably(Path(release.directory), f"work/{code}.nearest.csv", data)
    return neighbours


@step(name="publish_country")
async def publish_country(
    release: Release, code: str, offsets_min: dict[str, tuple[int, int]]
) -> tuple[WrittenFile, ...]:
    """Write a country's table and map, both at once."""
    note_execution(release.journal, "publish_country")
    paths = _part(release, f"{code}.clean"), _part(release, f"{code}.nearest")
    rows = await asyncio.to_thread(country.joined, *paths, offsets_min)

    def write(name: str, content: bytes) -> WrittenFile:
        return write_durably(Path(release.directory), f"countries/{code}/{name}", content)

    async def render(name: str, make: partial[bytes]) -> WrittenFile:
        return await asyncio.to_thread(write, name, await asyncio.to_thread(make))

    table = render("airports.csv.gz", partial(country.as_csv, rows))
    chart = render("airports.geojson.gz", partial(country.as_geojson, rows))
    return tuple(await asyncio.gather(table, chart))


@step(
    name="catalogue_country",
    retry=Retry(
        attempts=60,
        initial_s=0.02,
        backoff=1.5,
        max_s=1,
        jitter=1.0,
        on=(sqlite3.OperationalError,),
    ),
)
def catalogue_country(
    release: Release, cleaned: Cleaned, neighbours: Neighbours, files: tuple[WrittenFile, ...]
) -> None:
    """Enter a country into the catalogue; while another one is being entered, try again later."""
    note_execution(release.journal, "catalogue_country")
    path = Path(release.directory, CATALOGUE)
    catalogue.add_country(path, cleaned, neighbours, files, step_context().idempotency_key)


@step(name="publish_zones")
def publish_zones(release: Release, years: list[ZoneYear]) -> WrittenFile:
    """Write all changes of clocks as a table."""
    note_execution(release.journal, "publish_zones")
    rows = [
        {"zone": year.zone, "from_utc": change.at.isoformat(), "offset_s": change.offset_s}
        for year in years
        for change in year.transitions
    ]
    data = csv_bytes(("zone", "from_utc", "offset_s"), rows)
    return write_durably(Path(release.directory), ZONES, data)


@step(name="manifest")
def manifest(release: Release, origin: Source, files: list[WrittenFile]) -> WrittenFile:
    """List every file with its size and checksum, having read each of them again."""
    note_execution(release.journal, "manifest")
    for file in files:
        data = Path(release.directory, file.path).read_bytes()
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise ValueError(f"{file.path} is not what was written: build the atlas anew")
    listed = {file.path: {"bytes": file.bytes, "sha256": file.sha256} for file in files}
    content = {"airportsdata": origin.version, "source_sha256": origin.sha256, "files": listed}
    return write_durably(Path(release.directory), MANIFEST, json.dumps(content, indent=1).encode())


@step(name="report")
def report(release: Release, origin: Source, countries: list[Country]) -> WrittenFile:
    """Write the page that people read."""
    note_execution(release.journal, "report")
    text = report_text(origin, countries, release.year)
    return write_durably(Path(release.directory), REPORT, text.encode())


def _part(release: Release, stem: str) -> Path:
    return Path(release.directory, "work", f"{stem}.csv")


# The workflow ---------------------------------------------------------------------------------------------


@workflow
async def build_atlas(release: Release) -> Atlas:
    """Build the atlas of all countries."""
    origin = await snapshot.aio(release)
    await split.aio(release)
    gate = asyncio.Semaphore(release.parallel)

    async def gated(work: Coroutine[Any, Any, T]) -> T:
        async with gate:
            return await work

    years, cleaned = await asyncio.gather(
        asyncio.gather(*(gated(zone_offsets.aio(release, zone)) for zone in origin.zones)),
        asyncio.gather(
            *(gated(clean_country.aio(release, code, origin.zones)) for code in origin.countries)
        ),
    )
    offsets_min = {year.zone: year.offsets_min for year in years}
    countries = await asyncio.gather(
        *(gated(finish_country(release, rows, offsets_min)) for rows in cleaned)
    )
    zone_table = await publish_zones.aio(release, years)
    files = [file for done in countries for file in done.files] + [zone_table]
    listing = await manifest.aio(release, origin, files)
    page = await report.aio(release, origin, countries)
    return Atlas(
        version=origin.version,
        airports=origin.airports,
        countries=len(countries),
        zones=len(years),
        files=len(files) + 2,
        bytes=sum(file.bytes for file in [*files, listing, page]),
        findings=total_findings(countries),
        manifest=listing,
        report=page,
    )


async def finish_country(
    release: Release, cleaned: Cleaned, offsets_min: dict[str, tuple[int, int]]
) -> Country:
    """A part of the workflow: a country's distances, its files, its place in the catalogue."""
    neighbours = await measure_country.aio(release, cleaned.country)
    own_zones = {zone: offsets_min[zone] for zone in cleaned.zones}
    files = await publish_country(release, cleaned.country, own_zones)
    await catalogue_country.aio(release, cleaned, neighbours, files)
    return Country(cleaned, neighbours, files)

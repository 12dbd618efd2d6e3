"""What the job's steps give to each other. All of it is small: rows stay in files, the log holds facts about them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Release:
    """The job's input.

    Args:
        directory: Where the atlas is written.
        journal: File to which every execution of a step adds a line as it begins.
        year: The year that the time zones' offsets are for.
        parallel: Most steps under way at once.
    """

    directory: str
    journal: str
    year: int
    parallel: int


@dataclass(frozen=True, slots=True)
class Source:
    """The snapshot of the data that everything else is made from.

    Args:
        version: Release of the package that the data came in.
        sha256: Checksum of the snapshot.
        airports: Number of rows.
        countries: ISO 3166-1 alpha-2 codes (and XK), in order.
        zones: Names of the time zones in use, in order.
    """

    version: str
    sha256: str
    airports: int
    countries: tuple[str, ...]
    zones: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Transition:
    """From `at` (UTC) on, a zone is `offset_s` seconds ahead of UTC."""

    at: datetime
    offset_s: int


@dataclass(frozen=True, slots=True)
class ZoneYear:
    """A time zone's offsets over one year; the first transition stands at the year's begin."""

    zone: str
    transitions: tuple[Transition, ...]

    @property
    def offsets_min(self) -> tuple[int, int]:
        """Least and greatest offset of the year, in minutes ahead of UTC."""
        offsets = [transition.offset_s // 60 for transition in self.transitions]
        return min(offsets), max(offsets)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A country's rows after they were checked.

    Args:
        country: Its code.
        airports: Number of rows, all of which are kept.
        with_iata: How many of them have an IATA code.
        zones: Time zones in use, in order.
        highest: Name of the highest airport; None where no elevation is given.
        elevation_max_ft: Its elevation, in feet above sea level; 0 is taken for "not given".
        elevation_mean_ft: Mean over the airports whose elevation is given.
        findings: How many rows each rule found something in.
    """

    country: str
    airports: int
    with_iata: int
    zones: tuple[str, ...]
    highest: str | None
    elevation_max_ft: float | None
    elevation_mean_ft: float | None
    findings: dict[str, int]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What the distances between a country's airports come to.

    Args:
        loneliest: Name of the airport whose nearest neighbour is the farthest away; None for a country's only one.
        loneliest_km: How far that is.
        median_km: Median distance to the nearest neighbour.
    """

    loneliest: str | None
    loneliest_km: float | None
    median_km: float | None


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file of the atlas: path below its directory, size, checksum."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Country:
    """All that the atlas knows of a country."""

    cleaned: Cleaned
    neighbours: Neighbours
    files: tuple[WrittenFile, ...]


@dataclass(frozen=True, slots=True)
class Atlas:
    """The job's result."""

    version: str
    airports: int
    countries: int
    zones: int
    files: int
    bytes: int
    findings: dict[str, int]
    manifest: WrittenFile
    report: WrittenFile


def total_findings(countries: Iterable[Country]) -> dict[str, int]:
    """The findings of all countries together, most frequent first."""
    total: Counter[str] = Counter()
    for country in countries:
        total.update(country.cleaned.findings)
    return dict(total.most_common())

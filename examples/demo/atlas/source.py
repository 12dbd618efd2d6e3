"""Where the data are: the files inside the installed packages, and what those packages say about themselves."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

AIRPORTS = "airportsdata"
ZONES = "tzdata"


@dataclass(frozen=True, slots=True)
class Package:
    """An installed package: its name, release and licence."""

    name: str
    version: str
    licence: str


def package(name: str) -> Package:
    """What an installed package says about itself."""
    about = metadata.metadata(name)
    said = [about[field] for field in ("License-Expression", "License") if field in about]
    licence = said[0] if said else "see its metadata"
    return Package(name, metadata.version(name), licence)


def airports_csv() -> Path:
    """The file of airports inside the package `airportsdata`."""
    return Path(str(resources.files(AIRPORTS).joinpath("airports.csv")))


def zone_file(zone: str) -> Path:
    """The TZif file of a time zone inside the package `tzdata`; never the machine's own, which differs."""
    return Path(str(resources.files(ZONES).joinpath("zoneinfo", *zone.split("/"))))


def read_rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file with a header, all values as text."""
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file, strict=True)

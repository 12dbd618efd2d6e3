"""Distances on the globe, and the nearest neighbour of each of many places."""

import math
from collections.abc import Sequence
from typing import NamedTuple

EARTH_RADIUS_KM = (
    6371.0088  # the mean radius of IUGG; the sphere is off by up to 0.5 % from the ellipsoid
)

# A little less than it is: at the antipodes a haversine is off by a ten-millionth, and no sweep must end early.
KM_PER_DEGREE = math.radians(1) * EARTH_RADIUS_KM * (1 - 1e-6)


class Place(NamedTuple):
    """A point: degrees north, degrees east."""

    lat: float
    lon: float


class Nearest(NamedTuple):
    """Which place is the nearest other one, by its place in the list, and how far it is."""

    place: int
    km: float


def distance_km(one: Place, other: Place) -> float:
    """Great-circle distance by the haversine formula, which stays exact for points close to each other."""
    lat_1, lat_2 = math.radians(one.lat), math.radians(other.lat)
    half_lat = math.sin((lat_2 - lat_1) / 2) ** 2
    half_lon = math.sin(math.radians(other.lon - one.lon) / 2) ** 2
    chord = half_lat + math.cos(lat_1) * math.cos(lat_2) * half_lon
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, chord)))


def nearest_neighbours(places: Sequence[Place]) -> list[Nearest | None]:
    """The nearest other place for each, by a sweep along the meridian.

    Two places are at least as far apart as their latitudes are. So, in order of latitude, the search from a place
    to either side ends where that alone is more than the best distance found.

    Returns:
        In the order of `places`; all None where there is only one.
    """
    order = sorted(range(len(places)), key=lambda index: places[index].lat)
    found: list[Nearest | None] = [None] * len(places)
    for rank, index in enumerate(order):
        upward = _nearest_on(range(rank + 1, len(order)), order, places, index, None)
        found[index] = _nearest_on(range(rank - 1, -1, -1), order, places, index, upward)
    return found


def _nearest_on(
    ranks: range, order: Sequence[int], places: Sequence[Place], index: int, best: Nearest | None
) -> Nearest | None:
    """The better of `best` and what lies on one side in order of latitude."""
    here = places[index]
    for rank in ranks:
        there = places[order[rank]]
        if best is not None and abs(there.lat - here.lat) * KM_PER_DEGREE > best.km:
            break
        km = distance_km(here, there)
        if best is None or km < best.km:
            best = Nearest(order[rank], km)
    return best

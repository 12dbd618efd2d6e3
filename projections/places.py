"""Where projections are kept: what a `--to` means, and what is meant where none is given."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from refold.log.archived import unarchived
from refold.log.errors import UsageError
from refold.log.protocol import Log
from refold.log.sqlite import SqliteLog
from refold.projections.projection import Projection
from refold.projections.sqlite_store import SqliteStore
from refold.projections.store import Identity, Store

POSTGRESQL = ("postgresql://", "postgres://")


def store_for(
    projection: Projection,
    log: Log,
    place: str | None = None,
    *,
    schema: str | None = None,
    rebuild: bool = False,
) -> Store:
    """The store of a projection, not open yet.

    Args:
        projection: What is to be kept.
        log: The log that it is of, open.
        place: sqlite:///DIRECTORY, a directory, or postgresql://...; beside a SQLite log where not given.
        schema: In PostgreSQL: the schema; named after the namespace and the projection where not given.
        rebuild: Fill new tables beside those that are there.

    Raises:
        UsageError: It is no such place, or none is given and the log is not in a file.
    """
    identity = Identity.of(log)
    place = place_of(projection.name, log, place)
    if place.startswith(POSTGRESQL):
        # Imported when asked for: it needs a package that others can do without.
        from refold.projections.postgres_store import PostgresStore  # noqa: PLC0415

        return PostgresStore(projection, identity, place, schema=schema, rebuild=rebuild)
    return SqliteStore(projection, identity, sqlite_directory(place), rebuild=rebuild)


def place_of(name: str, log: Log, place: str | None) -> str:
    """Where a projection is kept: the place that is given, else the one beside the log.

    Args:
        name: The projection's, for the error.
        log: The log that it is of; it need not be open.
        place: As for `store_for`.

    Raises:
        UsageError: It is no such place, or none is given and the log is not in a file.
    """
    place = place or default_place(log)
    if place is None:
        raise UsageError(
            f"say where the projection {name!r} is to be kept, with --to (of a worker: --project-to): "
            "sqlite:///DIRECTORY or postgresql://USER@HOST/DATABASE (beside a log in a file it would be)"
        )
    if not place.startswith(POSTGRESQL):
        sqlite_directory(place)
    return place


def default_place(log: Log) -> str | None:
    """Where projections of a log are kept if nothing else is said: beside its file; None where it is in none."""
    itself = unarchived(log)
    return f"{itself.path}.views" if isinstance(itself, SqliteLog) else None


def sqlite_directory(place: str | Path) -> Path:
    """The directory that a path, or a URL as in sqlite:///orders.db.views, names.

    Raises:
        UsageError: It is neither.
    """
    if isinstance(place, Path) or "://" not in place:
        return Path(place)
    parts = urlsplit(place)
    path = unquote(parts.path.removeprefix("/"))
    if parts.scheme != "sqlite" or parts.netloc or parts.query or parts.fragment or not path:
        raise UsageError(
            f"{place!r} is no place for projections: give sqlite:///DIRECTORY, a directory, or "
            "postgresql://USER@HOST/DATABASE"
        )
    return Path(path)

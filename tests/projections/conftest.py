"""The databases that projections are kept in: each test runs on both."""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest
from psycopg import sql

from refold.log.archive import identity_of
from refold.log.protocol import Log
from refold.projections.postgres_store import PostgresStore, schema_of
from refold.projections.projection import Projection
from refold.projections.sqlite_store import SqliteStore, ViewFiles, open_for_reading
from refold.projections.store import Identity, Store


class Database(Protocol):
    """Where projections of one test are kept."""

    def store(self, projection: Projection, log: Log, *, rebuild: bool = False) -> Store:
        """A store for a projection of a log, not open yet."""
        ...

    def rows(self, name: str, query: str) -> Sequence[tuple[Any, ...]]:
        """What a reader sees of a projection."""
        ...


def of(log: Log) -> Identity:
    return Identity(log.namespace, identity_of(log), log.partitions)


class SqliteDatabase:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def store(self, projection: Projection, log: Log, *, rebuild: bool = False) -> Store:
        return SqliteStore(projection, of(log), self.directory, rebuild=rebuild)

    def rows(self, name: str, query: str) -> Sequence[tuple[Any, ...]]:
        connection: sqlite3.Connection = open_for_reading(ViewFiles(self.directory, name).link)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()


class PostgresDatabase:
    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self._prefix = prefix
        self.schemas: set[str] = set()

    def schema(self, name: str) -> str:
        self.schemas.add(schema_of(self._prefix, name))
        return schema_of(self._prefix, name)

    def store(self, projection: Projection, log: Log, *, rebuild: bool = False) -> Store:
        schema = self.schema(projection.name)
        return PostgresStore(projection, of(log), self.url, schema=schema, rebuild=rebuild)

    def rows(self, name: str, query: str) -> Sequence[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            place = sql.SQL("SET search_path TO {}").format(sql.Identifier(self.schema(name)))
            connection.execute(place)
            return connection.execute(query.encode()).fetchall()

    def drop(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            for schema in self.schemas:
                for name in (schema, f"{schema}__next"):
                    drop = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE")
                    connection.execute(drop.format(sql.Identifier(name)))


@pytest.fixture
def postgres_database(postgres: str, tmp_path: Path) -> Iterator[PostgresDatabase]:
    database = PostgresDatabase(postgres, f"t{abs(hash(tmp_path)) % 10**8}")
    yield database
    database.drop()


@pytest.fixture
def sqlite_database(tmp_path: Path) -> SqliteDatabase:
    return SqliteDatabase(tmp_path / "views")


@pytest.fixture(params=["sqlite_database", "postgres_database"], ids=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Database:
    made: Database = request.getfixturevalue(request.param)
    return made

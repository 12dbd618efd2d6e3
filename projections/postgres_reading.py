"""Reading a projection in PostgreSQL."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from refold.log.errors import UsageError
from refold.projections.postgres_store import connected, schema_of, translated
from refold.projections.projection import Value
from refold.projections.target import TargetUnavailable


@contextmanager
def reading(
    url: str, name: str, *, namespace: str | None, schema: str | None
) -> Generator[Callable[[str, Sequence[Value]], Sequence[tuple[Any, ...]]], None, None]:
    """What carries out queries on a projection's tables, inside the block.

    Args:
        url: The database.
        name: The projection's name.
        namespace: The namespace that it is of.
        schema: The schema, where it is not named after both.

    Raises:
        TargetUnavailable: It can't be reached, or there are no such tables.
        UsageError: Neither `namespace` nor `schema` is given.
    """
    if schema is None:
        if namespace is None:
            raise UsageError("name the namespace whose read model is to be read, or its schema")
        schema = schema_of(namespace, name)
    try:
        connection = connected(url)
    except psycopg.Error as error:
        raise TargetUnavailable(f"the database can't be reached: {str(error).strip()}") from error
    with connection:
        connection.read_only = True
        connection.execute(sql.SQL("SET search_path TO {}, public").format(sql.Identifier(schema)))
        connection.commit()

        def query(text: str, parameters: Sequence[Value]) -> Sequence[tuple[Any, ...]]:
            try:
                rows = connection.execute(translated(text), parameters).fetchall()
            except psycopg.Error as error:
                connection.rollback()
                raise TargetUnavailable(
                    f"the schema {schema!r} can't be read: {str(error).strip()} (`refold project` makes it)"
                ) from error
            connection.commit()  # the next one sees what has come meanwhile
            return rows

        yield query

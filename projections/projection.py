"""A projection: tables, and what each event does to them.

    class Revenue:
        name = "revenue"
        version = 1

        def tables(self, dialect: Dialect) -> list[str]:
            return ["CREATE TABLE revenue (day TEXT PRIMARY KEY, cents BIGINT NOT NULL)"]

        def apply(self, transaction: Transaction, logged: Logged) -> None:
            match logged.event:
                case StepCompleted(name="charge", payload=payload, recorded_at=at):
                    transaction.execute(
                        "INSERT INTO revenue VALUES (?, ?)"
                        " ON CONFLICT (day) DO UPDATE SET cents = revenue.cents + excluded.cents",
                        (day_of(at), json.loads(payload)["cents"]),
                    )

Its rows and the position that they have reached are saved in one transaction (`projections/store.py`), so every event
has its effect once, whatever crashes or is delivered again. Rules for whoever writes one:

1. What `apply` does follows from the event and the tables alone: no clock, no randomness, nothing outside. Then the
   rows can be made again from the log at any time, and are the same.
2. Events of one partition come in order, and all events of one workflow are in one partition; between partitions there
   is no order. A sum does not mind; "the latest" needs a column that says when.
3. Other processes may write rows for other partitions at the same time. What is read and then written in `apply` is
   safe: a transaction that another one got in the way of is done again.
4. Other tables, other rules: raise `version`. The new tables are filled beside the old, which can be read until then.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal, Protocol, runtime_checkable

from refold.log.codec import event_id_of
from refold.log.errors import RefoldError, UsageError
from refold.log.events import Unreadable
from refold.projections.feed import Logged

Dialect = Literal["sqlite", "postgresql"]
Value = str | int | float | bytes | None

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,30}")


class Transaction(Protocol):
    """Where a projection reads and writes its tables, all or nothing."""

    @property
    def dialect(self) -> Dialect:
        """Whose SQL it takes."""
        ...

    def execute(self, sql: str, parameters: Sequence[Value] = ()) -> None:
        """Carry out a statement; each `?` in it stands for a parameter."""
        ...

    def execute_many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """The same statement for many rows of parameters, in order: much faster than one by one."""
        ...

    def query(self, sql: str, parameters: Sequence[Value] = ()) -> Sequence[tuple[Any, ...]]:
        """The rows of a query, which sees all that was executed before it."""
        ...


class Projection(Protocol):
    """A read model: tables that follow from the events, by code of yours. See the top of this module."""

    @property
    def name(self) -> str:
        """Small letters, digits and `_`, at most 31: it names the file or schema that its tables are in."""
        ...

    @property
    def version(self) -> int:
        """From 1 on; another one has other tables or other rules."""
        ...

    def tables(self, dialect: Dialect) -> Sequence[str]:
        """The statements that make its tables and indexes. Types that both databases know: TEXT, BIGINT,
        DOUBLE PRECISION.
        """
        ...

    def apply(self, transaction: Transaction, logged: Logged) -> None:
        """Do to the tables what an event does to them. Whatever it raises stops this projection, and no other."""
        ...


@runtime_checkable
class BulkProjection(Protocol):
    """A projection that can take many events at once: faster, and coming to the same as one by one."""

    def apply_all(self, transaction: Transaction, batch: Sequence[Logged]) -> None:
        """Do what all these events do, which are in order within each partition."""
        ...


class ProjectionFailed(RefoldError):
    """A projection's own code raised on an event: it stands before that event, and what it has is as it was.

    Or its tables can't be made: then nothing is there.
    """


def check_projection(projection: Projection) -> None:
    """Refuse a name or version that can't be.

    Raises:
        UsageError: With the rule that it breaks.
    """
    if not _NAME.fullmatch(projection.name):
        raise UsageError(
            f"{projection.name!r} can't name a projection: use small letters, digits and '_', at most 31 characters, "
            "a letter first"
        )
    if projection.version < 1:
        raise UsageError(
            f"the projection {projection.name!r} has version {projection.version}: they begin with 1"
        )


def apply_batch(projection: Projection, transaction: Transaction, batch: Sequence[Logged]) -> None:
    """Have a projection take a batch, in bulk where it can."""
    if isinstance(projection, BulkProjection):
        projection.apply_all(transaction, batch)
        return
    for logged in batch:
        projection.apply(transaction, logged)


def failed_on(projection: Projection, logged: Logged, error: Exception) -> ProjectionFailed:
    """The error for an event that a projection raised on."""
    event = logged.event
    named = (
        f"the record that can't be read of {event.workflow_id!r}"
        if isinstance(event, Unreadable)
        else f"the event {event_id_of(event)!r}"
    )
    return ProjectionFailed(
        f"the projection {projection.name!r} (version {projection.version}) raised {type(error).__name__}: {error} on "
        f"{named}, partition {logged.partition}, offset {logged.offset}. It stands before that event; its tables are "
        "whole. Mend its code and start it again: it goes on there (or raise its version, and it begins anew)"
    )

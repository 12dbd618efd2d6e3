"""What the databases that keep projections have in common: rows and positions, in one transaction.

Beside the projection's own tables stand two more:

    refold_projection   one row: which projection and version this is, of which log, a name that no other tables have
                        (`build`), and whether others have replaced these
    refold_positions    a row for each partition: the next offset, and the claim that is current before it; -1 and -1
                        where nothing was written for it yet

`write` locks the positions of its partitions, compares them with those that its events follow on from, and only then
lets the projection do anything. So events that come twice, or to two processes, have their effect once.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from refold.log.archive import identity_of
from refold.log.errors import RefoldError
from refold.log.protocol import Log
from refold.projections.feed import Logged, Position
from refold.projections.projection import (
    Projection,
    ProjectionFailed,
    Transaction,
    apply_batch,
    check_projection,
    failed_on,
)
from refold.projections.target import PositionMoved, Step, TargetMismatch

NOT_WRITTEN: Final = Position(-1, -1)
BUILD_CHARS: Final = 8

OWN_TABLES: Final = (
    """CREATE TABLE refold_projection (
        name TEXT NOT NULL, version BIGINT NOT NULL, log TEXT NOT NULL, build TEXT NOT NULL,
        replaced BIGINT NOT NULL)""",
    """CREATE TABLE refold_positions (
        partition BIGINT PRIMARY KEY, next_offset BIGINT NOT NULL, claim BIGINT NOT NULL)""",
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Which log a projection is of.

    Args:
        namespace: Its name, for messages and for the names of schemas.
        log: What tells it from others of that name; empty where nothing does.
        partitions: How many it has.
    """

    namespace: str
    log: str
    partitions: int

    @staticmethod
    def of(log: Log) -> "Identity":
        """That of an open log."""
        return Identity(log.namespace, identity_of(log), log.partitions)


class Store(ABC):
    """A `Target` that keeps a projection's tables; its kinds say how one connects and where the tables are.

    Args:
        projection: What is kept.
        identity: Of which log.
    """

    def __init__(self, projection: Projection, identity: Identity) -> None:
        check_projection(projection)
        self.projection = projection
        self.identity = identity

    @property
    def name(self) -> str:
        """The projection's name."""
        return self.projection.name

    @property
    def group(self) -> str:
        """The group of those that share the partitions for these very tables; known once it is open.

        Whoever fills other tables with the same projection, elsewhere or beside these, needs all events for himself.
        """
        with self._begun() as transaction:
            ((build,),) = transaction.query("SELECT build FROM refold_projection")
        return f"project.{self.name}.{build}"

    @abstractmethod
    def open(self) -> None:
        """See `Target`."""

    @abstractmethod
    def close(self) -> None:
        """See `Target`."""

    @abstractmethod
    def switch(self) -> None:
        """Let readers see these tables in place of those that they see now, which are dropped.

        Called once everything is in that was in the log when this began to be filled. Does nothing where they see
        these already.
        """

    @abstractmethod
    def _transaction(self) -> Generator[Transaction, None, None]:
        """A transaction around the block; undone where that raises."""

    @abstractmethod
    def _locked(
        self, transaction: Transaction, partitions: Sequence[int]
    ) -> Mapping[int, Position]:
        """Positions of partitions that nobody else writes for until the transaction ends."""

    def positions(self) -> Mapping[int, Position]:
        """See `Target`."""
        with self._begun() as transaction:
            return written(
                transaction.query("SELECT partition, next_offset, claim FROM refold_positions")
            )

    def write(self, logged: Sequence[Logged], steps: Mapping[int, Step]) -> None:
        """See `Target`.

        Raises:
            ProjectionFailed: The projection's code raised; nothing was written.
            TargetMismatch: Another version has replaced this one.
        """
        try:
            with self._begun() as transaction:
                self._save(transaction, logged, steps)
                apply_batch(self.projection, transaction, logged)
        except RefoldError:
            raise
        except Exception as error:
            self._blame(logged, steps, error)
            raise

    @contextmanager
    def _begun(self) -> Generator[Transaction, None, None]:
        yield from self._transaction()

    def _save(
        self, transaction: Transaction, logged: Sequence[Logged], steps: Mapping[int, Step]
    ) -> None:
        """The positions first: so whoever comes second learns of it before it does any work."""
        found = self._locked(transaction, sorted(steps))
        self._check_not_replaced(transaction)
        for partition, step in steps.items():
            if found.get(partition) != step.before:
                raise PositionMoved(
                    f"partition {partition} of the projection {self.name!r} stands at {found.get(partition)}, not at "
                    f"{step.before}: another process has written to it meanwhile. Nothing was written; go on from there"
                )
        transaction.execute_many(
            "UPDATE refold_positions SET next_offset = ?, claim = ? WHERE partition = ?",
            [(step.after.offset, step.after.claim, partition) for partition, step in steps.items()],
        )

    def _blame(self, logged: Sequence[Logged], steps: Mapping[int, Step], error: Exception) -> None:
        """Find out on which event it was, by doing them again one by one, and undo that."""
        last: Logged | None = None
        try:
            with self._begun() as transaction:
                self._save(transaction, logged, steps)
                for last in logged:
                    apply_batch(self.projection, transaction, [last])
                    transaction.query("SELECT 1")  # whatever was put off is done by now
                raise _Undo  # noqa: TRY301 - undoes the transaction
        except (_Undo, RefoldError):
            return  # it was no event's fault: the database's own trouble, or a matter of many
        except Exception as again:  # noqa: BLE001 - a projection may raise anything
            if last is not None:
                raise failed_on(self.projection, last, again) from error

    def _check_not_replaced(self, transaction: Transaction) -> None:
        version, replaced = transaction.query("SELECT version, replaced FROM refold_projection")[0]
        if version != self.projection.version:  # other tables have taken the name of ours
            replaced = version
        if replaced:
            raise TargetMismatch(
                f"the tables of the projection {self.name!r}, version {self.projection.version}, have been replaced by "
                f"those of version {replaced}: stop this process, and start one with that code"
            )

    def _fill_in(self, transaction: Transaction) -> None:
        """Make all tables, in a place that has none."""
        identity, projection = self.identity, self.projection
        for statement in (*OWN_TABLES, *projection.tables(transaction.dialect)):
            transaction.execute(statement)
        transaction.execute(
            "INSERT INTO refold_projection VALUES (?, ?, ?, ?, 0)",
            (
                *(projection.name, projection.version),
                *(identity.log or identity.namespace, uuid4().hex[:BUILD_CHARS]),
            ),
        )
        transaction.execute_many(
            "INSERT INTO refold_positions VALUES (?, ?, ?)",
            [(partition, *NOT_WRITTEN) for partition in range(identity.partitions)],
        )

    def _not_made(self, error: Exception) -> ProjectionFailed:
        return ProjectionFailed(
            f"the tables of the projection {self.name!r} (version {self.projection.version}) can't be made: "
            f"{str(error).strip()}. Mend its `tables()` and start it again"
        )

    def _check_is_of(self, place: str, log: str) -> None:
        """Refuse tables that were filled from another log."""
        identity = self.identity
        if log != (identity.log or identity.namespace):
            raise TargetMismatch(
                f"{place} holds the projection {self.name!r} of another log than {identity.namespace!r}: name another "
                "place, or delete it to have it filled anew"
            )

    def _newer(self, place: str, version: int) -> TargetMismatch:
        return TargetMismatch(
            f"{place} holds version {version} of the projection {self.name!r}, and this code is version "
            f"{self.projection.version}: upgrade the code, or delete it to go back to the older version"
        )


class _Undo(Exception):
    """Ends a transaction that was only a trial."""


def written(rows: Sequence[tuple[int, int, int]]) -> dict[int, Position]:
    """The positions in rows of `refold_positions`, of partitions that were ever written."""
    return {
        partition: Position(offset, claim)
        for partition, offset, claim in rows
        if (offset, claim) != NOT_WRITTEN
    }

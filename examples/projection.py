"""A projection: what customers have paid, as a table that follows from the log, for yesterday's orders as well.

python examples/projection.py
"""

import json
import sqlite3
import tempfile
import time
from collections.abc import Sequence

from refold import Engine, Logged, Projected, Transaction, step, workflow
from refold.log.events import StepCompleted


@step
def charge(customer: str, cents: int) -> dict[str, str | int]:
    """Take the money."""
    return {"customer": customer, "cents": cents}


@workflow
def order(customer: str, cents: int) -> None:
    """Sell something."""
    charge(customer, cents)


class Revenue:
    """A row for each customer who has paid."""

    name = "revenue"
    version = 1

    def tables(self, dialect: str) -> Sequence[str]:
        """One table, for SQLite and PostgreSQL alike."""
        return ["CREATE TABLE paid (customer TEXT PRIMARY KEY, cents BIGINT NOT NULL)"]

    def apply(self, transaction: Transaction, logged: Logged) -> None:
        """Add what a step has charged."""
        event = logged.event
        if isinstance(event, StepCompleted) and event.name == "charge":
            paid = json.loads(event.payload)
            transaction.execute(
                "INSERT INTO paid VALUES (?, ?)"
                " ON CONFLICT (customer) DO UPDATE SET cents = paid.cents + excluded.cents",
                (paid["customer"], paid["cents"]),
            )


def paid(path: str) -> dict[str, int]:
    """What is in the table now."""
    with sqlite3.connect(f"file:{path}.views/revenue.db?mode=ro", uri=True) as db:
        rows = db.execute("SELECT customer, cents FROM paid ORDER BY customer").fetchall()
    db.close()
    return dict(rows)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/orders.db"
        url = f"sqlite:///{path}"

        with Engine(url, workflows=[order]) as engine:  # nobody has thought of revenue yet
            for number, (customer, cents) in enumerate([("Ada", 300), ("Bob", 500), ("Ada", 40)]):
                engine.start(order, customer, cents, id=f"order-{number}").result()
        print(Projected(Revenue()).catch_up(url) > 0, paid(path))

        with Engine(url, workflows=[order], projections=[Projected(Revenue())]) as engine:
            engine.start(order, "Cleo", 900, id="order-3").result()
            deadline = time.monotonic() + 30
            while "Cleo" not in paid(path) and time.monotonic() < deadline:
                time.sleep(0.01)  # it follows, some milliseconds behind
        print(paid(path))

"""What is written of an owner's open runs, and which steps of theirs nobody waits for any more."""

from typing import TypeVar

from refold.engine.active import Active
from refold.engine.ledger import Header, Ledger
from refold.engine.pools import Pools
from refold.log.events import Event

E = TypeVar("E", bound=Event)


class Books:
    """Events of open runs, in an owner's ledger.

    Args:
        ledger: Where events are recorded.
        pools: Who carries out the steps that are for pools.
    """

    def __init__(self, ledger: Ledger, pools: Pools) -> None:
        self._ledger = ledger
        self._pools = pools
        self._cancels: list[tuple[str, int]] = []

    def header(self, active: Active, now: int) -> Header:
        """Common fields of the next event of a stream; time never goes back within a stream."""
        state = active.state
        return self._ledger.header(active.workflow_id, state.position, max(now, state.updated_at))

    def record(self, active: Active, event: E) -> E:
        """Record an event; returns it as it is recorded, where a large payload is a reference."""
        recorded = self._ledger.lifted(event)
        active.last_sequence = self._ledger.record(recorded)
        return recorded

    def cancel(self, workflow_id: str, step: int) -> None:
        """Nobody waits for a step under way any more."""
        self._cancels.append((workflow_id, step))
        self._pools.cancel(workflow_id, step)

    def cancel_all(self, active: Active) -> None:
        """Nobody waits for any of a run's steps under way."""
        for step in active.in_flight:
            self.cancel(active.workflow_id, step)

    def take_cancels(self) -> list[tuple[str, int]]:
        """Steps under way (workflow id, step) that nobody waits for any more."""
        cancels, self._cancels = self._cancels, []
        return cancels

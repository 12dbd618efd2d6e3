"""A log that notes when its worker was first given a partition: recovery before that is the group's business."""

from collections.abc import Sequence
from time import perf_counter

from refold.log.forwarding import ForwardingLog
from refold.log.protocol import Listener, Log, Membership, Record


class AssignedLog(ForwardingLog):
    """Passes everything on to another log.

    Attributes:
        assigned_at: When a partition was first assigned, by `perf_counter`; None before.
    """

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self.assigned_at: float | None = None

    async def join(self, worker: str, listener: Listener, pool: str | None = None) -> Membership:
        """See `Log`."""
        return await super().join(worker, _Noting(self, listener), pool)


class _Noting:
    """A worker's listener, and a look at the clock."""

    def __init__(self, log: AssignedLog, listener: Listener) -> None:
        self._log = log
        self._listener = listener

    def assigned(self, partition: int) -> None:
        if self._log.assigned_at is None:
            self._log.assigned_at = perf_counter()
        self._listener.assigned(partition)

    def revoking(self, partition: int) -> None:
        self._listener.revoking(partition)

    def revoked(self, partition: int, lost: bool) -> None:
        self._listener.revoked(partition, lost)

    def deliver(self, partition: int, records: Sequence[Record]) -> None:
        self._listener.deliver(partition, records)

"""Steps of a worker that go on after their partition was handed over (`engine/handover.py`)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from refold.engine.handover import Reporter
from refold.engine.steps import Steps
from refold.log.codec import encode_command
from refold.log.commands import ReportStep
from refold.log.protocol import Channel

if TYPE_CHECKING:  # it makes the sessions that make these
    from refold.engine.worker import Worker

MICROSECONDS: Final = 1_000_000


class Leftover:
    """Steps that go on after their partition was handed over.

    Args:
        worker: Whose they are.
        partition: The partition.
        steps: They, and nothing else.
        due_at: How long the next owner waits for them, microseconds since 1970-01-01 UTC.
    """

    def __init__(self, worker: "Worker", partition: int, steps: Steps, due_at: int) -> None:
        self.reporter = Reporter(self._append, worker.clock, worker.blobs)
        self._worker = worker
        self._partition = partition
        self._steps = steps
        self._due_at = due_at

    async def finish(self) -> None:
        """Wait for the steps, and report each when it ends; those that are late are cancelled, and run again."""
        while not await self._steps.wait_less(max(0.0, self._left_s())):
            await self.reporter.send(until=lambda: self._left_s() <= 0)
            if self._left_s() <= 0:
                break
        await self.reporter.send(until=lambda: self._left_s() <= 0)
        self._steps.cancel_all()

    def _left_s(self) -> float:
        return (self._due_at - self._worker.clock()) / MICROSECONDS

    async def _append(self, reports: Sequence[ReportStep]) -> None:
        entries = [encode_command(report) for report in reports]
        await self._worker.log.append(Channel.COMMANDS, self._partition, entries)

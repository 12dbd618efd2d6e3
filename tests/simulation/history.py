"""What there is to judge of a simulated world once it has come to rest."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from tests.simulation.journal import Audit, Journal
from tests.simulation.shapes import Expectation

from refold.log.codec import decode_command
from refold.log.commands import Command, SetQueue
from refold.log.events import Unreadable
from refold.log.memory import MemoryStore
from refold.log.protocol import Channel, Record

Problems = Iterator[str]
"""A sentence for every violation."""


@dataclass
class History:
    """What there is to judge.

    Args:
        store: The log.
        journal: What was done.
        expected: How each run must have ended, by workflow id. A run that is not named here may end in any way.
    """

    store: MemoryStore
    journal: Journal
    expected: Mapping[str, Expectation]

    @cached_property
    def audit(self) -> Audit:
        """The log as an auditor reads it who begins anew."""
        audit = Audit(self.store)
        audit.advance()
        return audit

    @cached_property
    def commands(self) -> list[list[tuple[Record, Command | Unreadable]]]:
        """All commands of each partition; each one's offset is its index."""
        return [
            [
                (record, decode_command(record))
                for record in self.store.read(Channel.COMMANDS, partition, 0)
            ]
            for partition in range(self.store.partitions)
        ]

    @cached_property
    def queues(self) -> frozenset[str]:
        """Names of the queues that somebody has set."""
        return frozenset(
            command.workflow_id
            for commands in self.commands
            for _, command in commands
            if isinstance(command, SetQueue)
        )

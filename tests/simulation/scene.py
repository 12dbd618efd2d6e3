"""A scene: runs that have to do with each other on several partitions, and what clients do to them meanwhile."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.simulation.attempts import SECOND_US
from tests.simulation.clients import Clients
from tests.simulation.shapes import Expectation

from refold.engine.definitions import Workflow
from refold.log.commands import Command
from refold.log.partitioner import partition_of

PARTITIONS = 3


class Stage(Protocol):
    """As much of a world as a scene needs."""

    version: int
    clients: Clients

    def plan(self, after_us: int, act: Callable[[], None]) -> None:
        """Have something happen, that long after the world's start."""

    def submit(self, command: Command) -> None:
        """A client appends a command."""

    def reopen(self, workflow_id: str, step: int | None) -> None:
        """Somebody reopens a run that has ended."""

    def fork(self, workflow_id: str, fork_id: str, step: int | None) -> None:
        """Somebody forks a run."""


@dataclass
class Play:
    """A scene as it is performed once.

    Args:
        stage: The world.
        prefix: Begins the ids of all its runs.
        begin_us: When it begins.
        pace: How slow the clients are: times are multiplied by it.
    """

    stage: Stage
    prefix: str = ""
    begin_us: int = 0
    pace: float = 1.0
    expected: dict[str, Expectation] = field(default_factory=dict[str, Expectation])

    @property
    def clients(self) -> Clients:
        """Makes commands."""
        return self.stage.clients

    def id(self, name: str, partition: int) -> str:
        """An id on that partition."""
        return next(
            found
            for found in (f"{self.prefix}{name}-{number}" for number in range(1000))
            if partition_of(found, PARTITIONS) == partition % PARTITIONS
        )

    def start(
        self,
        workflow_id: str,
        workflow: Workflow[..., Any],
        *args: object,
        expected: Expectation,
        after_s: float = 0.0,
        deadline_s: float | None = None,
        message: tuple[str, str] | None = None,
        queue: str | None = None,
    ) -> None:
        """Have a client start a run, which must end as expected."""
        self.expected[workflow_id] = expected
        clients = self.clients
        due_at = None if deadline_s is None else START_US + self._after_us(deadline_s)
        start = clients.start(
            workflow_id, workflow, *args, due_at=due_at, message=message, queue=queue
        )
        self.at(after_s, start)

    def at(self, after_s: float, command: Command) -> None:
        """Have a client give a command then."""
        self.do(after_s, lambda: self.stage.submit(command))

    def do(self, after_s: float, act: Callable[[], None]) -> None:
        """Have something happen then."""
        self.stage.plan(self._after_us(after_s), act)

    def _after_us(self, after_s: float) -> int:
        return self.begin_us + round(after_s * self.pace * SECOND_US)


START_US = 1_767_225_600 * SECOND_US  # 2026-01-01T00:00:00Z


@dataclass(frozen=True)
class Scene:
    """A scene.

    Args:
        name: Its name.
        workflows: The code that it needs.
        perform: Has it performed.
        large: So many appends that not each fault is tried at each.
    """

    name: str
    workflows: tuple[Workflow[..., Any], ...]
    perform: Callable[[Play], None]
    large: bool = False

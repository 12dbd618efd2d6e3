"""What an owner keeps of an open run beside its fold, its limits, and how it gets to the user's code."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from refold.engine.checkpoints import CheckpointSettings
from refold.engine.operations import Run, RunFacts
from refold.engine.pools import DEFAULT_LEASE_S
from refold.engine.state import Status, WorkflowState

Detail = Mapping[str, str | None]
"""Who asks and why."""


@dataclass(frozen=True, slots=True)
class Items:
    """Items for a stream: `payload` is the JSON array of `count` of them."""

    stream: str
    payload: str
    count: int


class Runs(Protocol):
    """Makes runs: the owner's only link to the user's code."""

    def resolve(self, workflow: str, version: int | None) -> int:
        """The version that a start gets: the one it names, or the newest.

        Raises:
            UnknownWorkflow: There is none such here.
        """
        ...

    def code_version(self, workflow: str, version: int) -> str | None:
        """The hash of the code, for the run's start event; None where nothing is known."""
        ...

    def queue_of(self, workflow: str, version: int) -> str | None:
        """The queue in which its runs wait where a start names none; None for none."""
        ...

    def canonical(self, workflow: str, version: int, payload: str) -> str:
        """The one text for an input, checked: defaults filled in, so that the same input compares equal.

        Raises:
            UnknownWorkflow: No such workflow is registered here.
            PayloadError: It does not fit the workflow's parameters.
        """
        ...

    def create(self, facts: RunFacts, payload: str) -> Run:
        """A run, not yet begun.

        Raises:
            UnknownWorkflow: No such workflow is registered here.
            PayloadError: The input does not fit the workflow's parameters.
        """
        ...


@dataclass(frozen=True, slots=True)
class OwnerSettings:
    """Limits of an owner.

    Args:
        worker: Name of the worker, recorded in every event.
        max_payload_bytes: Largest JSON of a workflow's result.
        max_record_bytes: Largest record that the log takes.
        max_kept_result_bytes: Memory for results of ended runs; older ones are looked up in the log.
        suspend_after_s: A run that waits for nothing but timers, the nearest of them at least this far away, is
            dropped from memory and replayed when one fires. A minute makes the replay small beside the wait.
        max_idle_runs: Runs kept in memory that wait for messages, children or answers; the longest idle goes first.
        warn_at_history: Length of a run's history at which it is warned of: `continue_as_new` in time.
        park_at_history: Length at which it is parked; each `resume` gives it as much again.
        checkpoints: When checkpoints are written and what they forget.
        pool_lease_s: How long a pool's worker may go on with a step without a word.
    """

    worker: str
    max_payload_bytes: int = 900_000
    max_record_bytes: int = 1_000_000
    max_kept_result_bytes: int = 32_000_000
    suspend_after_s: float = 60.0
    max_idle_runs: int = 1_000
    warn_at_history: int = 50_000
    park_at_history: int = 200_000
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
    pool_lease_s: float = DEFAULT_LEASE_S


@dataclass(slots=True)
class Active:
    """An open run that this owner works on: its fold, its code (None while suspended or parked), its effects."""

    workflow_id: str
    state: WorkflowState
    run: Run | None = None
    last_sequence: int = 0
    in_flight: dict[int, int] = field(default_factory=dict[int, int])  # step -> attempt
    armed: dict[int, int] = field(default_factory=dict[int, int])  # timer or retry -> due time
    failed: bool = False  # its code could not be gone on with, for no reason that is the code's own
    look_at: int = 0  # length of the history at which it is to be looked at

    def expects(self, step: int, due_at: int) -> bool:
        """Whether an alarm that rings is still wanted. A suspended run's timers stand in its fold alone."""
        if self.run is not None or self.state.status is not Status.RUNNING:
            return self.armed.get(step) == due_at
        timer = self.state.timers.get(step)
        return timer is not None and timer.due_at == due_at

    @property
    def deadline(self) -> int | None:
        """When it is cancelled, microseconds since 1970-01-01 UTC; None for never."""
        return None if self.state.started is None else self.state.started.due_at

    @property
    def next_step(self) -> int | None:
        """The number that the next operation would get; None where the code is not in memory."""
        return None if self.run is None else self.run.next_step


def next_look(length: int, settings: OwnerSettings) -> int:
    """The next length at which a history is to be looked at."""
    every = (settings.warn_at_history, settings.park_at_history)
    return min((length // step + 1) * step for step in every)


def facts_of(workflow_id: str, state: WorkflowState) -> RunFacts:
    """What a run knows of itself, from its fold."""
    started = state.started
    assert started is not None, "a stream without a start is never run"
    return RunFacts(
        workflow_id,
        started.workflow,
        started.version,
        started.recorded_at,
        started.attributes or {},
        started.due_at,
        started.parent_id,
        state.numbering,
        frozenset(state.exchange.patches),
    )

"""The proof: every execution that began, by the journal's account, held against every outcome that the log recorded.

The journal is written by the steps themselves, outside refold, before they do anything else. So a step that ran
twice is in it twice, whatever the log says.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from atlas.journal import Execution
from refold.log.events import Event, StepAttemptFailed, StepCompleted, WorkflowCompleted
from watch import Life

Outcome: TypeAlias = StepCompleted | StepAttemptFailed
Attempt: TypeAlias = tuple[int, int]  # step number, attempt


@dataclass(frozen=True, slots=True)
class Check:
    """Something that must hold, in a sentence; `problems` are what speaks against it."""

    claim: str
    problems: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class Account:
    """How often steps of one kind ran.

    Args:
        name: The kind.
        steps: How many there are.
        ran: Executions in each life, by its number.
        replayed: Steps that each life found recorded, by its number.
        retried: Executions whose recorded outcome was a failed attempt.
        cut: Executions that a kill ended before their outcome was recorded.
        repeated: Executions that began although the step's completion was recorded. None may.
    """

    name: str
    steps: int
    ran: Counter[int]
    replayed: Counter[int]
    retried: int
    cut: int
    repeated: int


class Audit:
    """The journal against the log.

    Args:
        executions: Every execution that began.
        events: The workflow's events, in log order.
        lives: The processes that ran it.
    """

    def __init__(
        self, executions: Sequence[Execution], events: Sequence[Event], lives: Sequence[Life]
    ) -> None:
        self._executions = executions
        self._events = events
        self._lives = {life.number: life for life in lives}
        self._life_of_pid = {life.pid: life.number for life in lives}
        life_of_worker = {life.worker: life.number for life in lives}
        self._outcomes: dict[Attempt, Outcome] = {}
        self._recorded_in: dict[Attempt, int] = {}
        for event in events:
            if isinstance(event, StepCompleted | StepAttemptFailed):
                self._outcomes[event.step, event.attempt] = event
                self._recorded_in[event.step, event.attempt] = life_of_worker[event.worker]
        self._completions = [event for event in events if isinstance(event, StepCompleted)]
        self._completed = {event.step: event for event in self._completions}

    def checks(self, steps_expected: int) -> list[Check]:
        """All that must hold, whether it does or not."""
        return [
            self._each_step_completed_once(steps_expected),
            self._none_began_after_its_record(),
            self._each_outcome_has_its_execution(),
            self._the_rest_were_cut_short(),
            self._nothing_is_missing(),
        ]

    def accounts(self, kinds: Sequence[str]) -> list[Account]:
        """The executions by kind of step, in the order of `kinds`."""
        return [self._account(kind) for kind in kinds]

    def _each_step_completed_once(self, expected: int) -> Check:
        times = Counter(event.step for event in self._completions)
        problems = [
            f"step {step} was recorded {count} times" for step, count in times.items() if count > 1
        ]
        if len(times) != expected:
            problems.append(f"{len(times)} steps are recorded, not {expected}")
        if not isinstance(self._events[-1], WorkflowCompleted):
            problems.append(f"the last event is {self._events[-1].kind}")
        return Check(
            f"each of the {expected:,} steps was recorded as completed once", tuple(problems)
        )

    def _none_began_after_its_record(self) -> Check:
        problems = [
            f"step {run.step} '{run.name}' began again in process {run.pid}"
            for run in self._executions
            if self._is_repeated(run)
        ]
        claim = (
            f"none of the {len(self._executions):,} executions began after its step was recorded"
        )
        return Check(claim, tuple(problems))

    def _each_outcome_has_its_execution(self) -> Check:
        ran = Counter(
            (run.step, run.attempt, self._life_of_pid.get(run.pid)) for run in self._executions
        )
        problems: list[str] = []
        for (step, attempt), life in self._recorded_in.items():
            if (count := ran[step, attempt, life]) != 1:
                problems.append(
                    f"step {step}, attempt {attempt}: {count} executions in life {life}"
                )
        claim = f"each of the {len(self._outcomes):,} recorded outcomes comes from one execution, in the same life"
        return Check(claim, tuple(problems))

    def _the_rest_were_cut_short(self) -> Check:
        """What began and was not recorded was under way at a kill, and the same attempt began again later."""
        again = {
            (run.step, run.attempt, self._life_of_pid.get(run.pid)) for run in self._executions
        }
        cut = [run for run in self._executions if self._is_cut(run)]
        problems: list[str] = []
        for run in cut:
            number = self._life_of_pid.get(run.pid)
            if number is None or self._lives[number].ending != "killed":
                problems.append(
                    f"step {run.step} was lost in process {run.pid}, which was not killed"
                )
            elif not any(
                (run.step, run.attempt, later) in again for later in self._lives if later > number
            ):
                problems.append(f"step {run.step}, attempt {run.attempt} did not run again")
        claim = f"the other {len(cut)} were under way when a process was killed, and ran again"
        return Check(claim, tuple(problems))

    def _nothing_is_missing(self) -> Check:
        positions = [event.position for event in self._events]
        problems = () if positions == list(range(len(positions))) else ("the positions have a gap",)
        return Check(
            f"the {len(positions):,} events of the stream have no gap and no repeat", problems
        )

    def _is_repeated(self, run: Execution) -> bool:
        done = self._completed.get(run.step)
        if done is None:
            return False
        recorded_in = self._recorded_in[done.step, done.attempt]
        later_life = self._life_of_pid.get(run.pid, recorded_in) > recorded_in
        return later_life or run.attempt > done.attempt or run.began_at > done.recorded_at

    def _is_cut(self, run: Execution) -> bool:
        return self._recorded_in.get((run.step, run.attempt)) != self._life_of_pid.get(run.pid)

    def _account(self, kind: str) -> Account:
        runs = [run for run in self._executions if run.name == kind]
        failed = [
            e
            for e in self._outcomes.values()
            if isinstance(e, StepAttemptFailed) and e.name == kind
        ]
        found = {
            number: life.replayed[kind]
            for number, life in self._lives.items()
            if life.replayed is not None
        }
        return Account(
            name=kind,
            steps=sum(1 for event in self._completed.values() if event.name == kind),
            ran=Counter(self._life_of_pid.get(run.pid, 0) for run in runs),
            replayed=Counter(found),
            retried=len(failed),
            cut=sum(self._is_cut(run) for run in runs),
            repeated=sum(self._is_repeated(run) for run in runs),
        )

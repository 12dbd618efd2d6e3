"""Runs of real user code that note what their code knew whenever it asked for something."""

from collections.abc import Mapping, Sequence
from typing import Any

from refold.engine.definitions import Workflow
from refold.engine.operations import Ending, Outcome, Request, Run
from refold.engine.runs import CodeRuns
from refold.engine.thread_slots import ThreadSlots
from refold.log.events import WorkflowStarted


class WatchedRun:
    """A run that notes what its code knew whenever it asked for something."""

    def __init__(self, run: Run, asked: dict[int, tuple[Outcome, ...]]) -> None:
        self._run = run
        self._told: list[Outcome] = []
        self._asked = asked

    @property
    def ending(self) -> Ending | None:
        """How the run ended."""
        return self._run.ending

    @property
    def pending(self) -> dict[int, Request]:
        """Requests without outcome."""
        return self._run.pending

    def start(self) -> None:
        """Run to the first quiescence."""
        self._run.start()

    def deliver(self, outcome: Outcome) -> None:
        """Tell the next outcome."""
        self._told.append(outcome)
        self._run.deliver(outcome)

    def deliver_all(self, outcomes: Sequence[Outcome]) -> None:
        """Tell outcomes one after the other."""
        self._told.extend(outcomes)
        self._run.deliver_all(outcomes)

    def take(self) -> list[Request]:
        """Requests that came up since the last `take`."""
        taken = self._run.take()
        if taken:
            knew = tuple(self._told)
            for request in taken:
                self._asked[request.step] = knew
        return taken

    def take_cancelled(self) -> list[int]:
        """Requests that the code has stopped waiting for."""
        return self._run.take_cancelled()

    def close(self) -> None:
        """Drop the run."""
        self._run.close()


class WatchedRuns:
    """Makes runs of real user code, and knows for each step what its code had been told when it asked for it."""

    def __init__(self, workflows: Mapping[str, Workflow[..., Any]], slots: ThreadSlots) -> None:
        self._runs = CodeRuns(workflows, "raise", slots)
        self._asked: dict[str, dict[int, tuple[Outcome, ...]]] = {}

    def code_version(self, workflow: str) -> str | None:
        """What a start event says of the code."""
        return self._runs.code_version(workflow)

    def canonical(self, workflow: str, payload: str) -> str:
        """The one text for an input."""
        return self._runs.canonical(workflow, payload)

    def create(self, started: WorkflowStarted) -> Run:
        """A run, not yet begun."""
        run = self._runs.create(started)
        asked = self._asked.setdefault(started.workflow_id or "", {})
        return WatchedRun(run, asked)

    def knew(self, workflow_id: str, step: int) -> Sequence[Outcome]:
        """What the code had been told when it asked for the step."""
        return self._asked[workflow_id][step]

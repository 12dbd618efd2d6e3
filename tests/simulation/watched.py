"""Runs of real user code that note what their code knew whenever it asked for something."""

from collections.abc import Sequence

from refold.engine.blobs import IN_RECORDS, Blobs
from refold.engine.definitions import Catalogue
from refold.engine.operations import Ending, Outcome, Request, Run, RunFacts
from refold.engine.runs import CodeRuns
from refold.engine.thread_slots import ThreadSlots


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

    @property
    def waits_for_input(self) -> bool:
        """Whether the code waits for something from outside."""
        return self._run.waits_for_input

    @property
    def next_step(self) -> int:
        """The number that the next operation gets."""
        return self._run.next_step

    def start(self) -> None:
        """Run to the first quiescence."""
        self._run.start()

    def replay(self, history: Sequence[Outcome]) -> None:
        """Run through a history."""
        self._told.extend(history)
        self._run.replay(history)

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
                self._asked.setdefault(request.step, knew)  # a replay asks again, and knows more
        return taken

    def take_cancelled(self) -> list[int]:
        """Requests that the code has stopped waiting for."""
        return self._run.take_cancelled()

    def emitted(self, step: int) -> None:
        """Emission `step` is recorded."""
        self._run.emitted(step)

    def take_patches(self) -> list[str]:
        """Changes whose new path the code has taken."""
        return self._run.take_patches()

    def refusal(self, name: str, payload: str) -> str | None:
        """Why the code would refuse a question."""
        return self._run.refusal(name, payload)

    def close(self) -> None:
        """Drop the run."""
        self._run.close()


class WatchedRuns:
    """Makes runs of real user code, and knows for each step what its code had been told when it asked for it."""

    def __init__(self, workflows: Catalogue, slots: ThreadSlots, blobs: Blobs = IN_RECORDS) -> None:
        self._runs = CodeRuns(workflows, "raise", slots, blobs)
        self._asked: dict[str, dict[int, tuple[Outcome, ...]]] = {}
        self.resolve = self._runs.resolve
        self.code_version = self._runs.code_version
        self.canonical = self._runs.canonical
        self.queue_of = self._runs.queue_of

    def create(self, facts: RunFacts, payload: str) -> Run:
        """A run, not yet begun."""
        run = self._runs.create(facts, payload)
        return WatchedRun(run, self._asked.setdefault(facts.workflow_id, {}))

    def knew(self, workflow_id: str, step: int) -> Sequence[Outcome]:
        """What the code had been told when it asked for the step."""
        return self._asked[workflow_id][step]

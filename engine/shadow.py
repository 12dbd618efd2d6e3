"""New code in the shadow of the code that works: told what happens, as it happens, and doing nothing.

A shadow folds a partition's events as every reader does, and keeps runs of the code that is here for the workflows that
are under way. Each is told what its history grows by, and looked at where it parts from what the log says. Rules:

1. What another code has written is history, however new: `patched` answers by what is recorded. Where a change is
   recorded that a kept run could not know of, the run is made anew.
2. At most `max_runs` runs are kept, those told something last; any other is replayed when it is told something.
3. A difference is told once for each run, and nothing of that run any more until it has ended or begun anew.
4. A run whose code has ended, while the log has not said so yet, may only be ahead by a moment: it is no difference
   until it is told more, or has been asked for (`early`).
"""

from collections import OrderedDict
from typing import Final, NamedTuple

from refold.engine.active import facts_of
from refold.engine.async_run import AsyncRun
from refold.engine.base_run import BaseRun
from refold.engine.blobs import IN_RECORDS, Blobs
from refold.engine.definitions import Catalogue
from refold.engine.fold import evolve
from refold.engine.operations import Blocked, Continued, Diverged, EmitRequest
from refold.engine.rehearsal import (
    Finding,
    History,
    Verdict,
    described,
    diverges,
    judged,
    unexpected,
    unreadable,
    verdict_on,
)
from refold.engine.requests import disagreement
from refold.engine.runs import CodeRuns
from refold.engine.state import Ended, PartitionState, Status, WorkflowState
from refold.engine.sync_run import SyncRun
from refold.engine.thread_slots import ThreadSlots
from refold.log.errors import (
    PayloadError,
    PayloadsUnavailable,
    PayloadUnreadable,
    UnknownWorkflow,
)
from refold.log.events import (
    Event,
    HistoryCopied,
    PatchApplied,
    Unreadable,
    WorkflowContinued,
    WorkflowReopened,
    WorkflowResumed,
    WorkflowRewound,
)

DEFAULT_MAX_RUNS: Final = 2_000
"""Runs kept: some 20 kB each, more with what the code itself holds."""

_ANEW: Final = (
    HistoryCopied,
    PatchApplied,
    WorkflowContinued,
    WorkflowReopened,
    WorkflowResumed,
    WorkflowRewound,
)
"""Events after which a run that is kept is not the one that the log tells of."""


class _Following(BaseRun):
    """A run to which all that it is told is history."""

    def follow(self) -> None:
        """From here on as well."""
        self._replaying = True


class FollowingAsync(_Following, AsyncRun):
    """An `async def` run to which all is history."""


class FollowingSync(_Following, SyncRun):
    """A `def` run to which all is."""


class FollowingRuns(CodeRuns):
    """Makes such runs."""

    async_run = FollowingAsync
    sync_run = FollowingSync


class _Key(NamedTuple):
    partition: int
    workflow_id: str


class _Kept:
    """A run, and how many entries of its history it was told."""

    def __init__(self, run: FollowingAsync | FollowingSync, told: int) -> None:
        self.run = run
        self.told = told


class Shadow:
    """The code that is here, in the shadow of what a log tells.

    Args:
        workflows: The code.
        max_runs: How many runs are kept.
        blobs: Where payloads are read that are not in the records.
    """

    def __init__(
        self,
        workflows: Catalogue,
        max_runs: int = DEFAULT_MAX_RUNS,
        blobs: Blobs = IN_RECORDS,
    ) -> None:
        self.events = 0
        self._runs = FollowingRuns(workflows, "raise", ThreadSlots(), blobs)
        self._blobs = blobs
        self._max_runs = max_runs
        self._states: dict[int, PartitionState] = {}
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._told: dict[_Key, Verdict] = {}  # rule 3
        self._over: dict[_Key, None] = {}  # rule 4

    @property
    def kept(self) -> int:
        """How many runs are kept."""
        return len(self._kept)

    def begin(self, partition: int, state: PartitionState) -> None:
        """Follow a partition from this state on."""
        self._states[partition] = state

    def take(self, partition: int, offset: int, event: Event | Unreadable) -> list[Finding]:
        """Take a partition's next record; returns what differs by it.

        Raises:
            LogCorrupt: The partition can't be folded.
            PayloadsUnavailable: The store of blobs or keys can't be read now.
        """
        state = self._states[partition]
        if isinstance(event, Unreadable) or event.workflow_id is None or event.claim != state.claim:
            evolve(state, event, offset)
            return []
        self.events += 1
        key = _Key(partition, event.workflow_id)
        before = state.open.get(key.workflow_id)
        found: list[Finding] = []
        if before is not None and isinstance(event, Ended):
            found = self._ends(key, History(key.workflow_id, before, event))
        elif before is not None and isinstance(event, WorkflowContinued):
            found = self._continues(key, History(key.workflow_id, before))
        evolve(state, event, offset)
        workflow = state.open.get(key.workflow_id)
        if workflow is None or isinstance(event, _ANEW):
            self._drop(key)
        if workflow is None or isinstance(event, WorkflowContinued | WorkflowRewound):
            self._told.pop(key, None)
        if workflow is not None and workflow.status is not Status.COPYING:
            found += self._goes_on(key, workflow, getattr(event, "step", None))
        return found

    def early(self) -> list[Finding]:
        """Runs whose code has ended while the log says that they go on: to be asked for when the log has been quiet."""
        over, self._over = self._over, {}
        found: list[Finding] = []
        for key in over:
            state = self._states[key.partition].open.get(key.workflow_id)
            kept = self._kept.get(key)
            if state is None or kept is None or kept.run.ending is None:
                continue
            history = History(key.workflow_id, state)
            finding = verdict_on(history, kept.run, self._blobs)
            if finding.verdict is Verdict.ENDS:
                message = f"it goes on, and with this code it {described(kept.run.ending)}"
                finding = judged(history, Verdict.ENDS_OTHERWISE, message)
            found += self._report(key, finding)
        return found

    def close(self) -> None:
        """Drop all runs."""
        for key in list(self._kept):
            self._drop(key)

    # ------------------------------------------------------------------------------------------------------

    def _goes_on(self, key: _Key, workflow: WorkflowState, step: int | None) -> list[Finding]:
        """Tell a run what its history has grown by, and look at it."""
        if key in self._told or workflow.broken is not None or workflow.started is None:
            return []
        history = History(key.workflow_id, workflow)
        kept = self._brought_up(key, history)
        if isinstance(kept, Finding):
            return self._report(key, kept)
        ending = kept.run.ending
        if isinstance(ending, Diverged | Blocked):
            return self._report(key, self._verdict(history, kept))
        self._over.pop(key, None)
        if ending is not None:
            self._over[key] = None
            return []
        request = None if step is None else kept.run.pending.get(step)
        if request is None or isinstance(request, EmitRequest):
            return []
        problem = disagreement(workflow, request)
        if problem is None:
            return []
        return self._report(key, diverges(history, problem))

    def _ends(self, key: _Key, history: History) -> list[Finding]:
        """Compare how a run ends in the log with what its code here has come to."""
        if key in self._told or history.state.broken is not None or history.state.started is None:
            return []
        kept = self._brought_up(key, history)
        finding = kept if isinstance(kept, Finding) else self._verdict(history, kept)
        return [] if finding.verdict is Verdict.ENDS else self._report(key, finding)

    def _continues(self, key: _Key, history: History) -> list[Finding]:
        if key in self._told or history.state.broken is not None or history.state.started is None:
            return []
        kept = self._brought_up(key, history)
        if isinstance(kept, Finding):
            return self._report(key, kept)
        if isinstance(kept.run.ending, Continued):
            return []
        message = f"it continues as new, and with this code it {described(kept.run.ending)}"
        return self._report(key, judged(history, Verdict.ENDS_OTHERWISE, message))

    def _verdict(self, history: History, kept: _Kept) -> Finding:
        try:
            return verdict_on(history, kept.run, self._blobs)
        except PayloadUnreadable as error:
            return unreadable(history, error)

    def _brought_up(self, key: _Key, history: History) -> "_Kept | Finding":
        """The run, told all of its history; or why there can be none."""
        try:
            kept = self._kept.get(key)
            if kept is None:
                made = self._made(history)
                if isinstance(made, Finding):
                    return made
                kept = self._kept[key] = made
                while len(self._kept) > self._max_runs:
                    self._drop(next(iter(self._kept)))
            self._kept.move_to_end(key)
            outcomes = history.state.outcomes
            if kept.told < len(outcomes):
                kept.run.deliver_all(outcomes[kept.told :])
                kept.told = len(outcomes)
        except PayloadsUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - as a worker, which parks the run for any
            return unexpected(history, error)
        kept.run.take()  # what it asks for is looked at in `pending`
        kept.run.take_cancelled()
        kept.run.take_patches()
        return kept

    def _made(self, history: History) -> "_Kept | Finding":
        state = history.state
        assert state.started is not None
        try:
            run = self._runs.create(facts_of(history.workflow_id, state), state.started.payload)
        except UnknownWorkflow as error:
            return judged(history, Verdict.NO_CODE, str(error))
        except PayloadUnreadable as error:
            return unreadable(history, error)
        except PayloadError as error:
            return judged(history, Verdict.INPUT, str(error))
        assert isinstance(run, FollowingAsync | FollowingSync)
        run.replay(state.outcomes)
        run.follow()
        return _Kept(run, len(state.outcomes))

    def _report(self, key: _Key, finding: Finding) -> list[Finding]:
        self._drop(key)
        self._told[key] = finding.verdict
        return [finding]

    def _drop(self, key: _Key) -> None:
        self._over.pop(key, None)
        kept = self._kept.pop(key, None)
        if kept is not None:
            kept.run.close()

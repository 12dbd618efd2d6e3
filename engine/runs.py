"""From a start event to a run of the user's code."""

from collections.abc import Mapping
from typing import Any

from refold.engine.async_run import AsyncRun
from refold.engine.definitions import Workflow
from refold.engine.guard import GuardMode
from refold.engine.operations import Run
from refold.engine.sync_run import SyncRun
from refold.engine.thread_slots import ThreadSlots
from refold.log.errors import DefinitionError, UnknownWorkflow
from refold.log.events import WorkflowStarted


class CodeRuns:
    """Makes runs of registered workflows.

    Args:
        workflows: The registered ones by name; what is added later is found as well.
        guard: What happens when workflow code reaches outside.
        slots: Threads for `def` workflows, shared by all owners of a worker.
    """

    def __init__(
        self, workflows: Mapping[str, Workflow[..., Any]], guard: GuardMode, slots: ThreadSlots
    ) -> None:
        self._workflows = workflows
        self._guard: GuardMode = guard
        self._slots = slots

    def code_version(self, workflow: str) -> str | None:
        """The code's own hash, recorded with each run; None for a name that is not registered or not clear."""
        try:
            return self._workflows[workflow].code_hash
        except (KeyError, DefinitionError):
            return None

    def canonical(self, workflow: str, payload: str) -> str:
        """The one text for an input, checked: defaults filled in, so that the same input compares equal.

        Raises:
            UnknownWorkflow: No workflow of that name is registered here.
            PayloadError: It does not fit the workflow's parameters.
        """
        return self._find(workflow).input_type.canonical(payload)

    def create(self, started: WorkflowStarted) -> Run:
        """A run of the workflow that `started` names, not yet begun.

        Raises:
            UnknownWorkflow: No workflow of that name is registered here.
            PayloadError: The input does not fit the workflow's parameters.
        """
        workflow = self._find(started.workflow)
        args, kwargs = workflow.input_type.decode(started.payload)
        if workflow.is_async:
            return AsyncRun(
                workflow.fn,
                args,
                kwargs,
                workflow_id=started.workflow_id or "",
                started_at_us=started.recorded_at,
                result_type=workflow.result_type,
                guard=self._guard,
            )
        return SyncRun(
            workflow.fn,
            args,
            kwargs,
            workflow_id=started.workflow_id or "",
            started_at_us=started.recorded_at,
            result_type=workflow.result_type,
            guard=self._guard,
            slots=self._slots,
        )

    def _find(self, name: str) -> Workflow[..., Any]:
        try:
            workflow = self._workflows.get(name)
        except DefinitionError as error:  # two workflows have that name
            raise UnknownWorkflow(str(error)) from error
        if workflow is None:
            known = ", ".join(sorted(self._workflows)) or "none"
            raise UnknownWorkflow(
                f"workflow {name!r} is not registered with the worker, which knows: {known}. "
                "Check the name, or start a worker that has it"
            )
        return workflow

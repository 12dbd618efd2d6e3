"""From what is recorded of a run to a run of the user's code."""

from typing import Any

from refold.engine.async_run import AsyncRun
from refold.engine.blobs import IN_RECORDS, Blobs
from refold.engine.definitions import Catalogue, Workflow
from refold.engine.guard import GuardMode
from refold.engine.operations import Run, RunFacts
from refold.engine.schedule_run import decode_start, schedule_workflow, target_problem
from refold.engine.sync_run import SyncRun
from refold.engine.thread_slots import ThreadSlots
from refold.log.errors import DefinitionError, KeyMissing, PayloadUnreadable, UnknownWorkflow
from refold.log.keys import KEY_TAG
from refold.log.schedules import SCHEDULE


class CodeRuns:
    """Makes runs of registered workflows.

    Args:
        workflows: The registered ones by name and version; what is added later is found as well.
        guard: What happens when workflow code reaches outside.
        slots: Threads for `def` workflows, shared by all owners of a worker.
        blobs: Where large payloads are read.
    """

    async_run: type[AsyncRun] = AsyncRun
    sync_run: type[SyncRun] = SyncRun
    """What it makes: a debugger has runs of its own (`engine/debugging.py`)."""

    def __init__(
        self,
        workflows: Catalogue,
        guard: GuardMode,
        slots: ThreadSlots,
        blobs: Blobs = IN_RECORDS,
    ) -> None:
        self._workflows = workflows
        self._schedule = schedule_workflow(workflows)
        self._guard: GuardMode = guard
        self._slots = slots
        self._blobs = blobs

    def resolve(self, workflow: str, version: int | None) -> int:
        """The version that a start gets: the one that it names, or the newest where it names none.

        Raises:
            UnknownWorkflow: It is not registered here; the message names what is.
        """
        return self._find(workflow, version).version

    def code_version(self, workflow: str, version: int) -> str | None:
        """The code's own hash, recorded with each run; None for what has none here."""
        try:
            return self._workflows.find(workflow, version).code_hash
        except (KeyError, DefinitionError):
            return None

    def queue_of(self, workflow: str, version: int) -> str | None:
        """The queue in which its runs wait where a start names none; None for none."""
        return self._find(workflow, version).queue

    def canonical(self, workflow: str, version: int, payload: str) -> str:
        """The one text for an input, checked: defaults filled in, so that the same input compares equal.

        An input that can't be read here stays what it is: nobody is refused, and the run parks.

        Raises:
            UnknownWorkflow: No such workflow is registered here.
            PayloadError: The input does not fit the workflow's parameters.
            BlobsUnavailable: The blob store can't be read now.
        """
        input_type = self._find(workflow, version).input_type
        try:
            text = self._blobs.read(payload, f"input of workflow {workflow!r}")
        except PayloadUnreadable:
            return payload
        text = input_type.canonical(text)
        if workflow == SCHEDULE:
            problem = target_problem(self._workflows, decode_start(text).spec)
            if problem is not None:
                raise UnknownWorkflow(f"{problem}. Nothing was scheduled")
        return text

    def create(self, facts: RunFacts, payload: str) -> Run:
        """A run of the workflow and version that `facts` name, not yet begun.

        Args:
            facts: What the run knows of itself.
            payload: JSON of its input.

        Raises:
            UnknownWorkflow: No such workflow is registered here.
            PayloadError: The input does not fit the workflow's parameters, or it can't be read here.
            PayloadsUnavailable: The store of blobs or keys can't be read now.
        """
        workflow = self._find(facts.workflow, facts.version)
        if KEY_TAG in facts.attributes and self._blobs.privacy is None:
            raise KeyMissing(  # also where its input is readable: what it makes would be recorded in the clear
                f"workflow {facts.workflow_id!r} is encrypted, and this worker has no keys: give them by keys= in the "
                "log's URL or the variable REFOLD_KEYS"
            )
        text = self._blobs.read(payload, f"input of workflow {facts.workflow_id!r}")
        args, kwargs = workflow.input_type.decode(text)
        if workflow.is_async:
            return self.async_run(
                workflow.fn,
                args,
                kwargs,
                facts=facts,
                result_type=workflow.result_type,
                encode_input=workflow.input_type.encode,
                guard=self._guard,
                blobs=self._blobs,
            )
        return self.sync_run(
            workflow.fn,
            args,
            kwargs,
            facts=facts,
            result_type=workflow.result_type,
            encode_input=workflow.input_type.encode,
            guard=self._guard,
            slots=self._slots,
            blobs=self._blobs,
        )

    def _find(self, name: str, version: int | None) -> Workflow[..., Any]:
        if name == SCHEDULE:
            return self._schedule
        try:
            return self._workflows.find(name, version)
        except DefinitionError as error:  # two workflows have that name and version
            raise UnknownWorkflow(str(error)) from error
        except KeyError as error:
            raise UnknownWorkflow(str(error.args[0])) from error

"""How an operator of a simulated world copies histories: the commands of `engine/operator.py`, without its replies."""

from collections.abc import Iterator

from tests.simulation.attempts import NAMESPACE
from tests.simulation.clients import Clients
from tests.simulation.turns import finish

from refold.engine.copied import Copied, parts_of
from refold.engine.copying import continuation_of, fork_of, read_source, step_problem
from refold.log.commands import Command, CopyHistory, ForkWorkflow, ReopenWorkflow
from refold.log.errors import RefoldError
from refold.log.memory import MemoryLog, MemoryStore


class ReadingLog(MemoryLog):
    """A log that is read with no event loop."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(NAMESPACE, store=store)

    def _check(self, partition: int) -> None:
        """Nothing was opened: there is no event loop to be bound to."""


def reopening(
    clients: Clients, store: MemoryStore, workflow_id: str, step: int | None
) -> list[Command]:
    """The commands by which a run that has ended is reopened; none where that can't be done."""
    log = ReadingLog(store)
    try:
        source = finish(read_source(log, workflow_id, step))
        if source.ending is None or (step is not None and step_problem(source, step)):
            return []
        copied = finish(continuation_of(log, source, step))
    except RefoldError:
        return []
    started = source.started
    order = ReopenWorkflow(
        **clients.envelope("reopen", workflow_id),
        position=source.events,
        step=step,
        workflow=started.workflow,
        payload=started.payload,
        started_at=started.recorded_at,
        version=started.version,
        attributes=started.attributes,
        due_at=started.due_at,
        parent_id=started.parent_id,
        parent_step=started.parent_step,
        policy=started.policy,
        queue=started.queue,
    )
    return [order, *_copies(clients, workflow_id, copied)]


def forking(
    clients: Clients, store: MemoryStore, workflow_id: str, fork_id: str, step: int | None
) -> list[Command]:
    """The commands by which a run is forked; none where that can't be done."""
    try:
        source = finish(read_source(ReadingLog(store), workflow_id, step))
        if step is not None and step_problem(source, step):
            return []
        copied = fork_of(source, step, fork_id)
    except RefoldError:
        return []
    order = ForkWorkflow(
        **clients.envelope("fork", fork_id),
        source_id=workflow_id,
        step=step,
        workflow=source.started.workflow,
        payload=source.started.payload,
        version=source.started.version,
        attributes=source.started.attributes,
        queue=source.started.queue,
    )
    return [order, *_copies(clients, fork_id, copied)]


def _copies(clients: Clients, workflow_id: str, copied: Copied) -> Iterator[Command]:
    parts = parts_of(copied)
    for number, payload in enumerate(parts):
        yield CopyHistory(
            **clients.envelope("copy", workflow_id),
            position=number,
            payload=payload,
            name="last" if number == len(parts) - 1 else "more",
        )

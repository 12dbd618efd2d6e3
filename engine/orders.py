"""Which of an operator's orders apply to a run as it stands, and why not."""

from refold.engine.active import Active, Runs
from refold.engine.fold import has_step
from refold.engine.state import Closed, PartitionState, Status
from refold.log.commands import (
    CopyHistory,
    ForkWorkflow,
    PauseWorkflow,
    ReopenWorkflow,
    ResumeWorkflow,
    RewindWorkflow,
    TerminateWorkflow,
)
from refold.log.errors import (
    CommandRefused,
    InvalidInput,
    PayloadError,
    RefoldError,
    UnknownWorkflow,
    WorkflowConflict,
    WorkflowEnded,
    WorkflowNotFound,
)

Control = (
    TerminateWorkflow
    | PauseWorkflow
    | ResumeWorkflow
    | RewindWorkflow
    | ReopenWorkflow
    | ForkWorkflow
    | CopyHistory
)


def why_refused(
    command: Control, active: Active | None, state: PartitionState, runs: Runs
) -> RefoldError | None:
    """Why an order is refused; None where it is carried out.

    Args:
        command: The order.
        active: The open run of its id; None where there is none.
        state: The partition's fold.
        runs: The code, which a copied run needs.
    """
    closed = state.closed.get(command.workflow_id)
    match command:
        case ForkWorkflow():
            return _fork(command, active, closed, runs)
        case ReopenWorkflow():
            return _reopen(command, active, closed, runs)
        case _ if active is None:
            return _not_open(command, closed)
        case TerminateWorkflow():
            return None
        case _ if active.state.broken is not None:
            return CommandRefused(
                f"workflow {command.workflow_id!r} can't go on, its history can't be followed: "
                f"{active.state.broken}. It can be terminated"
            )
        case _:
            return _open(command, active)


def _open(
    command: PauseWorkflow | ResumeWorkflow | RewindWorkflow | CopyHistory, active: Active
) -> RefoldError | None:
    workflow_id, state = command.workflow_id, active.state
    status = state.status
    match command:
        case CopyHistory() if command.position < state.exchange.parts:
            return None  # it has come already
        case PauseWorkflow() if status not in (Status.RUNNING, Status.QUEUED):
            return CommandRefused(
                f"workflow {workflow_id!r} is {status}: only a running or queued one can be paused"
            )
        case ResumeWorkflow() if status not in (Status.PARKED, Status.PAUSED):
            return CommandRefused(
                f"workflow {workflow_id!r} is {status}: only a parked, paused or failed run can be resumed"
            )
        case RewindWorkflow() if status is Status.COPYING:
            return CommandRefused(
                f"workflow {workflow_id!r} is {status}: wait until its history is there"
            )
        case RewindWorkflow() if not has_step(state, command.step):
            return CommandRefused(
                f"workflow {workflow_id!r} has no step {command.step} to be rewound to: its history has "
                f"steps from {state.numbering.base} to {state.next_step - 1}; see `refold show {workflow_id}`"
            )
        case CopyHistory() if (
            status is not Status.COPYING or command.position > state.exchange.parts
        ):
            return CommandRefused(
                f"workflow {workflow_id!r} is {status} and does not take part {command.position} of a history: "
                "fork or resume it anew"
            )
        case _:
            return None


def _not_open(command: Control, closed: Closed | None) -> RefoldError:
    workflow_id = command.workflow_id
    if closed is None:
        return WorkflowNotFound(f"no workflow has the id {workflow_id!r}: check the id")
    return WorkflowEnded(f"workflow {workflow_id!r} has ended ({closed.status}): nothing to do")


def _reopen(
    command: ReopenWorkflow, active: Active | None, closed: Closed | None, runs: Runs
) -> RefoldError | None:
    workflow_id = command.workflow_id
    if active is not None:
        return CommandRefused(
            f"workflow {workflow_id!r} is open ({active.state.status}): it was reopened meanwhile"
        )
    if closed is None:
        return WorkflowNotFound(f"no workflow has the id {workflow_id!r}: check the id")
    if closed.position != command.position:
        return CommandRefused(
            f"workflow {workflow_id!r} has gone on since its history was read: look at it and try again"
        )
    return _code(command, runs)


def _fork(
    command: ForkWorkflow, active: Active | None, closed: Closed | None, runs: Runs
) -> RefoldError | None:
    started = active.state.started if active is not None else None
    if started is not None and active is not None:
        same = (started.source_id, started.step) == (command.source_id, command.step)
        if same and active.state.status is Status.COPYING:
            return None
    if active is not None or closed is not None:
        return WorkflowConflict(
            f"workflow id {command.workflow_id!r} is taken: fork {command.source_id!r} under another id"
        )
    return _code(command, runs)


def _code(command: ForkWorkflow | ReopenWorkflow, runs: Runs) -> RefoldError | None:
    try:
        version = runs.resolve(command.workflow, command.version)
        runs.canonical(command.workflow, version, command.payload)
    except UnknownWorkflow as error:
        return error
    except PayloadError as error:
        return InvalidInput(str(error))
    return None

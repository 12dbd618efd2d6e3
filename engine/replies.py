"""What replies mean to those who asked: refusals and failures as errors to be raised."""

from typing import Final, NoReturn

from refold.engine.failures import Failure, rebuild, type_name
from refold.log.commands import Reply
from refold.log.errors import (
    AskRefused,
    CommandRefused,
    InvalidInput,
    LogTrimmed,
    RefoldError,
    StepError,
    UnknownQueue,
    UnknownWorkflow,
    WorkflowCancelled,
    WorkflowConflict,
    WorkflowEnded,
    WorkflowError,
    WorkflowNotFound,
    WorkflowParked,
    WorkflowTerminated,
)

_REFUSALS: Final[dict[str, type[RefoldError]]] = {
    type_name(error): error
    for error in (
        AskRefused,
        CommandRefused,
        InvalidInput,
        LogTrimmed,
        UnknownQueue,
        UnknownWorkflow,
        WorkflowConflict,
        WorkflowEnded,
        WorkflowNotFound,
    )
}


def is_refused_as_ended(reply: Reply) -> bool:
    """Whether a command was refused because its run has ended."""
    return reply.status == "refused" and reply.error_type == type_name(WorkflowEnded)


def raise_refusal(reply: Reply) -> NoReturn:
    """Raise the error that a refusal names."""
    raise _REFUSALS.get(reply.error_type or "", CommandRefused)(reply.error_message or "refused")


def raise_answer(reply: Reply) -> NoReturn:
    """Raise the error with which the code has answered a question."""
    error = _rebuilt(reply)
    if _is_unknown(error, reply):
        raise AskRefused(
            f"workflow {reply.workflow_id!r} answered with an error whose type can't be rebuilt here: {error}"
        ) from error
    error.add_note(f"workflow {reply.workflow_id!r} answered a question with this error")
    raise error


def raise_failure(reply: Reply) -> NoReturn:
    """Raise what a run that has not completed has to say."""
    workflow_id, message = reply.workflow_id, reply.error_message
    match reply.status:
        case "parked":
            raise WorkflowParked(message or f"workflow {workflow_id!r} is parked")
        case "cancelled":
            raise WorkflowCancelled(message or f"workflow {workflow_id!r} was cancelled")
        case "terminated":
            raise WorkflowTerminated(message or f"workflow {workflow_id!r} was terminated")
        case _:
            pass
    error = _rebuilt(reply)
    if _is_unknown(error, reply):
        raise WorkflowError(
            f"workflow {workflow_id!r} failed with an error whose type can't be rebuilt here: {error}"
        ) from error
    error.add_note(f"workflow {workflow_id!r} failed; see `refold show {workflow_id}`")
    raise error


def _rebuilt(reply: Reply) -> Exception:
    return rebuild(
        Failure(reply.error_type or "", reply.error_message or "", reply.error_stack, reply.payload)
    )


def _is_unknown(error: Exception, reply: Reply) -> bool:
    return type(error) is StepError and reply.error_type != type_name(StepError)

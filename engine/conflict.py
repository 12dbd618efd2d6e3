"""Why an id can't be used for a start: the run that has it, and both inputs where they are what differs.

Only inputs that stand in memory as plain JSON are quoted. One in the blob store is not fetched for a message, and one
that is encrypted, or of a run that is, stays so.
"""

from typing import Final

from refold.log.commands import StartWorkflow
from refold.log.envelope import ELSEWHERE
from refold.log.errors import WorkflowConflict

QUOTED: Final = 80
"""Longest piece of an input in a message, in characters."""
BEFORE: Final = 20
"""So much of what is the same stands before the first difference."""


def other_workflow(command: StartWorkflow, workflow: str) -> WorkflowConflict:
    """The id belongs to a run of another workflow."""
    return WorkflowConflict(
        f"workflow id {command.workflow_id!r} belongs to a run of {workflow!r}, so {command.workflow!r} "
        "can't be started under it: use another id"
    )


def other_input(
    command: StartWorkflow, given: str, first: str | None, *, private: bool
) -> WorkflowConflict:
    """The id belongs to a run of the same workflow with another input.

    Args:
        command: The second start.
        given: Its input, in the form that the first one's was recorded in.
        first: The first one's; None where it is not at hand.
        private: Whether either is to stay encrypted.
    """
    inputs = ""
    if first is not None and not private and not {first[:1], given[:1]} & set(ELSEWHERE):
        was, is_ = _apart(first, given)
        inputs = f" ({was}, not {is_})"
    return WorkflowConflict(
        f"workflow id {command.workflow_id!r} belongs to a run of {command.workflow!r} with another input{inputs}: "
        "use another id, or attach to that run by its id"
    )


def _apart(one: str, other: str) -> tuple[str, str]:
    """Pieces of two texts that show where they differ."""
    same = next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )
    start = max(0, same - BEFORE) if max(len(one), len(other)) > QUOTED else 0
    return _piece(one, start), _piece(other, start)


def _piece(text: str, start: int) -> str:
    piece = text[start : start + QUOTED]
    return ("…" if start else "") + piece + ("…" if start + QUOTED < len(text) else "")

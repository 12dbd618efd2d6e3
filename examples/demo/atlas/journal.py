"""The witness: a file outside refold to which every execution of a step adds a line as its very first act.

One `write` to a file opened with O_APPEND: lines of several threads and processes do not mix, and what was written
stays written when the process is killed the moment after.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from refold import step_context


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution of a step that began.

    Args:
        workflow_id: The workflow.
        step: The step's number in it.
        attempt: Which attempt, from 1.
        name: What the step calls itself.
        pid: The process that ran it.
        began_at: Microseconds since 1970-01-01 UTC.
    """

    workflow_id: str
    step: int
    attempt: int
    name: str
    pid: int
    began_at: int


def note_execution(journal: str, name: str) -> None:
    """Add a line for the step that is running."""
    context = step_context()
    fields = (
        context.workflow_id,
        context.step,
        context.attempt,
        name,
        os.getpid(),
        time.time_ns() // 1000,
    )
    line = "\t".join(str(field) for field in fields) + "\n"
    file = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def read_journal(path: Path) -> list[Execution]:
    """All executions, in the order in which they began."""
    executions: list[Execution] = []
    for line in path.read_text().splitlines():
        workflow_id, step, attempt, name, pid, began_at = line.split("\t")
        executions.append(
            Execution(workflow_id, int(step), int(attempt), name, int(pid), int(began_at))
        )
    return executions

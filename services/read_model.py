"""Runs from the workflows read model, where there is one that has all that is in the log."""

import asyncio
from pathlib import Path

from refold.engine.reader import WorkflowInfo
from refold.engine.state import Status
from refold.engine.watchers import why_parked
from refold.log.archive import identity_of
from refold.log.protocol import Channel, Log
from refold.projections.places import default_place
from refold.projections.sqlite_store import ViewFiles
from refold.projections.workflows import Workflows
from refold.projections.workflows_runs import RunRow
from refold.projections.workflows_view import WorkflowsView

PATIENCE_S = 1.0
"""A read model that somebody keeps is behind by a few hundredths of a second."""
LOOK_EVERY_S = 0.02


def views_of(log: Log, place: str | None) -> str | None:
    """Where a log's read model is; None where none was said, and there is none beside the log."""
    if place is not None:
        return place
    beside = default_place(log)
    if beside is None or not ViewFiles(Path(beside), Workflows.name).link.exists():
        return None
    return beside


def is_of(view: WorkflowsView, log: Log) -> bool:
    """Whether it was filled from this log."""
    return view.log == (identity_of(log) or log.namespace)


async def records_behind(view: WorkflowsView, log: Log) -> int:
    """How many records of the log, as it stands now, are not in the read model, after waiting for them for a moment."""
    ends = {
        partition: (await log.bounds(Channel.EVENTS, partition)).end
        for partition in range(log.partitions)
    }
    clock = asyncio.get_running_loop().time
    deadline = clock() + PATIENCE_S
    while True:
        positions = view.positions()
        behind = sum(
            max(0, end - (positions[partition].offset if partition in positions else 0))
            for partition, end in ends.items()
        )
        if behind == 0 or clock() > deadline:
            return behind
        await asyncio.sleep(LOOK_EVERY_S)


def info_of(row: RunRow) -> WorkflowInfo:
    """A run as the fold tells it."""
    reason = None
    if row.status == Status.PARKED:
        broken = row.error if row.broken else None
        reason = why_parked(row.workflow_id, row.error, broken)
    return WorkflowInfo(
        row.workflow_id,
        row.workflow,
        Status(row.status),
        row.started_at,
        row.updated_at,
        row.events,
        reason,
        version=row.version,
        code_version=row.code_version,
        attributes=row.attributes,
        parent_id=row.parent_id,
        deadline=row.deadline,
        patches=row.patches,
        queue=row.queue,
    )

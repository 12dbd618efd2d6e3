"""What checkpoints cost: the same load on two logs in turn, one with checkpoints, one without."""

from job import Job, leave, tell
from live import PATIENCE_S, run_all
from long_logs import NEVER
from refold import CheckpointSettings, Engine
from refold.log.codec import kind_of
from refold.log.events import CheckpointBegun, CheckpointCompleted, CheckpointPart
from refold.log.protocol import Channel, Log
from refold.log.urls import open_log
from workloads import Gate, held_at, total

TURNS = 10
"""The work is done in so many parts on each log, so that both see the machine as it is."""
OPEN = 1_000
"""Runs that are open all the time and stand in every checkpoint."""
FEW = 1_000
"""Below so many workflows they are to show only that everything runs; then checkpoints come much sooner."""
SOON = CheckpointSettings(min_bytes=2_000)

CHECKPOINTS = {cls.kind for cls in (CheckpointBegun, CheckpointPart, CheckpointCompleted)}


async def checkpoint_cost(job: Job) -> None:
    """Seconds with and without, and how much of the one log the checkpoints are."""
    gate = Gate(2 * min(OPEN, job.workflows))
    held = held_at(gate)
    few = job.workflows < FEW
    log, bare = open_log(job.url), open_log(job.beside)
    chunk = max(1, job.workflows // TURNS)
    with_s = without_s = 0.0
    async with (
        Engine(
            log,
            workflows=[total, held],
            checkpoints=SOON if few else None,
            start_timeout_s=PATIENCE_S,
        ) as engine,
        Engine(
            bare, workflows=[total, held], checkpoints=NEVER, start_timeout_s=PATIENCE_S
        ) as plain,
    ):
        for each in (engine, plain):
            for number in range(min(OPEN, job.workflows)):
                await each.start_async(held, 0, id=f"held-{number}", confirm=False)
        await gate.all_held.wait()
        for first in range(0, job.workflows, chunk):
            numbers = range(first, first + chunk)
            with_s += await run_all(engine, total, numbers, job.steps)
            without_s += await run_all(plain, total, numbers, job.steps)
        steps = job.workflows * job.steps
        share, count = await _share(log)
        tell(
            {
                "steps_per_s": steps / with_s,
                "bare_steps_per_s": steps / without_s,
                "ratio": with_s / without_s,
                "share": share,
                "checkpoints": count,
            }
        )
        leave()


async def _share(log: Log) -> tuple[float, int]:
    """Bytes of checkpoints by bytes of all events; and how many were completed."""
    ours = everything = count = 0
    for partition in range(log.partitions):
        async for records in log.read(Channel.EVENTS, partition, 0):
            for record in records:
                kind = kind_of(record)
                everything += len(record.value)
                if kind in CHECKPOINTS:
                    ours += len(record.value)
                count += kind == CheckpointCompleted.kind
    return ours / everything, count

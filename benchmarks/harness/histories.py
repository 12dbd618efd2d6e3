"""Measured on histories: runs that were killed and come back, and logs built for the purpose.

A log of half a million events is built by appending what an engine would have written (`build`): the same events
from the same encoder, in the order in which runs take turns. Recovery would not notice the difference: it replays
every one of them, and would carry out and count a step whose event is missing.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import TypedDict

from assigned import AssignedLog
from job import Job, leave, tell
from refold import Engine
from refold.engine.active import facts_of
from refold.engine.claim import claim
from refold.engine.definitions import Catalogue
from refold.engine.reader import read_partition
from refold.engine.runs import CodeRuns
from refold.engine.thread_slots import ThreadSlots
from refold.log.codec import encode_event
from refold.log.events import Event, StepCompleted, WorkflowStarted
from refold.log.partitioner import partition_of
from refold.log.protocol import Channel, Entry, Log
from refold.log.urls import open_log
from workloads import ADD, HELD, Gate, held_at

BATCH = 2_000
"""Events of one append while a log is built: far below what the queues of any log take."""

BUILDER = "builder"


async def fill(job: Job) -> None:
    """Run until every step but the last is recorded and each run waits in its last; then wait to be killed."""
    gate = Gate(job.workflows)
    held = held_at(gate)
    async with Engine(job.url, workflows=[held]) as engine:
        for number in range(job.workflows):
            await engine.start_async(held, job.steps, id=f"run-{number}", confirm=False)
        await gate.all_held.wait()  # a last step is launched when all before it are durable
        tell({})
        await asyncio.get_running_loop().create_future()


async def recover(job: Job) -> None:
    """Time from opening the engine until the last step of every run has been launched again."""
    gate = Gate(job.workflows)
    held = held_at(gate)
    log = AssignedLog(open_log(job.url))  # made here, since this is what imports a Kafka client
    began = perf_counter()
    async with Engine(log, workflows=[held]):
        await gate.all_held.wait()
        elapsed_s = perf_counter() - began
        if gate.executed:
            raise AssertionError(f"{gate.executed} recorded steps ran a second time")
        tell({"recover_s": elapsed_s, "assigned_s": (log.assigned_at or began) - began})
        leave()


class Header(TypedDict):
    """The fields of an event that are the same for all kinds, but for the position."""

    workflow_id: str
    recorded_at: int
    claim: int
    command: int
    posted: int
    worker: str


def header_of(id_: str, now: int, claim_offset: int) -> Header:
    """The header of an event that nobody has written but the builder."""
    return {
        "workflow_id": id_,
        "recorded_at": now,
        "claim": claim_offset,
        "command": -1,
        "posted": 0,
        "worker": BUILDER,
    }


Script = Callable[[list[str], int, int], Iterator[Event]]
"""From the ids of a partition's runs, the steps of each and the claim's offset to what an engine would write."""


async def build(job: Job) -> None:
    """Write a log in which every run has all its steps but the last recorded."""
    await write_log(job, held_events)


async def write_log(job: Job, script: Script) -> None:
    """Write a log by a script, and tell how fast."""
    log = open_log(job.url)
    await log.open()
    began = perf_counter()
    for partition in range(log.partitions):
        await write_partition(log, partition, job, script)
    elapsed_s = perf_counter() - began
    await log.close()
    tell({"build_events_per_s": job.workflows * (job.steps + 1) / elapsed_s})


async def write_partition(log: Log, partition: int, job: Job, script: Script) -> None:
    """Write a partition of an open log by a script."""
    state = (await claim(log, partition, BUILDER, _now_us)).state
    ids = [f"run-{number}" for number in range(job.workflows)]
    ours = [id_ for id_ in ids if partition_of(id_, log.partitions) == partition]
    chain, batch = state.chain, list[Entry]()
    for event in script(ours, job.steps, state.claim):
        entry, chain = encode_event(event, chain)
        batch.append(entry)
        if len(batch) == BATCH:
            await log.append(Channel.EVENTS, partition, batch)
            batch = []
    await log.append(Channel.EVENTS, partition, batch)


def held_events(ids: list[str], steps: int, claim_offset: int) -> Iterator[Event]:
    """What an engine would write for `held`: all starts, then the runs in turn."""
    payload = held_at(Gate(0)).bind(steps).payload
    for id_ in ids:
        header = header_of(id_, _now_us(), claim_offset)
        yield WorkflowStarted(**header, position=0, workflow=HELD, payload=payload)
    result = 0
    for number in range(steps):
        result += number
        for id_ in ids:
            header = header_of(id_, _now_us(), claim_offset)
            yield StepCompleted(
                **header,
                position=number + 1,
                step=number,
                name=ADD,
                payload=str(result),
                attempt=1,
                started_at=header["recorded_at"],
            )


async def fold(job: Job) -> None:
    """Read, decode and fold the log; then replay every run from the folded state."""
    log = open_log(job.url)
    await log.open()
    began = perf_counter()
    states = [await read_partition(log, partition) for partition in range(log.partitions)]
    folded_s = perf_counter() - began
    events = sum(run.position for state in states for run in state.open.values())
    runs = CodeRuns(Catalogue.of([held_at(Gate(0))]), "raise", ThreadSlots(1))
    replayed = 0
    began = perf_counter()
    for state in states:
        for workflow_id, open_run in state.open.items():
            if open_run.started is None:
                raise AssertionError("a run without a start: the log was built wrongly")
            run = runs.create(facts_of(workflow_id, open_run), open_run.started.payload)
            run.replay(open_run.outcomes)
            replayed += len(open_run.outcomes)
            if [request.name for request in run.take()] != ["hold"]:
                raise AssertionError("a replayed run should wait in its last step")
            run.close()
    replayed_s = perf_counter() - began
    await log.close()
    if replayed != job.workflows * job.steps:
        raise AssertionError(f"{replayed} steps replayed, {job.workflows * job.steps} were built")
    tell({"fold_events_per_s": events / folded_s, "replay_steps_per_s": replayed / replayed_s})


def _now_us() -> int:
    return time.time_ns() // 1000

"""Erasing a subject: its keys are destroyed in the key store, and the log records that, who asked for it and why.

1. Survey: which keys there are, which runs are encrypted with them, and which of those are open. Those would be broken,
   so that they have to end first, unless it is said that they may be parked.
2. Destroy: the subject's keys, and those of its runs' own. From here on nothing can be read.
3. Record: the owner of each partition that has such runs parks the open ones and writes `subject.erased`.

A crash after the first key is destroyed leaves the rest to the next try, which finds what was destroyed and goes on.
"""

import asyncio
import json
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from refold.engine.client import Client
from refold.engine.reader import read_partition
from refold.log.chain_walk import beginning
from refold.log.codec import decode_event
from refold.log.commands import EraseSubject
from refold.log.errors import CommandRefused, ResultTimeout, UsageError
from refold.log.events import EventBase, WorkflowReopened, WorkflowStarted
from refold.log.keys import KEY_TAG, Erasure, KeyProvider, subject_name, workflow_name
from refold.log.protocol import Channel, Log


@dataclass(slots=True)
class Survey:
    """What would be erased.

    Args:
        name: Whose keys: `subject:...` or `workflow:...`.
        keys: Their ids, also of those that were destroyed before.
        erased: Those that were.
        runs: Runs that are encrypted with them, as far as the log goes back.
        open: Those of them that have not ended.
        others: Other open runs that have been sent something that is encrypted with them.
        partitions: For each partition that is concerned, one workflow in it.
    """

    name: str
    keys: set[str]
    erased: list[Erasure]
    runs: set[str] = field(default_factory=set[str])
    open: set[str] = field(default_factory=set[str])
    others: set[str] = field(default_factory=set[str])
    partitions: dict[int, str] = field(default_factory=dict[int, str])


@dataclass(frozen=True, slots=True)
class Erased:
    """What was erased.

    Args:
        keys: Ids of the keys that are destroyed now.
        runs: How many runs can't be read any more.
        parked: Those of them that were open.
        unheard: Partitions whose owner has not said in time that it has recorded it; it will.
    """

    keys: Sequence[str]
    runs: int
    parked: Sequence[str]
    unheard: Sequence[int]


async def survey(log: Log, keys: KeyProvider, name: str) -> Survey:
    """What would be erased with a name's keys. Reads the whole log.

    Args:
        log: An open log.
        keys: The key store.
        name: From `subject_name` or `workflow_name`.

    Raises:
        CommandRefused: There are no such keys.
        KeysUnavailable: The key store can't be read now.
    """
    rings = await asyncio.to_thread(keys.rings_of, name)
    if not rings:
        raise CommandRefused(
            f"{keys.url} has no keys of {name!r}: nothing was encrypted with any, so there is nothing to be erased"
        )
    erased = [ring for ring in rings if isinstance(ring, Erasure)]
    ids = {ring.ring if isinstance(ring, Erasure) else ring.id for ring in rings}
    found = Survey(name, ids, erased)
    for partition in range(log.partitions):
        await _survey_partition(log, partition, found)
    for workflow_id in found.runs:  # what clients sent to them, not knowing whose they are
        own = await asyncio.to_thread(keys.rings_of, workflow_name(workflow_id))
        found.keys |= {ring.ring if isinstance(ring, Erasure) else ring.id for ring in own}
    return found


async def _survey_partition(log: Log, partition: int, found: Survey) -> None:
    marks = [key.encode() for key in found.keys]
    named: set[str] = set()
    start = (await beginning(log, partition)).offset
    async for batch in log.read(Channel.EVENTS, partition, start):
        for record in batch:
            if record.key is None or not any(mark in record.value for mark in marks):
                continue
            named.add(record.key)
            event = decode_event(record)
            if isinstance(event, EventBase) and _key_of(event) in found.keys:
                found.runs.add(record.key)
    state = await read_partition(log, partition)
    concerned = set(named)
    for workflow_id, run in state.open.items():
        if run.attributes.get(KEY_TAG) in found.keys:  # its start may have been trimmed
            found.runs.add(workflow_id)
            found.open.add(workflow_id)
            concerned.add(workflow_id)
        elif workflow_id in named:
            found.others.add(workflow_id)
    if concerned:
        found.partitions[partition] = min(concerned)


def _key_of(event: EventBase) -> str | None:
    if not isinstance(event, WorkflowStarted | WorkflowReopened):
        return None
    return (event.attributes or {}).get(KEY_TAG)


async def erase(
    client: Client,
    subject: str | None,
    workflow_id: str | None,
    *,
    why: str,
    force: bool,
    timeout_s: float,
) -> Erased:
    """Destroy a subject's keys, for ever, and record that.

    Args:
        client: Of the log, with its keys.
        subject: Whose keys; or
        workflow_id: ... the run that has keys of its own.
        why: Why.
        force: Also where runs are open: they are parked, and can't go on.
        timeout_s: Longest wait for each owner to record it, in seconds.

    Raises:
        CommandRefused: There are no such keys, or runs are open and `force` is not given. Nothing was destroyed.
        UsageError: No keys are given here, or their store can't destroy any.
        KeysUnavailable: The key store can't be reached now. What was destroyed is; the next try goes on.
    """
    privacy = client.blobs.privacy
    if privacy is None:
        raise UsageError(
            "nothing can be erased, no keys are given here: give those that the workers have, by keys= in the log's "
            "URL or the variable REFOLD_KEYS"
        )
    if (subject is None) == (workflow_id is None):
        raise UsageError("say what is to be erased: a subject, or a run that has keys of its own")
    keys = privacy.keys
    name = workflow_name(workflow_id or "") if subject is None else subject_name(subject)
    found = await survey(client.log, keys, name)
    if found.open and not force:
        raise CommandRefused(_still_open(found.open))
    at, by = client.clock(), client.requested_by
    destroyed = list(await asyncio.to_thread(keys.erase, name, at, by, why))
    for run in sorted(found.runs):
        own = await asyncio.to_thread(keys.erase, workflow_name(run), at, by, why)
        destroyed.extend(ring for ring in own if ring not in destroyed)
    privacy.forget(destroyed)
    unheard = await _record(client, found, destroyed, why, timeout_s)
    return Erased(destroyed, len(found.runs), sorted(found.open), unheard)


async def _record(
    client: Client, found: Survey, destroyed: Sequence[str], why: str, timeout_s: float
) -> list[int]:
    """Have each owner record it; returns the partitions of which nothing was heard."""

    async def tell(partition: int, workflow_id: str) -> int | None:
        command = EraseSubject(
            **client.envelope(workflow_id), payload=json.dumps(list(destroyed)), reason=why
        )
        try:
            await client.ask(command, timeout_s)
        except ResultTimeout:
            return partition
        return None

    told = await asyncio.gather(*(tell(*place) for place in sorted(found.partitions.items())))
    return [partition for partition in told if partition is not None]


def _still_open(runs: Set[str]) -> str:
    first = ", ".join(sorted(runs)[:5])
    more = f" and {len(runs) - 5} more" if len(runs) > 5 else ""
    return (
        f"{len(runs)} runs that are encrypted with these keys have not ended ({first}{more}): cancel or terminate "
        "them, or wait until they end; or say --force, and they are parked for good. Nothing was erased"
    )

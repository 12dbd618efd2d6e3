"""Erasing a subject while workers die, are stopped and take over: nothing is in the clear, and nothing else is lost.

The keys are destroyed at one moment and each partition is told at another: before, as after a first try that died in
between, or after; and told twice. Workers keep keys in memory, and their store tells nothing, which is the worst case.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from tests.simulation import core_checks as core
from tests.simulation.checker import CHECKS
from tests.simulation.faults import Fault, Faults, FaultsAt, Kind, NoFaults
from tests.simulation.history import History
from tests.simulation.shapes import Expectation, echo
from tests.simulation.world import World

from refold.engine.definitions import Catalogue, workflow
from refold.engine.messages import receive
from refold.engine.privacy import Privacy
from refold.log.chain_walk import ChainWalk
from refold.log.codec import decode_event
from refold.log.commands import Command, EraseSubject
from refold.log.events import Event, SubjectErased, Unreadable, WorkflowCompleted
from refold.log.keys import KEY_TAG, Erasure, KeyRing, PayloadKeys, ring_id, subject_name
from refold.log.partitioner import partition_of
from refold.log.protocol import Channel

PLAIN = "bob-4711@example.com"
PARTITIONS = 1
BLIND = (
    core.invariant_04_no_effect_precedes_what_it_follows_from,
    core.commands_are_consumed_exactly_once,
    core.only_the_odd_are_parked,
)
"""Checks that compare what code was told with what is recorded, which is encrypted, or that know of no erasures."""
SECOND_US = 1_000_000


class MemoryKeys:
    """A key store in memory, which every process of the world reaches."""

    url = "memory"

    def __init__(self) -> None:
        self._rings: dict[str, KeyRing | Erasure] = {}

    def ring_for(self, name: str) -> KeyRing:
        """See `KeyProvider`."""
        id_ = ring_id(name.encode().hex().ljust(23, "0"))
        ring = self._rings.setdefault(id_, KeyRing(id_, (os.urandom(32),)))
        assert isinstance(ring, KeyRing)
        return ring

    def rings_of(self, name: str) -> list[KeyRing | Erasure]:
        """See `KeyProvider`."""
        return list(self._rings.values())

    def ring(self, ring_id: str) -> KeyRing | Erasure | None:
        """See `KeyProvider`."""
        return self._rings.get(ring_id)

    def erase(self, name: str, at: int, by: str | None, why: str) -> list[str]:
        """See `KeyProvider`."""
        id_ = self.ring_for(name).id
        self._rings[id_] = Erasure(id_, at, by, why)
        return [id_]


@workflow
async def correspond(email: str) -> str:
    known = await echo(f"{email} is known")
    news = await receive("news", str)
    return await echo(f"{known}: {news}")


class Affair:
    """A world in which Bob is erased and Alice is not.

    Args:
        faults: What becomes of appends.
        keys_at_s: When Bob's keys are destroyed, in seconds.
        told_at_s: When the owners are told, for the first time.
    """

    def __init__(self, faults: Faults, keys_at_s: float, told_at_s: float) -> None:
        self._provider = MemoryKeys()
        keys = PayloadKeys(self._provider, max_age_s=1e9)
        self._client = Privacy(keys)
        code = Catalogue.of([correspond])
        self.world = World(1, faults, partitions=PARTITIONS, code=code, keys=keys)
        self._expected: dict[str, Expectation] = {}
        for partition in range(PARTITIONS):
            self._start(_id("alice", partition), "alice", "alice")
            bob = _id("bob", partition)
            ring = self._start(bob, "bob", PLAIN)
            for number in range(2):
                self._submit(told_at_s + number, _erase(bob, number, ring))
            self._submit(20, self.world.clients.resume(bob))
            self._expected[_id("alice", partition)] = self._alice_s_end
        self.world.plan(round(keys_at_s * SECOND_US), self._destroy)

    def _destroy(self) -> None:
        self._provider.erase(subject_name("bob"), 1, "ops", "ticket 7")

    def _start(self, id_: str, subject: str, email: str) -> str:
        ring = str(self._client.started_with(id_, subject))
        clients = self.world.clients
        start = clients.start(id_, correspond, email)
        self._submit(0, replace(start, attributes={KEY_TAG: ring}))
        self._submit(3, clients.send(id_, "news", json.dumps(f"news of {email}")))
        return ring

    def _alice_s_end(self, stream: Sequence[Event]) -> str | None:
        last = stream[-1]
        if not isinstance(last, WorkflowCompleted):
            return f"ended with {last}"
        result = self._client.reveal(last.payload, "result")
        return None if result == '"alice is known: news of alice"' else f"came to {result}"

    def _submit(self, after_s: float, command: Command) -> None:
        protected = self._client.protect_command(command)
        self.world.plan(round(after_s * SECOND_US), lambda: self.world.submit(protected))

    def problems(self) -> list[str]:
        """What is wrong once all has come to rest, and fresh workers have taken over, with no keys of Bob's."""
        world = self.world
        try:
            world.live()
            world.settle(list(self._expected))
        finally:
            world.close()
        history = History(world.store, world.journal, self._expected)
        found = [
            f"{check.__name__}: {problem}"
            for check in CHECKS
            if check not in BLIND
            for problem in check(history)
        ]
        for partition in range(PARTITIONS):
            found += self._problems_of(history, partition)
        return found

    def _problems_of(self, history: History, partition: int) -> Iterator[str]:
        for channel in Channel:
            for record in history.store.read(channel, partition, 0):
                if PLAIN.encode() in record.value:
                    yield f"{channel} {record.offset} of {partition} is in the clear"
        walk = ChainWalk(partition)
        counting = [
            event
            for record in history.store.read(Channel.EVENTS, partition, 0)
            if walk.take(record, event := decode_event(record))
            and not isinstance(event, Unreadable)
        ]
        told = [event.command for event in counting if isinstance(event, SubjectErased)]
        if len(told) != len(set(told)) or len(told) != 2:
            yield f"partition {partition} was told twice, and has recorded it for the commands {told}"
        bob = {None, _id("bob", partition)}
        kinds = [str(event.kind) for event in counting if event.workflow_id in bob]
        since = kinds[kinds.index("subject.erased") :]
        if "workflow.completed" in since or not {"workflow.completed", "workflow.parked"} & {
            *kinds
        }:
            yield f"bob's run of partition {partition} was not parked, or went on: {kinds}"


def _id(who: str, partition: int) -> str:
    ids = (f"{who}-{number}" for number in range(99))
    return next(id_ for id_ in ids if partition_of(id_, PARTITIONS) == partition)


def _erase(workflow_id: str, number: int, ring: str) -> EraseSubject:
    return EraseSubject(
        command_id=f"erase-{workflow_id}-{number}",
        workflow_id=workflow_id,
        reply_to="ops",
        requested_at=0,
        payload=json.dumps([ring]),
        reason="ticket 7",
    )


@pytest.mark.parametrize(
    ("keys_at_s", "told_at_s"), [(1, 6), (6, 1), (3, 3)], ids=lambda at: f"{at}s"
)
def test_an_erasure_survives_a_crash_or_a_zombie_at_any_append(
    keys_at_s: float, told_at_s: float
) -> None:
    """Given keys that are destroyed long before the owners hear of it, long after, or at that time, and any fault at
    any append: Bob's runs are parked, recorded so once for each time that it was told, nothing of his is in the clear,
    and Alice's runs end as they must."""
    faults = NoFaults()
    affair = Affair(faults, keys_at_s, told_at_s)
    assert not affair.problems(), affair.world.journal.acts
    for k, size in enumerate(faults.sizes):
        for kind, written in [(Kind.CRASH, n) for n in range(size + 1)] + [
            (Kind.ZOMBIE, 0),
            (Kind.ZOMBIE, None),
            (Kind.LOST, 0),
        ]:
            affair = Affair(FaultsAt({k: Fault(kind, written)}), keys_at_s, told_at_s)
            problems = affair.problems()
            assert not problems, "\n".join([*affair.world.journal.acts, *problems])

"""A log with events that are hard to write down elsewhere, and what a sink must make of it. For tests.

Texts have quotes, line ends, NUL and signs beyond the basic plane; a second owner takes over, and what the first one
still writes does not count; one record was written by somebody else; the days change on the way.
"""

from collections.abc import Iterable
from typing import TypedDict

from refold.log.codec import GENESIS, encode_event, event_id_of, link_claim
from refold.log.events import (
    Event,
    PartitionClaimed,
    StepAttemptFailed,
    StepCompleted,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowStarted,
)
from refold.log.partitioner import partition_of
from refold.log.protocol import Channel, Entry, Log

BEGAN_AT = 1_795_910_399_000_000  # 2026-11-28T23:59:59Z
HARD = "quote \" tab \t line\nend \\ NUL \0 sign \U0001f9fe ' , ; é"
STRANGE = Entry("order-0", b"not ours", ())
_SECOND = 1_000_000


class _Common(TypedDict):
    recorded_at: int
    claim: int
    command: int
    posted: int
    worker: str


class _Header(_Common):
    workflow_id: str
    position: int


class _Told(TypedDict):
    step: int
    name: str
    attempt: int
    started_at: int


async def write_story(
    log: Log, workflows: int, steps: int, partitions: Iterable[int] | None = None
) -> list[str]:
    """Fill an open, empty log.

    Args:
        log: The log.
        workflows: How many there are.
        steps: How many steps each has.
        partitions: Fill these alone.

    Returns:
        The `event_id` of every event that counts, in order within each partition.
    """
    ids = [f"order-{number}" for number in range(workflows)]
    told: list[str] = []
    for partition in range(log.partitions) if partitions is None else partitions:
        ours = [id_ for id_ in ids if partition_of(id_, log.partitions) == partition]
        told += await _Owner(log, partition).write(ours, steps)
    return told


class _Owner:
    def __init__(self, log: Log, partition: int) -> None:
        self._log = log
        self._partition = partition
        self._chain = GENESIS
        self._entries: list[Entry] = []
        self._told: list[str] = []
        self._claim = -1
        self._at = BEGAN_AT

    async def write(self, ids: list[str], steps: int) -> list[str]:
        self._take_over()
        half = len(ids) // 2
        for id_ in ids[:half]:
            self._run(id_, steps)
        zombie = self._encoded(self._step("too-late", 1, 0))
        self._take_over()
        self._entries.append(zombie)
        if self._partition == partition_of("order-0", self._log.partitions):
            self._entries.append(STRANGE)
        for id_ in ids[half:]:
            self._run(id_, steps)
        await self._log.append(Channel.EVENTS, self._partition, self._entries)
        return self._told

    def _run(self, id_: str, steps: int) -> None:
        self._add(
            WorkflowStarted(
                **self._header(id_, 0),
                workflow="checkout",
                payload='{"order":{"total":12.5,"items":3,"paid":true,"at":"2026-11-28T12:00:00Z"},"note":"n"}',
                attributes={"customer": HARD, "": "empty"},
                due_at=2**55,
            )
        )
        for step in range(steps):
            self._add(self._step(id_, step + 1, step))
        end = self._header(id_, steps + 1)
        if int(id_.rpartition("-")[2]) % 7 == 3:
            self._add(
                WorkflowFailed(
                    **end, error_type="shop:NoMoney", error_message=HARD, error_stack=HARD
                )
            )
        else:
            self._add(WorkflowCompleted(**end, payload='{"charged":1250,"card":null}'))

    def _step(self, id_: str, position: int, step: int) -> Event:
        told: _Told = {
            "step": step,
            "name": "charge",
            "attempt": 1,
            "started_at": self._at - 5,
        }
        if step % 5 == 4:
            return StepAttemptFailed(
                **self._header(id_, position), **told, error_type="OSError", error_message=HARD
            )
        return StepCompleted(**self._header(id_, position), **told, payload=f'{{"cents":{step}}}')

    def _header(self, id_: str, position: int) -> _Header:
        self._at += _SECOND
        return {"workflow_id": id_, "position": position, **self._common()}

    def _common(self) -> _Common:
        return {
            "recorded_at": self._at,
            "claim": self._claim,
            "command": len(self._entries),
            "posted": 0,
            "worker": "worker-é",
        }

    def _take_over(self) -> None:
        event = PartitionClaimed(
            workflow_id=None, position=None, partition=self._partition, **self._common()
        )
        entry, own = encode_event(event, GENESIS)
        self._chain = link_claim(self._chain, own)
        self._claim = len(self._entries)
        self._entries.append(entry)
        self._told.append(event_id_of(event))

    def _add(self, event: Event) -> None:
        self._entries.append(self._encoded(event))
        self._told.append(event_id_of(event))

    def _encoded(self, event: Event) -> Entry:
        entry, self._chain = encode_event(event, self._chain)
        return entry

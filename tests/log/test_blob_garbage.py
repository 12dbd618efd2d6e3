"""Which blobs a log names: collecting the others, and verifying those."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from refold.log.blob_garbage import Collected, Verified, collect, verify
from refold.log.blobs import BlobStore, MemoryBlobs, reference_to
from refold.log.codec import GENESIS, encode_command, encode_event
from refold.log.commands import SendMessage, StartWorkflow
from refold.log.errors import UsageError
from refold.log.events import (
    CheckpointPart,
    Event,
    HistoryCopied,
    StepCompleted,
    WorkflowCompleted,
)
from refold.log.memory import MemoryLog
from refold.log.protocol import Channel, Entry, Log

T = TypeVar("T")

HOUR_S = 3600.0
LATER = time.time() + 100 * HOUR_S
"""When the collector comes: everything that a test has put is old by then."""


def put(store: BlobStore, text: str) -> str:
    """Put a blob; returns the reference that stands for it."""
    data = text.encode()
    reference = reference_to(data)
    store.put(reference.digest, data)
    return reference.text


HEADER: dict[str, Any] = {
    "workflow_id": "w",
    "position": 0,
    "recorded_at": 0,
    "claim": 0,
    "command": -1,
    "posted": 0,
    "worker": "worker",
}
OWN: dict[str, Any] = {**HEADER, "workflow_id": None, "position": None}
REQUEST: dict[str, Any] = {
    "command_id": "c",
    "workflow_id": "w",
    "reply_to": None,
    "requested_at": 0,
}


def step_completed(payload: str) -> StepCompleted:
    return StepCompleted(**HEADER, step=0, name="s", payload=payload, attempt=1, started_at=0)


def entry(event: Event) -> Entry:
    return encode_event(event, GENESIS)[0]


def with_records(
    use: Callable[[Log], Coroutine[Any, Any, T]],
    events: list[Event],
    commands: list[Entry] | None = None,
) -> T:
    """What `use` gives for a log with these records."""

    async def run() -> T:
        log = MemoryLog(partitions=2)
        await log.open()
        try:
            if events:
                await log.append(Channel.EVENTS, 1, [entry(event) for event in events])
            if commands:
                await log.append(Channel.COMMANDS, 0, commands)
            return await use(log)
        finally:
            await log.close()

    return asyncio.run(run())


def collected(
    store: BlobStore,
    events: list[Event],
    commands: list[Entry] | None = None,
    *,
    now: float = LATER,
    dry_run: bool = False,
) -> Collected:
    """What the collector does for a log with these records."""

    async def run(log: Log) -> Collected:
        return await collect([log], store, grace_s=24 * HOUR_S, now=now, dry_run=dry_run)

    return with_records(run, events, commands)


def verified(store: BlobStore, events: list[Event]) -> Verified:
    """What a check of a log with these records finds."""
    return with_records(lambda log: verify(log, store), events)


class TestCollecting:
    def test_what_nothing_names_goes_and_what_a_record_names_stays(self) -> None:
        """Given blobs, those that an event or a command names are kept, also as the message of a start."""
        store = MemoryBlobs()
        kept = [put(store, str(n)) for n in range(4)]
        put(store, "nobody's")
        start = StartWorkflow(**REQUEST, workflow="w", payload=kept[1], name="t", message=kept[2])
        message = SendMessage(**REQUEST, name="t", payload=kept[3], message_id="m")
        commands = [encode_command(start), encode_command(message)]
        done = collected(store, [step_completed(kept[0])], commands)
        assert (done.stored, done.named, done.deleted, done.young) == (5, 4, 1, 0)
        assert {blob.digest for blob in store.stored()} == {text.split(":")[2] for text in kept}

    def test_a_dry_run_only_says_what_would_be(self) -> None:
        """Given a dry run, it says how many and how large, and nothing is deleted."""
        store = MemoryBlobs()
        kept = put(store, "kept")
        put(store, "nobody's")
        done = collected(store, [step_completed(kept)], dry_run=True)
        assert (done.deleted, done.deleted_bytes) == (1, len("nobody's"))
        assert len(list(store.stored())) == 2

    def test_what_is_young_stays(self) -> None:
        """Given a blob that was put an hour ago, it stays: what names it may be on its way."""
        store = MemoryBlobs()
        kept = put(store, "kept")
        put(store, "about to be named")
        done = collected(store, [step_completed(kept)], now=time.time() + HOUR_S)
        assert (done.deleted, done.young) == (0, 1)

    def test_what_is_put_again_meanwhile_stays(self) -> None:
        """Given a blob that is put again while the log is read, it stays."""
        store = _PutsFirst()
        kept = put(store, "kept")
        put(store, "again")
        done = collected(store, [step_completed(kept)], now=time.time() + 24 * HOUR_S)
        assert done.deleted == 0
        assert len(list(store.stored())) == 2

    def test_a_reference_in_a_copied_history_or_a_checkpoint_counts(self) -> None:
        """Given references inside the text of other records, and cut in two by a checkpoint's parts, they count."""
        store = MemoryBlobs()
        copied, whole, cut = put(store, "copied"), put(store, "whole"), put(store, "cut")
        put(store, "nobody's")
        text = json.dumps({"values": [whole, "x" * 50, cut]})
        middle = text.index(cut) + 30
        parts = [text[:middle], text[middle:]]
        history = json.dumps([{"kind": "step.completed", "payload": copied}])
        events: list[Event] = [
            HistoryCopied(**HEADER, payload=history, name="last"),
            *(
                CheckpointPart(**OWN, partition=1, name="c", index=i, payload=part)
                for i, part in enumerate(parts)
            ),
        ]
        done = collected(store, events)
        assert (done.named, done.deleted) == (3, 1)

    def test_a_store_that_the_log_names_nothing_of_is_left_alone(self) -> None:
        """Given a store whose blobs the log does not know, nothing is deleted unless that is said to be right."""
        store = MemoryBlobs()
        put(store, "another log's")
        with pytest.raises(UsageError, match="another log"):
            collected(store, [])
        assert len(list(store.stored())) == 1

        async def run(log: Log) -> Collected:
            return await collect([log], store, grace_s=24 * HOUR_S, now=LATER, certain=True)

        assert with_records(run, []).deleted == 1

    def test_a_trimmed_log_is_refused_without_its_archive(self) -> None:
        """Given a log whose first events were trimmed, nothing is deleted: they may name blobs."""
        store = MemoryBlobs()
        kept = put(store, "kept")
        put(store, "named by what was trimmed")

        async def run(log: Log) -> Collected:
            await log.trim(Channel.EVENTS, 1, 1)
            return await collect([log], store, grace_s=24 * HOUR_S, now=LATER)

        with pytest.raises(UsageError, match="--archive"):
            with_records(run, [step_completed("1"), step_completed(kept)])
        assert len(list(store.stored())) == 2

    def test_a_short_grace_period_is_refused(self) -> None:
        """Given less than an hour, the collector says why not."""

        async def run(log: Log) -> Collected:
            return await collect([log], MemoryBlobs(), grace_s=HOUR_S - 1, now=LATER)

        with pytest.raises(UsageError, match="1 h"):
            with_records(run, [])

    def test_a_collector_that_dies_has_taken_nothing_that_is_named(self) -> None:
        """Given a collector that dies after its first delete, what is named is there, and the next ends the work."""
        store = _DiesAtSecond()
        kept = [put(store, f"kept {n}") for n in range(3)]
        for n in range(3):
            put(store, f"nobody's {n}")
        events: list[Event] = [step_completed(text) for text in kept]
        with pytest.raises(KeyboardInterrupt):
            collected(store, events)
        assert verified(store, events).damages == []
        assert collected(store, events).deleted == 2
        assert verified(store, events).damages == []


class _PutsFirst(MemoryBlobs):
    """A store where somebody puts a blob again just before it would be deleted."""

    def delete(self, digest: str, before: float) -> bool:
        put(self, "again")
        return super().delete(digest, before)


class _DiesAtSecond(MemoryBlobs):
    """A store whose collector dies at its second delete."""

    def __init__(self) -> None:
        super().__init__()
        self.deletes = 0

    def delete(self, digest: str, before: float) -> bool:
        self.deletes += 1
        if self.deletes == 2:
            raise KeyboardInterrupt
        return super().delete(digest, before)


class TestVerifying:
    def test_whole_blobs_are_counted(self) -> None:
        """Given a log whose blobs are whole, their number and size are told, each once."""
        store = MemoryBlobs()
        payload = put(store, "abc")
        events: list[Event] = [
            step_completed(payload),
            WorkflowCompleted(**HEADER, payload=payload),
        ]
        found = verified(store, events)
        assert (found.named, found.size, found.damages) == (1, 3, [])

    def test_missing_and_damaged_ones_are_named(self) -> None:
        """Given a blob that is gone and one that was changed, both are told with the record that names them."""
        store = MemoryBlobs()
        gone, changed = put(store, "gone"), put(store, "changed")
        store.delete(gone.split(":")[2], LATER)
        store.put(changed.split(":")[2], b"chanced")
        found = verified(store, [step_completed(gone), step_completed(changed)])
        told = [(type(damage.error).__name__, damage.where) for damage in found.damages]
        assert told == [
            ("BlobMissing", "events of partition 1, offset 0 (workflow 'w')"),
            ("BlobCorrupt", "events of partition 1, offset 1 (workflow 'w')"),
        ]

    def test_a_users_text_that_looks_like_a_reference_is_none(self) -> None:
        """Given a result that quotes a reference, also in a copied history, no blob is missed."""
        quoted = json.dumps(reference_to(b"never put").text)
        history = json.dumps([{"kind": "step.completed", "payload": quoted}])
        events: list[Event] = [
            step_completed(quoted),
            HistoryCopied(**HEADER, payload=history, name="last"),
        ]
        assert verified(MemoryBlobs(), events) == Verified(0, 0, [])

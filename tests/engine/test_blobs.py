"""Payloads on their way into the blob store and out of it."""

import asyncio
import gc
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from refold.engine.active import Items
from refold.engine.blobs import Blob, Blobs, lifted, never
from refold.engine.effects import Launch, Succeeded
from refold.engine.handover import Reporter, read_report
from refold.engine.operations import StepCall, StepOptions
from refold.engine.payload import MAX_PAYLOAD_BYTES, PayloadType
from refold.engine.state import digest_input
from refold.log.blobs import BLOB, MemoryBlobs, reference_in, reference_to
from refold.log.commands import (
    AskWorkflow,
    CancelWorkflow,
    Command,
    Reply,
    ReportStep,
    SendMessage,
    StartWorkflow,
)
from refold.log.errors import BlobMissing, BlobsUnavailable, UsageError
from refold.log.events import (
    EVENT_CLASSES,
    HistoryCopied,
    StepCompleted,
    WorkflowFailed,
    WorkflowParked,
    WorkflowStarted,
)

HEADER: dict[str, Any] = {
    "workflow_id": "w",
    "position": 0,
    "recorded_at": 0,
    "claim": 0,
    "command": -1,
    "posted": 0,
    "worker": "worker",
}
REQUEST: dict[str, Any] = {
    "command_id": "c",
    "workflow_id": "w",
    "reply_to": None,
    "requested_at": 0,
}
THRESHOLD = 100
LONG = json.dumps("x" * THRESHOLD)
REFERENCE = reference_to(LONG.encode()).text


def blobs_at(threshold: int = THRESHOLD) -> tuple[Blobs, MemoryBlobs]:
    """The way to a store in memory, and the store."""
    store = MemoryBlobs()
    return Blobs(store, threshold_bytes=threshold), store


def step_completed(payload: str, encoding: str = "json") -> StepCompleted:
    return StepCompleted(
        **HEADER, step=0, name="s", payload=payload, attempt=1, started_at=0, encoding=encoding
    )


class TestLifting:
    @given(
        text=st.text(alphabet=st.sampled_from("aé€😀"), max_size=40).map(
            lambda text: json.dumps(text, ensure_ascii=False)
        ),
        threshold=st.integers(1, 120),
    )
    @example(text=json.dumps("a" * 98), threshold=100)
    @example(text=json.dumps("a" * 99), threshold=100)
    @example(text='"é"', threshold=4)
    @example(text='"é"', threshold=3)
    def test_exactly_what_is_above_the_threshold_becomes_a_blob(
        self, text: str, threshold: int
    ) -> None:
        """Given any JSON and threshold, it stays in the record up to the threshold in bytes, and comes back whole."""
        blobs, _ = blobs_at(threshold)
        blob = blobs.lift(text)
        assert (blob is not None) == (len(text.encode()) > threshold)
        if blob is not None:
            asyncio.run(blobs.write([blob]))
            assert blobs.read(blob.reference.text, "payload") == text
            assert Blobs(blobs.store).read(blob.reference.text, "payload") == text

    def test_a_reference_is_not_lifted_again(self) -> None:
        """Given a threshold that a reference is longer than, it stays as it is."""
        blobs, _ = blobs_at(1)
        assert blobs.lift(REFERENCE) is None

    def test_without_a_store_nothing_is_lifted(self) -> None:
        """Given no store, the longest payload stays in the record."""
        assert Blobs(None, threshold_bytes=1).lift(LONG) is None
        assert never(LONG) is None

    @pytest.mark.parametrize("threshold", [0, -1, MAX_PAYLOAD_BYTES + 1])
    def test_a_threshold_that_no_record_can_hold_is_refused(self, threshold: int) -> None:
        """Given a threshold below 1 or above what a record holds, the error says the range."""
        with pytest.raises(UsageError, match="900,000"):
            Blobs(MemoryBlobs(), threshold_bytes=threshold)

    def test_the_limit_is_larger_with_a_store(self) -> None:
        """Given a store, payloads may be larger; what is asked for explicitly counts."""
        assert Blobs(None).max_payload_bytes == MAX_PAYLOAD_BYTES
        assert Blobs(MemoryBlobs()).max_payload_bytes == 64_000_000
        assert Blobs(MemoryBlobs(), max_payload_bytes=5).max_payload_bytes == 5


class TestEvents:
    def test_a_large_payload_becomes_a_reference(self) -> None:
        """Given an event with a large payload, its record has the reference, and says so in `encoding`."""
        blobs, _ = blobs_at()
        event, blob = lifted(step_completed(LONG), blobs.lift)
        assert (event.payload, event.encoding) == (REFERENCE, BLOB)
        assert blob is not None
        assert blob.data.decode() == LONG

    def test_a_small_one_is_the_same_event(self) -> None:
        """Given an event with a small payload, or none, it is left as it is."""
        blobs, _ = blobs_at()
        small = step_completed('"x"')
        assert lifted(small, blobs.lift)[0] is small
        failed = WorkflowFailed(**HEADER, error_type="m:E", error_message="no")
        assert lifted(failed, blobs.lift)[0] is failed

    def test_encoding_follows_what_the_payload_is(self) -> None:
        """Given a reference that is called JSON, or JSON that is called a reference, the record says what it is."""
        assert lifted(step_completed(REFERENCE), never)[0].encoding == BLOB
        assert lifted(step_completed('"x"', BLOB), never)[0].encoding == "json"
        right = step_completed(REFERENCE, BLOB)
        assert lifted(right, never)[0] is right

    def test_what_the_fold_reads_itself_stays(self) -> None:
        """Given a copied history, or the reason why a run is parked, it stays in the event however long it is."""
        blobs, _ = blobs_at()
        for event in (
            HistoryCopied(**HEADER, payload=LONG, name="last"),
            WorkflowParked(**HEADER, name="stuck", error_message="", payload=LONG, encoding="json"),
        ):
            assert lifted(event, blobs.lift) == (event, None)

    def test_every_event_with_a_users_value_can_be_lifted(self) -> None:
        """Given the kinds of event, those that hold a payload and are not lifted are known by name."""
        blobs, _ = blobs_at()
        kept: set[str] = set()
        for kind in EVENT_CLASSES:
            slots = {name for base in kind.__mro__ for name in getattr(base, "__slots__", ())}
            if "payload" not in slots:
                continue
            event: Any = object.__new__(kind)
            for name in slots:
                object.__setattr__(event, name, None)
            object.__setattr__(event, "payload", LONG)
            object.__setattr__(event, "encoding", "json")
            if lifted(event, blobs.lift)[1] is None:
                kept.add(kind.kind)
        assert kept == {
            "cancel.sent",
            "checkpoint.begun",
            "checkpoint.completed",
            "checkpoint.part",
            "history.copied",
            "partition.handed_over",
            "partition.migrated",
            "queue.set",
            "subject.erased",
            "workflow.cancel_requested",
            "workflow.parked",
            "workflow.paused",
            "workflow.resumed",
            "workflow.rewound",
            "workflow.terminated",
        }


class TestReading:
    def test_what_is_not_written_yet_is_found(self) -> None:
        """Given a blob on its way, code may read it already; once it is dropped, it is missing."""
        blobs, _ = blobs_at()
        blob: Blob | None = blobs.lift(LONG)
        assert blobs.read(REFERENCE, "result") == LONG
        del blob
        gc.collect()
        with pytest.raises(BlobMissing):
            blobs.read(REFERENCE, "result")

    def test_what_two_have_made_is_found_until_both_have_dropped_it(self) -> None:
        """Given the same payload made twice, dropping the one leaves the other to be read."""
        blobs, _ = blobs_at()
        one, other = blobs.lift(LONG), blobs.lift(LONG)
        del other
        gc.collect()
        assert blobs.read(REFERENCE, "result") == LONG
        assert one is not None

    def test_what_was_read_lately_is_not_read_again(self) -> None:
        """Given a blob that was read, it is at hand though the store has lost it; a small cache forgets it."""
        for cache_bytes, forgets in ((1_000, False), (len(LONG) + 5, True)):
            store = MemoryBlobs()
            blobs = Blobs(store, threshold_bytes=10, cache_bytes=cache_bytes)
            other = json.dumps("y" * 50)
            for text in (LONG, other):
                data = text.encode()
                store.put(reference_to(data).digest, data)
            blobs.read(REFERENCE, "result")
            blobs.read(reference_to(other.encode()).text, "result")
            store.delete(reference_to(LONG.encode()).digest, 1e12)
            if forgets:
                with pytest.raises(BlobMissing):
                    blobs.read(REFERENCE, "result")
            else:
                assert blobs.read(REFERENCE, "result") == LONG

    def test_without_a_store_the_error_says_how_to_give_one(self) -> None:
        """Given a reference where no store is given, the error names what it is and how to give a store."""
        with pytest.raises(BlobMissing, match=r"result of workflow 'w' .*REFOLD_BLOBS"):
            Blobs(None).read(REFERENCE, "result of workflow 'w'")

    def test_a_reply_comes_with_its_payload(self) -> None:
        """Given a reply that has a reference, it is read; one with JSON or nothing is left as it is."""
        blobs, store = blobs_at()
        store.put(reference_to(LONG.encode()).digest, LONG.encode())

        async def read(payload: str | None) -> str | None:
            reply = Reply(command_id="c", workflow_id="w", status="completed", payload=payload)
            return (await blobs.read_reply(reply)).payload

        assert asyncio.run(read(REFERENCE)) == LONG
        assert asyncio.run(read("5")) == "5"
        assert asyncio.run(read(None)) is None


class _Away(MemoryBlobs):
    """A store that can't be reached so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def put(self, digest: str, data: bytes) -> None:
        self.times -= 1
        if self.times >= 0:
            raise BlobsUnavailable("the store is away")
        super().put(digest, data)


class TestWriting:
    def test_a_store_that_is_away_is_waited_for(self) -> None:
        """Given a store that can't be reached at first, writing ends when it can, and the blob is there."""
        store = _Away(2)
        blobs = Blobs(store, threshold_bytes=10)
        blob = blobs.lift(LONG)
        assert blob is not None
        asyncio.run(blobs.write([blob]))
        assert store.get(blob.reference.digest) == LONG.encode()

    @pytest.mark.parametrize(
        "command",
        [
            StartWorkflow(**REQUEST, workflow="w", payload=LONG),
            StartWorkflow(**REQUEST, workflow="w", payload="5", name="t", message=LONG),
            SendMessage(**REQUEST, name="t", payload=LONG, message_id="m"),
            AskWorkflow(**REQUEST, name="t", payload=LONG),
        ],
    )
    def test_a_command_goes_out_when_its_payload_is_kept(self, command: Command) -> None:
        """Given a command with a large payload, it names a blob that is in the store."""
        blobs, store = blobs_at()
        sent = asyncio.run(blobs.put_payloads(command))
        texts = [getattr(sent, "payload", None), getattr(sent, "message", None)]
        named = [text for text in texts if text is not None and reference_in(text) is not None]
        assert named == [REFERENCE]
        assert (getattr(sent, "encoding", None) == BLOB) == (texts[0] == REFERENCE)
        assert [blob.digest for blob in store.stored()] == [reference_to(LONG.encode()).digest]

    def test_a_small_command_is_the_same(self) -> None:
        """Given commands with nothing large, they are left as they are, and the store is not asked."""
        blobs = Blobs(_Away(1), threshold_bytes=10)
        for command in (
            StartWorkflow(**REQUEST, workflow="w", payload="5", name="t", message="6"),
            SendMessage(**REQUEST, name="t", payload="5", message_id="m"),
            CancelWorkflow(**REQUEST),
        ):
            assert asyncio.run(blobs.put_payloads(command)) is command

    def test_nothing_is_sent_where_the_store_is_away(self) -> None:
        """Given a store that can't be reached, a command with a large payload is an error."""
        blobs = Blobs(_Away(1), threshold_bytes=10)
        with pytest.raises(BlobsUnavailable):
            asyncio.run(blobs.put_payloads(StartWorkflow(**REQUEST, workflow="w", payload=LONG)))


def test_a_step_that_ends_after_a_hand_over_is_reported_by_reference() -> None:
    """Given a large result, and items, of a step whose partition was handed over, the report names blobs that are
    there, also where the store was away at first."""
    store = _Away(1)
    sent: list[ReportStep] = []

    async def append(reports: Sequence[ReportStep]) -> None:
        assert len(list(store.stored())) == 2
        sent.extend(reports)

    async def run() -> None:
        reporter = Reporter(append, lambda: 0, Blobs(store, threshold_bytes=10))
        step = StepCall("s", lambda: None, False, StepOptions(), PayloadType.of(str, "result"))
        launch = Launch("w", "flow", 0, 1, step, None)
        reporter.wrote(launch, Items("log", f"[{LONG}]", 1))
        reporter.done(launch, Succeeded(LONG, 5))
        await reporter.send(until=lambda: False)

    asyncio.run(run())
    (report,) = sent
    items = reference_to(f"[{LONG}]".encode()).text
    assert read_report(report) == (Succeeded(REFERENCE, 5), [Items("log", items, 1)])


@given(text=st.text(max_size=50).map(json.dumps))
def test_an_input_has_one_digest_wherever_it_is_kept(text: str) -> None:
    """Given an input, a second start compares equal whether either is kept in the record or as a blob."""
    assert digest_input(text) == digest_input(reference_to(text.encode()).text)


def test_other_inputs_have_other_digests() -> None:
    """Given two inputs, their digests differ in each form."""
    one, other = reference_to(b"1").text, reference_to(b"2").text
    assert len({digest_input(text) for text in ("1", "2", one, other)}) == 2


def test_a_start_is_lifted() -> None:
    """Given a large input, the start's record names it."""
    blobs, _ = blobs_at()
    started = WorkflowStarted(**HEADER, workflow="w", payload=LONG)
    assert lifted(started, blobs.lift)[0].payload == REFERENCE

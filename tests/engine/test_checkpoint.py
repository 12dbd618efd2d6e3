"""The state of a partition as text and back, and what makes an owner write it."""

import json
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.golden.make import chained, log

from refold.engine.checkpoint import FORMAT, Restoration, Snapshot, estimate
from refold.engine.checkpoints import WEIGHT, Checkpoints, CheckpointSettings
from refold.engine.digest import digest
from refold.engine.fold import evolve
from refold.engine.ledger import Ledger
from refold.engine.state import PartitionState
from refold.log.codec import decode_event
from refold.log.errors import LogCorrupt
from refold.log.events import (
    CheckpointBegun,
    CheckpointCompleted,
    CheckpointPart,
    Event,
    PartitionClaimed,
    StepCompleted,
    Unreadable,
    WorkflowCompleted,
    WorkflowStarted,
)
from refold.log.protocol import Entry, Record


def decoded(offset: int, entry: Entry) -> Event:
    """The event of an entry, with its chain."""
    event = decode_event(Record(offset, 0, *entry))
    assert not isinstance(event, Unreadable)
    return event


EVENTS = [decoded(offset, entry) for offset, (entry, _) in enumerate(chained(log()))]
OLDER = Path(__file__).parent.parent / "golden/checkpoint_1.txt"
OLDER_EVENTS = 40
DAY_US = 24 * 3600 * 1_000_000


def folded(count: int) -> PartitionState:
    """The state after so many events of a log in which everything happens."""
    state = PartitionState()
    for offset, event in enumerate(EVENTS[:count]):
        evolve(state, event, offset)
    return state


def restored(text: str, state: PartitionState) -> PartitionState:
    """What a text says, beside what the event that it belongs to says."""
    restoration = Restoration(bare(state))
    restoration.take(text)
    return restoration.whole()


def bare(state: PartitionState) -> PartitionState:
    """The part of a state that stands in the event that a checkpoint begins with."""
    return PartitionState(state.claim, state.owner, state.command, state.posted, chain=state.chain)


def text_of(snapshot: Snapshot, size: int = 1_000) -> Iterator[str]:
    """The parts of a snapshot's text."""
    while (part := snapshot.next_part(size)) is not None:
        yield part


@pytest.mark.parametrize("count", range(len(EVENTS) + 1))
def test_what_is_read_back_is_what_was_written(count: int) -> None:
    """Given any point of a partition's life, its state comes back from its text with the same digest."""
    state = folded(count)
    assert digest(restored("".join(text_of(Snapshot(state))), state)) == digest(state)


@settings(deadline=None)
@given(count=st.integers(0, len(EVENTS)), size=st.integers(1, 3_000), pace=st.integers(0, 5))
def test_the_text_is_of_one_moment_while_the_partition_lives_on(
    count: int, size: int, pace: int
) -> None:
    """Given events between the parts, the text still says what was before them, wherever it is cut."""
    state = folded(count)
    then, before = digest(state), bare(state)
    snapshot = Snapshot(state)
    restoration = Restoration(before)
    coming = iter(list(enumerate(EVENTS))[count:])
    for part in text_of(snapshot, size):
        restoration.take(part)
        for _ in range(pace):
            offset, event = next(coming, (0, None))
            if event is not None:
                if event.workflow_id is not None:
                    snapshot.changes(event.workflow_id)
                evolve(state, event, offset)
    assert digest(restoration.whole()) == then


@settings(deadline=None)
@given(count=st.integers(0, len(EVENTS)))
def test_what_is_read_back_folds_on_to_the_same(count: int) -> None:
    """Given the rest of the log, a state that was read back comes to what the first one comes to."""
    one = folded(count)
    two = restored("".join(text_of(Snapshot(one))), one)
    for offset, event in list(enumerate(EVENTS))[count:]:
        evolve(one, event, offset)
        evolve(two, event, offset)
    assert digest(one) == digest(two)


def test_a_checkpoint_of_an_older_release_is_read() -> None:
    """Given the text that format 1 had of a point of that life, it is the state that its events fold to here."""
    state = folded(OLDER_EVENTS)
    assert digest(restored(OLDER.read_text(encoding="utf-8"), state)) == digest(state)


def test_what_an_older_release_could_not_follow_is_folded_anew() -> None:
    """Given a checkpoint whose writer did not know a kind of event, it is refused; this release's own is not."""
    state = folded(OLDER_EVENTS)
    evolve(state, Unreadable("mail", state.claim, "its kind is not known"), OLDER_EVENTS)
    text = "".join(text_of(Snapshot(state)))
    assert digest(restored(text, state)) == digest(state)
    with pytest.raises(LogCorrupt, match=r"older release .* 'mail': .* its kind is not known"):
        restored(text.replace(f'["refold",{FORMAT}]', '["refold",1]'), state)


DAMAGES: list[tuple[Callable[[str], str], str]] = [
    (lambda text: text[: len(text) // 2], "breaks off"),
    (lambda text: text.removesuffix('["end"]\n'), "breaks off"),
    (lambda text: text.replace(f'["refold",{FORMAT}]', f'["refold",{FORMAT + 1}]'), "format"),
    (lambda text: text.replace(f'["refold",{FORMAT}]', "[1"), "can't be read"),
    (lambda text: text.replace('["partition"', '["improved"'), "can't be read"),
]


@pytest.mark.parametrize(("damage", "problem"), DAMAGES)
def test_a_text_that_is_not_right_is_refused(damage: Callable[[str], str], problem: str) -> None:
    """Given a text that is torn, of another format or damaged, it is refused, and the reason said."""
    state = folded(len(EVENTS) - 5)
    text = damage("".join(text_of(Snapshot(state))))
    with pytest.raises(LogCorrupt, match=problem):
        restored(text, state)


class Partition:
    """An owner's book with checkpoints, and nothing else."""

    def __init__(self, settings: CheckpointSettings) -> None:
        self.now = 100 * DAY_US
        self.state = PartitionState()
        claim = PartitionClaimed(
            workflow_id=None,
            position=None,
            recorded_at=0,
            claim=-1,
            command=-1,
            posted=0,
            worker="w",
            partition=0,
        )
        evolve(self.state, claim, 0)
        self.ledger = Ledger(self.state, "w")
        self.checkpoints = Checkpoints(0, self.state, self.ledger, settings, 0)
        self.written: list[tuple[Event, int]] = []

    def record(self, event: Event) -> None:
        """Record an event, and let the checkpoints take their turn."""
        self.ledger.record(event)
        self.rest()

    def rest(self) -> None:
        """Have all that was made acknowledged, until no checkpoint is being written."""
        while True:
            self.checkpoints.step(self.now)
            entries = self.ledger.take_entries()
            first = self.ledger.next_offset
            self.ledger.acked(range(first, first + len(entries)))
            for offset, entry in enumerate(entries, first):
                self.written.append((decoded(offset, entry), len(entry.value)))
            if not self.checkpoints.busy:
                return

    def start(self, run: str) -> None:
        """A run is started."""
        header = self.ledger.header(run, self.state.floor, self.now)
        self.record(WorkflowStarted(**header, workflow="f", payload="[]"))

    def step(self, run: str, payload: str) -> None:
        """A step of a run is recorded."""
        state = self.state.open[run]
        self.record(
            StepCompleted(
                **self.ledger.header(run, state.position, self.now),
                step=state.next_step,
                name="s",
                payload=payload,
                attempt=1,
                started_at=self.now,
            )
        )

    def complete(self, run: str) -> None:
        """A run returns."""
        position = self.state.open[run].position
        self.record(WorkflowCompleted(**self.ledger.header(run, position, self.now), payload="1"))

    def until_checkpoint(self) -> None:
        """A run comes and goes that is long enough for a checkpoint to be due when it has ended."""
        count = len(self.of(CheckpointCompleted))
        self.start("long")
        for _ in range(3):
            self.step("long", json.dumps("x" * 3_000))
        header = self.ledger.header("long", self.state.open["long"].position, self.now)
        self.record(WorkflowCompleted(**header, payload=json.dumps("x" * 30_000)))
        assert len(self.of(CheckpointCompleted)) > count

    def of(self, *kinds: type[Event]) -> list[Event]:
        """What was written of these kinds."""
        return [event for event, _ in self.written if isinstance(event, kinds)]


class TestWhen:
    @settings(deadline=None)
    @given(
        lengths=st.lists(st.integers(0, 3_000), min_size=1, max_size=150),
        ends=st.integers(1, 40),
        min_bytes=st.integers(0, 20_000),
    )
    def test_checkpoints_are_at_most_a_third_of_what_is_written(
        self, lengths: list[int], ends: int, min_bytes: int
    ) -> None:
        """Given any mix of long and short histories, at no time are checkpoints more than a third of the log."""
        partition = Partition(CheckpointSettings(min_bytes=min_bytes))
        for number, length in enumerate(lengths):
            run = f"run-{number // ends}"
            if number % ends == 0:
                partition.start(run)
            partition.step(run, json.dumps("x" * length))
            if number % ends == ends - 1 and number % 3:
                partition.complete(run)
        parts = total = 0
        for event, length in partition.written:
            total += length
            if isinstance(event, CheckpointPart):
                parts += len(event.payload)
        assert parts <= total / (WEIGHT + 1) + SLACK

    def test_a_long_life_has_many(self) -> None:
        """Given runs that come and go, checkpoints are written again and again, and each is whole."""
        partition = Partition(CheckpointSettings(min_bytes=5_000, max_closed=5))
        for number in range(200):
            partition.start(f"run-{number}")
            partition.step(f"run-{number}", "1")
            partition.now += 1
            partition.complete(f"run-{number}")
        begun, completed = partition.of(CheckpointBegun), partition.of(CheckpointCompleted)
        assert len(begun) == len(completed) > 10
        text = ""
        for event in partition.of(CheckpointPart, CheckpointCompleted):
            if isinstance(event, CheckpointPart):
                text += event.payload
            elif isinstance(event, CheckpointCompleted):
                assert event.payload == blake2b(text.encode(), digest_size=32).hexdigest()
                text = ""

    def test_steps_take_less_in_it_than_in_the_log(self) -> None:
        """Given a run with many steps, the text that stands for them is not half as long as their events."""
        partition = Partition(CheckpointSettings(min_bytes=1 << 60))
        partition.start("run")
        for number in range(100):
            partition.step("run", str(number))
        length = sum(map(len, text_of(Snapshot(partition.state))))
        assert length < sum(length for _, length in partition.written) / 2

    def test_the_estimate_is_near(self) -> None:
        """Given runs of any length, the estimated length of a text is its length, give or take a third."""
        partition = Partition(CheckpointSettings(min_bytes=1 << 60))
        for number in range(1_000):
            partition.start(f"run-{number}")
            for _ in range(number % 7):
                partition.step(f"run-{number}", "123")
            if number % 2:
                partition.complete(f"run-{number}")
        length = sum(map(len, text_of(Snapshot(partition.state))))
        assert length * 2 / 3 < estimate(partition.state) < length * 3 / 2


SLACK = 400
"""Lines of a text that are there whatever it holds, and what an estimate is off by for few runs."""


class TestForgetting:
    def test_what_ended_before_the_window_is_forgotten(self) -> None:
        """Given a window of a day, a run that ended two days ago is forgotten, one of this day is not."""
        partition = Partition(CheckpointSettings(min_bytes=0, dedup_window_s=24 * 3600.0))
        partition.start("old")
        partition.complete("old")
        partition.now += 2 * DAY_US
        partition.start("new")
        partition.complete("new")
        partition.until_checkpoint()
        assert set(partition.state.closed) == {"new", "long"}
        assert partition.state.forgotten_before > 0

    def test_the_latest_are_kept_where_there_are_too_many(self) -> None:
        """Given more ended runs than may be known, the latest ones are."""
        partition = Partition(CheckpointSettings(min_bytes=0, max_closed=3))
        for number in range(20):
            partition.now += 1_000_000
            partition.start(f"run-{number}")
            partition.complete(f"run-{number}")
        partition.until_checkpoint()
        assert {"run-18", "run-19"} <= set(partition.state.closed) <= {"run-18", "run-19", "long"}

    def test_a_forgotten_id_is_used_again_and_no_position_twice(self) -> None:
        """Given an id that was forgotten, its new stream begins where no forgotten one had come to."""
        partition = Partition(CheckpointSettings(min_bytes=0, max_closed=0))
        for run in ("again", "other"):
            partition.start(run)
            for _ in range(5 if run == "other" else 1):
                partition.step(run, "1")
            partition.now += 1
            partition.complete(run)
        partition.now += 1
        partition.until_checkpoint()
        assert "again" not in partition.state.closed
        partition.start("again")
        partition.step("again", "2")
        partition.complete("again")
        ids = [
            (event.workflow_id, event.position)
            for event, _ in partition.written
            if event.position is not None
        ]
        assert len(ids) == len(set(ids))
        assert partition.state.floor >= 7

    def test_every_reader_forgets_alike(self) -> None:
        """Given the events alone, a reader comes to the owner's state."""
        partition = Partition(CheckpointSettings(min_bytes=2_000, max_closed=2))
        for number in range(30):
            partition.now += 1_000_000
            partition.start(f"run-{number % 11}-{number // 11}")
            partition.complete(f"run-{number % 11}-{number // 11}")
        state = PartitionState()
        claim = PartitionClaimed(
            workflow_id=None,
            position=None,
            recorded_at=0,
            claim=-1,
            command=-1,
            posted=0,
            worker="w",
            partition=0,
        )
        evolve(state, claim, 0)
        for offset, (event, _) in enumerate(partition.written, 1):
            evolve(state, event, offset)
        assert digest(state) == digest(partition.state)

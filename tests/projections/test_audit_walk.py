"""Tampering with history: whatever is done to a partition is found, at the first event that is not what was written."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronicle import Chronicle, drawn
from refold.log.codec import encode_event
from refold.log.events import WorkflowStarted
from refold.log.protocol import Record
from refold.projections.audit_tree import Tree, leaf, proven
from refold.projections.audit_walk import Finding, Standing, Walk

LENGTH = 30
SEEDS = st.integers(0, 200)
MANY = settings(max_examples=100, deadline=None)


def walked(records: Sequence[Record], start: Standing | None = None, partition: int = 0) -> Walk:
    """A walk over records."""
    start = start or Standing()
    walk = Walk(partition, start, Tree(start.events, start.peaks))
    for record in records:
        walk.take(record)
    return walk


def first(records: Sequence[Record]) -> Finding:
    """The first thing that is found."""
    findings = walked(records).findings
    assert findings, "nothing was found"
    return findings[0]


def renumbered(records: Sequence[Record]) -> list[Record]:
    """As a forger leaves them who knows that offsets have no gap."""
    return [record._replace(offset=offset) for offset, record in enumerate(records)]


def with_value(record: Record, at: int, bit: int) -> Record:
    value = bytearray(record.value)
    value[at] ^= 1 << bit
    return record._replace(value=bytes(value))


@MANY
@given(SEEDS)
def test_nothing_is_found_in_what_was_written(seed: int) -> None:
    """Given a history with several owners and zombies' records, all that counts is counted, and nothing is found."""
    made = drawn(seed)
    walk = walked(made.records())
    assert walk.findings == []
    zombies = len(made.entries) - len(made.counting)
    assert (walk.events, walk.stale, walk.foreign) == (len(made.counting), zombies, 0)


@MANY
@given(SEEDS, st.integers(0, LENGTH - 1), st.integers(0, 10_000), st.integers(0, 7))
def test_a_flipped_bit_is_found_where_it_is(seed: int, offset: int, at: int, bit: int) -> None:
    """Given one bit of one record's value that is another, that record is the first finding."""
    records = drawn(seed).records()
    records[offset] = with_value(records[offset], at % len(records[offset].value), bit)
    assert first(records).offset == offset


@MANY
@given(SEEDS, st.integers(0, LENGTH - 1), st.integers(0, 2))
def test_a_changed_header_is_found_where_it_is(seed: int, offset: int, which: int) -> None:
    """Given a header that says something else than the body, that record is the first finding."""
    records = drawn(seed).records()
    headers = list(records[offset].headers)
    headers[which] = (headers[which][0], headers[which][1] + b"0")
    records[offset] = records[offset]._replace(headers=tuple(headers))
    assert first(records).offset == offset


@MANY
@given(SEEDS, st.integers(0, LENGTH - 1))
def test_a_changed_key_is_found_where_it_is(seed: int, offset: int) -> None:
    """Given a key that is not the event's workflow, that record is the first finding."""
    records = drawn(seed).records()
    records[offset] = records[offset]._replace(key="somebody-else")
    assert first(records).offset == offset


@MANY
@given(SEEDS, st.integers(0, LENGTH - 2))
def test_a_dropped_record_is_found_where_it_was(seed: int, offset: int) -> None:
    """Given a record that is gone, its offset is the first finding."""
    records = drawn(seed).records()
    del records[offset]
    assert first(records)[:2] == ("missing", offset)


@MANY
@given(SEEDS, st.data())
def test_a_dropped_event_is_found_where_offsets_were_closed_up(
    seed: int, data: st.DataObject
) -> None:
    """Given an event that is gone and later ones moved up, the first finding is no later than the next event.

    A claim is no such event: its writer can't know what stands before it.
    """
    made = drawn(seed)
    offset = data.draw(st.sampled_from(made.events()[:-1]))
    records = made.records()
    del records[offset]
    following = next(one for one in made.events() if one > offset) - 1
    assert offset <= first(renumbered(records)).offset <= following


@MANY
@given(SEEDS, st.integers(0, LENGTH), SEEDS)
def test_an_inserted_record_is_found_where_it_is(seed: int, offset: int, other: int) -> None:
    """Given a record of another history between two others, or at the end, it is the first finding."""
    made, foreign = drawn(seed), Chronicle(word="stolen")
    foreign.claim()
    for _ in range(other % 5 + 2):
        foreign.step("order-1")
    records = made.records()
    records.insert(offset, foreign.records()[-1])
    assert first(renumbered(records)).offset == offset


@MANY
@given(SEEDS, st.data())
def test_swapped_events_are_found_at_the_first_of_them(seed: int, data: st.DataObject) -> None:
    """Given two events that changed places, the first finding is at the earlier place."""
    made = drawn(seed)
    places = st.lists(st.sampled_from(made.events()), min_size=2, max_size=2, unique=True)
    one, two = sorted(data.draw(places))
    records = made.records()
    records[one], records[two] = records[two], records[one]
    assert first(renumbered(records)).offset == one


@MANY
@given(SEEDS, st.integers(1, LENGTH - 1))
def test_a_splice_from_another_namespace_is_found_at_the_seam(seed: int, offset: int) -> None:
    """Given another namespace's records behind ours, the first of them that is no claim is the first finding."""
    ours, theirs = drawn(seed).records(), drawn(seed, word="stolen").records()
    behind = [at for at in range(offset, LENGTH) if theirs[at].key is not None]
    findings = walked(ours[:offset] + theirs[offset:]).findings
    assert [finding.offset for finding in findings[:1]] == behind[:1]


def test_a_partition_in_another_s_place_is_found_at_its_first_claim() -> None:
    """Given a whole partition's history under another number, its first claim is the finding."""
    records = drawn(1, partition=1).records()
    assert walked(records, partition=0).findings[0].offset == 0
    assert walked(records, partition=1).findings == []


def test_an_event_that_is_made_to_look_like_a_zombie_s_is_found_where_it_is() -> None:
    """Given a last event under a former claim, by which no chain breaks, it is found: that owner did not write it."""
    made = drawn(3)
    made.claim()
    made.step("order-1")
    records = made.records()
    header = {"workflow_id": "order-1", "position": 0, "recorded_at": 1, "worker": "w"}
    forged, _ = encode_event(
        WorkflowStarted(**header, claim=0, command=-1, posted=0, workflow="x", payload="[]"),  # type: ignore[arg-type]
        bytes(32),
    )
    records[-1] = Record(records[-1].offset, records[-1].timestamp, *forged)
    assert first(records)[:2] == ("stale", len(records) - 1)


def test_garbage_is_told_and_does_not_hide_what_comes_after() -> None:
    """Given a record that no owner wrote, the walk tells it, goes on, and finds the change behind it."""
    made = Chronicle()
    made.claim()
    for _ in range(9):
        made.step("order-1")
    records = made.records()
    records.insert(4, Record(0, 1, "order-1", b"garbage"))
    records[7] = with_value(records[7], 60, 0)
    found = walked(renumbered(records)).findings
    assert [finding[:2] for finding in found] == [("foreign", 4), ("chain", 7)]


def test_a_gap_in_a_stream_is_found() -> None:
    """Given a chain that holds over a stream whose positions jump, the event behind the gap is told."""
    made = Chronicle()
    made.claim()
    made.step("order-1")
    made.positions["order-1"] = 3
    made.step("order-1")
    found = first(made.records())
    assert found[:3] == ("position", 2, "order-1/3/step.completed")
    assert found.expected == "position 1"


@MANY
@given(SEEDS, st.integers(0, LENGTH))
def test_a_walk_that_goes_on_where_another_ended_comes_to_the_same(seed: int, offset: int) -> None:
    """Given a walk to some offset and one from there on, the partition stands as after one walk over all."""
    records = drawn(seed).records()
    before = walked(records[:offset]).standing()
    onwards = walked(records[offset:], before)
    assert onwards.findings == []
    assert onwards.standing() == walked(records).standing()


@MANY
@given(st.integers(0, 40), st.data())
def test_a_proof_proves_just_the_leaves_that_it_was_made_for(
    count: int, data: st.DataObject
) -> None:
    """Given some leaves of a tree, their proof holds, and not with another leaf, a hash less, or a hash more."""
    leaves = [leaf(Record(at, at, None, bytes([at]) * 40)) for at in range(count)]
    wanted = data.draw(st.sets(st.integers(0, count - 1), min_size=1)) if count else set[int]()
    tree = Tree(wanted=wanted)
    for one in leaves:
        tree.add(one)
    proof, chosen = tree.proof(), {at: leaves[at] for at in wanted}
    assert proven(count, tree.peaks, chosen, proof)
    assert not proven(count, tree.peaks, chosen, [*proof, bytes(32)])
    assert not (proof and proven(count, tree.peaks, chosen, proof[1:]))
    for at in wanted:
        assert not proven(count, tree.peaks, {**chosen, at: bytes(32)}, proof)


@pytest.mark.parametrize("seed", range(3))
def test_the_log_s_own_time_is_part_of_a_leaf(seed: int) -> None:
    """Given the same event with another time of the log's, its leaf is another: the chain does not cover that time."""
    record = drawn(seed).records()[-1]
    assert leaf(record) != leaf(record._replace(timestamp=record.timestamp + 1))

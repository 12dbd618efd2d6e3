"""The chain of a partition: whoever changes its history has to write it all again."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.log.codec import GENESIS, encode_event, link, link_claim, verify
from refold.log.errors import LogError
from refold.log.events import Event, PartitionClaimed, TimerFired
from refold.log.protocol import Record


def fired(position: int, name: str = "sleep") -> TimerFired:
    return TimerFired(
        workflow_id="order-42",
        position=position,
        recorded_at=1_700_000_000_000_000 + position,
        claim=0,
        command=3,
        posted=0,
        worker="worker-1",
        step=position,
        name=name,
    )


def claimed(worker: str, claim: int = -1) -> PartitionClaimed:
    return PartitionClaimed(
        workflow_id=None,
        position=None,
        recorded_at=1_700_000_000_000_000,
        claim=claim,
        command=-1,
        posted=0,
        worker=worker,
        partition=0,
    )


def written(events: list[Event], start: bytes = GENESIS) -> list[Record]:
    """The events as an owner writes them, each after the one before."""
    records: list[Record] = []
    for offset, event in enumerate(events):
        entry, start = encode_event(event, start)
        records.append(Record(offset, 0, *entry))
    return records


def all_follow(records: list[Record], chain: bytes = GENESIS) -> bool:
    """Whether each record's chain follows from the one before: what an audit asks."""
    for record in records:
        if not verify(record, chain):
            return False
        chain = record.value[5:37]
    return True


def test_a_chain_is_blake2b_over_the_one_before_and_the_rest_of_the_value() -> None:
    """Given an event, its chain can be computed from its bytes with a hash function and nothing else."""
    entry, chain = encode_event(fired(0), GENESIS)
    assert entry.value[5:37] == chain
    assert chain == hashlib.blake2b(bytes(32) + entry.value[37:], digest_size=32).digest()
    following, next_chain = encode_event(fired(1), chain)
    assert next_chain == hashlib.blake2b(chain + following.value[37:], digest_size=32).digest()


@given(st.integers(0, 9), st.data())
def test_an_altered_dropped_repeated_or_swapped_event_shows(at: int, data: st.DataObject) -> None:
    """Given ten events in order, any single change to what stands in the log breaks the chain."""
    records = written([fired(position) for position in range(10)])
    assert all_follow(records)
    other = data.draw(st.integers(0, 9).filter(lambda place: place != at))
    forged = records[at]._replace(value=records[at].value.replace(b"sleep", b"steal"))
    swapped = list(records)
    swapped[at], swapped[other] = records[other], records[at]
    assert not all_follow([*records[:at], forged, *records[at + 1 :]])
    assert not all_follow([*records[:at], records[at], *records[at:]])
    assert not all_follow(swapped)
    if at < 9:  # what is cut off at the end shows only to who knows the head
        assert not all_follow([*records[:at], *records[at + 1 :]])


def test_a_forger_has_to_write_every_later_event_again() -> None:
    """Given an event forged with a chain of its own that is right, the next event gives it away."""
    records = written([fired(0), fired(1), fired(2)])
    entry, _ = encode_event(fired(1, "steal"), records[0].value[5:37])
    forged = Record(1, 0, *entry)
    assert all_follow([records[0], forged])
    assert not all_follow([records[0], forged, records[2]])


@pytest.mark.parametrize("header", ["kind", "event_id", "claim"])
def test_a_header_that_says_other_than_the_body_shows(header: str) -> None:
    """Given a header that was changed, verification fails though the value is whole."""
    (record,) = written([fired(0)])
    headers = tuple((name, b"9" if name == header else text) for name, text in record.headers)
    assert not verify(record._replace(headers=headers), GENESIS)


def test_a_header_after_our_own_is_left_alone() -> None:
    """Given a traceparent after our headers, the record still verifies."""
    (record,) = written([fired(0)])
    trace = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    assert verify(record._replace(headers=(*record.headers, trace)), GENESIS)


def test_a_claims_chain_stands_for_itself() -> None:
    """Given two different events before it, a claim's bytes are the same: its writer can't know them."""
    one = encode_event(claimed("worker-2"), GENESIS)
    other = encode_event(claimed("worker-2"), bytes(range(32)))
    assert one == other
    entry, chain = one
    assert chain == hashlib.blake2b(bytes(32) + entry.value[37:], digest_size=32).digest()
    assert verify(Record(0, 0, *entry), bytes(range(32)))


def test_an_accepted_claim_binds_what_stands_before_it() -> None:
    """Given a claim over two different histories, the events after it have different chains."""
    _, claim = encode_event(claimed("worker-2"), GENESIS)
    heads = [written([fired(0, name)])[0].value[5:37] for name in ("sleep", "steal")]
    assert link_claim(heads[0], claim) != link_claim(heads[1], claim)
    assert link_claim(heads[0], claim) == hashlib.blake2b(heads[0] + claim, digest_size=32).digest()


@pytest.mark.parametrize("previous", [b"", bytes(31), bytes(33)])
def test_a_chain_of_another_length_is_refused(previous: bytes) -> None:
    """Given something that is no chain, such as an event's default, nothing is chained to it."""
    with pytest.raises(LogError, match="32 bytes"):
        link(previous, b"body")
    with pytest.raises(LogError, match="32 bytes"):
        encode_event(fired(0), previous)

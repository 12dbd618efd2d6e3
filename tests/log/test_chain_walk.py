"""Walking a chain: which records count, and that no change, gap or swap goes unseen."""

from collections.abc import Callable, Sequence

import pytest

from refold.log.chain_walk import ChainWalk
from refold.log.codec import GENESIS, encode_event, link_claim
from refold.log.errors import LogCorrupt
from refold.log.events import PartitionClaimed, StepCompleted
from refold.log.protocol import Entry, Record


def claim(previous: int) -> PartitionClaimed:
    return PartitionClaimed(
        workflow_id=None,
        position=None,
        recorded_at=1,
        claim=previous,
        command=-1,
        posted=0,
        worker="w",
        partition=0,
    )


def done(position: int, under: int) -> StepCompleted:
    return StepCompleted(
        workflow_id="order-1",
        position=position,
        recorded_at=1,
        claim=under,
        command=-1,
        posted=0,
        worker="w",
        step=position,
        name="charge",
        attempt=1,
        started_at=1,
        payload="1",
    )


def history() -> list[Record]:
    """Two owners; the first has written something more after the second's claim."""
    entries: list[Entry] = []
    entry, own = encode_event(claim(-1), GENESIS)
    entries.append(entry)
    chain = link_claim(GENESIS, own)
    for position in range(3):
        entry, chain = encode_event(done(position, 0), chain)
        entries.append(entry)
    entry, own = encode_event(claim(0), GENESIS)
    entries.append(entry)
    late, _ = encode_event(done(3, 0), chain)
    entries.append(late)
    chain = link_claim(chain, own)
    for position in range(3, 6):
        entry, chain = encode_event(done(position, 4), chain)
        entries.append(entry)
    return [Record(offset, 1, *entry) for offset, entry in enumerate(entries)]


def walked(records: Sequence[Record], walk: ChainWalk) -> list[int]:
    """Offsets of the records that count."""
    return [record.offset for record in records if walk.take(record)]


def test_what_a_former_owner_wrote_does_not_count() -> None:
    """Given a record under a claim that is no longer the current one, all others count, and the chain holds."""
    assert walked(history(), ChainWalk(0)) == [0, 1, 2, 3, 4, 6, 7, 8]


def changed(records: list[Record]) -> None:
    value = records[2].value
    records[2] = records[2]._replace(value=value[:-3] + bytes([value[-3] ^ 1]) + value[-2:])


def dropped(records: list[Record]) -> None:
    del records[2]


def swapped(records: list[Record]) -> None:
    records[1], records[2] = records[2], records[1]


def renamed(records: list[Record]) -> None:
    kind, event_id, *rest = records[2].headers
    records[2] = records[2]._replace(headers=(kind, (event_id[0], b"another"), *rest))


@pytest.mark.parametrize("tamper", [changed, dropped, swapped, renamed])
def test_no_tampering_goes_unseen(tamper: Callable[[list[Record]], None]) -> None:
    """Given one event that was changed, dropped, swapped or given other headers, the walk stops there."""
    records = history()
    tamper(records)
    with pytest.raises(LogCorrupt, match="partition 0"):
        walked(records, ChainWalk(0))


@pytest.mark.parametrize("start", [2, 6, 7])
def test_a_walk_may_begin_in_the_midst(start: int) -> None:
    """Given the current claim but not the chain, the chain is checked from the second event that counts on."""
    records = history()[start:]
    claim_there = 0 if start < 4 else 4
    expected = [offset for offset in (2, 3, 4, 6, 7, 8) if offset >= start]
    assert walked(records, ChainWalk(0, claim_there, None)) == expected
    last = records[-1]
    records[-1] = last._replace(value=last.value[:40] + b"\x00" + last.value[41:])
    with pytest.raises(LogCorrupt):
        walked(records, ChainWalk(0, claim_there, None))


def test_a_record_that_counts_and_cant_be_read_stops_it() -> None:
    """Given a record of an unknown schema under the current claim, the walk says that it can't be read."""
    records = history()
    records[2] = records[2]._replace(value=b"\x00\x00\x00\x00\x07" + records[2].value[5:])
    with pytest.raises(LogCorrupt, match="offset 2 of partition 0 can't be read"):
        walked(records, ChainWalk(0))


def test_what_a_stranger_wrote_is_no_part_of_it() -> None:
    """Given a record that no owner wrote, the chain leads over it."""
    records = history()
    stranger = Record(2, 1, "order-1", b"hello", ())
    assert walked([*records[:2], stranger, *records[2:]], ChainWalk(0)) == [
        0,
        1,
        2,
        2,
        3,
        4,
        6,
        7,
        8,
    ]

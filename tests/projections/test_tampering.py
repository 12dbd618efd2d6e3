"""Seven ways to tamper with a sealed log and its archive: each is found, at the first event that is not what it was.

The log is in memory, in a file, or cut at its middle with the first half in an archive's files. Whoever tampers
rewrites rows and files as they like, manifest and all; they do not have the key that seals.
"""

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronicle import Chronicle, drawn
from refold.log.archive_avro import AvroFiles
from refold.log.archive_rows import Row
from refold.log.archive_writer import ArchiveSettings, writing
from refold.log.archived import ArchivedLog
from refold.log.memory import MemoryLog, MemoryStore
from refold.log.protocol import Channel, Log, Record
from refold.log.sqlite import SqliteLog
from refold.log.sqlite_reader import pack_headers
from refold.projections.audit import Stood, stand_of, verify_partition
from refold.projections.audit_walk import Finding, Standing
from refold.projections.seal import Seal, SealKey, sound_seals

LENGTH = 30
ARCHIVED = 15
SEEDS = st.integers(0, 200)
KEY, THIEF = SealKey.generate(), SealKey.generate()


class Place(Protocol):
    """Where somebody who tampers puts whatever records they like."""

    def holding(self, records: Sequence[Record]) -> Log:
        """A log that has these records, not open yet."""
        ...


class InMemory:
    def holding(self, records: Sequence[Record]) -> Log:
        store = MemoryStore()
        # As no owner could append them.
        store._records[Channel.EVENTS, 0] = list(records)  # pyright: ignore[reportPrivateUsage]
        return MemoryLog(store=store)


class InFile:
    def __init__(self, directory: Path) -> None:
        self.path = directory / "log.db"

    def holding(self, records: Sequence[Record]) -> Log:
        if not self.path.exists():
            asyncio.run(_made(SqliteLog(self.path, 1)))
        with closing(sqlite3.connect(self.path)) as db, db:
            db.execute("PRAGMA synchronous = OFF")
            db.execute("DELETE FROM events")
            db.executemany(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?)",
                [(r.offset, r.timestamp, r.key, r.value, pack_headers(r.headers)) for r in records],
            )
        return SqliteLog(self.path)


class InArchive:
    """The first half in files of an archive, made once and written over since; the rest in the log."""

    def __init__(self, directory: Path) -> None:
        self._log = InFile(directory)
        self._place = directory / "archive"

    def holding(self, records: Sequence[Record]) -> Log:
        if not self._place.exists():
            asyncio.run(self._archive(self._log.holding(drawn(0, LENGTH).records())))
        manifest = json.loads((self._place / "manifest.json").read_text())
        for file in manifest["files"]:
            path = next(self._place.rglob(f"{file['start']:020}-*"))
            with path.open("w+b") as opened:
                writer = AvroFiles().writer(opened)
                within = [r for r in records if file["start"] <= r.offset < file["end"]]
                writer.write([Row(record, True, {}) for record in within])
                writer.finish()
            content = path.read_bytes()
            file.update(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        (self._place / "manifest.json").write_text(json.dumps(manifest))
        rest = [record for record in records if record.offset >= ARCHIVED]
        return ArchivedLog(self._log.holding(rest), str(self._place))

    async def _archive(self, log: Log) -> None:
        await log.open()
        with writing(str(self._place), log, ArchiveSettings("avro", file_records=10)) as writer:
            await writer.add(log, 0, ARCHIVED, lambda _partition, _more: None)
        await log.close()


async def _made(log: Log) -> None:
    await log.open()
    await log.close()


class Tampered(NamedTuple):
    """What was done to a history.

    Args:
        records: What is left.
        offset: The first that is not what was sealed.
    """

    records: list[Record]
    offset: int


def renumbered(records: Sequence[Record]) -> list[Record]:
    """As a forger leaves them who knows that offsets have no gap."""
    return [record._replace(offset=offset) for offset, record in enumerate(records)]


def flip(made: Chronicle, data: st.DataObject) -> Tampered:
    records = made.records()
    offset = data.draw(st.integers(0, LENGTH - 1))
    value = bytearray(records[offset].value)
    bit = data.draw(st.integers(0, 8 * len(value) - 1))
    value[bit // 8] ^= 1 << bit % 8
    records[offset] = records[offset]._replace(value=bytes(value))
    return Tampered(records, offset)


def drop(made: Chronicle, data: st.DataObject) -> Tampered:
    records = made.records()
    # Not the first that is not archived: then log and archive do not meet, and are not even opened.
    offset = data.draw(st.integers(0, LENGTH - 2).filter(lambda at: at != ARCHIVED))
    del records[offset]
    return Tampered(records, offset)


def drop_and_close_up(made: Chronicle, data: st.DataObject) -> Tampered:
    records = made.records()
    offset = data.draw(st.sampled_from(made.events()[:-1]))
    del records[offset]
    following = next(at for at in made.counting if at > offset)  # what does not count may be before
    return Tampered(renumbered(records), following - 1)


def insert(made: Chronicle, data: st.DataObject) -> Tampered:
    stolen = drawn(data.draw(SEEDS), word="stolen")
    record = stolen.records()[data.draw(st.sampled_from(stolen.events()))]
    records = made.records()
    offset = data.draw(st.integers(0, LENGTH))
    records.insert(offset, record)
    return Tampered(renumbered(records), offset)


def swap(made: Chronicle, data: st.DataObject) -> Tampered:
    records = made.records()
    events = st.sampled_from(made.events())
    one, two = sorted(data.draw(st.lists(events, min_size=2, max_size=2, unique=True)))
    records[one], records[two] = records[two], records[one]
    return Tampered(renumbered(records), one)


def truncate(made: Chronicle, data: st.DataObject) -> Tampered:
    end = data.draw(st.integers(ARCHIVED + 1, LENGTH - 1))
    return Tampered(made.records()[:end], end)


def splice(made: Chronicle, data: st.DataObject) -> Tampered:
    stolen = drawn(data.draw(SEEDS), word="stolen")
    offset = data.draw(st.sampled_from(stolen.events()))  # a claim passes for one that lost a race
    return Tampered(made.records()[:offset] + stolen.records()[offset:], offset)


def sealed(
    records: Sequence[Record],
    every: int = 1,
    start: Standing | None = None,
    former: Seal | None = None,
    key: SealKey = KEY,
) -> Seal:
    """A seal of a history, walked from how it stood, that follows a former one."""

    async def stand() -> Stood:
        log = InMemory().holding(records)
        await log.open()
        return await stand_of(log, 0, start or Standing(), every=every)

    stood = asyncio.run(stand())
    marks = [stood.marks]
    return key.seal("shop", "id", 1, [stood.standing], former, every=every, marks=marks)


def found(log: Log, seals: Sequence[Seal]) -> Sequence[Finding]:
    async def verify() -> Sequence[Finding]:
        await log.open()
        try:
            return (await verify_partition(log, 0, seals)).findings
        finally:
            await log.close()

    return asyncio.run(verify())


PLACES: dict[str, Callable[[Path], Place]] = {
    "memory": lambda _directory: InMemory(),
    "sqlite": InFile,
    "archive": InArchive,
}
EXAMPLES = {"memory": 60, "sqlite": 10, "archive": 10}


@pytest.fixture(params=PLACES)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Place, int]:
    """A place for a log, and how many examples it is worth."""
    return PLACES[request.param](tmp_path), EXAMPLES[request.param]


@pytest.mark.parametrize(
    "tamper",
    [flip, drop, drop_and_close_up, insert, swap, truncate, splice],
    ids=lambda f: f.__name__,
)
def test_whatever_is_done_to_a_sealed_log_is_found_where_it_was_done(
    kept: tuple[Place, int], tamper: Callable[[Chronicle, st.DataObject], Tampered]
) -> None:
    """Given any history and something done to it anywhere, the first finding is at the first record concerned."""
    place, examples = kept

    @settings(max_examples=examples)
    @given(SEEDS, st.data())
    def hold(seed: int, data: st.DataObject) -> None:
        made = drawn(seed, LENGTH)
        seal = sealed(made.records())
        records, offset = tamper(made, data)
        findings = found(place.holding(records), [seal])
        assert findings
        assert findings[0].offset == offset

    hold()


def test_a_history_written_anew_and_sealed_with_another_key_is_found_where_it_begins(
    kept: tuple[Place, int],
) -> None:
    """Given a history that somebody wrote anew from some event on, chain and all, and sealed with a key of their own,
    the auditor's key denies that seal, and the genuine ones before it tell the event, or as near as their marks are."""
    place, examples = kept

    @settings(max_examples=examples)
    @given(SEEDS, st.data(), st.sampled_from([1, 4, 16]))
    def hold(seed: int, data: st.DataObject, every: int) -> None:
        made = drawn(seed, LENGTH)
        ends = sorted(data.draw(st.sets(st.integers(2, LENGTH), min_size=1, max_size=3)))
        genuine: list[Seal] = []
        for end in ends:
            last = genuine[-1] if genuine else None
            start = last.partitions[0] if last else None
            genuine.append(sealed(made.records()[:end], every, start, last))
        offset = data.draw(st.sampled_from(made.counting[1:]))
        records = drawn(seed, LENGTH, anew=offset).records()
        forged = sealed(records, every, None, genuine[-1], THIEF)
        lines = "".join(f"{seal.line}\n" for seal in (*genuine, forged))
        known, wrong = sound_seals(lines, [KEY.public], "seals")
        assert known == genuine
        assert f"seal {len(genuine) + 1} of seals is signed by the key {THIEF.public.id}" in str(
            wrong
        )
        assert not found(place.holding(records), ())
        findings = found(place.holding(records), known)
        if offset >= ends[-1]:
            assert not findings  # nobody but the other key has sealed it
            return
        (finding,) = findings
        between = [at for at in made.counting if finding.offset <= at <= offset]
        assert (finding.kind, between[-1]) == ("seal", offset)
        assert len(between) <= every

    hold()

"""Verifying whole logs: files that were edited beside refold, archives, and seals that say how a log stood."""

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from chronicle import Chronicle, drawn
from refold.log.archive import Archive, identity_of
from refold.log.archive_avro import AvroFiles
from refold.log.archive_rows import Row
from refold.log.archive_writer import ArchiveSettings, writing
from refold.log.archived import ArchivedLog
from refold.log.errors import LogCorrupt, LogMismatch, LogTrimmed
from refold.log.memory import MemoryLog, MemoryStore
from refold.log.protocol import Channel, Entry, Log
from refold.log.sqlite import SqliteLog
from refold.projections.audit import PartitionReport, check_are_of, stand_of, verify_partition
from refold.projections.audit_walk import Finding, Standing
from refold.projections.seal import Seal, SealKey, read_seal, read_seals

LENGTH = 60
KEY = SealKey.generate()


async def filled(log: Log, entries: Sequence[Entry]) -> Log:
    """An open log that has these entries."""
    await log.open()
    await log.append(Channel.EVENTS, 0, entries)
    return log


def sqlite_log(path: Path, made: Chronicle) -> Path:
    """A log's file with a history in it."""

    async def fill() -> None:
        log = await filled(SqliteLog(path, 1), made.entries)
        await log.close()

    asyncio.run(fill())
    return path


def verified(log: Log, seals: Sequence[Seal] = ()) -> PartitionReport:
    """What is found in a log's one partition."""

    async def verify() -> PartitionReport:
        await log.open()
        try:
            check_are_of(seals, log, identity_of(log))
            return await verify_partition(log, 0, seals)
        finally:
            await log.close()

    return asyncio.run(verify())


def first(log: Log, seals: Sequence[Seal] = ()) -> Finding:
    findings = verified(log, seals).findings
    assert findings, "nothing was found"
    return findings[0]


def sealed(log: Log, former: Sequence[Seal] = (), key: SealKey = KEY) -> list[Seal]:
    """The former seals of a log and a new one."""

    async def seal() -> Seal:
        await log.open()
        try:
            last = former[-1] if former else None
            start = Standing() if last is None else last.partitions[0]
            standing, *_ = await stand_of(log, 0, start)
            return key.seal(log.namespace, identity_of(log), 1, [standing], last)
        finally:
            await log.close()

    return [*former, asyncio.run(seal())]


def edit(path: Path, statement: str, *values: object) -> None:
    """What somebody does to the file with a database's own tools."""
    with sqlite3.connect(path) as file:
        file.execute(statement, values)
    file.close()


# A log's file ------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log's file."""
    return sqlite_log(tmp_path / "orders.db", drawn(11, LENGTH))


def test_a_value_that_was_edited_in_the_file_is_found(path: Path) -> None:
    """Given an amount that was changed in the database, that event is the first finding."""
    made = drawn(11, LENGTH)
    offset = made.events()[20]
    value = made.entries[offset].value
    edit(path, "UPDATE events SET value = ? WHERE id = ?", value[:-1] + b"9", offset)
    found = first(SqliteLog(path))
    assert (found.kind, found.offset) == ("chain", offset)


def test_a_deleted_row_is_found_and_so_is_what_stands_before_it(path: Path) -> None:
    """Given a row that was deleted, its offset is the finding; one that was edited before it is the first."""
    edit(path, "DELETE FROM events WHERE id = 41")
    assert first(SqliteLog(path)).offset == 41
    edit(path, "UPDATE events SET headers = x'00' WHERE id = 37")
    assert first(SqliteLog(path)).offset == 37


def test_a_file_that_was_cut_off_is_found_by_its_seals_alone(path: Path) -> None:
    """Given the last events deleted, the chain holds, and a seal says that there were more."""
    seals = sealed(SqliteLog(path))
    edit(path, "DELETE FROM events WHERE id >= 50")
    assert verified(SqliteLog(path)).findings == ()
    found = first(SqliteLog(path), seals)
    assert (found.kind, found.offset) == ("seal", 50)
    assert "cut off" in found.told


@pytest.mark.parametrize(("from_", "denied"), [(0, 0), (10, 0), (25, 20), (39, 32)])
def test_a_history_that_was_written_anew_is_found_by_its_seals_alone(
    from_: int, denied: int
) -> None:
    """Given another history from some event on, whose chain holds, and seals without marks, as early releases made
    them, a range is told: from the last seal or peak that fits to the first that does not."""
    ours, forged = MemoryStore(now_us=lambda: 1), MemoryStore(now_us=lambda: 1)
    forged.identity = ours.identity
    made, stolen = Chronicle(), Chronicle()
    for one in (made, stolen):
        one.claim()
        for at in range(39):
            one.word = "stolen" if one is stolen and at + 1 >= from_ else "paid"
            one.step("order-1")
    seals: list[Seal] = []
    for half in (made.entries[:20], made.entries[20:]):
        asyncio.run(filled(MemoryLog(store=ours), half))
        seals = sealed(MemoryLog(store=ours), seals)
    asyncio.run(filled(MemoryLog(store=forged), stolen.entries))
    whole = verified(MemoryLog(store=ours), seals)
    assert (whole.sealed, whole.findings) == (40, ())
    assert verified(MemoryLog(store=forged)).findings == ()
    found = first(MemoryLog(store=forged), seals)
    assert (found.kind, found.offset) == ("seal", denied)
    assert "written anew" in found.told


def test_a_changed_time_of_the_log_s_is_found_by_its_seals_alone(path: Path) -> None:
    """Given another time at which the log took an event in, which no chain covers, a seal denies it."""
    seals = sealed(SqliteLog(path))
    edit(path, "UPDATE events SET timestamp = timestamp + 1 WHERE id = 30")
    assert verified(SqliteLog(path)).findings == ()
    assert first(SqliteLog(path), seals).kind == "seal"


def test_a_log_that_took_another_s_place_is_found(tmp_path: Path, path: Path) -> None:
    """Given seals of one namespace and the file of another with the same history, they are told apart."""
    seals = sealed(SqliteLog(path))
    other = sqlite_log(tmp_path / "other.db", drawn(11, LENGTH))
    with pytest.raises(LogMismatch, match="another log"):
        verified(SqliteLog(other), seals)


def test_nothing_that_was_changed_is_sealed(path: Path) -> None:
    """Given an event that was changed since the last seal, or a log that was cut off, there is no new seal."""
    seals = sealed(SqliteLog(path))
    with sqlite3.connect(path) as file:
        (value,) = file.execute("SELECT value FROM events WHERE id = 59").fetchone()
        file.execute("DELETE FROM events WHERE id = 59")
    file.close()
    with pytest.raises(LogCorrupt, match="was cut off"):
        sealed(SqliteLog(path), seals)
    fresh = sqlite_log(path.with_name("fresh.db"), drawn(11, LENGTH))
    edit(fresh, "UPDATE events SET value = ? WHERE id = 20", value)
    with pytest.raises(LogCorrupt, match="at offset 20"):
        sealed(SqliteLog(fresh))


def test_garbage_that_was_sealed_is_known() -> None:
    """Given a record that no owner wrote, it is told until a seal has it, and then no more."""
    store = MemoryStore()
    made = drawn(2, 10)
    entries = [*made.entries, Entry("order-1", b"garbage")]
    asyncio.run(filled(MemoryLog(store=store), entries))
    assert first(MemoryLog(store=store)).kind == "foreign"
    seals = sealed(MemoryLog(store=store))
    assert seals[0].partitions[0].foreign == 1
    assert verified(MemoryLog(store=store), seals).findings == ()


# Archives -----------------------------------------------------------------------------------------------------


def archived(tmp_path: Path, path: Path) -> Path:
    """An archive of the log, in files of 20 events."""
    place = tmp_path / "archive"

    async def archive() -> None:
        log = SqliteLog(path)
        await log.open()
        with writing(str(place), log, ArchiveSettings("avro", file_records=20)) as writer:
            await writer.add(log, 0, LENGTH, lambda _partition, _more: None)
        await log.trim(Channel.EVENTS, 0, 40)
        await log.close()

    asyncio.run(archive())
    return place


@pytest.mark.parametrize("covered_up", [False, True])
def test_an_archived_file_that_was_edited_is_found_at_its_event(
    tmp_path: Path, path: Path, covered_up: bool
) -> None:
    """Given an archived event that was changed, it is the first finding, whether or not the manifest says the same."""
    place = archived(tmp_path, path)
    assert verified(ArchivedLog(SqliteLog(path), str(place))).findings == ()
    offset = next(at for at in drawn(11, LENGTH).events() if at > 24)
    file = Archive(str(place)).manifest.of(0)[1]
    records = [record for batch in Archive(str(place)).records(file) for record in batch]
    changed = records[offset - 20]
    records[offset - 20] = changed._replace(value=changed.value[:-1] + b"9")
    with (place / file.path).open("w+b") as opened:
        writer = AvroFiles().writer(opened)
        writer.write([Row(record, True, {}) for record in records])
        writer.finish()
    if covered_up:
        content = (place / file.path).read_bytes()
        manifest = (place / "manifest.json").read_text()
        manifest = manifest.replace(file.sha256, hashlib.sha256(content).hexdigest())
        manifest = manifest.replace(f'"size": {file.size}', f'"size": {len(content)}')
        (place / "manifest.json").write_text(manifest)
    found = first(ArchivedLog(SqliteLog(path), str(place)))
    assert (found.kind, found.offset) == ("chain", offset)


def test_an_archived_file_that_is_gone_or_torn_is_found_where_it_begins(
    tmp_path: Path, path: Path
) -> None:
    """Given an archived file cut short, the walk ends at the first event of it that can't be read."""
    place = archived(tmp_path, path)
    (file,) = place.rglob("00000000000000000020-*")
    file.write_bytes(file.read_bytes()[:-300])
    found = first(ArchivedLog(SqliteLog(path), str(place)))
    assert found.kind == "unreadable"
    assert 20 <= found.offset < 40


def test_a_trimmed_log_is_verified_from_its_seals_on(tmp_path: Path, path: Path) -> None:
    """Given seals and a log whose beginning is gone, what is left is held against them; with the archive, all is."""
    seals = sealed(SqliteLog(path))
    place = archived(tmp_path, path)
    whole = verified(ArchivedLog(SqliteLog(path), str(place)), seals)
    assert (whole.start, whole.sealed, whole.findings) == (0, LENGTH, ())
    with pytest.raises(LogTrimmed, match="--archive"):
        sealed(SqliteLog(path))
    assert len(sealed(SqliteLog(path), seals)) == 2


# Seals --------------------------------------------------------------------------------------------------------


@pytest.fixture
def seals(path: Path) -> list[Seal]:
    """Three seals of one log."""
    made: list[Seal] = []
    for _ in range(3):
        made = sealed(SqliteLog(path), made)
    return made


def lines(seals: Sequence[Seal]) -> str:
    return "".join(f"{seal.line}\n" for seal in seals)


def test_seals_read_back_are_what_was_sealed(seals: list[Seal]) -> None:
    """Given a file of seals, each is verified and says what it said."""
    assert read_seals(lines(seals), [KEY.public], "seals") == seals


@pytest.mark.parametrize("lost", [0, 1])
def test_a_seal_that_was_removed_is_missed(seals: list[Seal], lost: int) -> None:
    """Given a seal that is gone and was not the last, the one after it does not follow."""
    del seals[lost]
    with pytest.raises(LogCorrupt, match=f"seal {lost + 1} of seals does not follow"):
        read_seals(lines(seals), [KEY.public], "seals")


def test_a_seal_that_was_changed_is_refused(seals: list[Seal]) -> None:
    """Given a seal with another number in it, its signature does not fit."""
    line = json.loads(seals[1].line)
    line["seal"] = line["seal"].replace('"end":60', '"end":59')
    seals[1] = replace(seals[1], line=json.dumps(line))
    with pytest.raises(LogCorrupt, match="seal 2 of seals was changed"):
        read_seals(lines(seals), [KEY.public], "seals")


def test_a_seal_by_another_key_is_refused(path: Path, seals: list[Seal]) -> None:
    """Given a seal that somebody else signed, also under our key's name, it is refused."""
    thief = SealKey.generate()
    forged = sealed(SqliteLog(path), seals[:1], thief)
    with pytest.raises(LogMismatch, match=f"signed by the key {thief.public.id}"):
        read_seals(lines(forged), [KEY.public], "seals")
    line = json.loads(forged[1].line)
    line["seal"] = line["seal"].replace(thief.public.id, KEY.public.id)
    with pytest.raises(LogCorrupt, match="was changed"):
        read_seal(json.dumps(line), [KEY.public], "a seal")
    assert len(read_seals(lines(forged), [KEY.public, thief.public], "seals")) == 2


@pytest.mark.parametrize("line", ["", "{}", "[]", '{"seal": "{}", "signature": ""}', "\x00"])
def test_what_is_no_seal_is_refused(line: str) -> None:
    """Given a line of something else, it is told that it is no seal."""
    with pytest.raises(LogCorrupt, match="is not a seal"):
        read_seal(line, [KEY.public], "seal 1")

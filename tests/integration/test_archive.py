"""Archiving and trimming on every log: history moves, nothing is lost on the way, and workers go on."""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from io import BufferedRandom
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from engine_trial import kinds, until, with_log
from log_backend import PATIENCE_S, LogBackend, SqliteBackend
from refold import CheckpointSettings, Engine, Status, receive, step, stream, workflow
from refold.engine.digest import digest
from refold.engine.recovery import recover
from refold.log.archive import Archive
from refold.log.archive_disk import Disk
from refold.log.archive_writer import ArchiveSettings
from refold.log.archived import ArchivedLog
from refold.log.codec import decode_event, encode_event
from refold.log.errors import (
    LogCorrupt,
    LogMismatch,
    LogTrimmed,
    LogUnavailable,
    WorkflowNotFound,
)
from refold.log.events import CheckpointBegun, CheckpointCompleted, CheckpointPart
from refold.log.protocol import Channel, Entry, Log, Record
from refold.projections.audit import verify_partition
from refold.services.archiving import Archived, Order, archive_log

OFTEN = CheckpointSettings(min_bytes=3_000)
SMALL = ArchiveSettings("avro", file_records=40)
RUNS = 60
RAN: list[str] = []


@step
async def note(text: str) -> str:
    RAN.append(text)
    return text * 20


@step
async def breaks(text: str) -> str:
    raise ValueError(text)


@workflow
async def short(text: str) -> str:
    stream("words").write(text)
    return await note(text)


@workflow
async def waits(text: str) -> str:
    first = await note(text)
    answer = await receive("go", str)
    return first[:1] + answer + await note("end of " + text)


@workflow
async def fails(text: str) -> str:
    await note(text)
    return await breaks(text)


def engine_on(log: Log, checkpoints: CheckpointSettings = OFTEN) -> Engine:
    """An engine that writes checkpoints often."""
    return Engine(log, workflows=[short, waits, fails], drain_s=PATIENCE_S, checkpoints=checkpoints)


def lived(backend: LogBackend) -> None:
    """Runs end, fail, and wait, with checkpoints between them; all that ended did so before the last checkpoints."""
    RAN.clear()
    with engine_on(backend.log()) as engine:
        for run in ("one", "two"):
            engine.start(waits, run, id=run)
            until(lambda run=run: "step.completed" in kinds(engine, run))  # type: ignore[misc]
        for run in ("f0", "f1", "f2", "f3"):
            with pytest.raises(ValueError, match=run):
                engine.start(fails, run, id=run).result(PATIENCE_S)
        handles = [engine.start(short, f"s{n}", id=f"s{n}") for n in range(RUNS)]
        for handle in handles:
            handle.result(PATIENCE_S)
    assert None not in checkpoints(backend)


def until_checkpoints(engine: Engine, backend: LogBackend, first: Sequence[int]) -> None:
    """Let runs end until each partition has another checkpoint: when, hangs on the length of hosts' names and pids."""
    for n in range(0, 10 * RUNS, 15):
        if all(
            c is not None and c > former
            for c, former in zip(checkpoints(backend), first, strict=True)
        ):
            return
        handles = [engine.start(short, f"t{i}", id=f"t{i}") for i in range(n, n + 15)]
        for handle in handles:
            handle.result(PATIENCE_S)
    pytest.fail("no checkpoint was written")


def checkpoints(backend: LogBackend) -> list[int | None]:
    async def look(log: Log) -> list[int | None]:
        return [(await recover(log, p)).checkpoint for p in range(log.partitions)]

    return with_log(backend, look)


def archived(
    backend: LogBackend,
    place: Path,
    *,
    trim: bool = True,
    before_us: int | None = None,
    dry_run: bool = False,
    disk: Disk | None = None,
    settings: ArchiveSettings = SMALL,
) -> Sequence[Archived]:
    """Archive, and trim."""
    order = Order(str(place), settings, before_us, trim, dry_run)
    return with_log(backend, lambda log: archive_log(log, order, disk=disk))


def with_archive(backend: LogBackend, place: Path) -> Log:
    return ArchivedLog(backend.log(), str(place))


def whole(log: Log) -> list[list[Record]]:
    """All events of an unopened log, by partition."""

    async def read() -> list[list[Record]]:
        await log.open()
        try:
            return [
                [r async for batch in log.read(Channel.EVENTS, p, 0) for r in batch]
                for p in range(log.partitions)
            ]
        finally:
            await log.close()

    return asyncio.run(read())


def starts(backend: LogBackend) -> list[int]:
    async def look(log: Log) -> list[int]:
        return [(await log.bounds(Channel.EVENTS, p)).start for p in range(log.partitions)]

    return with_log(backend, look)


def recovered(backend: LogBackend) -> list[str]:
    """Digest of each partition as an owner recovers it."""

    async def fold(log: Log) -> list[str]:
        digests: list[str] = []
        for partition in range(log.partitions):
            folded = await recover(log, partition)
            await folded.go_on(log, partition)
            digests.append(digest(folded.state))
        return digests

    return with_log(backend, fold)


def gone(log: Log, what: Callable[[Engine], object], error: type[Exception] = LogTrimmed) -> str:
    """What is said where history is needed that was trimmed."""
    with engine_on(log) as engine, pytest.raises(error) as raised:
        what(engine)
    return str(raised.value)


def test_history_moves_and_is_one_history_still(any_backend: LogBackend, tmp_path: Path) -> None:
    """Given a trimmed log, it and its archive together give the very records that there were, and the chain holds."""
    lived(any_backend)
    before, folded = whole(any_backend.log()), recovered(any_backend)
    done = archived(any_backend, tmp_path / "a")
    assert all(start > 0 for start in starts(any_backend))
    assert [one.archived.end for one in done] == [len(records) for records in before]
    assert whole(with_archive(any_backend, tmp_path / "a")) == before
    assert recovered(any_backend) == folded
    with pytest.raises(LogTrimmed, match="--archive"):
        whole(any_backend.log())

    async def audit(log: Log) -> None:
        archive = ArchivedLog(log, str(tmp_path / "a"))
        await archive.open()
        for partition, all_ in enumerate(before):
            report = await verify_partition(archive, partition)
            assert (report.start, report.standing.end, report.findings) == (0, len(all_), ())

    with_unopened(any_backend, audit)


def with_unopened(backend: LogBackend, use: Callable[[Log], Coroutine[Any, Any, None]]) -> None:
    """Let `use` open a log, and close it."""
    log = backend.log()

    async def run() -> None:
        await use(log)
        await log.close()

    asyncio.run(run())


def test_workers_go_on_after_trimming(any_backend: LogBackend, tmp_path: Path) -> None:
    """Given a trimmed log, runs that waited go on, nothing recorded runs again, and it can be trimmed again later."""
    lived(any_backend)
    archived(any_backend, tmp_path / "a")
    first = starts(any_backend)
    before = len(RAN)
    with engine_on(any_backend.log()) as engine:
        for run in ("one", "two"):
            engine.handle(run, waits).send("go", "!")
            assert engine.handle(run, waits).result(PATIENCE_S).startswith(run[:1] + "!")
        until_checkpoints(engine, any_backend, first)
    assert sorted(RAN[before : before + 2]) == ["end of one", "end of two"]
    everything = whole(with_archive(any_backend, tmp_path / "a"))
    archived(any_backend, tmp_path / "a")
    assert all(later > former for later, former in zip(starts(any_backend), first, strict=True))
    assert whole(with_archive(any_backend, tmp_path / "a")) == everything


def test_without_its_archive_trimmed_history_is_named_as_such(
    backend: LogBackend, tmp_path: Path
) -> None:
    """Given runs whose history was trimmed, whatever needs it says so, and never that there was no such run."""
    lived(backend)
    archived(backend, tmp_path / "a")
    patience = PATIENCE_S
    for said in (
        gone(backend.log(), lambda engine: engine.history("s1")),
        gone(backend.log(), lambda engine: engine.handle("s1", short).result(patience)),
        gone(backend.log(), lambda engine: engine.handle("s1").fork()),
        gone(backend.log(), lambda engine: engine.handle("f1").resume()),
        gone(backend.log(), lambda engine: engine.handle("f1").rewind(0)),
        gone(backend.log(), lambda engine: list(engine.handle("s1").stream("words", str))),
        gone(
            backend.log(),
            lambda engine: engine.handle("s1").value("nothing", object, timeout_s=patience),
        ),
        gone(backend.log(), lambda engine: engine.history("nobody"), WorkflowNotFound),
    ):
        assert "trimmed" in said
        assert "?archive=DIR" in said
    with engine_on(backend.log()) as engine:
        assert engine.handle("s1").status().status is Status.COMPLETED
        assert engine.handle("one").status().status is Status.RUNNING
        assert {info.workflow_id for info in engine.list()} >= {"one", "two", "s1", "f1"}


def test_with_its_archive_everything_can_be_done(any_backend: LogBackend, tmp_path: Path) -> None:
    """Given an archive, results are read, runs are forked and rewound as if nothing had been trimmed."""
    lived(any_backend)
    archived(any_backend, tmp_path / "a")
    with engine_on(with_archive(any_backend, tmp_path / "a")) as engine:
        assert engine.handle("s1", short).result(PATIENCE_S) == "s1" * 20
        assert kinds(engine, "s1")[0] == "workflow.started"
        assert list(engine.handle("s1").stream("words", str)) == ["s1"]
        fork = engine.handle("s2", short).fork(step=0)
        assert fork.result(PATIENCE_S) == "s2" * 20
        engine.handle("s3").rewind(0)
        assert engine.handle("s3", short).result(PATIENCE_S) == "s3" * 20
        engine.handle("f1").resume()
        with pytest.raises(ValueError, match="f1"):
            engine.handle("f1", fails).result(PATIENCE_S)
        engine.handle("one", waits).send("go", "!")
        assert engine.handle("one", waits).result(PATIENCE_S).startswith("o!")
    assert RAN.count("s2") == 1 + 1
    assert RAN.count("f1") == 1


def test_a_dry_run_changes_nothing(backend: LogBackend, tmp_path: Path) -> None:
    """Given a log, a dry run foresees what is then done, and neither writes nor deletes anything."""
    lived(backend)
    foreseen = archived(backend, tmp_path / "a", dry_run=True)
    assert not (tmp_path / "a").exists()
    assert starts(backend) == [0, 0]
    assert archived(backend, tmp_path / "a") == foreseen
    assert starts(backend) == [one.trimmed.events_before for one in foreseen if one.trimmed]


def test_only_what_is_old_enough_goes(backend: LogBackend, tmp_path: Path) -> None:
    """Given a time in the midst of the history, what has that time or a later one is neither archived nor trimmed."""
    lived(backend)
    one, _ = whole(backend.log())
    middle = one[len(one) // 2].timestamp
    archived(backend, tmp_path / "a", before_us=middle)
    kept = whole(with_archive(backend, tmp_path / "a"))[0]
    assert kept == one
    archive = Archive(str(tmp_path / "a"))
    end = archive.bounds(0).end
    assert one[end - 1].timestamp < middle <= one[end].timestamp
    assert starts(backend)[0] <= end
    archived(backend, tmp_path / "b", before_us=0)
    assert Archive(str(tmp_path / "b")).manifest.files == ()


def test_a_log_is_cut_where_a_checkpoint_begins(backend: LogBackend, tmp_path: Path) -> None:
    """Given a trimmed log, its first event is that of a checkpoint, so that what is left explains itself."""
    lived(backend)
    planned = archived(backend, tmp_path / "a")
    for one in planned:
        assert one.trimmed is not None
        assert f"events before offset {one.trimmed.events_before} may go" in "; ".join(
            one.trimmed.reasons
        )

    async def look(log: Log) -> None:
        for partition, start in enumerate([p.trimmed.events_before for p in planned if p.trimmed]):
            async for batch in log.read(Channel.EVENTS, partition, start, start + 1):
                assert isinstance(decode_event(batch[0]), CheckpointBegun)
            commands = await log.bounds(Channel.COMMANDS, partition)
            folded = await recover(log, partition)
            assert 0 < commands.start <= folded.state.command

    with_log(backend, look)


@pytest.mark.parametrize("moved", [1, 1_000_000, None])
def test_a_log_whose_bookmark_is_of_no_use_is_never_trimmed(
    backend: LogBackend, tmp_path: Path, moved: int | None
) -> None:
    """Given bookmarks that lead to no checkpoint, or to one of another state, nothing is deleted, which is said."""
    lived(backend)

    async def spoil(log: Log) -> None:
        for partition in range(log.partitions):
            bookmark = await log.bookmark(partition) or 0
            if moved is not None:
                await log.set_bookmark(partition, bookmark + moved)
            else:
                await log.set_bookmark(partition, await forge(log, partition))

    with_log(backend, spoil)
    before = whole(backend.log())
    done = archived(backend, tmp_path / "a")
    for one in done:
        assert one.trimmed is not None
        assert one.trimmed.empty
        assert "can't be relied upon" in one.trimmed.reasons[0]
    assert whole(backend.log()) == before


async def forge(log: Log, partition: int) -> int:
    """Append a whole checkpoint, properly chained, with the text of the first one: it holds another state."""
    folded = await recover(log, partition)
    await folded.go_on(log, partition)
    chain = folded.state.chain
    entries: list[Entry] = []
    first: str | None = None
    async for batch in log.read(Channel.EVENTS, partition, 0):
        for record in batch:
            event = decode_event(record)
            if isinstance(event, CheckpointBegun | CheckpointPart | CheckpointCompleted):
                first = first or event.name
                if event.name == first:
                    entry, chain = encode_event(event, chain)
                    entries.append(entry)
    return (await log.append(Channel.EVENTS, partition, entries))[0]


def test_a_trimmed_log_is_recovered_without_its_bookmark(
    backend: LogBackend, tmp_path: Path
) -> None:
    """Given a trimmed log whose bookmarks lead nowhere, it is folded from the checkpoint that it begins with."""
    lived(backend)
    archived(backend, tmp_path / "a")
    folded = recovered(backend)

    async def spoil(log: Log) -> None:
        for partition in range(log.partitions):
            await log.set_bookmark(partition, 1)

    with_log(backend, spoil)
    assert checkpoints(backend) == starts(backend)
    assert recovered(backend) == folded


def test_a_log_without_a_checkpoint_is_archived_and_not_trimmed(
    backend: LogBackend, tmp_path: Path
) -> None:
    """Given a log that has no checkpoint yet, its events are archived and all of them stay."""
    with engine_on(backend.log(), CheckpointSettings()) as engine:
        engine.start(short, "x", id="x").result(PATIENCE_S)
    before = whole(backend.log())
    done = archived(backend, tmp_path / "a")
    assert [one.trimmed.reasons[0] for one in done if one.trimmed] == [
        "no checkpoint has been written yet, so that everything is needed"
    ] * 2
    assert whole(backend.log()) == before


class Dying(Disk):
    """A disk that fails at one of its operations, and at all that follow.

    Args:
        at: At which, from 0 on.
    """

    def __init__(self, at: int) -> None:
        self.left = at

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(28, "No space left on device")

    def create(self, path: Path) -> BufferedRandom:
        self._count()
        return super().create(path)

    def sync(self, file: BinaryIO) -> None:
        self._count()
        super().sync(file)

    def rename(self, path: Path, name: Path) -> None:
        self._count()
        super().rename(path, name)
        self._count()  # also after it was done

    def remove(self, path: Path) -> None:
        self._count()
        super().remove(path)


def test_it_goes_on_after_a_death_at_any_moment(tmp_path: Path) -> None:
    """Given a disk that fails at the first operation, the second, ..., the next try goes on and all is there."""
    backend = SqliteBackend(tmp_path)
    lived(backend)
    before = whole(backend.log())
    place, died, at = tmp_path / "a", 0, 0
    while True:
        try:
            # Each life gets a little further than the one before, on what that one has left behind.
            archived(backend, place, disk=Dying(at))
        except LogUnavailable:
            died += 1
            assert starts(backend)[1] == 0, "the last partition is trimmed when all is archived"
        else:
            break
        at = (at + 1) % 9 + died // 9
        if (place / "manifest.json").exists():
            assert whole(with_archive(backend, place)) == before
    assert died > 10
    assert all(start > 0 for start in starts(backend))
    assert whole(with_archive(backend, place)) == before
    named = {file.path.name for file in Archive(str(place)).manifest.files}
    assert {path.name for path in (place / "events").rglob("*.avro*")} == named


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_it_goes_on_after_a_death_between_two_trims(
    tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a death after some of the four trims, the next try finishes, and nothing is missing at any time."""
    backend = SqliteBackend(tmp_path)
    lived(backend)
    before = whole(backend.log())

    async def die(log: Log) -> None:
        trims = 0
        real = log.trim

        async def trim(channel: Channel, partition: int, upto: int) -> None:
            nonlocal trims
            trims += 1
            if trims > after:
                raise LogUnavailable("died")
            await real(channel, partition, upto)

        monkeypatch.setattr(log, "trim", trim)
        with pytest.raises(LogUnavailable, match="died"):
            await archive_log(log, Order(str(tmp_path / "a"), SMALL, trim=True))

    with_log(backend, die)
    assert whole(with_archive(backend, tmp_path / "a")) == before
    archived(backend, tmp_path / "a")
    assert all(start > 0 for start in starts(backend))
    assert whole(with_archive(backend, tmp_path / "a")) == before


def tampered(path: Path) -> None:
    """Change one byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_changed_file_is_found(tmp_path: Path) -> None:
    """Given an archive in which one byte was changed, reading it names the file, and nothing more is trimmed."""
    backend = SqliteBackend(tmp_path)
    lived(backend)
    archived(backend, tmp_path / "a", trim=False)
    file = Archive(str(tmp_path / "a")).manifest.of(0)[0]
    tampered(tmp_path / "a" / file.path)
    with pytest.raises(LogCorrupt, match=file.path.name):
        archived(backend, tmp_path / "a")
    assert starts(backend)[0] == 0
    archive = Archive(str(tmp_path / "a"))
    with pytest.raises(LogCorrupt, match="is not what was archived"):
        list(archive.read(0, 0))


def test_a_forged_archive_is_not_what_the_log_has(tmp_path: Path) -> None:
    """Given an archive whose manifest was made to fit a file of other records, trimming compares, and refuses."""
    backend = SqliteBackend(tmp_path)
    lived(backend)
    archived(backend, tmp_path / "a", trim=False)
    manifest = tmp_path / "a" / "manifest.json"
    stated = json.loads(manifest.read_text())
    first = next(file for file in stated["files"] if file["partition"] == 0)
    second = [file for file in stated["files"] if file["partition"] == 0][1]
    other = (tmp_path / "a" / second["path"]).read_bytes()
    (tmp_path / "a" / first["path"]).write_bytes(other)
    first.update(size=len(other), sha256=second["sha256"])
    manifest.write_text(json.dumps(stated))
    with pytest.raises(LogCorrupt, match="nothing was deleted"):
        archived(backend, tmp_path / "a")
    assert starts(backend)[0] == 0


def test_a_changed_record_in_the_log_is_not_archived(tmp_path: Path) -> None:
    """Given an event that was changed in the log, archiving stops at it, and nothing is trimmed."""
    backend = SqliteBackend(tmp_path)
    lived(backend)
    with sqlite3.connect(backend.path) as file:
        (value,) = file.execute("SELECT value FROM events WHERE id = 30").fetchone()
        file.execute(
            "UPDATE events SET value = ? WHERE id = 30", (value[:-1] + bytes([value[-1] ^ 1]),)
        )
    file.close()
    with pytest.raises(LogCorrupt, match=r"offset 3[01] of partition 0"):
        archived(backend, tmp_path / "a")
    assert starts(backend) == [0, 0]

    async def audit(log: Log) -> None:
        report = await verify_partition(log, 0)
        assert report.findings[0].offset == 30

    with_log(backend, audit)


def test_the_archive_of_another_log_is_refused(tmp_path: Path) -> None:
    """Given an archive, another log is neither archived into it nor read with it."""
    one, other = SqliteBackend(tmp_path), SqliteBackend(tmp_path / "other")
    (tmp_path / "other").mkdir()
    lived(one)
    lived(other)
    archived(one, tmp_path / "a")
    with pytest.raises(LogMismatch, match="name the archive of this log"):
        archived(other, tmp_path / "a")
    with pytest.raises(LogMismatch):
        whole(with_archive(other, tmp_path / "a"))


def test_an_archive_that_does_not_meet_the_log_is_refused(tmp_path: Path) -> None:
    """Given a log that was trimmed past the end of an archive, neither reading nor archiving pretends otherwise."""
    backend = SqliteBackend(tmp_path)
    lived(backend)
    middle = whole(backend.log())[0][20].timestamp
    archived(backend, tmp_path / "old", trim=False, before_us=middle)
    archived(backend, tmp_path / "new")
    for use in (
        lambda: archived(backend, tmp_path / "old"),
        lambda: whole(with_archive(backend, tmp_path / "old")),
    ):
        with pytest.raises(LogCorrupt, match="ends before offset"):
            use()


def test_a_lost_manifest_is_not_made_anew(tmp_path: Path) -> None:
    """Given event files without their manifest, archiving there is refused and touches nothing."""
    backend = SqliteBackend(tmp_path)
    lived(backend)
    archived(backend, tmp_path / "a", trim=False)
    (tmp_path / "a" / "manifest.json").unlink()
    files = set((tmp_path / "a").rglob("*.avro"))
    with pytest.raises(LogMismatch, match=r"no manifest\.json"):
        archived(backend, tmp_path / "a")
    assert set((tmp_path / "a").rglob("*.avro")) == files

"""What somebody else wrote into a log, and files that are no logs: one clear error each, and nothing else stops."""

import sqlite3
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest

from engine_trial import append_raw, engine_on, fold_digests, kinds, until
from log_backend import LogBackend
from refold import (
    CommandRefused,
    Engine,
    LogMismatch,
    LogUnavailable,
    Status,
    UsageError,
    WorkflowConflict,
    WorkflowParked,
    sleep,
    step,
    workflow,
)
from refold.engine.worker import wall_clock
from refold.log.partitioner import partition_of
from refold.log.protocol import Channel, Entry


@step
async def one() -> int:
    return 1


@workflow
async def simple() -> int:
    return await one()


@workflow
async def long() -> int:
    before = await one()
    await sleep(3600)
    return before


def in_an_hour() -> int:
    """A clock that is an hour ahead."""
    return wall_clock() + 3_600_000_000


def neighbours(run: str, count: int) -> list[str]:
    """Ids of other runs in the same one of two partitions."""
    ids = (f"{run}-{n}" for n in range(1000))
    same = (other for other in ids if partition_of(other, 2) == partition_of(run, 2))
    return list(islice(same, count))


def test_a_command_that_can_not_be_read_stops_nothing(any_backend: LogBackend) -> None:
    """Given bytes that are no command, the worker refuses them and goes on with what follows, for the same id too."""
    entries = [Entry("poisoned", b"\x00nonsense"), Entry("poisoned", b""), Entry(None, b"?")]
    with engine_on(any_backend, simple) as engine:
        append_raw(any_backend, Channel.COMMANDS, "poisoned", entries)
        assert engine.start(simple, id="poisoned").result() == 1
    with engine_on(any_backend, simple) as engine:
        assert engine.start(simple, id="poisoned").result() == 1


def test_an_event_that_can_not_be_read_parks_its_workflow_alone(any_backend: LogBackend) -> None:
    """Given foreign bytes under a run's key, that run is parked with the reason; its neighbours end, now and later."""
    with engine_on(any_backend, long, simple) as engine:
        engine.start(long, id="victim")
        until(lambda: "timer.started" in kinds(engine, "victim"))
    append_raw(any_backend, Channel.EVENTS, "victim", [Entry("victim", b"\x00nonsense")])
    for clock in (wall_clock, in_an_hour):
        with Engine(any_backend.log(), workflows=[long, simple], clock=clock) as engine:
            with pytest.raises(WorkflowParked, match=r"'victim'.*can't be read"):
                engine.handle("victim").result()
            assert engine.status("victim").status is Status.PARKED
            assert "unreadable" in kinds(engine, "victim")
            with pytest.raises(CommandRefused, match=r"history can.t be followed"):
                engine.resume("victim")
            with pytest.raises(WorkflowConflict):
                engine.start(simple, id="victim")
            assert [engine.start(simple, id=run).result() for run in neighbours("victim", 3)] == [
                1
            ] * 3


def test_an_event_that_nobody_can_read_parks_its_workflow_also_while_it_runs(
    any_backend: LogBackend,
) -> None:
    """Given foreign bytes under the key of a run under way, the owner sees them as every other reader does."""
    with engine_on(any_backend, long, simple) as engine:
        engine.start(long, id="victim")
        until(lambda: "timer.started" in kinds(engine, "victim"))
        append_raw(any_backend, Channel.EVENTS, "victim", [Entry("victim", b"\x00nonsense")])
        for neighbour in neighbours("victim", 3):  # what the owner writes next shows it the gap
            assert engine.start(simple, id=neighbour).result() == 1
        with pytest.raises(WorkflowParked, match=r"'victim'.*can't be read"):
            engine.handle("victim").result()
    assert fold_digests(any_backend) == fold_digests(any_backend)


def test_foreign_bytes_without_a_key_are_left_alone(any_backend: LogBackend) -> None:
    """Given a record with no workflow and no claim, everything goes on, in this life and the next."""
    with engine_on(any_backend, simple) as engine:
        assert engine.start(simple, id="a").result() == 1
        append_raw(any_backend, Channel.EVENTS, "a", [Entry(None, b"\x00nonsense")])
        assert engine.start(simple, id="b").result() == 1
    with engine_on(any_backend, simple) as engine:
        assert [engine.start(simple, id=run).result() for run in ("a", "b", "c")] == [1, 1, 1]


def test_foreign_bytes_after_the_end_change_nothing(backend: LogBackend) -> None:
    """Given foreign bytes under the key of a run that has ended, its result stays what it was."""
    with engine_on(backend, simple) as engine:
        assert engine.start(simple, id="a").result() == 1
    append_raw(backend, Channel.EVENTS, "a", [Entry("a", b"\x00nonsense")])
    with engine_on(backend, simple) as engine:
        assert engine.handle("a", simple).result() == 1
        assert engine.status("a").status is Status.COMPLETED


class TestFiles:
    def test_no_database(self, tmp_path: Path) -> None:
        """Given a file that is no database, the engine says so and leaves it as it is."""
        path = tmp_path / "notes.txt"
        path.write_text("dear diary " * 20)
        with pytest.raises(LogMismatch, match="no SQLite file"):
            Engine(f"sqlite:///{path}", workflows=[]).__enter__()
        assert path.read_text() == "dear diary " * 20

    def test_somebody_elses_database(self, tmp_path: Path) -> None:
        """Given a SQLite file of another program, the engine says so and leaves it as it is."""
        path = tmp_path / "other.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE things (name)")
        before = path.read_bytes()
        with pytest.raises(LogMismatch, match="another program"):
            Engine(f"sqlite:///{path}", workflows=[]).__enter__()
        assert path.read_bytes() == before

    def test_a_newer_format(self, tmp_path: Path) -> None:
        """Given a log of a newer release, the engine says to upgrade."""
        path = tmp_path / "new.db"
        with Engine(f"sqlite:///{path}", workflows=[]):
            pass
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 99")
        with pytest.raises(LogMismatch, match=r"format 99.*upgrade refold"):
            Engine(f"sqlite:///{path}", workflows=[]).__enter__()

    def test_a_missing_directory(self, tmp_path: Path) -> None:
        """Given a path in a directory that does not exist, the engine says which file and what to check."""
        with pytest.raises(LogUnavailable, match=r"nowhere/log\.db.*directory exists"):
            Engine(f"sqlite:///{tmp_path}/nowhere/log.db", workflows=[]).__enter__()

    def test_another_number_of_partitions(self, tmp_path: Path) -> None:
        """Given a log of two partitions, asking for three is refused: the number is fixed."""
        path = tmp_path / "log.db"
        with Engine(f"sqlite:///{path}?partitions=2", workflows=[]):
            pass
        with pytest.raises(LogMismatch, match=r"made with 2 partitions; asked for was 3"):
            Engine(f"sqlite:///{path}?partitions=3", workflows=[]).__enter__()

    def test_no_url_of_a_log(self) -> None:
        """Given a url of something else, the error lists what is accepted."""
        with pytest.raises(UsageError, match=r"sqlite:///orders\.db"):
            Engine("postgres://localhost/orders", workflows=[])

    def test_an_engine_that_could_not_open_leaves_nothing_behind(self, tmp_path: Path) -> None:
        """Given an engine that failed to open, another one opens the same path once the cause is gone."""
        path = tmp_path / "log.db"
        path.write_text("not a log " * 20)
        with pytest.raises(LogMismatch):
            Engine(f"sqlite:///{path}", workflows=[simple]).__enter__()
        path.unlink()
        with Engine(f"sqlite:///{path}", workflows=[simple]) as engine:
            assert engine.start(simple).result() == 1

"""Events reach a projection's tables once each, whoever writes, fails, comes again or takes over."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.projections.conftest import Database, SqliteDatabase

from log_backend import PATIENCE_S
from projection_samples import Stumbling, Tale, fill
from refold.log.chain_walk import beginning
from refold.log.errors import LogTrimmed, RefoldError
from refold.log.memory import MemoryLog, MemoryStore
from refold.log.protocol import Channel, Log
from refold.projections.feed import Logged, Position, read_batches
from refold.projections.projection import Dialect, Projection, ProjectionFailed, Transaction
from refold.projections.runner import Runner, RunnerSettings
from refold.projections.store import Store
from refold.projections.target import PositionMoved, Step, TargetMismatch, TargetUnavailable

TOLD = "SELECT event_id, stands_at FROM told ORDER BY event_id"
KINDS = "SELECT kind, total FROM kinds ORDER BY kind"


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(2 * PATIENCE_S):
            await scenario

    asyncio.run(bounded())


async def opened(partitions: int = 2, store: MemoryStore | None = None) -> Log:
    log = MemoryLog(store=store or MemoryStore(partitions), rebalance_s=0.01)
    await log.open()
    return log


async def catch_up(log: Log, store: Store, **settings: Any) -> Runner:
    runner = Runner(log, store, RunnerSettings(**settings), caught_up=store.switch)
    await runner.catch_up()
    return runner


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - tables have no event
        await asyncio.sleep(0.01)


async def ends(log: Log) -> int:
    return sum([(await log.bounds(Channel.EVENTS, p)).end for p in range(log.partitions)])


def test_every_event_counts_once_and_a_second_run_adds_what_is_new(database: Database) -> None:
    """Given 20 runs, then 5 more, two catch-ups leave each event there once."""

    async def scenario() -> None:
        log = await opened()
        await fill(log, 20)
        first = await catch_up(log, database.store(Tale(), log), batch_events=7)
        assert first.events == await ends(log) == len(database.rows("tale", TOLD))
        await fill(log, 5, first=20)
        await catch_up(log, database.store(Tale(), log))
        assert dict(database.rows("tale", KINDS)) == {
            "partition.claimed": 4,
            "workflow.started": 25,
            "step.completed": 75,
            "workflow.completed": 25,
        }

    run(scenario())


def test_two_that_write_the_same_partitions_get_in_no_one_s_way(database: Database) -> None:
    """Given two runners that each think that all partitions are theirs, each event counts once."""

    async def scenario() -> None:
        shared = MemoryStore(2)
        one, two = await opened(store=shared), await opened(store=shared)
        await fill(one, 60)
        await asyncio.gather(
            catch_up(one, database.store(Tale(), one), batch_events=20),
            catch_up(two, database.store(Tale(), two), batch_events=20),
        )
        told = database.rows("tale", TOLD)
        assert len(told) == await ends(one)
        assert sum(total for _, total in database.rows("tale", KINDS)) == len(told)

    run(scenario())


def test_a_write_from_where_the_target_is_not_is_refused(database: Database) -> None:
    """Given a store that another wrote to since its positions were read, nothing of the batch is written."""

    async def scenario() -> None:
        log = await opened(1)
        await fill(log, 3)
        slow = database.store(Tale(), log)
        slow.open()
        await catch_up(log, database.store(Tale(), log))
        before = database.rows("tale", KINDS)
        async for batch in read_batches(log, 0, Position()):
            with pytest.raises(PositionMoved, match="another process"):
                slow.write(batch.logged, {0: Step(None, batch.position)})
        slow.close()
        assert database.rows("tale", KINDS) == before

    run(scenario())


def test_a_projection_that_raises_stops_before_that_event_and_goes_on_when_mended(
    database: Database,
) -> None:
    """Given code that raises on one event, the error names it, its tables are whole, and mended code adds the rest."""

    async def scenario() -> None:
        log = await opened()
        await fill(log, 20)
        broken = database.store(Stumbling("run-7/2/step.completed"), log)
        with pytest.raises(
            ProjectionFailed, match=r"'run-7/2/step\.completed', partition \d, offset \d"
        ):
            await catch_up(log, broken, batch_events=10)
        told = database.rows("tale", TOLD)
        assert "run-7/2/step.completed" not in dict(told)
        assert sum(total for _, total in database.rows("tale", KINDS)) == len(told)
        await catch_up(log, database.store(Tale(), log))
        assert len(database.rows("tale", TOLD)) == await ends(log)

    run(scenario())


def test_a_new_version_is_filled_beside_the_old_which_is_read_until_it_is_whole(
    database: Database,
) -> None:
    """Given a second version, readers see the first until the second has caught up; then the first is refused."""

    async def scenario() -> None:
        log = await opened()
        await fill(log, 10)
        old = database.store(Tale(), log)
        await catch_up(log, old)
        first = database.rows("tale", TOLD)
        new = database.store(Tale(version=2), log)
        runner = Runner(log, new)  # which is not told to switch
        await runner.catch_up()
        assert database.rows("tale", TOLD) == first
        old.open()
        await catch_up(log, database.store(Tale(version=2), log))
        assert database.rows("tale", TOLD) == [(event, 2 * at) for event, at in first]
        with pytest.raises(RefoldError, match="replaced by"):
            old.write([], {0: Step(None, Position())})
        old.close()
        with pytest.raises(TargetMismatch, match="holds version 2"):
            database.store(Tale(), log).open()

    run(scenario())


def test_a_rebuild_fills_new_tables_and_begins_only_once(database: Database) -> None:
    """Given tables, a rebuild that is broken off goes on when it is asked for again, and replaces them."""

    async def scenario() -> None:
        log = await opened()
        await fill(log, 10)
        await catch_up(log, database.store(Tale(), log))
        whole = database.rows("tale", TOLD)
        broken_off = Runner(log, database.store(Tale(), log, rebuild=True))
        await broken_off.catch_up()
        assert broken_off.events == len(whole)
        await fill(log, 1, first=10)
        again = await catch_up(log, database.store(Tale(), log, rebuild=True))
        assert again.events == await ends(log) - len(whole)  # nothing was read again
        assert len(database.rows("tale", TOLD)) == await ends(log)

    run(scenario())


def test_tables_of_another_log_are_refused(database: Database) -> None:
    """Given a projection of one log, the same place can't be filled from another."""

    async def scenario() -> None:
        log, other = await opened(), await opened()
        await catch_up(log, database.store(Tale(), log))
        with pytest.raises(TargetMismatch, match="of another log"):
            await catch_up(other, database.store(Tale(), other))

    run(scenario())


class Cramped(Tale):
    """Kept on a disk that has no more pages than these."""

    pages = 1

    def apply(self, transaction: Transaction, logged: Logged) -> None:
        """Take an event."""
        transaction.query(f"PRAGMA max_page_count = {self.pages}")
        super().apply(transaction, logged)


def test_a_full_disk_is_no_fault_of_the_projection_and_is_waited_for(tmp_path: Path) -> None:
    """Given a disk without room, when events are taken in, then the target is away, and goes on once there is room."""

    async def scenario() -> None:
        log, database, cramped = await opened(), SqliteDatabase(tmp_path), Cramped()
        await fill(log, 100)
        with pytest.raises(TargetUnavailable, match="full"):
            await catch_up(log, database.store(cramped, log))
        assert database.rows("tale", TOLD) == []
        cramped.pages = 1_000_000
        await catch_up(log, database.store(cramped, log))
        assert len(database.rows("tale", TOLD)) == await ends(log)

    run(scenario())


class Misspelt(Tale):
    """Its tables can't be made."""

    def tables(self, dialect: Dialect) -> Sequence[str]:
        return [*super().tables(dialect), "CREATE TABEL more (n BIGINT)"]


def test_tables_that_can_not_be_made_stop_it_at_once(database: Database) -> None:
    """Given tables with an error in their SQL, the projection fails and says so, and works once it is mended."""

    async def scenario() -> None:
        log = await opened()
        await fill(log, 3)
        with pytest.raises(ProjectionFailed, match=r"tables of the projection 'tale'.*TABEL"):
            await catch_up(log, database.store(Misspelt(), log))
        await catch_up(log, database.store(Tale(), log))
        assert len(database.rows("tale", TOLD)) == await ends(log)

    run(scenario())


def test_followers_share_the_partitions_and_take_over(database: Database) -> None:
    """Given two that follow in one group, what comes counts once, also after one of them has stopped."""

    async def scenario() -> None:
        shared = MemoryStore(4)
        logs = [await opened(store=shared) for _ in range(2)]
        await fill(logs[0], 20)
        await catch_up(logs[0], database.store(Tale(), logs[0]))
        await fill(logs[0], 20, first=20)
        stops = [asyncio.Event(), asyncio.Event()]
        runners = [
            Runner(log, database.store(Tale(), log), RunnerSettings(group="g", batch_events=10))
            for log in logs
        ]
        tasks = [
            asyncio.create_task(runner.follow(stop))
            for runner, stop in zip(runners, stops, strict=True)
        ]

        async def all_are_in() -> None:
            wanted = await ends(logs[0])
            await until(lambda: sum(n for _, n in database.rows("tale", KINDS)) >= wanted)

        await all_are_in()
        await fill(logs[0], 20, first=40)
        await all_are_in()
        stops[0].set()
        await tasks[0]
        await fill(logs[1], 20, first=60)
        await all_are_in()
        stops[1].set()
        await tasks[1]
        assert len(database.rows("tale", TOLD)) == await ends(logs[0])

    run(scenario())


def test_a_log_that_was_trimmed_is_refused_and_from_where_it_was_cut_if_that_is_wanted(
    monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    """Given events that are gone, a projection does not pretend to be whole."""

    async def scenario() -> None:
        log = await opened(1)
        await fill(log, 3)
        there = (await beginning(log, 0))._replace(offset=5, claim=0)

        async def cut(log: Log, partition: int) -> object:
            return there

        monkeypatch.setattr("refold.projections.feed.beginning", cut)
        with pytest.raises(LogTrimmed, match="before offset 5 were trimmed"):
            await catch_up(log, database.store(Tale(), log))
        await catch_up(log, database.store(Tale(), log), from_trimmed=True)
        assert len(database.rows("tale", TOLD)) == await ends(log) - 5

    run(scenario())


@pytest.mark.parametrize("name", ["", "Tale", "a-b", "1a", "x" * 32])
def test_a_name_that_can_not_be_a_file_and_a_schema_is_refused(
    name: str, database: Database
) -> None:
    async def scenario() -> None:
        log = await opened()
        tale: Projection = Tale()
        tale.name = name  # type: ignore[misc]
        with pytest.raises(RefoldError, match="can't name a projection"):
            database.store(tale, log)

    run(scenario())

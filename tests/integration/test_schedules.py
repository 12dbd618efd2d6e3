"""Schedules in whole engines: made, changed and asked about by clients, and carried out by whoever works on the log."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import refold.engine.runs
import refold.engine.schedule_run
from engine_trial import engine_on, until, with_log
from log_backend import PATIENCE_S, LogBackend, MemoryBackend, SqliteBackend
from refold import (
    AskRefused,
    DefinitionError,
    Engine,
    PayloadError,
    PayloadKeys,
    Runs,
    Status,
    UnknownWorkflow,
    UsageError,
    WorkflowNotFound,
    receive,
    workflow,
)
from refold.engine.engine import Engine as AnyEngine
from refold.engine.schedule_times import ScheduleSpec
from refold.log.key_directory import DirectoryKeys
from refold.log.key_master import LocalMaster
from refold.log.protocol import Channel, Log
from refold.projections.audit_actions import Wanted, read_actions

SECOND = timedelta(seconds=1)
NIGHTLY = "0 3 * * *"
NIGHT = datetime(2026, 10, 24, 12, tzinfo=UTC)  # in Berlin, the clocks go back in the night after


@workflow
def report(region: str, days: int = 1) -> str:
    return f"{region} {days}"


@workflow
async def patient() -> str:
    return await receive("go", str)


@workflow(pool="gpu")
def render(scene: int) -> int:
    return scene


def clock_at(time: datetime) -> Callable[[], int]:
    """A wall clock that somebody has set."""
    since = time - datetime(1970, 1, 1, tzinfo=UTC)
    return lambda: since // timedelta(microseconds=1)


def started(engine: AnyEngine, schedule: str) -> list[str]:
    """The runs that a schedule has started, by their ids."""
    infos = engine.list()
    return sorted(i.workflow_id for i in infos if i.parent_id == f"schedule:{schedule}")


def test_a_client_makes_a_schedule_and_a_worker_carries_it_out(any_backend: LogBackend) -> None:
    """Given a client that runs nothing, its schedule starts runs on a worker, takes orders, and every order is told
    with who gave it and why.
    """
    with (
        engine_on(any_backend, report),
        Engine(any_backend.log(), workflows=(), worker=False, requested_by="anna") as client,
    ):
        schedule = client.schedule("often", report, "eu", every=SECOND, reason="to begin with")
        until(lambda: schedule.info().started >= 2)
        client.schedule("often", report, "eu", every=SECOND, reason="no change")
        assert client.handle(started(client, "often")[0], report).result(PATIENCE_S) == "eu 1"
        schedule.pause(reason="enough")
        schedule.pause(reason="no change")
        assert schedule.info().paused
        assert schedule.trigger(reason="once more").result(PATIENCE_S) == "eu 1"
        us = report.bind("us", days=7)
        client.schedule("often", us, cron=NIGHTLY, timezone="Europe/Berlin", reason="less")
        assert [info.spec.payload for info in client.schedules()] == ['{"region":"us","days":7}']
        schedule.resume()
        due = schedule.info().next_due
        assert due is not None
        assert due.minute == 0
        schedule.delete(reason="over")
        assert client.schedules() == []

    async def told(log: Log) -> list[tuple[str, str | None, str | None]]:
        return [(one.detail, one.by, one.why) async for one in read_actions(log, Wanted())]

    assert with_log(any_backend, told) == [
        ("made: report (every PT1S)", "anna", "to begin with"),
        ("pause", "anna", "enough"),
        ("trigger", "anna", "once more"),
        ("set: report (0 3 * * *, Europe/Berlin)", "anna", "less"),
        ("resume", "anna", None),
        ("delete", "anna", "over"),
    ]


def test_after_an_outage_the_latest_due_time_alone_is_met(tmp_path: Path) -> None:
    """Given no worker for three nights, over a change of clocks, the last one's run is started and no other; none
    where that is later than the schedule allows; and the next due time is by the new clocks.
    """
    backend = SqliteBackend(tmp_path)
    zone = "Europe/Berlin"
    with Engine(backend.log(), workflows=[report], clock=clock_at(NIGHT)) as engine:
        engine.schedule("nightly", report, "eu", cron=NIGHTLY, timezone=zone)
        strict = engine.schedule(
            "strict", report, "eu", cron=NIGHTLY, timezone=zone, catch_up=timedelta(hours=1)
        )
        assert strict.info().next_due == datetime(2026, 10, 25, 2, tzinfo=UTC)
    later = NIGHT + timedelta(days=3)
    with Engine(backend.log(), workflows=[report], clock=clock_at(later)) as engine:
        until(lambda: all(i.next_due and i.next_due > later for i in engine.schedules()))
        missed, strict_info = engine.schedules()
        assert (missed.started, missed.skipped) == (1, 2)
        assert (strict_info.started, strict_info.skipped) == (0, 3)
        assert started(engine, "nightly") == ["nightly/2026-10-27T02:00:00Z"]
        assert started(engine, "strict") == []


def test_a_workflow_that_no_worker_knows_is_tried_again(tmp_path: Path) -> None:
    """Given a worker without a schedule's workflow when it is due, the schedule says so, others go on, and a worker
    that has it meets the due time after all.
    """
    backend = SqliteBackend(tmp_path)
    with Engine(backend.log(), workflows=[report, patient], clock=clock_at(NIGHT)) as engine:
        engine.schedule("odd", patient, cron=NIGHTLY)
        engine.schedule("plain", report, "eu", cron=NIGHTLY)
    morning = NIGHT + timedelta(hours=16)
    with Engine(backend.log(), workflows=[report], clock=clock_at(morning)) as engine:
        until(lambda: all(i.problem or i.started for i in engine.schedules()))
        odd, plain = engine.schedules()
        assert "'patient' is not registered" in (odd.problem or "")
        assert (plain.problem, plain.started) == (None, 1)
    noon = morning + timedelta(hours=1)
    with Engine(backend.log(), workflows=[report, patient], clock=clock_at(noon)) as engine:
        until(lambda: engine.get_schedule("odd").info().started == 1)
        assert started(engine, "odd") == ["odd/2026-10-25T03:00:00Z"]
        assert engine.get_schedule("odd").info().problem is None


def test_a_schedule_that_skips_starts_nothing_while_its_run_goes_on() -> None:
    """Given a run that waits, due times pass it by, and an order to start another is refused; once it has ended, the
    next one starts, and once the schedule does not skip, another beside it.
    """
    with engine_on(MemoryBackend(), patient) as engine:
        schedule = engine.schedule("lonely", patient, every=SECOND, overlap="skip")
        until(lambda: schedule.info().skipped >= 1)
        (only,) = started(engine, "lonely")
        with pytest.raises(AskRefused, match="has not ended"):
            schedule.trigger()
        engine.handle(only).send("go", "on")
        until(lambda: schedule.info().started == 2)
        engine.schedule("lonely", patient, cron=NIGHTLY)
        assert schedule.trigger().id != only


def test_what_can_not_be_scheduled_leaves_nothing_behind() -> None:
    """Given a workflow that no worker knows, an input that does not fit, or times that can't be, there is one error
    and no schedule; the same for a change, and the schedule stays as it was.
    """
    with engine_on(MemoryBackend(), report) as engine:
        unknown = ScheduleSpec("nowhere", "{}", cron=NIGHTLY)
        odd = ScheduleSpec("report", '{"region":5}', cron=NIGHTLY)
        for spec in (unknown, odd):
            with pytest.raises(UnknownWorkflow, match="Nothing was scheduled"):
                engine.get_schedule("bad").set(spec)
        with pytest.raises(PayloadError):
            engine.schedule("bad", report, 5, cron=NIGHTLY)  # type: ignore[misc]  # pyright: ignore[reportCallIssue, reportArgumentType]
        with pytest.raises(UsageError, match="too short"):
            engine.schedule("bad", report, "eu", every=-SECOND)
        with pytest.raises(UsageError, match="no time zone"):
            engine.schedule("bad", report, "eu", cron=NIGHTLY, timezone="Nowhere/At-all")
        with pytest.raises(UsageError, match="no '@'"):
            engine.schedule("bad@gpu", report, "eu", cron=NIGHTLY)
        with pytest.raises(WorkflowNotFound, match="there is no schedule 'bad'"):
            engine.get_schedule("bad").pause()
        assert engine.schedules() == []
        assert engine.list() == []
        schedule = engine.schedule("bad", report, "eu", cron=NIGHTLY)
        with pytest.raises(AskRefused, match="Nothing was changed"):
            schedule.set(unknown)
        assert schedule.info().spec.workflow == "report"
        # A bulk order means the user's runs.
        assert [i.id for i in engine.cancel_all(Runs(), dry_run=True)] == []


def test_a_name_can_be_used_again(any_way_to_end: str) -> None:
    """Given a schedule that was deleted, or whose run was cancelled or terminated, it is none any more, and one that is
    made under its name begins anew.
    """
    with engine_on(MemoryBackend(), report) as engine:
        schedule = engine.schedule("again", report, "eu", cron=NIGHTLY)
        schedule.trigger().result(PATIENCE_S)
        if any_way_to_end == "delete":
            schedule.delete()
        else:
            getattr(engine.handle("schedule:again"), any_way_to_end)()
        until(lambda: engine.schedules() == [])
        with pytest.raises(WorkflowNotFound, match="there is no schedule 'again'"):
            schedule.info()
        anew = engine.schedule("again", report, "eu", cron=NIGHTLY)
        assert (anew.info().started, anew.info().ended) == (0, None)
        assert anew.trigger().result(PATIENCE_S) == "eu 1"
        assert len(started(engine, "again")) == 2


@pytest.fixture(params=["delete", "cancel", "terminate"])
def any_way_to_end(request: pytest.FixtureRequest) -> str:
    way: str = request.param
    return way


def test_a_schedule_that_fails_is_seen_and_can_be_set_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given a fault of refold's own in a schedule, it is listed as failed, and to set it again makes it anew."""

    def fault(*_: object) -> None:
        raise RuntimeError("a fault")

    with engine_on(MemoryBackend(), report) as engine:
        schedule = engine.schedule("faulty", report, "eu", cron=NIGHTLY)
        with monkeypatch.context() as broken:
            broken.setattr(refold.engine.schedule_run, "publish", fault)
            with pytest.raises(WorkflowNotFound):
                schedule.pause()
        assert schedule.info().status is Status.FAILED
        engine.schedule("faulty", report, "eu", cron=NIGHTLY)
        assert schedule.info().status is Status.RUNNING


def test_a_worker_of_a_release_without_schedules_refuses_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given a worker that does not know refold's own workflow, the error says what to do."""
    monkeypatch.setattr(refold.engine.runs, "SCHEDULE", "refold.something")
    with engine_on(MemoryBackend(), report) as engine:
        with pytest.raises(UnknownWorkflow, match="Upgrade the workers first"):
            engine.schedule("nightly", report, "eu", cron=NIGHTLY)
        assert engine.schedules() == []


def test_the_runs_of_a_pool_go_to_its_workers() -> None:
    """Given a workflow of a pool, its schedule is carried out by any worker and its runs by those of the pool."""
    backend = MemoryBackend((("gpu", 1),))
    with (
        Engine(backend.log(), workflows=[]),
        Engine(backend.log(), workflows=[render], worker=False, pools=["gpu"]) as engine,
    ):
        run = engine.schedule("film", render, 3, cron=NIGHTLY).trigger()
        assert run.id.endswith("@gpu")
        assert run.result(PATIENCE_S) == 3


def test_what_a_schedule_starts_is_encrypted_as_any_run_is(tmp_path: Path) -> None:
    """Given keys for every run, no byte of the log has the input, and it is read, triggered, deleted, made anew."""
    provider = DirectoryKeys(tmp_path, LocalMaster([bytes(range(32))]))
    keys = PayloadKeys(provider, scope="workflow")
    backend = MemoryBackend()
    with Engine(backend.log(), workflows=[report], keys=keys) as engine:
        for _ in range(2):
            schedule = engine.schedule("secret", report, "bob-4711", cron=NIGHTLY)
            assert "bob-4711" in schedule.info().spec.payload
            assert schedule.trigger().result(PATIENCE_S) == "bob-4711 1"
            schedule.delete()
    for partition in range(2):
        for channel in (Channel.EVENTS, Channel.COMMANDS):
            records = backend.store.read(channel, partition, 0)
            assert not any(b"bob-4711" in record.value for record in records)


def test_async_code_has_a_twin_of_every_call() -> None:
    """Given an engine on the caller's own loop, schedules are made, asked about and ordered there, 60 times at once."""

    async def all_of_it() -> None:
        async with engine_on(MemoryBackend(), report) as engine:
            schedule = await engine.schedule_async("a", report, "eu", cron=NIGHTLY)
            await schedule.pause_async()
            assert (await schedule.info_async()).paused
            await schedule.resume_async()
            runs = await asyncio.gather(*(schedule.trigger_async() for _ in range(60)))
            assert len({run.id for run in runs}) == 60
            assert await runs[0].result_async(PATIENCE_S) == "eu 1"
            assert [info.name for info in await engine.schedules_async()] == ["a"]
            await schedule.delete_async()
            assert await engine.schedules_async() == []

    asyncio.run(all_of_it())


def test_names_that_begin_with_refold_are_not_the_users() -> None:
    """Given a workflow with a name of refold's own, it is refused when it is declared."""
    with pytest.raises(DefinitionError, match="refold's own"):
        workflow(name="refold.schedule")(receive)

"""Finding runs by a filter, and orders to many at once."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from engine_trial import engine_on, kinds, until, written
from log_backend import LogBackend
from refold import (
    Engine,
    PayloadError,
    Runs,
    Status,
    UnknownWorkflow,
    UsageError,
    WorkflowInfo,
    receive,
    set_attributes,
    step,
    workflow,
)

BROKEN = threading.Event()


@step
async def fragile(number: int) -> int:
    if BROKEN.is_set():
        raise OSError("the line is down")
    return number


@workflow
async def order(number: int) -> int:
    return await fragile(number)


@workflow
async def waits() -> str:
    return await receive("in", str)


@workflow(name="waits", version=2)
async def waits_better() -> str:
    return await receive("in", str)


@workflow
async def tagged(plan: str) -> None:
    set_attributes({"plan": plan, "seats": 3, "trial": True})


def ids(infos: Any) -> set[str]:
    """Ids of what a list or an order to many gives."""
    return {getattr(info, "workflow_id", None) or info.id for info in infos}


def ended(engine: Engine, count: int) -> bool:
    """Whether so many runs have ended."""
    over = Runs(status=[Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.TERMINATED])
    return len(engine.list(over)) == count


class TestFilters:
    def test_by_status_workflow_and_version(self, backend: LogBackend) -> None:
        """Given runs of two workflows and versions in several states, each filter gives those that fit it."""
        with engine_on(backend, order, waits, waits_better) as engine:
            engine.start(order, 1, id="done").result()
            engine.start(waits, id="old")
            engine.start(waits_better, id="new")
            engine.handle("new").pause()
            assert ids(engine.list()) == {"done", "old", "new"}
            assert ids(engine.list(Runs(status=Status.COMPLETED))) == {"done"}
            assert ids(engine.list(Runs(status=[Status.RUNNING, Status.PAUSED]))) == {"old", "new"}
            assert ids(engine.list(Runs(workflow="waits", version=2))) == {"new"}
            assert (
                ids(engine.list(Runs(workflow="waits", status=Status.PAUSED, version=1))) == set()
            )

    def test_by_attributes(self, backend: LogBackend) -> None:
        """Given runs with tags from their start and from their code, a tag is found by its value and type."""
        with engine_on(backend, tagged, waits) as engine:
            engine.start(tagged, "gold", id="gold", attributes={"plan": "none"}).result()
            engine.start(tagged, "tin", id="tin").result()
            engine.start(waits, id="waits", attributes={"plan": "gold"})
            assert ids(engine.list(Runs(attributes={"plan": "gold"}))) == {"gold", "waits"}
            assert ids(engine.list(Runs(attributes={"plan": "gold", "seats": 3}))) == {"gold"}
            assert ids(engine.list(Runs(attributes={"seats": 3.0}))) == set()
            assert ids(engine.list(Runs(attributes={"trial": True}))) == {"gold", "tin"}
            assert ids(engine.list(Runs(attributes={"trial": 1}))) == set()

    def test_by_time_and_reason(self, backend: LogBackend) -> None:
        """Given a parked run, it is found by a word of its reason and by when it was started."""

        @workflow
        async def stuck() -> None:
            import asyncio  # noqa: PLC0415

            await asyncio.get_running_loop().create_future()

        with engine_on(backend, stuck, order) as engine:
            engine.start(order, 1, id="done").result()
            engine.start(stuck, id="stuck")
            until(lambda: engine.status("stuck").status is Status.PARKED)
            reason = (engine.status("stuck").reason or "").split()[-4]
            assert ids(engine.list(Runs(reason=reason))) == {"stuck"}
            assert ids(engine.list(Runs(reason="of another kind"))) == set()
            at = engine.status("stuck").started_at
            assert ids(engine.list(Runs(started_after=at))) == {"stuck"}
            assert ids(engine.list(Runs(started_before=at))) == {"done"}
            later = at + timedelta(days=1)
            assert ids(engine.list(Runs(started_after=later))) == set()

    @pytest.mark.parametrize(
        ("make", "says"),
        [
            (lambda: Runs(status=cast(Any, "asleep")), "asleep"),
            (lambda: Runs(status=cast(Any, ["failed", "broken"])), "broken"),
            (lambda: Runs(attributes={"": "x"}), "attributes"),
            (lambda: Runs(attributes={"at": datetime(2001, 1, 1)}), "time zone"),  # noqa: DTZ001
            (lambda: Runs(started_after=datetime(2001, 1, 1)), "started_after"),  # noqa: DTZ001
            (lambda: Runs(started_before=datetime(2001, 1, 1)), "started_before"),  # noqa: DTZ001
        ],
    )
    def test_what_can_not_be_searched_for_is_refused(self, make: Any, says: str) -> None:
        """Given a status that there is not, a tag that can't be or a time without a zone, the filter is not made."""
        with pytest.raises(UsageError, match=says):
            make()

    def test_texts_stand_for_statuses(self) -> None:
        """Given statuses as texts, a filter takes them for the statuses that they name."""
        info = WorkflowInfo(
            "x", "w", Status.FAILED, datetime.now(UTC), datetime.now(UTC), 1, version=1
        )
        assert Runs(status=cast(Any, "failed")).matches(info)
        assert not Runs(status=cast(Any, ("completed", "parked"))).matches(info)


class TestOrdersToMany:
    def test_failed_runs_are_resumed_together(self, any_backend: LogBackend) -> None:
        """Given a hundred runs that failed by one cause, a dry run names them, and resuming all ends them well."""
        BROKEN.set()
        with engine_on(any_backend, order) as engine:
            for number in range(100):
                engine.start(order, number, id=f"o-{number}", confirm=False)
            until(lambda: ended(engine, 100))
            before = written(any_backend)
            dry = engine.resume_all(Runs(workflow="order"), dry_run=True)
            assert ids(dry) == {f"o-{number}" for number in range(100)}
            assert not any(result.done for result in dry)
            assert written(any_backend) == before
            BROKEN.clear()
            results = engine.resume_all(Runs(workflow="order"), reason="the line is back")
            assert [(result.done, result.error) for result in results] == [(True, None)] * 100
            assert [engine.handle(f"o-{n}", order).result() for n in range(100)] == list(range(100))
            assert list(engine.resume_all(Runs(workflow="order"))) == []

    def test_one_that_is_refused_does_not_stop_the_others(self, backend: LogBackend) -> None:
        """Given three runs of which one has no such step, rewinding does two, and says why not the third."""
        BROKEN.clear()

        @workflow
        async def short() -> int:
            return 1

        with engine_on(backend, order, short) as engine:
            engine.start(order, 1, id="a").result()
            engine.start(order, 2, id="b").result()
            engine.start(short, id="c").result()
            results = {result.id: result for result in engine.rewind_all(Runs(), 0)}
            assert (results["a"].done, results["b"].done, results["c"].done) == (True, True, False)
            assert "CommandRefused: workflow 'c' has no step 0" in (results["c"].error or "")
            assert engine.handle("a").result() == 1

    def test_those_to_which_an_order_does_not_apply_are_left_out(self, backend: LogBackend) -> None:
        """Given runs that wait and one that has ended, orders for open runs go to those that wait."""
        BROKEN.clear()
        with engine_on(backend, order, waits) as engine:
            engine.start(order, 1, id="done").result()
            for name in ("a", "b", "c"):
                engine.start(waits, id=name)
            assert ids(engine.pause_all(Runs())) == {"a", "b", "c"}
            assert {i.status for i in engine.list(Runs(workflow="waits"))} == {Status.PAUSED}
            assert ids(engine.resume_all(Runs())) == {"a", "b", "c"}
            assert ids(engine.terminate_all(Runs(status=Status.RUNNING))) == {"a", "b", "c"}
            until(lambda: len(engine.list(Runs(status=Status.TERMINATED))) == 3)
            refused = engine.terminate_all(Runs(status=Status.COMPLETED))
            assert [(result.id, result.done) for result in refused] == [("done", False)]
            assert "WorkflowEnded" in (refused[0].error or "")

    def test_all_are_cancelled(self, backend: LogBackend) -> None:
        """Given runs that wait, cancelling all of one workflow ends them and no others."""
        with engine_on(backend, waits, waits_better) as engine:
            engine.start(waits, id="old")
            engine.start(waits_better, id="new")
            results = engine.cancel_all(Runs(workflow="waits", version=1), reason="retired")
            assert ids(results) == {"old"}
            until(lambda: engine.status("old").status is Status.CANCELLED)
            assert engine.status("new").status is Status.RUNNING

    def test_all_are_forked_with_newer_code(self, backend: LogBackend) -> None:
        """Given runs that wait under version 1, forking to version 2 names each fork; an unknown version fails."""
        with engine_on(backend, waits, waits_better) as engine:
            for name in ("a", "b"):
                engine.start(waits, id=name)
            where = Runs(workflow="waits", version=1)
            assert [r.fork_id for r in engine.fork_all(where, dry_run=True)] == [None, None]
            results = engine.fork_all(where, version=2)
            assert all(result.done for result in results)
            for result in results:
                fork = engine.handle(result.fork_id or "", waits_better)
                assert fork.status().version == 2
                fork.send("in", result.id)
                assert fork.result() == result.id
                assert kinds(engine, result.id) == ["workflow.started"]
            failed = engine.fork_all(where, version=9)
            assert all(UnknownWorkflow.__name__ in (result.error or "") for result in failed)

    def test_bad_input_is_refused_for_all(self, backend: LogBackend) -> None:
        """Given a step or version that is none, or no filter, nothing is sent to anyone."""
        with engine_on(backend, waits) as engine:
            engine.start(waits, id="w")
            before = written(backend)
            with pytest.raises(UsageError, match="-1 is no step"):
                engine.rewind_all(Runs(), -1)
            with pytest.raises(UsageError, match="0 is no version"):
                engine.fork_all(Runs(), 0, version=0)
            with pytest.raises(UsageError, match=r"Runs\(\)"):
                cast(Any, engine).terminate_all(None)
            assert written(backend) == before


class TestStartOptions:
    def test_a_version_is_kept(self, backend: LogBackend) -> None:
        """Given two versions, a start gets that of its code, or the one that it names; an unknown one is refused."""
        with engine_on(backend, waits, waits_better) as engine:
            assert engine.start(waits_better, id="better").status().version == 2
            assert engine.start(waits_better, id="named", version=1).status().version == 1
            with pytest.raises(UnknownWorkflow, match="version 3 of workflow 'waits'"):
                engine.start(waits, id="none", version=3)
            with pytest.raises(UsageError, match="0 is no version"):
                engine.start(waits, version=0)

    def test_bad_tags_and_messages_are_refused(self, backend: LogBackend) -> None:
        """Given a tag or message that can't be recorded, nothing is written."""
        with engine_on(backend, waits) as engine:
            before = written(backend)
            with pytest.raises(PayloadError, match="'bad'"):
                engine.start(waits, attributes={"bad": cast(Any, [1])})
            with pytest.raises(PayloadError, match="not a string"):
                engine.start(waits, attributes=cast(Any, {5: 1}))
            with pytest.raises(PayloadError, match="message for workflow 'waits' on 'in'"):
                engine.start(waits, message=("in", object()))
            with pytest.raises(UsageError, match="topic"):
                engine.start(waits, message=("", 1))
            assert written(backend) == before

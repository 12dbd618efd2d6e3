"""A tail beside a working engine, on every log: what was there, then what comes, and on from a cursor or a time."""

import asyncio
from datetime import UTC, datetime, timedelta

from engine_trial import engine_on, with_log
from log_backend import PATIENCE_S, LogBackend
from refold import Cursor, step, tail, workflow
from refold.log.protocol import Log


@step
async def add(a: int, b: int) -> int:
    return a + b


@workflow
async def total(count: int) -> int:
    result = 0
    for number in range(count):
        result = await add(result, number)
    return result


def test_a_tail_follows_an_engine_on_every_log(any_backend: LogBackend) -> None:
    """Given runs before and after a tail began, it gives the events of all, each once, in each run's order."""

    async def follow(log: Log) -> None:
        async with asyncio.timeout(PATIENCE_S):
            positions: dict[str, list[int | None]] = {}
            ended = 0
            async with tail(log, since="start", workflow="total") as events:
                while ended < 8:
                    event = (await anext(events)).event
                    assert not hasattr(event, "reason"), event
                    positions.setdefault(event.workflow_id or "", []).append(
                        getattr(event, "position", None)
                    )
                    ended += getattr(event, "kind", "") == "workflow.completed"
                    if ended == 4 and "late-0" not in positions:
                        await asyncio.to_thread(_run, any_backend, "late")
                cursor = Cursor.of(str(events.cursor))
            assert set(positions) == {f"{when}-{n}" for when in ("early", "late") for n in range(4)}
            assert all(found == list(range(5)) for found in positions.values())
            assert [e async for e in tail(log, since=cursor, follow=False, kind="workflow")] == []
            whole = [e async for e in tail(log, follow=False)]
            middle = whole[len(whole) // 2].timestamp
            since = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=middle)
            found = [e async for e in tail(log, since=since, follow=False)]
            assert found == [e for e in whole if e.timestamp >= middle]

    _run(any_backend, "early")
    with_log(any_backend, follow)


def _run(backend: LogBackend, when: str) -> None:
    with engine_on(backend, total) as engine:
        handles = [engine.start(total, 3, id=f"{when}-{n}") for n in range(4)]
        for handle in handles:
            assert handle.result(PATIENCE_S) == 3

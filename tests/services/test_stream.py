"""Following one run's events while they are written."""

import asyncio
from contextlib import aclosing

import pytest

from refold import CheckpointSettings, Engine, step, workflow
from refold.engine.reader import near, read_history
from refold.log.events import Event, Unreadable, WorkflowCompleted
from refold.log.memory import MemoryLog
from refold.services.stream import follow


@step
async def double(n: int) -> int:
    """A step."""
    return 2 * n


@workflow
async def doubling(times: int) -> int:
    """Some steps."""
    n = 1
    for _ in range(times):
        n = await double(n)
    return n


@pytest.mark.parametrize("min_bytes", [1_000, 2_000_000])
def test_a_follower_sees_the_whole_history_once_and_in_order(min_bytes: int) -> None:
    """Given runs beside it, a follower from before the start and one from after the end see the stream and no more,
    with checkpoints that say where a run begins and with none."""

    async def until_end(log: MemoryLog, id_: str) -> list[Event | Unreadable]:
        seen: list[Event | Unreadable] = []
        async with aclosing(follow(log, id_)) as events:
            async for event in events:
                if event is not None:
                    seen.append(event)
                if isinstance(event, WorkflowCompleted):
                    break
        return seen

    async def scenario() -> None:
        log = MemoryLog()
        often = CheckpointSettings(min_bytes=min_bytes)
        async with Engine(log, workflows=[doubling], checkpoints=often) as engine:
            early = asyncio.create_task(until_end(log, "b"))
            handles = [await engine.start_async(doubling, 50, id=id_) for id_ in ("a", "b", "c")]
            await asyncio.gather(*(handle.result_async() for handle in handles))
            recorded = await read_history(log, "b")
            assert len(recorded) == 52
            assert await early == recorded
            assert await until_end(log, "b") == recorded
            await engine.start_async(doubling, 3, id="d")
            assert await until_end(log, "d") == await read_history(log, "d")
            assert (await near(log, 0, "d") is None) == (min_bytes > 1_000)

    asyncio.run(scenario())

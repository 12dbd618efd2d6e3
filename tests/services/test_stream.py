"""Following one run's events while they are written."""

import asyncio
from contextlib import aclosing

from refold import Engine, step, workflow
from refold.engine.reader import read_history
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


def test_a_follower_sees_the_whole_history_once_and_in_order() -> None:
    """Given runs beside it, a follower from before the start and one from after the end see the stream and no more."""

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
        async with Engine(log, workflows=[doubling]) as engine:
            early = asyncio.create_task(until_end(log, "b"))
            handles = [await engine.start_async(doubling, 50, id=id_) for id_ in ("a", "b", "c")]
            await asyncio.gather(*(handle.result_async() for handle in handles))
            recorded = await read_history(log, "b")
            assert len(recorded) == 52
            assert await early == recorded
            assert await until_end(log, "b") == recorded

    asyncio.run(scenario())

"""Engines that can't be opened: nothing of them goes on."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from refold import Engine, step, workflow
from refold.log.errors import LogUnavailable
from refold.log.memory import MemoryLog
from refold.log.protocol import Record


@step(pool="opening")
def elsewhere() -> None: ...


@workflow
async def nothing() -> None: ...


class Deaf(MemoryLog):
    """A log at which no worker of a pool may listen."""

    async def listen(self, client_id: str, deliver: Callable[[Sequence[Record]], None]) -> None:
        """Let clients listen alone."""
        if client_id.startswith("pool-"):
            raise LogUnavailable("this user may not read replies")
        await super().listen(client_id, deliver)


def test_what_had_begun_is_ended() -> None:
    """Given an engine whose worker has begun and whose pool's worker can't, when it is opened, the error is raised and
    nothing of it goes on."""

    async def scenario() -> None:
        engine = Engine(Deaf(), workflows=[nothing], pools=["opening"], drain_s=0)
        with pytest.raises(LogUnavailable, match="may not read"):
            await engine.__aenter__()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert engine.owned_partitions == []

    asyncio.run(scenario())

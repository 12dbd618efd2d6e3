"""What every log promises to workers that share the partitions of a pool, on each backend by the same cases."""

import asyncio
from collections.abc import Callable, Coroutine

from log_backend import PATIENCE_S, LogBackend, Worker, opened
from refold.log.layout import Layout
from refold.log.protocol import Channel, Entry


def run(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(2 * PATIENCE_S):
            await scenario()

    asyncio.run(bounded())


def test_an_open_log_knows_its_pools(pooled_backend: LogBackend) -> None:
    """Given a namespace that was made with pools, whoever opens it knows them, in their order."""

    async def scenario() -> None:
        async with opened(pooled_backend) as log:
            assert log.layout == Layout(2, (("gpu", 2), ("ocr", 1)))
            assert log.partitions == 5

    run(scenario)


def test_each_group_shares_its_own_partitions(pooled_backend: LogBackend) -> None:
    """Given workers for the common partitions and for pools, each group has its own, whoever comes and goes."""

    async def scenario() -> None:
        async with opened(pooled_backend) as log, opened(pooled_backend) as other_log:
            common, gpu, ocr = Worker("common"), Worker("gpu"), Worker("ocr")
            await common.join(log)
            membership = await gpu.join(log, "gpu")
            await ocr.join(log, "ocr")
            await common.until(lambda: common.owned == {0, 1})
            await gpu.until(lambda: gpu.owned == {2, 3})
            await ocr.until(lambda: ocr.owned == {4})
            another = Worker("another")
            await another.join(other_log, "gpu")
            await another.until(lambda: len(another.owned) == 1)
            await gpu.until(lambda: len(gpu.owned) == 1)
            assert another.owned | gpu.owned == {2, 3}
            await membership.leave()
            await another.until(lambda: another.owned == {2, 3})
            assert (common.owned, common.revocations) == ({0, 1}, [])
            assert (ocr.owned, ocr.revocations) == ({4}, [])

    run(scenario)


def test_a_pools_worker_is_given_its_commands(pooled_backend: LogBackend) -> None:
    """Given a command on a partition of a pool, the pool's worker that follows it gets it."""

    async def scenario() -> None:
        async with opened(pooled_backend) as log:
            worker = Worker("gpu")
            membership = await worker.join(log, "gpu")
            await worker.until(lambda: worker.owned == {2, 3})
            membership.follow(3, 0)
            await log.append(Channel.COMMANDS, 3, [Entry("film@gpu", b"go")])
            await worker.until(lambda: worker.values(3) == [b"go"])

    run(scenario)

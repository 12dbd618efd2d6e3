"""What steps write to streams on its way to the owner: together, but never more than a record takes."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from refold import stream
from refold.engine.active import Items
from refold.engine.effects import Launch, StepResult
from refold.engine.operations import StepCall, StepOptions
from refold.engine.payload import PayloadType
from refold.engine.room import Room
from refold.engine.steps import MAX_BATCH_BYTES, Steps

ITEM = "😀" * 20_000
"""Four bytes a character: as JSON 80 kB."""
COUNT = 20


async def writes_much() -> None:
    for _ in range(COUNT):
        stream("faces").write(ITEM)


def test_batches_are_measured_in_bytes() -> None:
    """Given many items of long characters at once, each batch has no more bytes than the limit."""
    written: list[Items] = []

    async def scenario() -> None:
        ended: asyncio.Future[StepResult] = asyncio.get_running_loop().create_future()
        with ThreadPoolExecutor(1) as pool:
            steps = Steps(
                lambda _, result: ended.set_result(result),
                lambda _: None,
                lambda _, items: written.append(items),
                may_begin=lambda: True,
                pool=pool,
                room=Room(),
                clock=lambda: 0,
                namespace="test",
                max_payload_bytes=1_000,
            )
            result: PayloadType[Any] = PayloadType.of(None, "result")
            call = StepCall("writes_much", writes_much, True, StepOptions(), result)
            steps.launch(Launch("run", "workflow", 0, 1, call, None))
            await ended

    asyncio.run(scenario())
    assert [item for items in written for item in json.loads(items.payload)] == [ITEM] * COUNT
    assert max(len(items.payload.encode()) for items in written) <= MAX_BATCH_BYTES + COUNT

"""Reading a run's streams: live, from an index, after the end, in other processes."""

import asyncio
import json
import threading
from collections.abc import Generator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest

from engine_trial import engine_on, kinds, until
from log_backend import PATIENCE_S, LogBackend
from refold import (
    Engine,
    EngineClosed,
    PayloadError,
    UsageError,
    WorkflowNotFound,
    receive,
    step,
    stream,
    workflow,
)
from refold.engine.retry import Retry
from refold.log.codec import encode_event
from refold.log.events import StreamWritten
from refold.log.partitioner import partition_of
from refold.log.protocol import Channel


@dataclass
class Token:
    text: str


@workflow
async def echoes() -> int:
    """Writes what it receives, until it receives nothing."""
    words = stream("words")
    count = 0
    while text := await receive("in", str):
        words.write(text)
        count += 1
    return count


@workflow
async def counts(to: int) -> None:
    numbers = stream("numbers")
    for number in range(to):
        numbers.write(number)


@workflow
async def tells() -> None:
    for word in ("once", "upon"):
        stream("tokens").write(Token(word))


def test_items_come_live_and_the_reader_ends_with_the_run(any_backend: LogBackend) -> None:
    """Given a reader of a stream, each item is there before the next is written; it ends when the run does."""
    with engine_on(any_backend, echoes) as engine:
        handle = engine.start(echoes)
        items = handle.stream("words", str)
        for word in ("a", "b", "c"):
            handle.send("in", word)
            assert next(items) == word
        handle.send("in", "")
        assert list(items) == []
        assert handle.result() == 3


def test_a_stream_is_read_again_from_any_index(any_backend: LogBackend) -> None:
    """Given a run that has ended, its stream is there from its beginning, from an index and from past its end."""
    with engine_on(any_backend, counts) as engine:
        handle = engine.start(counts, 250)
        handle.result()
        assert list(handle.stream("numbers", int)) == list(range(250))
        assert list(handle.stream("numbers", int, start=247)) == [247, 248, 249]
        assert list(handle.stream("numbers", start=250)) == []
        assert list(handle.stream("others")) == []
    with engine_on(any_backend, worker=False) as client:
        assert list(client.handle(handle.id).stream("numbers", int, start=248)) == [248, 249]


def test_a_reader_in_another_engine_follows_live(backend: LogBackend) -> None:
    """Given a client on a log of its own, it sees each item as it is written by a worker elsewhere."""
    with engine_on(backend, echoes) as engine, engine_on(backend, worker=False) as client:
        handle = engine.start(echoes, id="e")
        items = client.handle("e").stream("words", str)
        for word in ("x", "y"):
            handle.send("in", word)
            assert next(items) == word
        handle.send("in", "")
        assert list(items) == []


def test_items_come_back_typed(backend: LogBackend) -> None:
    """Given items of a dataclass, a reader that names it gets its instances; one that names another type is told."""
    with engine_on(backend, tells) as engine:
        handle = engine.start(tells)
        assert list(handle.stream("tokens", Token)) == [Token("once"), Token("upon")]
        assert list(handle.stream("tokens")) == [{"text": "once"}, {"text": "upon"}]
        with pytest.raises(PayloadError, match="items of stream 'tokens'"):
            list(handle.stream("tokens", int))


def test_what_can_not_be_read_is_refused(backend: LogBackend) -> None:
    """Given a bad name or index, the call says so; given an unknown run, the iterator does."""
    with engine_on(backend, tells) as engine:
        handle = engine.handle("nobody")
        with pytest.raises(UsageError, match="stream"):
            handle.stream("")
        with pytest.raises(UsageError, match="-1"):
            handle.stream("tokens", start=-1)
        with pytest.raises(WorkflowNotFound, match="'nobody'"):
            next(handle.stream("tokens"))


def test_leaving_a_reader_ends_its_reading(backend: LogBackend) -> None:
    """Given a reader that is left in the middle, nothing of it stays, and the engine closes."""
    with engine_on(backend, echoes) as engine:
        handle = engine.start(echoes)
        handle.send("in", "a")
        for item in handle.stream("words", str):
            assert item == "a"
            break
        items = handle.stream("words")
        assert next(items) == "a"
        items.close()
        with pytest.raises(StopIteration):
            next(items)


def test_closing_the_engine_ends_a_reader_that_waits(backend: LogBackend) -> None:
    """Given a thread that waits for the next item, closing the engine lets it know."""
    heard: list[Exception] = []
    read = threading.Event()

    def follow(items: Generator[Any, None, None]) -> None:
        try:
            for _ in items:
                read.set()
        except EngineClosed as error:
            heard.append(error)

    with engine_on(backend, echoes) as engine:
        handle = engine.start(echoes)
        reader = threading.Thread(target=follow, args=(handle.stream("words"),))
        reader.start()
        handle.send("in", "a")
        assert read.wait(PATIENCE_S)
    reader.join(PATIENCE_S)
    assert len(heard) == 1
    with pytest.raises(EngineClosed):
        handle.stream("words")


def test_async_code_reads_on_its_own_loop_or_the_engines(backend: LogBackend) -> None:
    """Given async code, it follows a stream by `async for`, on the engine's loop and on another."""

    async def follow(engine: Engine, run: str) -> list[str]:
        handle = engine.handle(run)
        got: list[str] = []
        async with aclosing(handle.stream_async("words", str)) as items:
            await handle.send_async("in", "one")
            async for item in items:
                got.append(item)
                if len(got) == 2:
                    break
                await handle.send_async("in", "two")
        await handle.send_async("in", "")
        return got

    async def on_its_own_loop() -> list[str]:
        async with engine_on(backend, echoes) as engine:
            await engine.start_async(echoes, id="own")
            return await follow(engine, "own")

    assert asyncio.run(on_its_own_loop()) == ["one", "two"]
    with engine_on(backend, echoes) as engine:
        engine.start(echoes, id="other")
        assert asyncio.run(follow(engine, "other")) == ["one", "two"]


def test_an_item_appears_once_for_each_attempt_that_wrote_it(backend: LogBackend) -> None:
    """Given a step that writes and fails, then writes and returns, the stream holds what both attempts wrote."""
    attempts: list[int] = []

    @step(retry=Retry(attempts=2, initial_s=0.001))
    def writes() -> None:
        attempts.append(1)
        stream("parts").write(len(attempts))
        if len(attempts) == 1:
            raise OSError("the line is down")

    @workflow
    def parts() -> None:
        stream("parts").write(0)
        writes()

    with engine_on(backend, parts) as engine:
        handle = engine.start(parts)
        handle.result()
        assert list(handle.stream("parts", int)) == [0, 1, 2]


def test_a_zombies_items_are_not_given(backend: LogBackend) -> None:
    """Given an item under a claim that is not the current one, no reader sees it, neither before nor after it came."""

    async def append_as_zombie() -> None:
        log = backend.log()
        await log.open()
        event = StreamWritten(
            workflow_id="e",
            position=2,
            recorded_at=0,
            claim=10_000,
            command=-1,
            posted=0,
            worker="zombie",
            step=7,
            name="words",
            index=0,
            count=1,
            payload=json.dumps(["from the grave"]),
        )
        entry, _ = encode_event(event, bytes(32))
        await log.append(Channel.EVENTS, partition_of("e", log.partitions), [entry])
        await log.close()

    async def scenario() -> None:
        async with engine_on(backend, echoes) as engine:
            handle = await engine.start_async(echoes, id="e")
            live = handle.stream_async("words", str)
            await handle.send_async("in", "first")
            assert await anext(live) == "first"
            await append_as_zombie()
            await handle.send_async("in", "second")
            assert await anext(live) == "second"
            await handle.send_async("in", "")
            assert [item async for item in live] == []
            assert [item async for item in handle.stream_async("words")] == ["first", "second"]

    asyncio.run(scenario())


def test_a_reopened_runs_stream_goes_on_where_it_was(backend: LogBackend) -> None:
    """Given a run that failed and is resumed, a reader from the beginning sees what was before and after it."""
    broken = threading.Event()
    broken.set()

    @step
    def fragile() -> None:
        if broken.is_set():
            raise OSError("the line is down")

    @workflow
    def goes_on() -> None:
        stream("log").write("before")
        fragile()
        stream("log").write("after")

    with engine_on(backend, goes_on) as engine:
        handle = engine.start(goes_on, id="g")
        with pytest.raises(OSError, match="down"):
            handle.result()
        assert list(handle.stream("log")) == ["before"]
        broken.clear()
        handle.resume()
        handle.result()
        assert list(handle.stream("log")) == ["before", "after"]
        assert list(handle.stream("log", start=1)) == ["after"]
        until(lambda: "workflow.completed" in kinds(engine, "g"))

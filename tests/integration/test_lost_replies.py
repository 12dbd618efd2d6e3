"""Replies are hints: where the first of each is lost, what was asked for is done once all the same, and is heard of."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

import pytest

from engine_trial import engine_on
from log_backend import PATIENCE_S, LogBackend
from refold import Engine, Status, WorkflowEnded, receive, requests, workflow
from refold.engine.client import READS_AT_ONCE, Client
from refold.engine.operator import Operator
from refold.engine.worker import wall_clock
from refold.log.codec import decode_reply
from refold.log.commands import AskWorkflow, Command, Reply, SendMessage, WatchValue
from refold.log.memory import MemoryLog, MemoryStore
from refold.log.protocol import Channel, Record

LISTEN = Callable[[Sequence[Record]], None]


@workflow
async def waits() -> str:
    return await receive("in", str)


@workflow
async def ends(n: int) -> int:
    return n


@workflow
async def answers_once() -> str:
    async for request in requests("add", int):
        request.reply(request.value + 1)
        break
    return "done"


def losing_the_first(deliver: LISTEN) -> LISTEN:
    """A listener that loses what first comes for each command: one reply, or an acceptance and the answer with it."""
    lost: set[str] = set()

    def hear(records: Sequence[Record]) -> None:
        replies = [(record, decode_reply(record)) for record in records]
        kept = [r for r, reply in replies if isinstance(reply, Reply) and reply.command_id in lost]
        lost.update(reply.command_id for _, reply in replies if isinstance(reply, Reply))
        if kept:
            deliver(kept)

    return hear


@asynccontextmanager
async def hard_of_hearing(backend: LogBackend) -> AsyncGenerator[Client]:
    """A client that asks again at once, and loses the first reply to each of its commands."""
    log = backend.log()
    listen = log.listen

    async def listen_badly(client_id: str, deliver: LISTEN) -> None:
        await listen(client_id, losing_the_first(deliver))

    log.listen = listen_badly  # type: ignore[method-assign]
    await log.open()
    client = Client(log, wall_clock, ask_again_s=0.01)
    await client.open()
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield client
    finally:
        client.close()
        await log.close()


async def kinds_of(engine: Engine, run: str) -> list[str]:
    """The kinds of a run's events."""
    return [getattr(event, "kind", "?") for event in await engine.history_async(run)]


def test_orders_are_given_once_and_their_outcome_is_found_in_the_log(backend: LogBackend) -> None:
    """Given lost replies, pause, resume, cancel and so on each return, and each is recorded once."""

    async def scenario() -> None:
        async with engine_on(backend, waits) as engine, hard_of_hearing(backend) as client:
            operator = Operator(client, PATIENCE_S)
            await engine.start_async(waits, id="w")
            await operator.pause("w", None)
            await operator.resume("w", None)
            await operator.cancel("w", None)
            kinds = await kinds_of(engine, "w")
            for kind in ("paused", "resumed", "cancel_requested"):
                assert kinds.count(f"workflow.{kind}") == 1
            with pytest.raises(WorkflowEnded):
                await operator.terminate("w", None)

    asyncio.run(scenario())


def test_a_history_is_copied_once(backend: LogBackend) -> None:
    """Given lost replies, a fork and a reopened run get each part of their history once, and end."""

    async def scenario() -> None:
        async with engine_on(backend, waits) as engine, hard_of_hearing(backend) as client:
            operator = Operator(client, PATIENCE_S)
            source = await engine.start_async(waits, id="w", message=("in", "x"))
            assert await source == "x"
            assert await operator.fork("w", None, "f", None, None) == "f"
            assert await engine.handle("f") == "x"
            stopped = await engine.start_async(waits, id="t")
            await stopped.terminate_async()
            await operator.resume("t", None)
            await stopped.send_async("in", "y")
            assert await stopped == "y"
            for run in ("f", "t"):
                assert (await kinds_of(engine, run)).count("history.copied") == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("with_start", [False, True])
def test_a_message_whose_receiver_ended_by_it_has_arrived(
    backend: LogBackend, with_start: bool
) -> None:
    """Given a lost reply to a message that ended its run, sending it again finds that it had arrived."""

    async def scenario() -> None:
        async with engine_on(backend, waits) as engine, hard_of_hearing(backend) as client:
            if with_start:
                await client.start(
                    "waits",
                    "{}",
                    "w",
                    timeout_s=None,
                    confirm=True,
                    message=("in", '"x"'),
                )
            else:
                await engine.start_async(waits, id="w")
                envelope = client.envelope("w")
                await client.ask(
                    SendMessage(**envelope, name="in", payload='"x"', message_id="m"), None
                )
            assert await engine.handle("w") == "x"
            assert (await kinds_of(engine, "w")).count("message.received") == 1

    asyncio.run(scenario())


def test_an_answer_is_found_after_the_end(backend: LogBackend) -> None:
    """Given a lost answer to a question that ended its run, asking again gives the answer, and it was asked once."""

    async def scenario() -> None:
        async with engine_on(backend, answers_once) as engine, hard_of_hearing(backend) as client:
            await engine.start_async(answers_once, id="a")
            question: Command = AskWorkflow(**client.envelope("a"), name="add", payload="41")
            reply = await client.ask(question, None)
            assert (reply.status, reply.payload) == ("answered", "42")
            assert (await kinds_of(engine, "a")).count("ask.received") == 1
            info = await engine.status_async("a")
            assert info.status is Status.COMPLETED
            with pytest.raises(WorkflowEnded):
                await client.ask(WatchValue(**client.envelope("a"), name="none"), None)

    asyncio.run(scenario())


class Counting(MemoryLog):
    """A log that counts how many read its events at once.

    Args:
        store: Where the records are.
    """

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store=store)
        self.reading = self.most = 0

    async def read(
        self,
        channel: Channel,
        partition: int,
        start: int,
        stop: int | None = None,
        *,
        key: str | None = None,
    ) -> AsyncGenerator[Sequence[Record], None]:
        """Read, and let others come in between."""
        self.reading += 1
        self.most = max(self.most, self.reading)
        try:
            await asyncio.sleep(0)
            async with aclosing(super().read(channel, partition, start, stop, key=key)) as batches:
                async for batch in batches:
                    yield batch
        finally:
            self.reading -= 1


def test_where_no_worker_answers_few_read_the_log_at_a_time() -> None:
    """Given many ended runs and no worker, when all their results are waited for, a few at a time are looked up."""
    runs = 10 * READS_AT_ONCE
    store = MemoryStore(partitions=1)
    with Engine(MemoryLog(store=store), workflows=[ends]) as engine:
        for n in range(runs):
            engine.start(ends, n, id=f"r{n}").result(PATIENCE_S)
    log = Counting(store)

    async def results() -> list[int]:
        async with Engine(log, worker=False, workflows=[ends]) as client:
            handles = [client.handle(f"r{n}", ends) for n in range(runs)]
            return await asyncio.gather(*(one.result_async(PATIENCE_S) for one in handles))

    assert asyncio.run(results()) == list(range(runs))
    assert log.most == READS_AT_ONCE

"""A worker that stands still between an append and its acknowledgement, while another one takes its partition."""

import threading
from collections.abc import Sequence

import pytest

from engine_trial import kinds, until
from log_backend import PATIENCE_S
from refold import Engine, Workflow, step, workflow
from refold.engine.claim import claim
from refold.engine.proof import FRESH_S, Proof
from refold.engine.worker import wall_clock
from refold.log.errors import UsageError
from refold.log.kafka_settings import KafkaSettings
from refold.log.memory import MemoryLog, MemoryStore
from refold.log.protocol import Channel, Entry, Listener, Membership

STOPPED_S = 60
MICROSECONDS = 1_000_000

RAN: list[str] = []


@step
async def first() -> str:
    RAN.append("first")
    return "1"


@step
async def second() -> str:
    RAN.append("second")
    return "2"


@step
def second_in_thread() -> str:
    RAN.append("second")
    return "2"


@workflow
async def both() -> str:
    return await first() + await second()


@workflow
async def both_in_threads() -> str:
    return await first() + await second_in_thread.aio()


class StandingStill(MemoryLog):
    """A log whose user is stopped once: after its first recorded step, before it hears that it was recorded.

    Args:
        store: Where the records are.
    """

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store=store, rebalance_s=0.01)
        self.now_us = wall_clock()
        self._rival = MemoryLog(store=store)
        self._has_stopped = False

    def clock(self) -> int:
        """The wall clock that the engine is to use."""
        return self.now_us

    async def append(
        self,
        channel: Channel,
        partition: int,
        entries: Sequence[Entry],
        *,
        lazily: bool = False,
    ) -> Sequence[int]:
        """Append; the first time that a step is recorded, a rival claims the partition before this returns."""
        offsets = await super().append(channel, partition, entries, lazily=lazily)
        records_step = any(("kind", b"step.completed") in entry.headers for entry in entries)
        if channel is Channel.EVENTS and records_step and not self._has_stopped:
            self._has_stopped = True
            await self._rival.open()
            await claim(self._rival, partition, "rival", self.clock)
            await self._rival.close()
            self.now_us += STOPPED_S * MICROSECONDS
        return offsets


@pytest.mark.parametrize("taken_over", [both, both_in_threads])
def test_a_step_does_not_begin_on_an_old_acknowledgement(taken_over: Workflow[[], str]) -> None:
    """Given a partition that another claimed before an acknowledgement came, no step begins under the old claim."""
    RAN.clear()
    log = StandingStill(MemoryStore(partitions=1))
    with Engine(log, workflows=[taken_over], clock=log.clock) as engine:
        handle = engine.start(taken_over, id="run")
        until(
            lambda: kinds(engine, "run")[-1] == "workflow.completed"
        )  # nobody asks: it goes on by itself
        assert handle.result() == "12"
        claims = {event.claim for event in engine.history("run")}
    assert RAN == ["first", "second"]  # begun under the old claim, the second would have run twice
    assert len(claims) == 2


BUSY = threading.Event()
DONE = threading.Event()


@step
def busy() -> None:
    BUSY.set()
    DONE.wait()


@workflow
def keeps_a_thread() -> None:
    busy()


@workflow
def wants_a_thread() -> str:
    return second_in_thread()


class Revoking(MemoryLog):
    """A log that remembers whom to tell of a move."""

    listener: Listener

    async def join(self, worker: str, listener: Listener, pool: str | None = None) -> Membership:
        """Join, and remember the listener."""
        self.listener = listener
        return await super().join(worker, listener, pool)


def test_a_step_that_waits_for_a_thread_does_not_begin_once_its_partition_moves() -> None:
    """Given a step in the queue for a thread, when its partition is revoked, it never begins here."""
    RAN.clear()
    BUSY.clear()
    DONE.clear()
    log = Revoking(store=MemoryStore(partitions=1))
    with Engine(log, workflows=[keeps_a_thread, wants_a_thread], threads=1) as engine:
        engine.start(keeps_a_thread, id="keeps")
        assert BUSY.wait(PATIENCE_S)
        engine.start(wants_a_thread, id="wants")
        until(lambda: kinds(engine, "wants") == ["workflow.started"])
        log.listener.revoking(0)  # `revoked` may come late: the event loop is busy
        DONE.set()
        until(lambda: kinds(engine, "keeps")[-1] == "workflow.completed")
    assert RAN == []


class TestProof:
    def test_it_is_stale_before_another_can_take_over(self) -> None:
        """Given a Kafka session as short as FRESH_S, it is refused: a worker could go on with what is another's."""
        with pytest.raises(UsageError, match="session_timeout_ms"):
            KafkaSettings(session_timeout_ms=int(FRESH_S * 1_000), heartbeat_interval_ms=1)

    def test_nothing_is_proven_at_first(self) -> None:
        """Given a partition that the log has not shown to be ours, no step may begin."""
        assert not Proof(wall_clock).is_fresh()

    def test_it_is_withdrawn_for_good(self) -> None:
        """Given a partition that is to be given up, whatever the log still shows lets no step begin."""
        proof = Proof(wall_clock)
        proof.withdraw()
        proof.given(proof.now())
        assert not proof.is_fresh()

    @pytest.mark.parametrize(
        ("passed_s", "fresh"),
        [(0, True), (FRESH_S, True), (FRESH_S + 0.001, False), (-0.001, False)],
    )
    def test_it_ages_by_the_wall_clock_and_does_not_trust_one_that_goes_back(
        self, passed_s: float, fresh: bool
    ) -> None:
        """Given a proof, it holds for FRESH_S of the wall clock, and not where that clock was set back."""
        now_us = 1_000 * MICROSECONDS
        proof = Proof(lambda: now_us)
        proof.given(proof.now())
        now_us += round(passed_s * MICROSECONDS)
        assert proof.is_fresh() == fresh

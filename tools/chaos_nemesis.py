"""Carries out a plan of faults, and writes down what it did: each fault when it begins and when it is healed."""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from chaos_history import Fault, Scribe, now_us
from chaos_links import Way
from chaos_plan import Planned
from chaos_stage import Company, Stage

DRAIN_PATIENCE_S: Final = 45.0
"""A worker that was asked to drain may have to wait for a log that is away; later than this it is killed."""

Heal = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Done:
    """A fault that has begun: how it is healed, and what is known of it."""

    heal: Heal
    pid: int | None = None
    who: str | None = None
    detail: str = ""


class Nemesis:
    """Breaks things.

    Args:
        stage: Brokers and links.
        company: Processes.
        scribe: Where faults are written down.
    """

    def __init__(self, stage: Stage, company: Company, scribe: Scribe) -> None:
        self._stage = stage
        self._company = company
        self._scribe = scribe
        self._count = 0
        self.active: dict[int, Fault] = {}
        self.done = 0
        self._broken_broker = False

    async def run(self, plan: list[Planned]) -> None:
        """Carry out the plan. All is healed when this returns."""
        begun = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for planned in plan:
                wait_s = begun + planned.at_s - asyncio.get_running_loop().time()
                await asyncio.sleep(max(0.0, wait_s))
                group.create_task(self._one(planned))

    async def _one(self, planned: Planned) -> None:
        self._count += 1
        number, at_us = self._count, now_us()
        done = await self._begin(planned)
        if done is None:
            return  # nobody is there: it was killed a moment ago, or is not back yet
        detail = done.detail
        fault = Fault(
            number, planned.kind, done.who or planned.target, at_us, None, done.pid, detail
        )
        self._scribe.write("begin", fault)
        self.active[number] = fault
        try:
            if planned.kind == "worker.drain":
                await self._drained(planned.target, done.pid)
            else:
                await asyncio.sleep(planned.length_s)
        finally:
            done.heal()
            if planned.kind.startswith("broker."):
                await self._serves_again(planned.target)
            self.done += 1
            del self.active[number]
            self._scribe.write("end", replace(fault, ended_us=now_us()))

    async def _serves_again(self, name: str) -> None:
        """A broker is broken until it serves: only then may another one be."""
        await asyncio.to_thread(self._stage.brokers[name].wait_ready)
        self._broken_broker = False

    async def _drained(self, target: str, pid: int | None) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + DRAIN_PATIENCE_S
        while (life := self._company.living(target)) is not None and life.pid == pid:
            if loop.time() > until:
                self._company.signal(target, signal.SIGKILL, pid)
                return
            await asyncio.sleep(0.05)

    async def _begin(self, planned: Planned) -> Done | None:
        match planned.kind.partition(".")[0]:
            case "broker":
                return await self._broker(planned)
            case "link":
                return self._link(planned)
            case _:
                return self._process(planned)

    def _process(self, planned: Planned) -> Done | None:
        company, target = self._company, planned.target
        if planned.kind == "worker.add":
            company.want(target)
            life = company.living(target)

            def leave() -> None:
                company.dismiss(target)
                company.signal(target, signal.SIGTERM)

            if life is None:
                return Done(leave)
            return Done(leave, life.pid, life.name)
        life = company.living(target)
        if life is None:
            return None
        pid = life.pid
        if planned.kind in {"worker.kill", "client.kill"}:
            company.keep_away(target, planned.length_s)
            company.signal(target, signal.SIGKILL)
            return Done(_nothing, pid, life.name)
        if planned.kind == "worker.drain":
            company.keep_away(target, planned.length_s)
            company.signal(target, signal.SIGTERM)
            return Done(_nothing, pid, life.name)
        # A worker that is to freeze stops itself, at its next acknowledgement.
        company.signal(
            target, signal.SIGUSR1 if planned.kind == "worker.freeze" else signal.SIGSTOP
        )
        return Done(lambda: company.signal(target, signal.SIGCONT, pid), pid, life.name)

    async def _broker(self, planned: Planned) -> Done | None:
        broker = self._stage.brokers[planned.target]
        if self._broken_broker:
            return None
        self._broken_broker = True
        pid = broker.pid
        match planned.kind:
            case "broker.kill":
                await asyncio.to_thread(broker.kill)
                return Done(broker.launch, pid)
            case "broker.stop":
                await asyncio.to_thread(broker.stop)  # it hands over what it leads first
                return Done(broker.launch, pid)
            case _:
                self._stage.signal_broker(planned.target, signal.SIGSTOP)
                return Done(lambda: self._stage.signal_broker(planned.target, signal.SIGCONT), pid)

    def _link(self, planned: Planned) -> Done:
        links = self._stage.links_of(planned.target)
        reset = planned.kind in {"link.cut", "link.half_open"}
        for link in links:
            match planned.kind:
                case "link.cut":
                    link.cut()
                case "link.hold":
                    link.hold(*Way)
                case "link.half_open":
                    link.hold(Way.BACK)  # requests arrive, and nobody hears what came of them
                case _:
                    link.slow(planned.delay_s)

        def heal() -> None:
            for link in links:
                link.heal(reset=reset)

        detail = f"{1e3 * planned.delay_s:.0f} ms" if planned.delay_s else ""
        return Done(heal, detail=detail)


def _nothing() -> None:
    """It heals by itself: whoever is wanted is started again."""

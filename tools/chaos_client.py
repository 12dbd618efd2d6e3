"""A client as a process: several sessions that start, message, ask, watch and cancel, and write down all of it.

Which runs there are does not depend on what becomes of them: ids are made of the client's name and a number, and all
clients share some runs, one generation after the other, to which each of them may be the first to come.
"""

import asyncio
import contextlib
import json
import logging
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Final, cast

from chaos_history import Json, Operation, Scribe, load, now_us
from chaos_log import log_of
from chaos_worker import die_with_parent
from chaos_workflows import ADD, FORMS, TOTAL, guest, tally
from refold import (
    CommandRefused,
    Engine,
    LogError,
    LogUnavailable,
    RefoldError,
    ResultTimeout,
    Workflow,
    WorkflowCancelled,
    WorkflowNotFound,
)

PATIENCE_S: Final = 10.0
"""How long a client waits for an answer before it says that it does not know."""
RESULT_PATIENCE_S: Final = 15.0
REOPEN_AFTER_S: Final = 0.5
TALLIES: Final = 3
"""Runs of a generation that all clients share."""
RECENT: Final = 40
"""How far back a client looks at others' runs: workers look up in the log how older ones ended, which is slow."""
HEARD_AGAIN: Final = 150
"""Of the runs whose end was heard already, as many are asked for once more at the end."""
LATE_FINISH: Final = 40
"""Results that the last client waits for at once."""

STARTED: Final[Mapping[str, Workflow[..., Any]]] = {
    form.workflow.name: form.workflow for form in FORMS
} | {tally.name: tally, guest.name: guest}

Call = Callable[[], Awaitable[Json]]


@dataclass(frozen=True, slots=True)
class Orders:
    """What a client is told at its start.

    Args:
        url: The log, by the client's own way to it.
        name: Its name and life, as `client-2.1`.
        directory: The run's directory.
        seed: Seed of what it does.
        sessions: How many things it does at once.
        pause_s: Mean pause of a session between two things, in seconds.
        others: Clients whose runs it looks at.
        origin_us: When the first generation of shared runs began.
        generation_s: How long a generation is, in seconds.
        patience_s: How long the last client waits for a run's end, in seconds; None for the other clients.
    """

    url: str
    name: str
    directory: str
    seed: int
    sessions: int
    pause_s: float
    others: Sequence[str]
    origin_us: int
    generation_s: float
    patience_s: float | None = None

    def command(self) -> list[str]:
        """How the process is started."""
        return [sys.executable, str(Path(__file__)), json.dumps(asdict(self))]


class Client:
    """Does things, and writes down what came of them.

    Args:
        engine: Open, without a worker.
        scribe: The process's history.
        orders: What it was told.
    """

    def __init__(self, engine: Engine, scribe: Scribe, orders: Orders) -> None:
        self._engine = engine
        self._scribe = scribe
        self._orders = orders
        self._runs = 0
        self.stopping = False

    async def session(self, number: int) -> None:
        """Do one thing after the other until it is told to stop."""
        random = Random(f"{self._orders.seed}/{self._orders.name}/{number}")
        things = (self._run, self._add, self._ask, self._read, self._look, self._visit)
        while not self.stopping:
            thing = random.choices(things, (30, 30, 12, 14, 8, 6))[0]
            await thing(number, random)
            await asyncio.sleep(random.expovariate(1 / self._orders.pause_s))

    # What a session does ----------------------------------------------------------------------------------

    async def _run(self, session: int, random: Random) -> None:
        """Start a run of its own, again where nobody answers, and wait for its end."""
        self._runs += 1
        n = self._runs
        form = FORMS[random.randrange(len(FORMS))]
        run = f"run-{self._orders.name}-{n}"
        confirm = random.random() < 0.5
        for _ in range(3):
            started = await self.start(session, run, form.workflow.name, n, confirm)
            if started.outcome == "ok":
                break
        if random.random() < 0.05:
            await self.start(session, run, form.workflow.name, n, True)
        await self.result(session, run, RESULT_PATIENCE_S)

    async def _add(self, session: int, random: Random) -> None:
        """Send a message to a shared run, some of them twice, and now and then start that first."""
        run, n = self._shared(random)
        if random.random() < 0.3:
            await self.start(session, run, tally.name, n, True)
        text = f"{self._scribe.process}/{session}/{random.getrandbits(48):x}"
        sent = await self.send(session, run, text)
        if sent.outcome == "info" or random.random() < 0.05:
            await self.send(session, run, text)

    async def _ask(self, session: int, random: Random) -> None:
        run, _ = self._shared(random)
        token = f"{self._scribe.process}/{session}/{random.getrandbits(48):x}"
        await self._do(
            session,
            "ask",
            run,
            {"token": token},
            lambda: self._engine.handle(run).ask_async(TOTAL, token, timeout_s=PATIENCE_S),
        )

    async def _read(self, session: int, random: Random) -> None:
        run, _ = self._shared(random)
        await self._do(
            session,
            "value",
            run,
            {"key": TOTAL},
            lambda: self._engine.handle(run).value_async(TOTAL, int, timeout_s=PATIENCE_S),
        )

    async def _look(self, session: int, random: Random) -> None:
        """How a run ended that somebody started some time ago."""
        who = random.choice([*self._orders.others, self._orders.name])
        run = f"run-{who}-{random.randint(max(1, self._runs - RECENT), self._runs + 1)}"
        await self.result(session, run, RESULT_PATIENCE_S / 3)

    async def _visit(self, session: int, random: Random) -> None:
        """Start a run that stays until it is cancelled, cancel it and see it end."""
        self._runs += 1
        run = f"guest-{self._orders.name}-{self._runs}"
        await self.start(session, run, guest.name, self._runs, True)
        await asyncio.sleep(random.random())
        await self.cancel(session, run)
        await self.result(session, run, RESULT_PATIENCE_S)

    def _shared(self, random: Random) -> tuple[str, int]:
        generation = generation_of(self._orders, now_us())
        return f"tally-{random.randrange(TALLIES)}-{generation}", generation

    # Operations -------------------------------------------------------------------------------------------

    async def start(
        self, session: int, run: str, workflow: str, n: int, confirm: bool
    ) -> Operation:
        """Start a run; the same start again gets the same run."""

        async def call() -> Json:
            await self._engine.start_async(STARTED[workflow].bind(n), id=run, confirm=confirm)
            return None

        asked: dict[str, Json] = {"workflow": workflow, "n": n, "confirm": confirm}
        return await self._do(session, "start", run, asked, call)

    async def send(self, session: int, run: str, text: str) -> Operation:
        """Send a message whose id is its text; an empty one, which ends a tally, has the run's."""

        async def call() -> Json:
            message_id = text or f"end-of-{run}"
            await self._engine.handle(run).send_async(ADD, text, message_id=message_id)
            return None

        asked: dict[str, Json] = {"message_id": text or f"end-of-{run}"}
        return await self._do(session, "send", run, asked, call)

    async def cancel(self, session: int, run: str) -> Operation:
        """Ask a run to cancel."""

        async def call() -> Json:
            await self._engine.handle(run).cancel_async("the visit is over")
            return None

        return await self._do(session, "cancel", run, {}, call)

    async def result(self, session: int, run: str, timeout_s: float) -> Operation:
        """Wait for a run's end."""

        async def call() -> Json:
            try:
                value = await self._engine.handle(run).result_async(timeout_s)
            except (ResultTimeout, WorkflowNotFound, LogError):
                raise
            except WorkflowCancelled as error:
                return {"status": "cancelled", "message": str(error)}
            except Exception as error:  # noqa: BLE001 - a run may end with any error: that is its result
                return {"status": "failed", "type": type(error).__qualname__, "message": str(error)}
            return {"status": "completed", "value": cast("Json", value)}

        return await self._do(session, "result", run, {"timeout_s": timeout_s}, call)

    async def _do(
        self, session: int, kind: str, run: str, asked: dict[str, Json], call: Call
    ) -> Operation:
        operation = self._scribe.invoked(session, kind, run, asked)
        try:
            answer = await call()
        except (CommandRefused, WorkflowNotFound, LogUnavailable) as error:
            done = replace(operation, outcome="fail", error=_named(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is written down and judged later
            done = replace(operation, outcome="info", error=_named(error))
        else:
            done = replace(operation, outcome="ok", answer=answer)
        done = replace(done, ended_us=now_us())
        self._scribe.write(done.outcome, done)
        return done


def _named(error: Exception) -> str:
    return f"{type(error).__qualname__}: {error}"


def generation_of(orders: Orders, at_us: int) -> int:
    """Which shared runs are in use at a time."""
    return int((at_us - orders.origin_us) / 1e6 / orders.generation_s)


async def _load(client: Client, orders: Orders) -> None:
    """Be a client until standard input ends, and then until all sessions have come to the end of what they do."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        with contextlib.suppress(RuntimeError):  # the loop may have ended by itself
            loop.call_soon_threadsafe(stopped.set)

    threading.Thread(target=wait, daemon=True).start()
    sessions = [asyncio.create_task(client.session(k)) for k in range(orders.sessions)]
    await stopped.wait()
    client.stopping = True
    await asyncio.gather(*sessions)


async def _finish(client: Client, orders: Orders, patience_s: float) -> None:
    """Bring to its end what no client is going to, and hear how everything ended."""
    operations = load(Path(orders.directory)).operations
    runs = {operation.workflow_id for operation in operations if operation.kind == "start"}
    heard = {op.workflow_id for op in operations if op.kind == "result" and op.outcome == "ok"}
    again = Random(orders.seed).sample(sorted(heard & runs), min(HEARD_AGAIN, len(heard & runs)))
    window = asyncio.Semaphore(LATE_FINISH)

    async def finish(run: str) -> None:
        async with window:
            for _ in range(10):
                if run.startswith("tally-"):
                    ended = await client.send(0, run, "")
                elif run.startswith("guest-"):
                    ended = await client.cancel(0, run)
                else:
                    break
                if ended.outcome != "info":
                    break
            await client.result(0, run, patience_s)

    await asyncio.gather(*(finish(run) for run in [*sorted(runs - heard), *again]))


async def _open(orders: Orders) -> Engine:
    """An open engine, however long the way to the log is cut."""
    while True:
        engine = Engine(log_of(orders.url), worker=False, start_timeout_s=PATIENCE_S)
        try:
            return await engine.__aenter__()
        except LogError:
            await asyncio.sleep(REOPEN_AFTER_S)


async def _main(orders: Orders) -> None:
    engine = await _open(orders)
    try:
        with Scribe(Path(orders.directory), orders.name) as scribe:
            client = Client(engine, scribe, orders)
            if orders.patience_s is None:
                await _load(client, orders)
            else:
                await _finish(client, orders, orders.patience_s)
    finally:
        with contextlib.suppress(RefoldError):
            await engine.__aexit__(None, None, None)


if __name__ == "__main__":
    die_with_parent()
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # it reports every reconnect
    asyncio.run(_main(Orders(**json.loads(sys.argv[1]))))

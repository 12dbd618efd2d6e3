"""A fault run in the manner of Jepsen: clients, a nemesis, and a checker that has nothing but the history.

    python tools/chaos_run.py --seconds 600 --seed 7 --brokers 3 --workers 3

Real brokers, workers and clients are started as processes on loopback; then things are broken by a schedule that
follows from the seed, while clients write down all that they ask for and hear. When all is healed, every run must come
to its end; then the log is read raw and judged. The report is a page to be opened in a browser.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import SystemRandom
from types import FrameType
from typing import Final

import chaos_worker
from chaos_case import DIGESTS, Case, dump, load_case
from chaos_checker import Violation, violations
from chaos_client import Orders
from chaos_display import Display
from chaos_figures import Figures, figures_of
from chaos_history import Scribe, now_us
from chaos_log import log_of
from chaos_nemesis import Nemesis
from chaos_plan import MEAN_PAUSE_S, Cast, plan
from chaos_report import write_report
from chaos_stage import Company, Stage, beside
from crash_load import digests, digests_elsewhere
from refold.log.kafka import create_topics
from refold.log.protocol import Channel, Log

NAMESPACE: Final = "chaos"
PARTITIONS: Final = 6
SPARES: Final = 1
GENERATION_S: Final = 15.0
FINISHER: Final = "finisher"
READY_OPERATIONS: Final = 30
"""Faults on a system that has not begun to work show little; on a busy machine that takes a while."""
READY_S: Final = 60.0
STALLED_S: Final = 60.0
"""A log that has not grown for so long while a run is open has stopped: nobody will end it."""
CLIENT_END_S: Final = 60.0
"""The longest that a client does one thing is less."""
DRAIN_S: Final = 60.0
DEFAULT_DIRECTORY: Final = Path("build") / "chaos"


@dataclass(frozen=True, slots=True)
class Settings:
    """What is run.

    Args:
        seed: Seed of faults and clients.
        seconds: How long things are broken.
        brokers: How many brokers there are.
        workers: How many workers.
        clients: How many clients.
        sessions: How many things each client does at once.
        pause_s: Mean pause of a session, in seconds.
        fault_pause_s: Mean time between two faults, in seconds.
        recovery_s: Longest wait for the ends of all runs when all is healed, in seconds.
        only: Kinds of faults, as `plan` takes them; all where none is given.
        mistreated: Whether anything is broken at all.
    """

    seed: int
    seconds: float = 600.0
    brokers: int = 3
    workers: int = 3
    clients: int = 3
    sessions: int = 4
    pause_s: float = 0.1
    fault_pause_s: float = MEAN_PAUSE_S
    recovery_s: float = 300.0
    only: tuple[str, ...] = ()
    mistreated: bool = True

    @property
    def cast(self) -> Cast:
        """Who there is."""

        def names(what: str, count: int, first: int = 1) -> list[str]:
            return [f"{what}-{number}" for number in range(first, first + count)]

        return Cast(
            names("worker", self.workers),
            names("worker", SPARES, self.workers + 1),
            names("broker", self.brokers),
            names("client", self.clients),
        )

    @property
    def again(self) -> str:
        """How it is run again."""
        return (
            f"make chaos SEED={self.seed} SECONDS={self.seconds:g} BROKERS={self.brokers} WORKERS={self.workers} "
            f"CLIENTS={self.clients} PAUSE={self.fault_pause_s:g}"
            + (f" ONLY='{' '.join(self.only)}'" if self.only else "")
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a run.

    Args:
        directory: Where everything about it is.
        case: What there was to judge.
        figures: What was done and how fast.
        violations: What must not be.
    """

    directory: Path
    case: Case
    figures: Figures
    violations: list[Violation]


def prepare(settings: Settings, directory: Path) -> None:
    """Make a run's directory, empty but for what is run."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    (directory / "run.json").write_text(json.dumps(asdict(settings)))


async def run(settings: Settings, directory: Path, display: Display) -> Verdict:
    """Run, judge and write the report.

    Args:
        settings: What is run.
        directory: What `prepare` made: for all that is written.
        display: Told how far it is.
    """
    begun = time.monotonic()
    stage = Stage(settings.cast)
    with Scribe(directory, "nemesis") as scribe:
        company = Company(directory, scribe, {})
        try:
            display.says(f"starting {settings.brokers} brokers")
            await stage.open()
            url = f"kafka://{stage.bootstrap}/{NAMESPACE}"
            await create_topics(stage.bootstrap.split(","), NAMESPACE, PARTITIONS)
            await _perform(settings, stage, company, scribe, directory, display)
            await _recover(settings, url, company, directory, display)
            await _keep(url, directory, display)
        finally:
            company.close()
            await stage.close()
    display.says("judging")
    case = await asyncio.to_thread(load_case, directory)
    found = await asyncio.to_thread(violations, case)
    figures = figures_of(case, time.monotonic() - begun)
    write_report(directory, settings.again, figures, found, case)
    return Verdict(directory, case, figures, found)


async def _perform(  # noqa: PLR0917 - all that there is, once
    settings: Settings,
    stage: Stage,
    company: Company,
    scribe: Scribe,
    directory: Path,
    display: Display,
) -> None:
    """Load, and faults."""
    cast, origin_us = settings.cast, now_us()

    def client(name: str) -> list[str]:
        orders = Orders(
            url=f"kafka://{stage.servers(name.partition('.')[0])}/{NAMESPACE}",
            name=name,
            directory=str(directory),
            seed=settings.seed,
            sessions=settings.sessions,
            pause_s=settings.pause_s,
            others=[f"{other}.1" for other in cast.clients],
            origin_us=origin_us,
            generation_s=GENERATION_S,
        )
        return orders.command()

    def worker(name: str) -> list[str]:
        servers = stage.servers(name.partition(".")[0])
        return chaos_worker.command(f"kafka://{servers}/{NAMESPACE}", name)

    for name in (*cast.workers, *cast.spares):
        company.add(name, worker)
    for name in cast.clients:
        company.add(name, client)
    for name in (*cast.workers, *cast.clients):
        company.want(name)
    nemesis = Nemesis(stage, company, scribe)
    planned = plan(settings.seed, settings.seconds, cast, settings.fault_pause_s, settings.only)
    if not settings.mistreated:
        planned = []
    display.begins(settings.seconds, len(planned), nemesis, directory)
    async with beside(company.supervise()), beside(display.watch()):
        await display.until_ok(READY_OPERATIONS, READY_S)
        async with asyncio.TaskGroup() as group:
            group.create_task(nemesis.run(planned))
            group.create_task(asyncio.sleep(settings.seconds))
        display.says("all is healed; clients come to their end")
        for name in cast.clients:
            company.dismiss(name)
            company.end_input(name)
        for name in await company.gone(cast.clients, CLIENT_END_S):
            company.signal(name, signal.SIGKILL)


async def _recover(
    settings: Settings, url: str, company: Company, directory: Path, display: Display
) -> None:
    """Let everything come to its end, and drain the workers."""
    cast = settings.cast
    orders = Orders(
        url=url,
        name=f"{FINISHER}.1",
        directory=str(directory),
        seed=settings.seed,
        sessions=1,
        pause_s=0.0,
        others=[],
        origin_us=0,
        generation_s=1.0,
        patience_s=settings.recovery_s,
    )
    company.add(FINISHER, lambda _: orders.command())
    async with beside(company.supervise()):
        company.want(FINISHER)
        company.dismiss(FINISHER)
        display.says("waiting until every run has ended")
        log = log_of(url)
        await log.open()
        try:
            await _at_rest(log, company, settings.recovery_s)
        finally:
            await log.close()
        display.says("draining the workers")
        for name in cast.workers:
            company.dismiss(name)
            company.signal(name, signal.SIGTERM)
        for name in await company.gone(cast.workers, DRAIN_S):
            company.signal(name, signal.SIGABRT)  # no drain takes so long: an exit code that tells


async def _at_rest(log: Log, company: Company, patience_s: float) -> None:
    """Wait for the last client, which waits for all runs; and for children that nobody waits for.

    As long as the log grows it goes on: a busy machine is slow, and no stall.
    """
    loop = asyncio.get_running_loop()
    until, grown_at, size = loop.time() + patience_s, loop.time(), -1
    while loop.time() < until and loop.time() - grown_at < STALLED_S:
        ends = [(await log.bounds(Channel.EVENTS, p)).end for p in range(log.partitions)]
        if sum(ends) != size:
            size, grown_at = sum(ends), loop.time()
        elif company.living(FINISHER) is None and loop.time() - grown_at > 2.0:
            return
        await asyncio.sleep(0.2)


async def _keep(url: str, directory: Path, display: Display) -> None:
    """Write the log's raw records and the digests of its folds into the run's directory."""
    display.says("reading the log")
    log = log_of(url)
    await log.open()
    try:
        await dump(log, directory)
    finally:
        await log.close()
    folds = {
        "a reader": await digests(url),
        "another reader": await digests(url),
        "a reader in another process": await asyncio.to_thread(digests_elsewhere, url),
    }
    (directory / DIGESTS).write_text(json.dumps(folds))


def main() -> int:
    """Run as asked, and say what came of it."""
    parser = argparse.ArgumentParser(
        description="Break a cluster on loopback, and judge what became of the work."
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="how long things are broken")
    parser.add_argument("--seed", type=int, help="of the faults; a random one where not given")
    parser.add_argument("--brokers", type=int, default=3, choices=(1, 3))
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument(
        "--pause", type=float, default=MEAN_PAUSE_S, help="between two faults, in s"
    )
    parser.add_argument(
        "--only", nargs="*", default=(), help="kinds of faults, as worker or link.cut"
    )
    parser.add_argument("--directory", type=Path, help="default: build/chaos/SEED")
    parser.add_argument(
        "--nothing", action="store_true", help="break nothing: a run to compare with"
    )
    given = parser.parse_args()
    seed = SystemRandom().getrandbits(31) if given.seed is None else given.seed
    settings = Settings(
        seed,
        given.seconds,
        given.brokers,
        given.workers,
        given.clients,
        fault_pause_s=given.pause,
        only=tuple(given.only),
        mistreated=not given.nothing,
    )
    directory: Path = (given.directory or DEFAULT_DIRECTORY / str(seed)).absolute()
    prepare(settings, directory)
    signal.signal(signal.SIGTERM, _interrupt)
    display = Display()
    display.says(settings.again)
    try:
        verdict = asyncio.run(run(settings, directory, display))
    except KeyboardInterrupt:
        display.says(f"interrupted; what there is stands in {directory}")
        return 130
    display.shows(verdict.figures, verdict.violations, directory)
    return 1 if verdict.violations else 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    os.chdir(Path(__file__).parent.parent)
    sys.exit(main())

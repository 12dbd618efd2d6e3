"""A soak: steady load for a long time, and whether memory, open files, threads and backlog stay flat.

    python tools/chaos_soak.py --minutes 30 --log sqlite --log kafka

Workers are processes of their own; this process is the client. The rule by which something is flat is that of
`chaos_flatness`. What a worker holds for runs that have ended shows as growth a run.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from rich.console import Console

import chaos_worker
from chaos_flatness import Flatness, Sample, Tolerance, flatness
from chaos_history import Scribe
from chaos_log import log_of
from chaos_samples import held_by
from chaos_soak_page import write_page
from chaos_stage import Company, beside
from chaos_workflows import FORMS
from crash_shapes import Mark
from kafka_broker import find_or_start
from refold import Engine, RefoldError, Workflow
from refold.log.codec import decode_event
from refold.log.events import Unreadable
from refold.log.kafka import create_topics
from refold.log.protocol import Channel, Log

DEDUP_S = 60
"""What is kept of ended runs grows for so long, and is flat then: the production default is a week."""
DEFAULT_DIRECTORY: Final = Path("build") / "soak"
PARTITIONS: Final = 4
PATIENCE_S: Final = 60.0
SAY_EVERY_S: Final = 15.0
DRAIN_S: Final = 30.0

TOLERANCES: Final = {
    "memory": Tolerance(0.05, 4.0),
    "files": Tolerance(0.05, 3.0),
    "threads": Tolerance(0.10, 3.0),
    "backlog": Tolerance(0.50, 20.0),
    "lag": Tolerance(0.50, 50.0),
}
UNITS: Final = {"memory": "MB", "files": "", "threads": "", "backlog": "runs", "lag": "commands"}
ERRAND: Final[Sequence[Workflow[..., list[Mark]]]] = [
    form.workflow
    for form in FORMS
    if form.workflow.name in {"sequential", "paused", "saga", "rally"}
]


@dataclass(frozen=True, slots=True)
class Load:
    """What is run.

    Args:
        log: `sqlite` or `kafka`.
        seconds: How long.
        rate: Runs that are started a second.
        workers: How many workers.
        sample_s: Between two samples, in seconds.
    """

    log: str
    seconds: float
    rate: float
    workers: int
    sample_s: float


@dataclass
class Soaked:
    """What a soak measured.

    Args:
        load: What was run.
        started: Runs that were started.
        ended: Those of them that came to their end.
        failed: Starts and results that failed, by error.
        series: Samples, by `who.what`, as `worker-1.memory`.
        ended_at: How many runs had ended at each sample of the log.
    """

    load: Load
    started: int = 0
    ended: int = 0
    failed: dict[str, int] = field(default_factory=lambda: defaultdict[str, int](int))
    series: dict[str, list[Sample]] = field(
        default_factory=lambda: defaultdict[str, list[Sample]](list)
    )
    ended_at: list[Sample] = field(default_factory=list[Sample])

    def verdicts(self) -> dict[str, Flatness]:
        """What the rule says of each series."""
        return {
            name: flatness(samples, TOLERANCES[name.rpartition(".")[2]])
            for name, samples in sorted(self.series.items())
        }

    def bytes_a_run(self, name: str, verdict: Flatness) -> float | None:
        """How much of a growth in memory came with each run that ended; None where that is nothing to say."""
        ended = flatness(self.ended_at, Tolerance(0, 0))
        if not name.endswith(".memory") or verdict.flat is None or ended.growth <= 0:
            return None
        return verdict.growth * 1e6 / ended.growth


async def soak(load: Load, directory: Path, console: Console) -> Soaked:
    """Keep a load up, and measure meanwhile.

    Args:
        load: What is run.
        directory: For the log, the journal and what workers say; there, and empty.
        console: Told now and then how it stands.
    """
    soaked = Soaked(load)
    names = [f"worker-{number}" for number in range(1, load.workers + 1)]
    with _log(load, directory) as url, Scribe(directory, "soak") as scribe:
        if load.log == "kafka":
            servers, _, namespace = url.removeprefix("kafka://").partition("/")
            await create_topics(servers.split(","), namespace, PARTITIONS)
        company = Company(directory, scribe, {chaos_worker.DEDUP: str(DEDUP_S)})
        try:
            for name in names:
                company.add(name, lambda life: chaos_worker.command(url, life))
                company.want(name)
            async with (
                Engine(log_of(url), worker=False, start_timeout_s=PATIENCE_S) as client,
                beside(company.supervise()),
                beside(_watch(soaked, url, company, names, console)),
            ):
                await _keep_up(soaked, client)
            for name in names:
                company.dismiss(name)
                company.end_input(name)
            await company.gone(names, DRAIN_S)
        finally:
            company.close()
    return soaked


@contextmanager
def _log(load: Load, directory: Path) -> Generator[str]:
    if load.log == "sqlite":
        yield f"sqlite:///{directory / 'soak.db'}?partitions={PARTITIONS}"
        return
    with find_or_start() as bootstrap:
        yield f"kafka://{bootstrap}/soak-{os.getpid()}"


async def _keep_up(soaked: Soaked, client: Engine) -> None:
    """Start runs at the rate, and wait for the end of each."""
    loop, random = asyncio.get_running_loop(), Random(1)
    begun = loop.time()
    waiting: set[asyncio.Task[None]] = set()
    while (due := begun + soaked.started / soaked.load.rate) < begun + soaked.load.seconds:
        await asyncio.sleep(max(0.0, due - loop.time()))
        soaked.started += 1
        task = asyncio.create_task(_errand(soaked, client, random.choice(ERRAND), soaked.started))
        waiting.add(task)
        task.add_done_callback(waiting.discard)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*waiting)


async def _errand(
    soaked: Soaked, client: Engine, workflow: Workflow[..., list[Mark]], n: int
) -> None:
    try:
        handle = await client.start_async(workflow.bind(n), id=f"run-{n}", confirm=False)
        await handle.result_async(PATIENCE_S)
    except RefoldError as error:
        soaked.failed[type(error).__name__] += 1
    else:
        soaked.ended += 1


async def _watch(
    soaked: Soaked, url: str, company: Company, names: Sequence[str], console: Console
) -> None:
    """Take a sample of everything now and then, until cancelled."""
    loop = asyncio.get_running_loop()
    begun, said = loop.time(), loop.time()
    log = log_of(url)
    await log.open()
    try:
        while True:
            at_s = loop.time() - begun
            pids = {name: life.pid for name in names if (life := company.living(name)) is not None}
            for name, pid in {**pids, "client": os.getpid()}.items():
                for what, value in held_by(pid).items():
                    soaked.series[f"{name}.{what}"].append(Sample(at_s, value))
            soaked.series["log.lag"].append(Sample(at_s, float(await _lag(log))))
            soaked.series["log.backlog"].append(Sample(at_s, float(soaked.started - soaked.ended)))
            soaked.ended_at.append(Sample(at_s, float(soaked.ended)))
            if loop.time() - said >= SAY_EVERY_S:
                said = loop.time()
                console.print(f"[dim]{at_s:6.0f} s[/] {_standing(soaked)}")
            await asyncio.sleep(soaked.load.sample_s)
    finally:
        await log.close()


async def _lag(log: Log) -> int:
    """Commands that the owners have not consumed: how far the last events are behind the end."""
    lag = 0
    for partition in range(log.partitions):
        end = (await log.bounds(Channel.EVENTS, partition)).end
        consumed = -1
        async for batch in log.read(Channel.EVENTS, partition, max(0, end - 1), end):
            event = decode_event(batch[-1])
            consumed = consumed if isinstance(event, Unreadable) else event.command
        asked = (await log.bounds(Channel.COMMANDS, partition)).end
        lag += max(0, asked - 1 - consumed)
    return lag


def _standing(soaked: Soaked) -> str:
    last = {name: samples[-1].value for name, samples in soaked.series.items() if samples}
    held = " ".join(
        f"{name} {value:.0f}" for name, value in last.items() if name.endswith("memory")
    )
    return (
        f"{soaked.ended:,} of {soaked.started:,} runs ended, lag {last.get('log.lag', 0):.0f}; "
        f"memory in MB: {held}"
    )


def report(soaked: Soaked, directory: Path, console: Console) -> bool:
    """Write the page and the numbers; returns whether nothing grows."""
    verdicts = soaked.verdicts()
    grows: list[str] = []
    for name, verdict in verdicts.items():
        unit = UNITS[name.rpartition(".")[2]]
        text = " -> ".join(f"{median:,.1f}" for median in verdict.medians)
        run = soaked.bytes_a_run(name, verdict)
        more = (
            f", {run:,.0f} bytes for each run that ended" if verdict.flat is False and run else ""
        )
        style = {True: "green", False: "bold red", None: "yellow"}[verdict.flat]
        console.print(f"[{style}]{verdict.word:>5}[/] {name}: {text} {unit}{more}")
        if verdict.flat is False:
            grows.append(name)
    numbers: Mapping[str, object] = {
        "load": asdict(soaked.load),
        "started": soaked.started,
        "ended": soaked.ended,
        "failed": dict(soaked.failed),
        "verdicts": {name: asdict(verdict) for name, verdict in verdicts.items()},
        "series": soaked.series,
    }
    (directory / "report.json").write_text(json.dumps(numbers), encoding="utf-8")
    write_page(directory / "report.html", soaked, verdicts, UNITS)
    console.print(f"report: {directory / 'report.html'}")
    return not grows and not soaked.failed


def main() -> int:
    """Soak as asked."""
    parser = argparse.ArgumentParser(description="Steady load for a long time: what grows?")
    parser.add_argument("--minutes", type=float, default=30.0, help="for each log")
    parser.add_argument("--log", action="append", choices=("sqlite", "kafka"), help="default: both")
    parser.add_argument("--rate", type=float, default=10.0, help="runs a second")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--directory", type=Path, default=DEFAULT_DIRECTORY)
    given = parser.parse_args()
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    good = True
    for kind in given.log or ("sqlite", "kafka"):
        seconds = 60.0 * given.minutes
        load = Load(kind, seconds, given.rate, given.workers, min(5.0, seconds / 100))
        directory = (given.directory / kind).absolute()
        if directory.exists():
            shutil.rmtree(directory)
        directory.mkdir(parents=True)
        console.print(f"{kind}: {given.rate:g} runs a second for {given.minutes:g} minutes")
        soaked = asyncio.run(soak(load, directory, console))
        good &= report(soaked, directory, console)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

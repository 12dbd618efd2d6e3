"""The demo: a durable job on real data, killed twice with SIGKILL on its way, and the proof that no step ran in vain.

    make demo                             on a SQLite file
    KAFKA=1 make demo                     on a real Kafka broker, found at KAFKA_BOOTSTRAP or started for the demo
    SEED=42 make demo                     the kills at the same moments again
    python examples/demo/run.py --help    more

This process only looks on: it starts the worker (worker.py), kills it, starts it again, and follows the log. At the
end it holds the steps' own journal against the log (audit.py) and the atlas against the source data (verify.py).
"""

import argparse
import asyncio
import io
import os
import random
import re
import shutil
import sys
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))

from atlas import source
from atlas.job import CATALOGUE, KINDS, REPORT, build_atlas, expected_steps
from atlas.journal import read_journal
from atlas.model import Release
from audit import Audit, Check
from kafka_broker import BrokerFailedError, BrokerUnavailableError, find_or_start
from lives import DemoFailedError, Plan, live_through
from refold import RefoldError
from refold.log.events import WorkflowCompleted
from refold.log.kafka_topics import create_topics
from refold.log.urls import open_log
from verify import Verification
from view import Heading, account_view, check_view, largest_view, lives_view, section
from watch import Watch
from worker import WORKFLOW_ID

MARKER = ".refold-demo"
PARALLEL = 8
REFRESH_S = 0.125
SVG_COLUMNS = 100
WEB_FONT = re.compile(
    r"@font-face \{.*?\}\s*", re.DOTALL
)  # rich's picture would load it from elsewhere

# Where the kills fall, as shares of the steps: far enough from both ends and from each other to be inside the work.
KILL_SHARES = (0.15, 0.45), (0.55, 0.85)


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line or in the environment."""

    output: Path
    seed: int
    kafka: bool
    svg: Path | None


class Screen:
    """The terminal, and a second one of fixed width that remembers, for a picture.

    Args:
        options: What was asked for.
    """

    def __init__(self, options: Options) -> None:
        self.console = Console(highlight=False)
        if not self.console.is_terminal:
            self.console = Console(width=SVG_COLUMNS, highlight=False)
        self._svg = options.svg
        self._record = Console(record=True, width=SVG_COLUMNS, file=io.StringIO(), highlight=False)

    def show(self, *what: RenderableType) -> None:
        """Print, on both."""
        for one in what:
            self.console.print(one)
            self.remember(one)

    def remember(self, what: RenderableType) -> None:
        """Print on the second only, what the first has shown live."""
        self._record.print(what)

    def save(self) -> None:
        """Write the picture, if one was asked for."""
        if self._svg is not None:
            svg = WEB_FONT.sub("", self._record.export_svg(title="make demo"))
            self._svg.write_text(svg, encoding="utf-8")


def main() -> int:
    """Run the demo; returns the exit code: 0 if all holds, 1 if something does not, 2 if it could not run."""
    options = _options()
    try:
        output = _fresh(options.output)
        with _log_url(options) as url:
            return asyncio.run(_demo(options, url, output))
    except (DemoFailedError, BrokerUnavailableError, BrokerFailedError, RefoldError) as error:
        print(f"the demo failed: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


async def _demo(options: Options, url: str, output: Path) -> int:
    screen = Screen(options)
    release = Release(str(output / "atlas"), str(output / "executions.log"), _year(), PARALLEL)
    rows = list(source.read_rows(source.airports_csv()))
    steps = expected_steps(len({row["country"] for row in rows}), len({row["tz"] for row in rows}))
    chance = random.Random(options.seed)
    kills = tuple(round(steps * chance.uniform(*share)) for share in KILL_SHARES)
    screen.show(Heading(_data(len(rows)), url, options.seed, kills, steps))

    began = time.monotonic()
    plan = Plan(url, TypeAdapter(Release).dump_json(release).decode(), kills, output)
    watch = await _watch_lives(screen, plan, steps)
    worked_s = time.monotonic() - began

    holds = _prove(screen, watch, Path(release.journal), steps)
    holds &= _verify(screen, Path(release.directory), release.year)
    _show_atlas(screen, url, release, watch, worked_s)
    screen.save()
    if not holds:
        screen.console.print("[bold red]Something does not hold: see ✗ above.[/]")
    return 0 if holds else 1


async def _watch_lives(screen: Screen, plan: Plan, steps: int) -> Watch:
    log = open_log(plan.url)
    await log.open()
    try:
        watch = Watch(log, WORKFLOW_ID)
        living = asyncio.create_task(live_through(plan, watch))
        if screen.console.is_terminal:
            await _show_live(screen.console, living, watch, steps)
        else:
            await living
            screen.console.print(lives_view(watch.lives, steps))
        screen.remember(lives_view(watch.lives, steps))
        return watch
    finally:
        await log.close()


async def _show_live(
    console: Console, living: asyncio.Task[None], watch: Watch, steps: int
) -> None:
    """Draw the bars anew a few times a second until the job is done."""
    with Live(console=console, auto_refresh=False) as live:
        while not living.done():
            await asyncio.wait([living], timeout=REFRESH_S)
            live.update(lives_view(watch.lives, steps), refresh=True)
    await living


def _prove(screen: Screen, watch: Watch, journal: Path, steps: int) -> bool:
    audit = Audit(read_journal(journal), watch.events, watch.lives)
    checks = audit.checks(steps)
    screen.show(
        section("How often each step ran"), account_view(audit.accounts(KINDS), watch.lives)
    )
    screen.show(section("The proof: the steps' own journal against the log"))
    screen.show(*(check_view(check) for check in checks))
    return all(check.holds for check in checks)


def _verify(screen: Screen, directory: Path, year: int) -> bool:
    screen.show(section("The data: computed again by DuckDB from the package's file"))
    checks: list[Check] = []
    with screen.console.status("computing everything again") as status:
        verification = Verification(directory, year)
        for check in verification.checks():
            checks.append(check())
            screen.show(check_view(checks[-1]))
        status.stop()
    return all(check.holds for check in checks)


def _show_atlas(screen: Screen, url: str, release: Release, watch: Watch, worked_s: float) -> None:
    """The result, as the job's last event has it, and where the files are."""
    last = watch.events[-1]
    assert isinstance(last, WorkflowCompleted), "the watch ended with the workflow"
    atlas = build_atlas.result_type.decode(last.payload)
    directory = Path(release.directory)
    findings = ", ".join(f"{rows:,} × {rule}" for rule, rows in atlas.findings.items())
    facts = Group(
        f"{atlas.airports:,} airports, {atlas.countries} countries, {atlas.files} files,"
        f" {atlas.bytes / 1e6:.1f} MB, in {worked_s:.1f} s with all three lives",
        f"[dim]in the data: {findings}[/]",
    )
    screen.show(section("The atlas"), facts, largest_view(directory / CATALOGUE))
    files = Text.assemble(
        *("  report     ", (str(directory / REPORT), "cyan"), "\n"),
        *("  countries  ", (str(directory / "countries"), "cyan"), "  CSV and GeoJSON\n"),
        *("  catalogue  ", (str(directory / CATALOGUE), "cyan"), "  SQLite\n"),
        *("  journal    ", (release.journal, "cyan"), "  every execution of a step\n"),
        *("  log        ", (url, "cyan"), "  every event\n"),
        *("  look at it ", (_how_to_look(url), "cyan")),
    )
    screen.show(files)


def _how_to_look(url: str) -> str:
    """The command that shows the run, if its log outlives the demo."""
    if url.startswith("kafka:") and not os.environ.get("KAFKA_BOOTSTRAP"):
        return "the broker ends with the demo; KAFKA_BOOTSTRAP names one that stays"
    command, here = Path(sys.prefix, "bin", "refold"), Path.cwd()  # it may not be on the PATH
    shown = str(command.relative_to(here)) if command.is_relative_to(here) else "refold"
    return f"{shown} show {WORKFLOW_ID} --url {url}"


def _year() -> int:
    return datetime.now(UTC).year


def _data(airports: int) -> str:
    names = [source.package(name) for name in (source.AIRPORTS, source.ZONES)]
    packages = ", ".join(f"{one.name} {one.version} ({one.licence})" for one in names)
    return f"{airports:,} airports; {packages}, from PyPI"


@contextmanager
def _log_url(options: Options) -> Generator[str]:
    """The URL of a log that has nothing in it yet."""
    if not options.kafka:
        yield f"sqlite:///{options.output / 'refold.db'}"
        return
    namespace = f"refold-demo-{uuid.uuid4().hex[:8]}"
    print("looking for a Kafka broker, or starting one", file=sys.stderr)
    with find_or_start() as bootstrap:
        asyncio.run(create_topics(bootstrap.split(","), namespace, partitions=4))
        yield f"kafka://{bootstrap}/{namespace}"


def _fresh(output: Path) -> Path:
    """An empty directory; what an earlier demo left there is removed, what anybody else did is not."""
    if output.exists() and any(output.iterdir()):
        if not (output / MARKER).exists():
            raise DemoFailedError(
                f"{output} is not from an earlier demo: name another with --output"
            )
        shutil.rmtree(output)
    (output / "atlas").mkdir(parents=True)
    (output / MARKER).touch()
    return output


def _options() -> Options:
    parser = argparse.ArgumentParser(
        description="A durable job on real data, killed twice with SIGKILL, and what came of it.",
        epilog="Exit code: 0 all holds, 1 a check failed, 2 the demo could not run.",
    )
    environment = os.environ
    seed = environment.get("SEED") or str(random.SystemRandom().randrange(10**6))
    output = Path("demo-output")
    parser.add_argument("--output", type=Path, default=output, help=f"where to write ({output}/)")
    parser.add_argument(
        "--seed", type=int, default=seed, help="when the kills come (SEED, else by chance)"
    )
    on_kafka = environment.get("KAFKA", "") not in {"", "0"}
    parser.add_argument("--kafka", action="store_true", default=on_kafka, help="on Kafka (KAFKA=1)")
    parser.add_argument("--svg", type=Path, help="save a picture of the final view")
    asked = parser.parse_args()
    return Options(asked.output, asked.seed, asked.kafka, asked.svg)


if __name__ == "__main__":
    sys.exit(main())

"""`refold shadow`: new code in the shadow of the code that works, and where it would do something else."""

import asyncio
import signal
import time
from collections.abc import Collection, Generator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from refold.engine.blobs import Blobs
from refold.engine.definitions import Catalogue
from refold.engine.rehearsal import Finding, Verdict
from refold.engine.shadow import DEFAULT_MAX_RUNS, Shadow
from refold.log.urls import redacted, with_archive
from refold.services.check_process import News, Overdue
from refold.services.check_view import Found, counts, finding_json, key_of, show_group
from refold.services.cli_check import DEFAULT_LIMIT_S, NewCode, Partial, or_unchecked
from refold.services.cli_list import Json
from refold.services.cli_values import read_span
from refold.services.exits import ExitCode, reported
from refold.services.loading import load_workflows
from refold.services.opening import DEFAULT_URL, Archive, Debug, Url, opened, shared_log_at
from refold.services.shadowing import Shadowing
from refold.services.terminal import note, print_json, to_person, to_reader

LOOK_S = 0.5
"""How often the summary on a terminal is written anew."""


def shadow(  # noqa: PLR0913 - each an option of the command
    modules: NewCode,
    *,
    from_start: Annotated[
        bool,
        typer.Option("--from-start", help="From the log's beginning, and not only what comes."),
    ] = False,
    once: Annotated[
        bool,
        typer.Option("--once", help="From the log's beginning to its end as of now, then stop."),
    ] = False,
    for_: Annotated[
        str | None,
        typer.Option("--for", metavar="SPAN", help="Stop after so long, as in 30m or 2h."),
    ] = None,
    partial: Partial = False,
    max_runs: Annotated[
        int,
        typer.Option(
            "--max-runs", min=1, help="Runs that are kept in memory; others are replayed anew."
        ),
    ] = DEFAULT_MAX_RUNS,
    limit_s: Annotated[
        float, typer.Option("--limit-s", min=0.1, help="Longest time for one turn of a run.")
    ] = DEFAULT_LIMIT_S,
    json: Json = False,
    url: Url = DEFAULT_URL,
    archive: Archive = None,
    debug: Debug = False,
) -> None:
    """Let new code follow what happens, and tell where it would do something else than the code that works.

    It reads the events as workers write them, and replays each run with the code that is here: no step runs, and
    nothing is written. It stops at Ctrl-C. A difference is told once for each run; with --json, in a line for each.

    The exit code is 0 where nothing differed, 1 where something did, 2 where the code or the log can't be read.
    """
    with reported(debug), or_unchecked(debug):
        catalogue = Catalogue.of(load_workflows(modules))
        span_s = None if for_ is None else read_span(for_, "--for").total_seconds()
        seen = _Seen(to_reader(), frozenset(catalogue) if partial else None, json=json)
        overdue = Overdue(limit_s, seen.hear, ExitCode.FAILED)

        async def follow() -> Shadow:
            async with opened(shared_log_at(with_archive(url, archive), may_make=False)) as log:
                code = Shadow(catalogue, max_runs, Blobs.of(log))
                shadowing = Shadowing(log, code, seen.take, overdue)
                stop = None if once else _stop_after(span_s)  # from here on Ctrl-C sums up
                note(f"following {redacted(url)}")
                with _summary(seen, code, quiet=json):
                    if stop is None:
                        await shadowing.to_the_end()
                    else:
                        await shadowing.follow(stop, from_start=from_start)
                code.close()
                return code

        code = asyncio.run(follow())
        seen.sum_up(code)
        if seen.differing:
            raise typer.Exit(ExitCode.FAILED)


def _stop_after(span_s: float | None) -> asyncio.Event:
    """What is set by Ctrl-C, SIGTERM, or after a while."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if span_s is not None:
        loop.call_later(span_s, stop.set)
    return stop


class _Seen:
    """What was found so far: of each kind the first is shown, and all are counted."""

    def __init__(self, console: Console, here: Collection[str] | None, *, json: bool) -> None:
        self.differing = 0
        self.began = time.monotonic()
        self._console = console
        self._here = here
        self._json = json
        self._counts: dict[tuple[object, ...], int] = {}
        self._examples: dict[tuple[object, ...], Finding] = {}

    def hear(self, news: News) -> None:
        """Of a run that does not come back."""
        if isinstance(news, Finding):
            self.take(news)

    def take(self, finding: Finding) -> None:
        """A difference was found."""
        fatal = counts(finding, self._here)
        if finding.verdict is Verdict.NO_CODE and not fatal:
            return  # another worker's
        self.differing += fatal
        key = key_of(finding)
        first = key not in self._counts
        self._counts[key] = self._counts.get(key, 0) + 1
        if self._json:
            id_ = finding.workflow_id
            print_json({"workflow_id": id_, "differs": fatal, **finding_json(finding)})
        elif first:
            self._examples[key] = finding
            show_group(self._console, Found(finding, [finding.workflow_id]), fatal=fatal)
            self._console.print()

    def sum_up(self, code: Shadow) -> None:
        """The last word."""
        if self._json:
            print_json({"events": code.events, "differing": self.differing})
            return
        for key, count in self._counts.items():
            if count > 1:
                example = self._examples[key]
                where = example.source or example.message
                line = f"{count:,} runs like {example.workflow_id}: {example.workflow} {example.verdict}, {where}"
                self._console.print(Text(line, style="dim"))
        fine = not self.differing
        last = Text("✓ " if fine else "✗ ", style="bold green" if fine else "bold red")
        took_s = time.monotonic() - self.began
        last.append(f"{code.events:,} events followed in {took_s:.1f} s: ", "not bold default")
        differ = "1 run differs" if self.differing == 1 else f"{self.differing:,} runs differ"
        last.append("this code does the same" if fine else differ)
        self._console.print(last)


@contextmanager
def _summary(seen: _Seen, code: Shadow, *, quiet: bool) -> Generator[None, None, None]:
    """A line that is written anew, on a terminal, inside the block."""
    console = to_person()
    if quiet or not console.is_terminal:
        yield
        return
    with console.status("following") as status:

        async def write() -> None:
            while True:
                await asyncio.sleep(LOOK_S)
                status.update(
                    f"following: {code.events:,} events, {code.kept:,} runs kept, {seen.differing:,} differ"
                )

        writing = asyncio.ensure_future(write())
        try:
            yield
        finally:
            writing.cancel()

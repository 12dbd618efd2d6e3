"""`refold doctor`: what is wrong with a log and with what is around it, and what to do about it."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import asdict

import typer
from rich.table import Table
from rich.text import Text

from refold.log.findings import Finding, Level
from refold.log.urls import open_log
from refold.services.cli_list import Json
from refold.services.doctor import diagnose
from refold.services.exits import reported
from refold.services.opening import DEFAULT_URL, Debug, Url, UrlArgument
from refold.services.terminal import plain_table, print_json, printable, to_reader

CODES = {Level.OK: 0, Level.WARN: 1, Level.FAIL: 2}
"""The exit code is that of the worst finding, so that a script can tell a warning from a failure."""

_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


def doctor(
    address: UrlArgument = None,
    *,
    json: Json = False,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """Examine a log and what is around it: brokers, topics and their settings, or a file and its disk; clocks,
    versions, workers and what they have claimed, what waits, checkpoints, parked runs.

    Each finding is ok, warn or fail, and says what to do. It changes nothing; to see a broker's clock it sends one
    empty reply to nobody, which expires. What this user may not ask is a warning. Exit code: 0 where all is well, 1
    where something is worth a thought, 2 where something fails.
    """
    logging.getLogger("refold").setLevel(logging.ERROR)  # what opening warns of is on the page
    with reported(debug):
        log = open_log(address or url)
        findings = asyncio.run(diagnose(log))
        worst = max((finding.level for finding in findings), key=CODES.__getitem__)
        if json:
            print_json(
                {
                    "log": log.namespace,
                    "level": worst,
                    "findings": [
                        {**asdict(finding), "advice": finding.advice or None}
                        for finding in findings
                    ],
                }
            )
        else:
            console = to_reader()
            console.print(page(findings))
            console.print(summary(findings))
        raise typer.Exit(CODES[worst])


def page(findings: Sequence[Finding]) -> Table:
    """The findings in the order in which they were looked at, each with what to do below it."""
    table = plain_table("LEVEL", "CHECK", "FINDING", whole={"LEVEL", "CHECK"})
    table.show_header = False
    before = ""
    for finding in findings:
        told = Text(printable(finding.told))
        if finding.advice:
            told.append(f"\n→ {printable(finding.advice)}", "cyan")
        check = "" if finding.check == before else finding.check
        before = finding.check
        table.add_row(
            Text(finding.level, style=_STYLES[finding.level]), Text(check, style="bold"), told
        )
    return table


def summary(findings: Sequence[Finding]) -> Text:
    """One line that says how it stands."""
    counts = {level: sum(finding.level is level for finding in findings) for level in Level}
    if counts[Level.FAIL]:
        told = f"{counts[Level.FAIL]} of {len(findings)} findings must be mended"
        return Text(told, style=_STYLES[Level.FAIL])
    if counts[Level.WARN]:
        told = f"{counts[Level.WARN]} of {len(findings)} findings are worth a thought"
        return Text(told, style=_STYLES[Level.WARN])
    return Text("all is well", style=_STYLES[Level.OK])

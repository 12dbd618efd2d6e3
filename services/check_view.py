"""What `refold check` found, put together: runs that break for one reason in one place of the code are one group."""

import linecache
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from refold.engine.rehearsal import Finding, Verdict
from refold.engine.state import Status
from refold.services.terminal import counted, one_line, printable

MAX_IDS = 5
"""Runs that are named in a group; `--json` has all."""

MAX_MESSAGE_CHARS = 400

_HEADLINES = {
    Verdict.DIVERGES: ("would be parked", "the code no longer does what its history says"),
    Verdict.FAILS: ("would fail", ""),
    Verdict.STUCK: ("would be parked", "the code waits for something that will never come"),
    Verdict.INPUT: ("would be parked", "the code does not take its input"),
    Verdict.TOO_LONG: ("would hold up a worker", "the code does not come to rest"),
    Verdict.UNEXPECTED: ("could not be replayed", ""),
    Verdict.ENDS_OTHERWISE: ("ended otherwise than with this code", ""),
    Verdict.NO_CODE: ("would wait for code that is not here", ""),
    Verdict.PAYLOAD: ("can't be replayed here", "a payload can't be read"),
    Verdict.ERASED: ("can't be replayed", "its payloads were erased"),
    Verdict.UNREADABLE: ("can be run by no code", "its history is broken"),
}
"""What happens to the runs of a group, as it follows "3 runs", and why."""


@dataclass(slots=True)
class Found:
    """Runs that break, or can't be replayed, for one reason in one place.

    Args:
        example: The finding on the first of them.
        ids: The runs.
    """

    example: Finding
    ids: list[str] = field(default_factory=list[str])

    @property
    def verdict(self) -> Verdict:
        """What came of them."""
        return self.example.verdict

    @property
    def parked(self) -> bool:
        """Whether they are parked already."""
        return self.example.status is Status.PARKED


@dataclass(frozen=True, slots=True)
class Report:
    """What a check came to.

    Args:
        app: What was checked, as it was typed.
        findings: One for each run.
        groups: Those of them that are not fine.
        closed: How many of the runs have ended.
        seed: Of the draw of those.
        took_s: How long it took.
        others: Whether workflows of which there is no version here are somebody else's.
        here: Names of the workflows that are here.
    """

    app: Sequence[str]
    findings: Sequence[Finding]
    groups: Sequence[Found]
    closed: int
    seed: int
    took_s: float
    others: bool
    here: Collection[str]

    @property
    def broken(self) -> int:
        """How many runs would break, or wait for code that should be here."""
        return sum(len(group.ids) for group in self.groups if self.counts(group))

    @property
    def unchecked(self) -> int:
        """How many runs could not be checked for want of a payload."""
        return sum(len(g.ids) for g in self.groups if g.verdict is Verdict.PAYLOAD)

    def counts(self, group: Found) -> bool:
        """Whether a group is a reason not to deploy."""
        return counts(group.example, self.here if self.others else None)


def counts(finding: Finding, here: Collection[str] | None) -> bool:
    """Whether a finding is a reason not to deploy.

    Args:
        finding: The finding.
        here: Names of the workflows that are here, where others are somebody else's; None where all should be here.
    """
    if finding.verdict is Verdict.NO_CODE:
        return here is None or finding.workflow in here
    return finding.breaks


def grouped(findings: Iterable[Finding]) -> list[Found]:
    """The findings that are not fine, in groups: the gravest first, of those the largest."""
    groups: dict[tuple[object, ...], Found] = {}
    for finding in findings:
        if finding.verdict in {Verdict.GOES_ON, Verdict.ENDS}:
            continue
        group = groups.setdefault(key_of(finding), Found(finding))
        group.ids.append(finding.workflow_id)
    for group in groups.values():
        group.ids.sort()
    order = list(_HEADLINES)
    return sorted(
        groups.values(),
        key=lambda g: (g.parked, order.index(g.verdict), -len(g.ids), g.example.workflow),
    )


def key_of(finding: Finding) -> tuple[object, ...]:
    """What is the same for runs that have the same trouble: an id in a text is not part of it."""
    key = (
        finding.verdict,
        finding.workflow,
        finding.version,
        finding.status is Status.PARKED,
    )
    if finding.verdict is Verdict.NO_CODE:
        return key
    diverged = finding.divergence
    if diverged is None:
        return *key, finding.source or finding.message.replace(finding.workflow_id, "")
    parted = (text.replace(finding.workflow_id, "") for text in (diverged.expected, diverged.found))
    return *key, finding.source, *parted


def show(console: Console, report: Report) -> None:
    """Print a report."""
    for group in report.groups:
        if group.verdict is Verdict.NO_CODE and not report.counts(group):
            continue  # another worker's
        show_group(console, group, fatal=report.counts(group))
        console.print()
    parked = sum(finding.status is Status.PARKED for finding in report.findings)
    still = sum(len(group.ids) for group in report.groups if group.parked)
    if parked:
        line = f"{counted(parked, 'run')} parked: with this code {parked - still:,} would go on when resumed"
        console.print(Text(line, style="dim"))
    fine = not report.broken
    verdict = Text("✓ " if fine else "✗ ", style="bold green" if fine else "bold red")
    said = f"{counted(len(report.findings) - report.closed, 'open run')} checked"
    if report.closed:
        said += f", and {report.closed:,} that ended (seed {report.seed})"
    verdict.append(f"{said} in {report.took_s:.1f} s: ", "not bold default")
    if fine:
        verdict.append("this code breaks none of them", "bold green")
    else:
        verdict.append(f"{report.broken:,} would break", "bold red")
    console.print(verdict)


def show_group(console: Console, group: Found, *, fatal: bool) -> None:
    """Print a group; `fatal` where it is a reason not to deploy."""
    example = group.example
    what, why = _HEADLINES[group.verdict]
    if group.parked:
        what = what.replace("would be parked", "would be parked again")
    sign, style = ("✗", "bold red") if fatal else ("!", "yellow")
    head = Text(f"{sign} {counted(len(group.ids), 'run')} {what}", style=style)
    version = "" if example.version == 1 else f" version {example.version}"
    head.append(f"  {printable(example.workflow)}{version}", "bold default")
    console.print(head)
    lines: list[Text] = []
    if why:
        lines.append(Text(why))
    if example.source is not None:
        lines.append(_source(example.source))
    diverged = example.divergence
    if diverged is None:
        lines.append(Text(one_line(example.message, MAX_MESSAGE_CHARS)))
    else:
        at = "" if diverged.position is None else f", event {diverged.position}"
        operation = (f"operation {diverged.step}{at}", "dim")
        lines.append(
            Text.assemble(("  history  ", "dim"), printable(diverged.expected), "  ", operation)
        )
        lines.append(Text.assemble(("  code     ", "dim"), printable(diverged.found)))
        lines.append(Text(f"likely cause: {diverged.cause}", style="dim"))
    names = ", ".join(printable(id_) for id_ in group.ids[:MAX_IDS])
    more = f", and {len(group.ids) - MAX_IDS:,} more" if len(group.ids) > MAX_IDS else ""
    lines.append(Text(f"{names}{more}", style="cyan"))
    for line in lines:
        console.print(Padding(line, (0, 0, 0, 2), expand=False))


def _source(source: str) -> Text:
    """A place in the code, and what stands there."""
    path, _, line = source.rpartition(":")
    code = linecache.getline(path, int(line)).strip() if line.isdigit() else ""
    text = Text(f"at {_near(path)}:{line}")
    return text.append(f"   {one_line(code, 100)}", "bold") if code else text


def _near(path: str) -> str:
    """A path as it is seen from here, where that is shorter."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path


def report_json(report: Report) -> dict[str, object]:
    """A report for programs: every run that is not fine, with all that is known of it."""
    return {
        "app": list(report.app),
        "checked": len(report.findings),
        "closed": report.closed,
        "seed": report.seed if report.closed else None,
        "took_s": round(report.took_s, 3),
        "broken": report.broken,
        "groups": [
            {**finding_json(group.example), "breaks": report.counts(group), "ids": group.ids}
            for group in report.groups
        ],
    }


def finding_json(finding: Finding) -> dict[str, object]:
    """What is the same for all runs that a finding stands for."""
    return {
        "verdict": finding.verdict.value,
        "workflow": finding.workflow,
        "version": finding.version,
        "parked": finding.status is Status.PARKED,
        "source": finding.source,
        "message": finding.message,
        "divergence": None if finding.divergence is None else asdict(finding.divergence),
    }

"""Keeps the tables of docs/reference.md and docs/api.md as the code has them.

    python tools/reference.py       # writes both; tests/docs/test_reference.py fails where that would change anything

A table stands between `<!-- NAME -->` and `<!-- end -->`, and is made by the function in `TABLES` of that name.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prometheus_client.metrics_core import Metric
from typer.core import TyperGroup
from typer.main import get_command

import refold
from refold.engine.state import Status
from refold.engine.stats import Stats
from refold.services.cli import app
from refold.services.exits import EXIT_CODES
from refold.services.metrics import ApiCollector, ProjectionCollector, StatsCollector

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "docs" / "reference.md", ROOT / "docs" / "api.md")

DECLARE = "workflow step Retry metric Projection Personal personal_fields Workflow Bound"
INSIDE = """run_step run_step_sync step_context StepContext now random uuid4 sleep sleep_sync sleep_until
sleep_until_sync send send_sync receive receive_sync requests Requests Request publish stream Stream start_child
start_child_sync run_child run_child_sync Child cancel_workflow cancel_workflow_sync set_attributes workflow_info
RunInfo continue_as_new patched Suspended"""
OUTSIDE = """Engine Handle Status WorkflowInfo Runs BulkResult CheckpointSettings Schedule ScheduleInfo ScheduleSpec
QueueInfo PayloadKeys Erased Projected"""
READING = """tail tail_sync Tail SyncTail Cursor Logged read_metrics Metric MetricContext ReadModel RunFilter RunPage
RunRow StepRow QueueRow ScheduleRow Transaction what_if what_if_async WhatIf"""
LISTED = f"{DECLARE} {INSIDE} {OUTSIDE} {READING}".split()


def summary(thing: object) -> str:
    """The first paragraph of what `thing` says of itself, on one line, safe in a table."""
    paragraph = (inspect.getdoc(thing) or "").split("\n\n")[0]
    return " ".join(paragraph.split()).replace("|", "\\|")


def call_of(name: str, function: Callable[..., object]) -> str:
    """A call with the names of its parameters."""
    shown: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not any(s.startswith("*") for s in shown):
            shown.append("*")
        stars: dict[object, str] = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
        shown.append(stars.get(parameter.kind, "") + parameter.name)
    return f"`{name}({', '.join(shown)})`"


def methods(kind: type) -> Iterator[tuple[str, Callable[..., object]]]:
    """The public methods of a class, those of our own bases as well, without the twins for async code."""
    found: dict[str, Callable[..., object]] = {}
    for base in kind.__mro__:
        if base.__module__.startswith("refold."):
            for name, value in vars(base).items():
                if inspect.isfunction(value) and not name.startswith("_") and name not in found:
                    found[name] = value
    for name in sorted(found):
        if not (name.endswith("_async") and name.removesuffix("_async") in found):
            yield name, found[name]


def names_table(names: Iterable[str]) -> str:
    """A row for each name of the package, and one for each method of a class."""
    rows = ["| name | what it is |", "|---|---|"]
    for name in names:
        thing = getattr(refold, name)
        shown = call_of(name, thing) if inspect.isfunction(thing) else f"`{name}`"
        rows.append(f"| {shown} | {summary(thing)} |")
        if inspect.isclass(thing):
            rows += [
                f"| {call_of(f'{name}.{method}', function)} | {summary(function)} |"
                for method, function in methods(thing)
            ]
    return "\n".join(rows)


def errors() -> set[str]:
    """The names of the package that are errors."""
    kinds = {name: getattr(refold, name) for name in refold.__all__}
    return {
        name
        for name, kind in kinds.items()
        if inspect.isclass(kind) and issubclass(kind, Exception)
    }


def errors_table() -> str:
    """The errors, each under the one that it is a kind of."""

    def above(kind: type) -> type | None:
        return next((base for base in kind.__mro__[1:] if base.__name__ in public), None)

    def below(kind: type, depth: int) -> Iterator[str]:
        yield f"{'  ' * depth}- `{kind.__name__}`: {summary(kind)}"
        for name in sorted(public):
            if above(getattr(refold, name)) is kind:
                yield from below(getattr(refold, name), depth + 1)

    public = errors()
    return "\n".join(below(refold.RefoldError, 0))


def commands_table() -> str:
    """Every command of `refold`."""

    def walk(group: TyperGroup, before: str) -> Iterator[str]:
        for name, command in group.commands.items():
            if isinstance(command, TyperGroup):
                yield from walk(command, f"{before}{name} ")
            elif not command.hidden:
                text = " ".join((command.help or "").split("\n\n")[0].split())
                yield f"| `refold {before}{name}` | {text} |"

    root = get_command(app)
    assert isinstance(root, TyperGroup)
    return "\n".join(["| command | what it does |", "|---|---|", *walk(root, "")])


def exit_codes_table() -> str:
    """What `refold --help` says of exit codes."""
    rows = re.findall(r"^ +(\d+)  (.+)$", EXIT_CODES, re.MULTILINE)
    return "\n".join(["| code | meaning |", "|---|---|", *(f"| {c} | {m} |" for c, m in rows)])


def settings_table() -> str:
    """The parameters of `Engine`, with defaults, as its docstring explains them."""
    parameters = inspect.signature(refold.Engine).parameters.values()
    told = inspect.getdoc(refold.Engine) or ""
    arguments = told.partition("Args:\n")[2].partition("\n\n")[0]
    rows = ["| parameter | default | meaning |", "|---|---|---|"]
    for parameter in parameters:
        found = re.search(rf"^    {parameter.name}: (.+(?:\n {{5,}}.+)*)", arguments, re.MULTILINE)
        assert found is not None, f"Engine's docstring does not explain {parameter.name}"
        default = parameter.default
        shown = "the machine's" if inspect.isfunction(default) else f"`{default!r}`"
        if default is parameter.empty:
            shown = ""
        rows.append(f"| `{parameter.name}` | {shown} | {' '.join(found[1].split())} |")
    return "\n".join(rows).replace("|  |", "| |")


def metrics_table() -> str:
    """The metrics that workers, `refold project` and `refold api` serve, as Prometheus names them."""
    stats = Stats(
        open_runs={("", Status.RUNNING): 0},
        owned_partitions=0,
        runs_in_memory=0,
        runs_waiting=0,
        steps_waiting=0,
        waiting_for_pools={"": 0},
        longest_history=0,
        history_warnings=0,
        events=0,
        projections={},
    )
    served: tuple[tuple[str, Iterable[Metric]], ...] = (
        ("`refold worker`", StatsCollector(lambda: stats).collect()),
        ("`refold project`", ProjectionCollector(dict).collect()),
        ("`refold api`", ApiCollector(lambda: ({}, 0.0)).collect()),
    )
    rows = ["| metric | kind | served by | meaning |", "|---|---|---|---|"]
    for by, metrics in served:
        for one in metrics:
            name = f"{one.name}_total" if one.type == "counter" else one.name
            rows.append(f"| `{name}` | {one.type} | {by} | {one.documentation} |")
    return "\n".join(rows)


TABLES: dict[str, Callable[[], str]] = {
    "commands": commands_table,
    "exit codes": exit_codes_table,
    "settings": settings_table,
    "metrics": metrics_table,
    "declare": lambda: names_table(DECLARE.split()),
    "inside": lambda: names_table(INSIDE.split()),
    "outside": lambda: names_table(OUTSIDE.split()),
    "reading": lambda: names_table(READING.split()),
    "errors": errors_table,
}


def filled(page: str) -> str:
    """A page with its tables as the code has them."""
    return re.sub(
        r"(<!-- (?!end)([a-z ]+) -->\n).*?(<!-- end -->)",
        lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}",
        page,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")

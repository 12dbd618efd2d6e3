"""Two courses of a run as a terminal shows them, side by side."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from refold.engine.supposed import Came
from refold.engine.what_if import Course, Operation, WhatIf, pairs
from refold.services.terminal import one_line, plain_table

MAX_CHARS = 200
"""Of a call or a value; `--json` has all."""
MOST_SAME = 6
"""So many operations in a row that are the same on both courses are all shown; of more, the first and last two."""

Pair = tuple[Operation | None, Operation | None]

_WAYS = {
    Came.SUPPOSED: (" (set)", "bold yellow"),
    Came.STUBBED: (" (stub)", "bold green"),
}


def show(console: Console, found: WhatIf, *, all_rows: bool) -> None:
    """Print both courses."""
    table = plain_table(expand=True)
    table.add_column("#", justify="right", style="dim", no_wrap=True)
    table.add_column("OPERATION", overflow="fold", ratio=3)
    table.add_column("RECORDED", overflow="fold", ratio=3)
    table.add_column("WHAT IF", overflow="fold", ratio=3)
    rows = pairs(found.recorded, found.supposed)
    for row in rows if all_rows else _shortened(rows):
        if isinstance(row, int):
            table.add_row("…", Text(f"{row:,} operations, the same on both", style="dim"), "", "")
        else:
            table.add_row(*_cells(*row))
    table.add_section()
    table.add_row("", Text("the run", style="bold"), _end(found.recorded), _end(found.supposed))
    console.print(table)
    console.print(Text("nothing was carried out, and nothing was written", style="dim"))


def _shortened(rows: Sequence[Pair]) -> list[Pair | int]:
    """The rows, with the number of those that are left out in the place of long stretches of the same."""
    shown: list[Pair | int] = []
    stretch: list[Pair] = []
    for row in [*rows, None]:
        if row is not None and _is_same(*row):
            stretch.append(row)
            continue
        if len(stretch) > MOST_SAME:
            shown += [*stretch[:2], len(stretch) - 4, *stretch[-2:]]
        else:
            shown += stretch
        stretch = []
        if row is not None:
            shown.append(row)
    return shown


def _is_same(recorded: Operation | None, supposed: Operation | None) -> bool:
    return (
        recorded is not None
        and supposed is not None
        and (recorded.call, recorded.came, recorded.value, recorded.error)
        == (supposed.call, supposed.came, supposed.value, supposed.error)
    )


def _cells(recorded: Operation | None, supposed: Operation | None) -> tuple[Text, ...]:
    one = recorded or supposed
    assert one is not None
    call = Text(one_line(one.call, MAX_CHARS))
    if recorded is not None and supposed is not None and recorded.call != supposed.call:
        call.append(f"\n{one_line(supposed.call, MAX_CHARS)}", "yellow")
    if _is_same(recorded, supposed):
        return Text(str(one.step)), call, _outcome(recorded), Text("the same", style="dim")
    return Text(str(one.step)), call, _outcome(recorded), _outcome(supposed)


def _outcome(operation: Operation | None) -> Text:
    if operation is None:
        return Text("not asked for", style="dim")
    note, style = _WAYS.get(operation.came, ("", ""))
    if operation.error is not None:
        return Text(f"{one_line(operation.error, MAX_CHARS)}{note}", style or "red")
    if operation.value is not None:
        return Text(f"{one_line(operation.value, MAX_CHARS)}{note}", style)
    match operation.came:
        case Came.OPEN:
            waits = "would wait" if operation.kind == "timer" else "would be carried out"
            return Text(waits, style="bold cyan")
        case Came.ABANDONED:
            return Text("waited for no more", style="dim")
        case Came.ASSUMED:
            taken = "fires" if operation.kind == "timer" else "taken for delivered"
            return Text(taken, style="cyan")
        case _:
            return Text("fired" if operation.kind == "timer" else "done", style="dim")


def _end(course: Course) -> Text:
    style = "bold red" if course.error is not None else "bold green" if course.result else "bold"
    return Text(one_line(course.ending, MAX_CHARS), style=style)

"""The bars of a timeline: when each operation was under way, on one scale from the run's start to its last event.

Solid where an attempt of a step was under way, dotted where the next one was waited for, thin where a timer ran or an
answer was waited for, double where a child ran, dashed where a stream was written.
"""

from rich.text import Text

from refold.services.spans import since
from refold.services.timeline_rows import Attempt, Operation, Sort, State, Stream

Cell = tuple[str, str]  # sign and style

LINES: dict[Sort, Cell] = {
    Sort.TIMER: ("─", "cyan"),
    Sort.MESSAGE: ("─", "blue"),
    Sort.CHILD: ("═", "blue"),
    Sort.CANCEL: ("─", "yellow"),
    Sort.QUESTION: ("─", "magenta"),
}
_WAIT: Cell = ("·", "yellow")
_STREAM: Cell = ("╌", "magenta")


class Scale:
    """Times as columns of the bar.

    Args:
        start: The first column's time, microseconds since 1970-01-01 UTC.
        end: The last column's.
        width: Number of columns.
    """

    def __init__(self, start: int, end: int, width: int) -> None:
        self._start = start
        self._length = max(1, end - start)
        self._width = width

    def time(self, at: int) -> str:
        """A time as text, counted from the start."""
        return since(max(0, at - self._start), self._length)

    def bar(self, row: Operation | Stream) -> Text:
        """When it was under way."""
        cells: list[Cell] = [(" ", "")] * self._width
        if isinstance(row, Stream):
            self._fill(cells, row.started_at, row.ended_at, _STREAM)
        elif row.sort is Sort.STEP:
            self._fill(cells, row.started_at, row.ended_at, _WAIT)
            for attempt in row.attempts:
                self._fill(cells, attempt.started_at, attempt.ended_at, ("━", _color(attempt)))
        else:
            self._fill(cells, row.started_at, row.ended_at, LINES[row.sort])
        bar = Text()
        for sign, style in cells:
            bar.append(sign, style)
        bar.rstrip()
        if isinstance(row, Operation) and row.state is State.UNDONE:
            return Text(bar.plain, style="dim")
        return bar

    def _fill(self, cells: list[Cell], start: int, end: int | None, cell: Cell) -> None:
        first = self._column(start)
        last = self._width - 1 if end is None else max(first, self._column(end - 1))
        cells[first : last + 1] = [cell] * (last + 1 - first)

    def _column(self, at: int) -> int:
        column = (at - self._start) * self._width // self._length
        return max(0, min(self._width - 1, column))


def _color(attempt: Attempt) -> str:
    return "green" if attempt.error is None else "red"

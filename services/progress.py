"""What `refold run` shows while a workflow goes on: a line for each operation that ends, on standard error.

On a terminal a spinner below them says that it lives, how many steps are done, and for how long it has been running.
"""

import time
from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from refold.log.events import (
    AskReceived,
    ChildCompleted,
    ChildFailed,
    DeliveryRefused,
    Event,
    MessageReceived,
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    TimerFired,
    TimerStarted,
    Unreadable,
    WorkflowCancelRequested,
    WorkflowContinued,
    WorkflowParked,
    WorkflowPaused,
    WorkflowResumed,
    WorkflowRewound,
    WorkflowStarted,
    WorkflowWarned,
)
from refold.services.spans import MICROSECONDS, span
from refold.services.terminal import counted, one_line, printable
from refold.services.timeline_milestones import error_line, told

MAX_LINES_A_SECOND = 20
"""More than these nobody can read, and printing would slow thousands of steps down; the others are counted."""


class ProgressDisplay:
    """Tells a run's events as they come.

    Args:
        console: Where to.
        quiet: Say nothing.
        since: When this process began, microseconds since 1970-01-01 UTC: what was recorded before that is
            counted and not told again.
    """

    def __init__(self, console: Console, *, quiet: bool, since: int) -> None:
        self._console = console
        self._quiet = quiet
        self._since = since
        self._started_at = since
        self._recorded_before = 0
        self._told_of_before = False
        self._done = 0
        self._bar: Progress | None = None
        self._title = ""
        self._second = 0
        self._lines = 0  # in this second
        self._skipped = 0

    @contextmanager
    def shown(self, title: str) -> Generator[None, None, None]:
        """Show the spinner inside the block, on a terminal."""
        if self._quiet or not self._console.is_terminal:
            yield
            self._tell_skipped()
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), _Elapsed())
        with Progress(*columns, console=self._console, transient=True) as bar:
            self._bar, self._title = bar, printable(title)
            bar.add_task(self._title, total=None)
            try:
                yield
            finally:
                self._tell_skipped()
                self._bar = None

    def tell(self, event: Event | Unreadable) -> None:
        """Tell one event."""
        if isinstance(event, Unreadable):
            self._line("?", "red", f"a record that can't be read: {event.reason}", "")
            return
        if isinstance(event, StepCompleted | StepFailed):
            self._done += 1
            self._update_bar()
        if isinstance(event, WorkflowStarted):
            self._started_at = event.recorded_at
        if event.recorded_at < self._since:
            self._recorded_before += isinstance(event, StepCompleted | StepFailed)
            return
        self._tell_of_before()
        self._tell_new(event)

    @property
    def started_at(self) -> int:
        """When the run was started, microseconds since 1970-01-01 UTC."""
        return self._started_at

    @property
    def steps(self) -> str:
        """How many steps have their outcome, in words."""
        return counted(self._done, "step")

    def _tell_of_before(self) -> None:
        if self._recorded_before and not self._told_of_before:
            steps = counted(self._recorded_before, "step")
            self._line("⇄", "magenta", f"going on after {steps} recorded before: not run again", "")
        self._told_of_before = True

    def _tell_new(self, event: Event) -> None:
        match event:
            case StepCompleted():
                took = span(event.recorded_at - event.started_at)
                again = f", attempt {event.attempt}" if event.attempt > 1 else ""
                if self._may_tell(event):
                    self._line("✓", "green", f"{event.name} #{event.step}{again}", took)
            case StepAttemptFailed() | StepFailed():
                self._failed_attempt(event)
            case TimerStarted():
                wait = span(max(0, event.due_at - event.recorded_at))
                self._line("◷", "cyan", f"{event.name} #{event.step} for {wait}", "")
            case TimerFired():
                self._line("✓", "cyan", f"{event.name} #{event.step}", "")
            case MessageReceived() | AskReceived() | ChildCompleted():
                self._came(event)
            case DeliveryRefused() | ChildFailed():
                error = error_line(event.error_type, event.error_message)
                self._line("✗", "red", f"{event.name} #{event.step}: {error}", "")
            case _:
                self._ordered(event)

    def _came(self, event: MessageReceived | AskReceived | ChildCompleted) -> None:
        if not self._may_tell(event):
            return
        match event:
            case ChildCompleted():
                self._line("✓", "blue", f"child {event.name} #{event.step}", "")
            case AskReceived():
                self._line("←", "blue", f"asked {event.name}", "")
            case MessageReceived():
                self._line("←", "blue", f"received {event.name}", "")

    def _ordered(self, event: Event) -> None:
        """What a person should not miss; values, streams and tags are for those who ask for them."""
        match event:
            case (
                WorkflowParked()
                | WorkflowPaused()
                | WorkflowResumed()
                | WorkflowCancelRequested()
                | WorkflowRewound()
                | WorkflowWarned()
                | WorkflowContinued()
            ):
                row = told(event, event.position or 0)
                value = "" if row.payload is None else f" {one_line(row.payload, 80)}"
                self._line("‖", "yellow", f"{row.what} {row.text}{value}".rstrip(), "")
            case _:
                pass

    def _may_tell(self, event: Event) -> bool:
        second = event.recorded_at // MICROSECONDS
        if second != self._second:
            self._tell_skipped()
            self._second, self._lines = second, 0
        self._lines += 1
        self._skipped += self._lines > MAX_LINES_A_SECOND
        return self._lines <= MAX_LINES_A_SECOND

    def _tell_skipped(self) -> None:
        if self._skipped:
            self._line("…", "dim", f"and {self._skipped:,} more", "")
        self._skipped = 0

    def _update_bar(self) -> None:
        if self._bar is not None and self._bar.task_ids:
            self._bar.update(self._bar.task_ids[0], description=f"{self._title} · {self.steps}")

    def _failed_attempt(self, event: StepAttemptFailed | StepFailed) -> None:
        error = error_line(event.error_type, event.error_message)
        text = f"{event.name} #{event.step}, attempt {event.attempt}: {error}"
        sign, style = "✗", "red"
        if isinstance(event, StepAttemptFailed) and event.due_at is not None:
            sign, style = "↻", "yellow"
            text += f"; again in {span(max(0, event.due_at - event.recorded_at))}"
        self._line(sign, style, text, span(event.recorded_at - event.started_at))

    def _line(self, sign: str, style: str, text: str, took: str) -> None:
        if self._quiet:
            return
        line = Text(f" {sign} ", style=style).append(one_line(text, 300), "default")
        if took:
            line.append(f"  {took}", "dim")
        console = self._bar.console if self._bar is not None else self._console
        console.print(line)


class _Elapsed(ProgressColumn):
    """Time since the display began."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()

    def render(self, task: Task) -> Text:
        return Text(f"{time.monotonic() - self._began:.0f} s", style="dim")

"""One event in a few words: its kind's colour, and which operation it is about."""

from refold.log.events import Event
from refold.services.terminal import one_line

_HALTING = frozenset(
    f"workflow.{what}"
    for what in ("parked", "paused", "cancel_requested", "cancelled", "terminated", "warned")
)


def kind_style(event: Event) -> str:
    """Red for failures, green for a run that returned, yellow where somebody halted it or it waits for somebody."""
    if event.kind.endswith("failed"):
        return "red"
    if event.kind == "workflow.completed":
        return "green"
    return "yellow" if event.kind in _HALTING else ""


def what_of(event: Event) -> str:
    """The operation that an event is about: its name, number and attempt."""
    step: int | None = getattr(event, "step", None)
    name: str = getattr(event, "name", "") or getattr(event, "workflow", "")
    attempt: int = getattr(event, "attempt", None) or 1  # None where no step wrote
    number = "" if step is None else f" #{step}"
    return one_line(f"{name}{number}{f' attempt {attempt}' if attempt > 1 else ''}", 60)

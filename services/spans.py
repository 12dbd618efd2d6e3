"""Times as people say them: how long something took, and how long ago it was."""

from datetime import UTC, datetime

MICROSECONDS = 1_000_000


def span(microseconds: int) -> str:
    """A length of time in the unit that suits it: `480 µs`, `1.24 s`, `2 min 03 s`, `3 h 04 min`, `2 d 5 h`."""
    if microseconds < 0:
        return f"-{span(-microseconds)}"
    if microseconds < 1_000:
        return f"{microseconds} µs"
    if microseconds < MICROSECONDS:
        return f"{microseconds / 1_000:.3g} ms" if microseconds < 999_500 else "1.00 s"
    seconds = microseconds / MICROSECONDS
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = whole // 60
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // (24 * 60)} d {minutes // 60 % 24} h"


def since(microseconds: int, whole: int) -> str:
    """A time on the scale of a whole story, so that all its times align: `0.213 s`, `02:13.4`, `3:02:13`, `2 d 03:02`.

    Args:
        microseconds: Time since the story's beginning.
        whole: Length of the story.
    """
    tenths = microseconds // 100_000
    seconds = microseconds // MICROSECONDS
    if whole < 60 * MICROSECONDS:
        return f"{microseconds / MICROSECONDS:.3f} s"
    if whole < 3_600 * MICROSECONDS:
        return f"{seconds // 60:02d}:{seconds % 60:02d}.{tenths % 10}"
    clock_time = f"{seconds // 3600 % 24}:{seconds // 60 % 60:02d}"
    if whole < 86_400 * MICROSECONDS:
        return f"{clock_time}:{seconds % 60:02d}"
    return f"{seconds // 86_400} d {clock_time.rjust(5, '0')}"


def ago(at: int, now: int) -> str:
    """How long before (or after) `now` something is: `3 s ago`, `in 5 min 00 s`.

    Args:
        at: Microseconds since 1970-01-01 UTC.
        now: The same, now.
    """
    if at > now:
        return f"in {span(at - now)}"
    if now - at < MICROSECONDS:
        return "just now"
    return f"{_rough(now - at)} ago"


def clock(at: int) -> str:
    """A time of day with its date, UTC, to the second."""
    return f"{moment(at):%Y-%m-%d %H:%M:%S} UTC"


def iso(at: int) -> str:
    """A time as ISO 8601 in UTC, with its microseconds: for machines."""
    return moment(at).isoformat(timespec="microseconds").replace("+00:00", "Z")


def moment(at: int) -> datetime:
    """Microseconds since 1970-01-01 UTC as a datetime."""
    seconds, microseconds = divmod(at, MICROSECONDS)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds)


def microseconds(at: datetime) -> int:
    """A datetime as microseconds since 1970-01-01 UTC."""
    since = at - moment(0)
    return (since.days * 86_400 + since.seconds) * MICROSECONDS + since.microseconds


def _rough(microseconds: int) -> str:
    """One unit, whole: what happened three minutes ago needs no seconds."""
    seconds = microseconds // MICROSECONDS
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"

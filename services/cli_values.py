"""What is typed for an option, as a value: spans, times, attributes, JSON.

2h  45s  7d  1h30m          a span
2026-12-01T09:00+01:00      a time; always with its zone, because nobody knows later whose clock was meant
gold  12  0.5  true         an attribute's value: text, int, float, bool
2026-12-01T09:00Z  "12"     an attribute's value: a time, and text that would else be a number
"""

import json
import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from refold.log.attributes import Tag, encode_attributes
from refold.log.errors import PayloadError, UsageError
from refold.services.spans import microseconds, moment

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_SPAN: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[smhdw])+", re.ASCII)
_SPAN_PART: Final = re.compile(r"([0-9.]+)([smhdw])", re.ASCII)
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:", re.ASCII)
_INT: Final = re.compile(r"-?(0|[1-9][0-9]*)", re.ASCII)  # 01234 is a code, and text
_FLOAT: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)


def read_deadline(text: str, now: int) -> datetime:
    """When a run that is started with `--deadline TEXT` is cancelled.

    Args:
        text: A span from now on, or a time.
        now: Microseconds since 1970-01-01 UTC.

    Raises:
        UsageError: It is neither, or not after now.
    """
    span = _span(text, "--deadline")
    if span is None:
        due = _time(text, "--deadline", "or a span, as in 2h, 30m, 45s or 7d")
    else:
        due = _shifted(moment(now), span, "--deadline", text)
    if microseconds(due) <= now:
        raise UsageError(
            f"--deadline {text}: that is not in the future, so the run would be cancelled before it did "
            "anything: give a later time, or a span as in 2h"
        )
    return due


def read_moment(text: str | None, now: int, option: str) -> datetime | None:
    """The time that `--since` or `--before` means: a time, or a span before now.

    Args:
        text: What was typed; None where the option was not given.
        now: Microseconds since 1970-01-01 UTC.
        option: The option's name, for the message.

    Raises:
        UsageError: It is neither.
    """
    if text is None:
        return None
    span = _span(text, option)
    if span is None:
        return _time(text, option, "or a span, as in 2h or 7d, for so long ago")
    return _shifted(moment(now), -span, option, text)


def read_span(text: str, option: str) -> timedelta:
    """A length of time, as in 2h, 30m, 45s or 7d.

    Raises:
        UsageError: It is none.
    """
    span = _span(text, option)
    if span is None:
        raise UsageError(
            f"{option} {text}: that is no length of time: write one as in 2h, 30m, 45s or 7d"
        )
    return span


def read_time(text: str, option: str) -> datetime:
    """A time with its zone, as in 2026-12-01T09:00+01:00.

    Raises:
        UsageError: It is none.
    """
    return _time(text, option, "with its zone")


def read_attributes(words: Iterable[str] | None) -> dict[str, Tag]:
    """Attributes from `name=value` words.

    Raises:
        UsageError: A word is not of that form, or a name comes twice.
        PayloadError: A name or value can't be recorded.
    """
    tags: dict[str, Tag] = {}
    for word in words or ():
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UsageError(
                f"--attribute {word}: write it as name=value, as in --attribute customer=acme"
            )
        if name in tags:
            raise UsageError(f"--attribute {name} was given twice: a run has one value of a name")
        tags[name] = read_tag(value, f"--attribute {word}")
    encode_attributes(tags)  # so that what can't be recorded is said before anything is sent
    return tags


def read_tag(text: str, what: str) -> Tag:
    """One attribute's value as the type that its form shows.

    Args:
        text: What was typed.
        what: Where, for the message.

    Raises:
        UsageError: It begins with a quote and is no JSON string, or is a time without a zone.
    """
    if text.startswith('"'):
        return _quoted(text, what)
    if text in {"true", "false"}:
        return text == "true"
    if _FLOAT.fullmatch(text):
        return _number(text, what)
    if _TIME.match(text):
        return _time(text, what, f"or quoted, '\"{text}\"', where it is meant as text")
    return text


def read_message(word: str | None) -> tuple[str, str] | None:
    """Topic and JSON of `--message TOPIC=JSON`.

    Raises:
        UsageError: It is not of that form.
    """
    if word is None:
        return None
    topic, equals, text = word.partition("=")
    if not equals or not topic:
        raise UsageError(
            f"--message {word}: write it as TOPIC=JSON, as in --message 'payment={{\"amount\": 5}}'"
        )
    read_json(text, f"the message for topic {topic!r}")
    return topic, text.strip()


def read_json(text: str, what: str) -> object:
    """A value from its JSON.

    Args:
        text: JSON.
        what: What it is for, for the message.

    Raises:
        UsageError: It is no JSON.
    """
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        quoted = json.dumps(text, ensure_ascii=False)
        raise UsageError(
            f"{what} is no JSON: {error}. Quote it for the shell; text is '{quoted}', with both quotes"
        ) from error
    return value


def _span(text: str, option: str) -> timedelta | None:
    """A length of time; None where it does not read as one."""
    if not _SPAN.fullmatch(text):
        return None
    try:
        seconds = math.fsum(float(n) * _UNITS[unit] for n, unit in _SPAN_PART.findall(text))
        return timedelta(seconds=seconds)
    except OverflowError as error:
        raise UsageError(
            f"{option} {text}: that is more than a calendar holds: give a shorter span"
        ) from error


def _shifted(at: datetime, by: timedelta, option: str, text: str) -> datetime:
    try:
        return at + by
    except OverflowError as error:
        raise UsageError(
            f"{option} {text}: that is outside the years 1 to 9999: give a shorter span"
        ) from error


def _time(text: str, what: str, otherwise: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
        if at.utcoffset() is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{what}: {text!r} is no time: write it as 2026-12-01T09:00Z or 2026-12-01T09:00+01:00, {otherwise}"
        ) from error
    raise UsageError(
        f"{what}: {text!r} has no time zone: write {at.isoformat(timespec='minutes')}Z for UTC, or add the zone "
        f"as in +01:00, {otherwise}"
    )


def _quoted(text: str, what: str) -> str:
    try:
        value: object = json.loads(text)
    except ValueError as error:
        raise UsageError(
            f"{what}: the value begins with a quote and does not end as a JSON string: quote all of it, "
            "as in --attribute 'code=\"12\"'"
        ) from error
    assert isinstance(value, str), "JSON that begins with a quote and is whole is a string"
    return value


def _number(text: str, what: str) -> int | float:
    if not _INT.fullmatch(text):
        number = float(text)
        if math.isinf(number):
            raise UsageError(f"{what}: {text} is larger than any number: quote it to record text")
        return number
    try:
        return int(text)
    except ValueError as error:  # more digits than Python reads
        raise PayloadError(
            f"{what}: a number of {len(text):,} digits is too long to be recorded: quote it to record text"
        ) from error

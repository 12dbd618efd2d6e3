"""Attributes: the user's own tags on a run, as the texts that stand in the log.

Texts, so that SQL, Connect and every Avro reader see a plain map of strings; each tells its type by its form, so
that the tag comes back as what it was:

    gold                            str, as it is
    "12"                            str, in JSON's quotes where it would read as one of those below, or begins with one
    12  -3                          int
    0.5  1e+22                      float
    true  false                     bool
    2025-11-22T17:20:05.000000Z     datetime, always UTC with microseconds: the order of texts is that of times
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from refold.log.errors import PayloadError

Tag = str | int | float | bool | datetime

RESERVED: Final = "refold."
"""Names of refold's own tags begin so."""
MAX_TAGS: Final = 64
MAX_NAME_CHARS: Final = 255
MAX_VALUE_CHARS: Final = 4_000
"""Limits of one run. Tags stand in its start, in every read model and in memory while the run is open: they are to
find it by, and what is longer belongs in its input or its published values."""

_INT: Final = re.compile(r"-?(0|[1-9][0-9]*)", re.ASCII)
_FLOAT: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")


def encode_attributes(tags: Mapping[str, Tag]) -> dict[str, str]:
    """Tags as they are recorded.

    Args:
        tags: At most 64; names of 1 to 255 characters, texts of at most 4,000. Times need a time zone.

    Raises:
        PayloadError: A name or value can't be recorded; the message names it.
    """
    if len(tags) > MAX_TAGS:
        raise PayloadError(
            f"{len(tags)} attributes are more than the {MAX_TAGS} that a run can have: "
            "keep those that you search by, and put the others in the workflow's input"
        )
    return {_checked_name(name): _encoded(name, value) for name, value in tags.items()}


def refuse_reserved(tags: Iterable[str]) -> None:
    """Refuse names that are refold's own.

    Raises:
        PayloadError: One begins with `refold.`.
    """
    for name in tags:
        if str(name).startswith(RESERVED):  # what is no string is refused when it is encoded
            raise PayloadError(
                f"the attribute name {name!r} begins with {RESERVED!r}, which is for refold itself: give it another"
            )


def decode_attributes(attributes: Mapping[str, str]) -> dict[str, Tag]:
    """The tags that `encode_attributes` wrote. Never fails: a text in none of its forms is a string."""
    return {name: _decoded(text) for name, text in attributes.items()}


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise PayloadError(f"the attribute name {name!r} is not a string")
    if not 1 <= len(name) <= MAX_NAME_CHARS:
        raise PayloadError(
            f"the attribute name {name[:40]!r} has {len(name)} characters: "
            f"give it 1 to {MAX_NAME_CHARS}"
        )
    _check_unicode(name, f"the attribute name {name!r}")
    return name


def _encoded(name: str, value: object) -> str:
    text = _text_of(name, value)
    if len(text) > MAX_VALUE_CHARS:
        raise PayloadError(
            f"attribute {name!r} has {len(text)} characters, {MAX_VALUE_CHARS} at most can be recorded: "
            "put long texts in the workflow's input or a published value"
        )
    _check_unicode(text, f"attribute {name!r}")
    return text


def _text_of(name: str, value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            plain = str.__str__(value)  # of an enum's member, its value
            return plain if _decoded(plain) is plain else json.dumps(plain, ensure_ascii=False)
        case int():
            return _int_text(name, value)
        case float():
            if not math.isfinite(value):
                raise PayloadError(
                    f"attribute {name!r} is {value}, which is no number to search by"
                )
            return float.__repr__(value)
        case datetime():
            return _time_text(name, value)
        case _:
            raise PayloadError(
                f"attribute {name!r} is a {type(value).__name__}: "
                "give a str, int, float, bool or datetime"
            )


def _int_text(name: str, value: int) -> str:
    if value.bit_length() > MAX_VALUE_CHARS * 4:  # more than 3.33 bits a digit; str() refuses these
        raise PayloadError(
            f"attribute {name!r} is a number of {value.bit_length()} bits, "
            f"{MAX_VALUE_CHARS} digits at most can be recorded"
        )
    return int.__repr__(value)


def _time_text(name: str, value: datetime) -> str:
    if value.utcoffset() is None:
        raise PayloadError(
            f"attribute {name!r} is the time {value.isoformat()} without a time zone: "
            "give it one, for example tzinfo=datetime.UTC"
        )
    try:
        in_utc = value.astimezone(UTC)
    except OverflowError as error:
        raise PayloadError(
            f"attribute {name!r} is the time {value.isoformat()}, which is outside the years 1 to 9999 in UTC"
        ) from error
    return in_utc.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _check_unicode(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PayloadError(
            f"{what} can't be recorded: its character {error.start} is half of a surrogate pair, "
            "which has no UTF-8 form"
        ) from error


def _decoded(text: str) -> Tag:
    """The tag with this text; the text itself where it is a plain string."""
    try:
        if text in {"true", "false"}:
            return text == "true"
        if text.startswith('"'):
            return str(json.loads(text))
        if _INT.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
        if _TIME.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:  # looks like one and is none, such as month 13
        return text
    return text

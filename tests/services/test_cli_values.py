"""What is typed for an option: spans, times, attributes, messages, each with one error that says what to write."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from refold import UsageError
from refold.log.attributes import Tag
from refold.services.cli_values import (
    read_attributes,
    read_deadline,
    read_message,
    read_moment,
    read_tag,
)
from refold.services.spans import microseconds

NOW = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)
NOW_US = microseconds(NOW)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("45s", timedelta(seconds=45)),
        ("30m", timedelta(minutes=30)),
        ("2h", timedelta(hours=2)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(days=14)),
        ("1h30m", timedelta(minutes=90)),
        ("0.5h", timedelta(minutes=30)),
    ],
)
def test_a_span_counts_from_now(text: str, length: timedelta) -> None:
    """Given a span, a deadline is so long after now, and --since so long before."""
    assert read_deadline(text, NOW_US) == NOW + length
    assert read_moment(text, NOW_US, "--since") == NOW - length


def test_a_time_has_its_zone() -> None:
    """Given a time with a zone, it is that moment, in UTC."""
    due = read_deadline("2026-12-01T09:00+01:00", NOW_US)
    assert due == datetime(2026, 12, 1, 9, tzinfo=timezone(timedelta(hours=1)))
    assert due.tzinfo is UTC
    assert read_moment("2026-11-01T00:00Z", NOW_US, "--since") == datetime(2026, 11, 1, tzinfo=UTC)
    assert read_moment(None, NOW_US, "--since") is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2026-12-01T09:00", "has no time zone: write 2026-12-01T09:00Z"),
        ("tomorrow", "is no time: write it as"),
        ("2026-13-01T09:00Z", "is no time"),
        ("2 h", "as in 2h, 30m, 45s or 7d"),
        ("-2h", "is no time"),
        ("0s", "not in the future"),
        ("2020-01-01T00:00Z", "not in the future"),
        ("9999999w", "outside the years"),
        ("99999999999999999w", "more than a calendar holds"),
    ],
)
def test_what_is_no_deadline_is_refused(text: str, says: str) -> None:
    """Given no time in the future, the error says what to write."""
    with pytest.raises(UsageError, match="--deadline") as caught:
        read_deadline(text, NOW_US)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("gold", "gold"),
        ("", ""),
        ("12", 12),
        ("-3", -3),
        ("0.5", 0.5),
        ("1e3", 1000.0),
        ("true", True),
        ("false", False),
        ("True", "True"),
        ("007", "007"),
        ("nan", "nan"),
        ("2026-12-01", "2026-12-01"),
        ("2026-12-01T09:00Z", datetime(2026, 12, 1, 9, tzinfo=UTC)),
        ('"12"', "12"),
        ('"2026-12-01T09:00"', "2026-12-01T09:00"),
    ],
)
def test_an_attribute_tells_its_type_by_its_form(text: str, tag: Tag) -> None:
    """Given a value's text, it is what it looks like; quoted, it is text."""
    read = read_tag(text, "--attribute x")
    assert read == tag
    assert type(read) is type(tag)


def test_attributes_may_have_an_equals_sign_in_the_value() -> None:
    """Given name=value words, the first equals sign divides them."""
    assert read_attributes(["formula=a=b", "n=1"]) == {"formula": "a=b", "n": 1}
    assert read_attributes(None) == {}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["gold"], "write it as name=value"),
        (["=gold"], "write it as name=value"),
        (["a=1", "a=2"], "was given twice"),
        (['a="1'], "does not end as a JSON string"),
        (["a=2026-12-01T09:00"], "has no time zone"),
        (["a=1e999"], "larger than any number"),
    ],
)
def test_what_is_no_attribute_is_refused(words: list[str], says: str) -> None:
    """Given a word that is none, the error says how to write it."""
    with pytest.raises(UsageError) as caught:
        read_attributes(words)
    assert says in str(caught.value)


def test_a_message_is_a_topic_and_json() -> None:
    """Given TOPIC=JSON, both are told apart; anything else is refused."""
    assert read_message('pay={"a": 1}') == ("pay", '{"a": 1}')
    assert read_message(None) is None
    with pytest.raises(UsageError, match="TOPIC=JSON"):
        read_message("pay")
    with pytest.raises(UsageError, match="'pay' is no JSON"):
        read_message("pay=please")

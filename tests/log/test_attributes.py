"""Tags of a run are texts that a person reads in SQL, and come back as what they were."""

import enum
import json
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.log.attributes import Tag, decode_attributes, encode_attributes
from refold.log.errors import PayloadError

CHARACTERS = st.characters(codec="utf-8")
TEXT = st.text(CHARACTERS, max_size=60)
NAMES = st.text(CHARACTERS, min_size=1, max_size=255)
LOOKALIKES = st.one_of(
    st.from_regex(r"-?[0-9]{1,6}(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?", fullmatch=True),
    st.from_regex(r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z", fullmatch=True),
    st.sampled_from(["true", "false", "True", "null", "NaN", "-Infinity", '"', '""', '"a"', "", " 1", "٣"]),
    TEXT.map(json.dumps),
)  # fmt: skip
ZONES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=ZONES)  # noqa: DTZ001
TAGS: st.SearchStrategy[Tag] = st.one_of(
    TEXT,
    LOOKALIKES,
    st.integers(),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    TIMES,
)


@given(st.dictionaries(NAMES, TAGS, max_size=64))
def test_tags_come_back_as_they_were(tags: dict[str, Tag]) -> None:
    """Given any tags, and texts made to be taken for something else, each comes back with its type."""
    back = decode_attributes(encode_attributes(tags))
    assert back == tags
    assert {name: type(tag) for name, tag in back.items()} == {
        name: type(tag) for name, tag in tags.items()
    }


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        ("gold", "gold"),
        ("Zoë 🧾", "Zoë 🧾"),
        ("", ""),
        ("007", "007"),
        ("12", '"12"'),
        ("-1.5e3", '"-1.5e3"'),
        ("true", '"true"'),
        ('"quoted"', '"\\"quoted\\""'),
        ("2025-11-22T17:20:05Z", "2025-11-22T17:20:05Z"),
        ("2025-11-22T17:20:05.000000Z", '"2025-11-22T17:20:05.000000Z"'),
        (12, "12"),
        (-(10**30), "-1000000000000000000000000000000"),
        (1.0, "1.0"),
        (1e22, "1e+22"),
        (True, "true"),
        (False, "false"),
        (datetime(2025, 11, 22, 17, 20, 5, tzinfo=UTC), "2025-11-22T17:20:05.000000Z"),
        (
            datetime(2025, 11, 22, 17, 20, 5, 9, tzinfo=timezone(timedelta(hours=1))),
            "2025-11-22T16:20:05.000009Z",
        ),
    ],
)
def test_a_tags_text_is_what_a_person_expects(tag: Tag, text: str) -> None:
    """Given a tag, its text is the tag itself wherever that says its type."""
    assert encode_attributes({"name": tag}) == {"name": text}


@given(TIMES, TIMES)
def test_times_sort_as_their_texts_do(one: datetime, other: datetime) -> None:
    """Given two times of any zones, comparing their texts in SQL compares the times."""
    texts = encode_attributes({"one": one, "other": other})
    assert (texts["one"] < texts["other"]) == (one < other)


def test_an_enums_member_is_recorded_as_its_value() -> None:
    """Given members of a string's and an integer's enum, the tags are a plain string and number."""

    class Colour(enum.StrEnum):
        RED = "red"

    class Size(enum.IntEnum):
        BIG = 3

    assert encode_attributes({"c": Colour.RED, "s": Size.BIG}) == {"c": "red", "s": "3"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "attribute 'customer' is nan"),
        (float("-inf"), "attribute 'customer' is -inf"),
        (datetime(2025, 11, 22), "without a time zone"),  # noqa: DTZ001
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))), "outside the years 1 to 9999"),
        (date(2025, 11, 22), "is a date: give a str, int"),
        (None, "is a NoneType"),
        (["a"], "is a list"),
        ("a\ud83dz", "character 1 is half of a surrogate pair"),
        ("x" * 4_001, "has 4001 characters, 4000 at most"),
        (10**4_000, "has 4001 characters, 4000 at most"),
        (10**10_000, "is a number of 33220 bits"),
    ],
    ids=lambda case: case if isinstance(case, str) and case.isascii() else type(case).__name__,
)
def test_a_value_that_can_not_be_recorded_is_refused_by_name(value: Any, message: str) -> None:
    """Given a value of no tag's type or over the limits, the error names the attribute and says why."""
    with pytest.raises(PayloadError, match=message):
        encode_attributes({"customer": value})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "has 0 characters: give it 1 to 255"),
        ("n" * 256, "has 256 characters"),
        ("a\udc00", "half of a surrogate pair"),
        (7, "name 7 is not a string"),
    ],
)
def test_a_name_that_can_not_be_recorded_is_refused(name: Any, message: str) -> None:
    """Given no name, one that is too long, or one that is no text, the error says so."""
    with pytest.raises(PayloadError, match=message):
        encode_attributes({name: 1})


def test_more_tags_than_a_run_can_have_are_refused() -> None:
    """Given 65 tags, none is recorded; 64 are."""
    assert len(encode_attributes({f"tag-{n}": n for n in range(64)})) == 64
    with pytest.raises(PayloadError, match="65 attributes are more than the 64"):
        encode_attributes({f"tag-{n}": n for n in range(65)})


@pytest.mark.parametrize("text", ['"', '"a', "2025-13-01T00:00:00.000000Z", "1" * 5_000])
def test_a_text_in_none_of_the_forms_is_a_string(text: str) -> None:
    """Given what somebody else wrote, which only looks like a tag's form, reading it does not fail."""
    assert decode_attributes({"name": text}) == {"name": text}


@given(TEXT)
def test_any_text_decodes(text: str) -> None:
    """Given any text, there is a tag."""
    assert isinstance(decode_attributes({"name": text})["name"], str | int | float | datetime)

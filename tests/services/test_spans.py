"""Times in words."""

import pytest

from refold.services.spans import ago, clock, iso, microseconds, moment, since, span

S = 1_000_000


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (0, "0 µs"),
        (999, "999 µs"),
        (1_500, "1.5 ms"),
        (999_400, "999 ms"),
        (999_999, "1.00 s"),
        (1_240_000, "1.24 s"),
        (9_996_000, "10.0 s"),
        (59 * S, "59.0 s"),
        (59_990_000, "1 min 00 s"),
        (123 * S, "2 min 03 s"),
        (3_600 * S, "1 h 00 min"),
        (86_400 * S + 5 * 3_600 * S, "1 d 5 h"),
        (-1_500, "-1.5 ms"),
    ],
)
def test_a_length_is_said_in_the_unit_that_suits_it(length: int, words: str) -> None:
    """Given microseconds, three digits or so in one unit or two."""
    assert span(length) == words


@pytest.mark.parametrize(
    ("whole", "at", "text"),
    [
        (2 * S, 213_000, "0.213 s"),
        (120 * S, 73_400_000, "01:13.4"),
        (7_200 * S, 3_733 * S, "1:02:13"),
        (200_000 * S, 97_380 * S, "1 d 03:03"),
    ],
)
def test_times_of_one_story_have_one_form(whole: int, at: int, text: str) -> None:
    """Given how long the whole took, a time in it is as fine as that deserves."""
    assert since(at, whole) == text


def test_how_long_ago() -> None:
    """Given a time before, at and after now."""
    assert ago(100 * S, 100 * S) == "just now"
    assert ago(97 * S, 100 * S) == "3 s ago"
    assert ago(0, 7_200 * S) == "2 h ago"
    assert ago(105 * S, 100 * S) == "in 5.00 s"


def test_a_moment_keeps_its_microseconds() -> None:
    """Given microseconds since 1970, the datetime and its texts keep them all."""
    at = 1_700_000_000_123_456
    assert microseconds(moment(at)) == at
    assert iso(at) == "2023-11-14T22:13:20.123456Z"
    assert clock(at) == "2023-11-14 22:13:20 UTC"

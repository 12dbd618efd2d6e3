"""Input from the command line: words for `str` parameters as they are, all others as JSON where they are JSON."""

import json
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

import pytest

from refold import PayloadError, UsageError, workflow
from refold.services.arguments import bind, plain_object


@dataclass
class Order:
    """An input type of the user's."""

    id: int
    total: float


@workflow
def mixed(name: str, count: int = 1, day: date | None = None) -> None:
    """Parameters of several types."""


@workflow
def only(order: Order) -> None:
    """One structured parameter."""


@workflow
def priced(price: Decimal) -> None:
    """A parameter that no float can hold."""


@workflow
def many(first: str, *rest: int) -> None:
    """Any number of parameters."""


def test_a_str_parameter_takes_the_word_as_it_is() -> None:
    """Given digits for a str and for an int, each becomes what the parameter says."""
    payload = json.loads(bind(mixed, None, ["42", "42", "2026-11-22"]).payload)
    assert payload == {"name": "42", "count": 42, "day": "2026-11-22"}


def test_a_decimal_keeps_its_digits() -> None:
    """Given more digits than a float has, when they are typed for a Decimal, then all of them are recorded."""
    payload = json.loads(bind(priced, None, ["12345678901234567890.125"]).payload)
    assert payload == {"price": "12345678901234567890.125"}


def test_defaults_are_filled_in() -> None:
    """Given fewer words than parameters, the recorded input has the defaults, so that a repeat compares equal."""
    assert bind(mixed, None, ["a"]).payload == bind(mixed, '{"name": "a", "count": 1}', []).payload


def test_a_structured_only_parameter_may_stand_alone() -> None:
    """Given one parameter, its own JSON and the object that names it mean the same."""
    bare, named = '{"id": 1, "total": 0.10}', '{"order": {"id": 1, "total": 0.10}}'
    assert bind(only, bare, []).payload == bind(only, named, []).payload
    assert bind(only, None, [bare]).payload == bind(only, named, []).payload


def test_rest_parameters_take_all_that_is_left() -> None:
    """Given *args, further words belong to it."""
    assert json.loads(bind(many, None, ["a", "1", "2"]).payload) == {"first": "a", "rest": [1, 2]}


def test_what_does_not_fit_is_refused() -> None:
    """Given a word that is no int for an int, the error names the parameter."""
    with pytest.raises(PayloadError, match="count"):
        bind(mixed, None, ["a", "b"])


def test_without_code_the_input_is_an_object() -> None:
    """Given only a name, an object is passed on as it is and anything else refused."""
    assert plain_object('{"a": [1, "ü"]}') == '{"a":[1,"ü"]}'
    assert plain_object(None) == "{}"
    with pytest.raises(UsageError, match="JSON object"):
        plain_object("3")

"""Inputs: a call's arguments as one JSON object, checked before anything is written."""

import dataclasses
import inspect
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from refold.engine.input_type import InputType
from refold.log.errors import DefinitionError, PayloadError


class Order(BaseModel):
    amount: int


@dataclasses.dataclass
class Place:
    street: str


MISSING = object()


def simple(order: Order, note: str = "none", *, gift: bool = False) -> None: ...
def every_kind(
    a: int, /, b: str = "b", *rest: float, c: datetime | None = None, **more: Place
) -> None: ...
def undeclared(a, b=1) -> None: ...  # type: ignore[no-untyped-def]  # pyright: ignore[reportMissingParameterType, reportUnknownParameterType]
def with_sentinel(a: int, b: Any = MISSING, c: int = 3) -> None: ...
def nothing() -> None: ...


def given_back(
    fn: Callable[..., object], *args: object, **kwargs: object
) -> inspect.BoundArguments:
    """What the function would be called with after a round trip through JSON."""
    kind = InputType.of(fn)
    back_args, back_kwargs = kind.decode(kind.encode(args, kwargs))
    bound = inspect.signature(fn).bind(*back_args, **back_kwargs)
    bound.apply_defaults()
    return bound


def asked_for(fn: Callable[..., object], *args: object, **kwargs: object) -> inspect.BoundArguments:
    bound = inspect.signature(fn).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound


CALLS: list[tuple[Callable[..., object], tuple[object, ...], dict[str, object]]] = [
    (nothing, (), {}),
    (simple, (Order(amount=1),), {}),
    (simple, (Order(amount=1), "x"), {"gift": True}),
    (simple, (), {"note": "x", "order": Order(amount=1)}),
    (every_kind, (1,), {}),
    (
        every_kind,
        (1, "x", 1.5, 2.5),
        {"c": datetime(2026, 1, 1, tzinfo=UTC), "home": Place("s")},
    ),
    (every_kind, (1,), {"b": "x", "a": Place("named like the positional-only one")}),
    (undeclared, ([1, {"x": None}],), {}),
    (with_sentinel, (1,), {}),
    (with_sentinel, (1, [2], 4), {}),
    (with_sentinel, (1,), {"c": 5}),
]


@pytest.mark.parametrize(("fn", "args", "kwargs"), CALLS)
def test_a_call_comes_back_as_it_was_made(
    fn: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    """Given a call of a function with any kind of parameters, what comes back calls it the same."""
    assert given_back(fn, *args, **kwargs) == asked_for(fn, *args, **kwargs)


def test_the_same_call_spelled_in_two_ways_is_the_same_input() -> None:
    """Given defaults left out, or names in another order, the text is the same."""
    kind = InputType.of(simple)
    order = Order(amount=1)
    texts = {
        kind.encode((order,), {}),
        kind.encode((order, "none"), {"gift": False}),
        kind.encode((), {"gift": False, "note": "none", "order": order}),
    }
    assert texts == {'{"order":{"amount":1},"note":"none","gift":false}'}


def test_inputs_are_the_same_by_value_where_the_order_of_keys_differs() -> None:
    """Given dicts with other orders of keys, the inputs are the same; given another value, they are not."""

    def takes(data: dict[str, int]) -> None: ...

    kind = InputType.of(takes)
    first, second = kind.encode(({"a": 1, "b": 2},), {}), kind.encode(({"b": 2, "a": 1},), {})
    assert first != second
    assert kind.same(first, second)
    assert not kind.same(first, kind.encode(({"a": 1, "b": 3},), {}))
    assert not kind.same(first, "{")


def test_a_default_that_has_no_json_form_stays_with_the_function() -> None:
    """Given a sentinel for a default, it is not recorded, and still can't be passed by hand as an object."""
    kind = InputType.of(with_sentinel)
    assert kind.encode((1,), {}) == '{"a":1,"c":3}'
    assert kind.decode('{"a":1,"c":3}') == ((1,), {"c": 3})
    with pytest.raises(PayloadError, match="argument"):
        kind.encode((1, object()), {})


@pytest.mark.parametrize(
    ("args", "kwargs", "told"),
    [
        ((), {}, "missing a required argument: 'order'"),
        ((Order(amount=1), "x", True), {}, "too many positional arguments"),
        ((Order(amount=1),), {"colour": 1}, "unexpected keyword argument 'colour'"),
        (("5",), {}, "argument ['order']"),
        ((Order(amount=1), 5), {}, "argument ['note']"),
        ((Order(amount=1),), {"gift": 1}, "argument ['gift']"),
        ((Order.model_construct(amount="five"),), {}, "argument 'order'"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(
    args: tuple[object, ...], kwargs: dict[str, object], told: str
) -> None:
    """Given a call that does not fit, the error names the workflow and the argument."""
    with pytest.raises(PayloadError) as caught:
        InputType.of(simple, "checkout").encode(args, kwargs)
    assert told in str(caught.value)
    assert "orkflow 'checkout'" in str(caught.value)


def test_text_is_not_taken_for_a_number() -> None:
    """Given "5" for an int, it is refused; an int for a float is fine."""

    def takes(count: int, share: float) -> None: ...

    kind = InputType.of(takes)
    assert kind.encode((1, 1), {}) == '{"count":1,"share":1.0}'
    with pytest.raises(PayloadError, match=r"argument \['count'\].*got str"):
        kind.encode(("5", 1), {})


def test_json_from_outside_is_read_by_jsons_forms() -> None:
    """Given JSON from a command line, dates are strings, defaults are filled in and the order is the signature's."""
    kind = InputType.of(every_kind)
    text = kind.canonical('{"c": "2026-01-01T00:00:00Z", "a": 1}')
    assert text == kind.encode((1,), {"c": datetime(2026, 1, 1, tzinfo=UTC)})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "no JSON"),
        ("[1]", "must be a JSON object"),
        ('{"order": {"amount": 1}, "colour": 1}', "no argument 'colour'"),
        ("{}", "missing a required argument: 'order'"),
        ('{"order": {"amount": "x"}}', "['order']['amount']"),
        ('{"order": {}}', "['order']['amount']"),
    ],
)
def test_json_from_outside_that_does_not_fit_is_refused_by_name(text: str, told: str) -> None:
    """Given JSON that is no input, the error says which argument."""
    with pytest.raises(PayloadError) as caught:
        InputType.of(simple, "checkout").canonical(text)
    assert told in str(caught.value)
    assert "Workflow 'checkout' can't take this input" in str(caught.value)


def test_a_recorded_input_outlives_a_new_parameter() -> None:
    """Given an input from before a parameter was added, its default is used; a removed one is left aside."""
    before = InputType.of(simple).encode((Order(amount=1),), {"gift": True})

    def after(order: Order, note: str, *, speed: int = 3) -> None: ...

    assert InputType.of(after).decode(before) == ((Order(amount=1), "none"), {})


def test_a_parameter_of_a_type_with_no_json_form_is_told_by_name() -> None:
    """Given a parameter that can't be recorded, the error is about the definition and names it."""

    def takes(fine: int, socket: inspect.Signature) -> None: ...

    with pytest.raises(DefinitionError, match="argument 'socket' of workflow 'takes'"):
        InputType.of(takes).check()


@given(
    st.integers(),
    st.text(),
    st.lists(st.floats(allow_nan=False)),
    st.dictionaries(st.from_regex(r"\Amore_[a-z]{2,5}\Z"), st.text().map(Place)),
)
def test_any_arguments_come_back(a: int, b: str, rest: list[float], more: dict[str, Place]) -> None:
    """Given any arguments of the declared types, the call comes back."""
    assert given_back(every_kind, a, b, *rest, **more) == asked_for(every_kind, a, b, *rest, **more)

"""Payloads: what is encoded comes back, and what can't come back fails at once."""

import collections
import contextlib
import dataclasses
import enum
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_serializer

from refold.engine.annotations import UNDECLARED
from refold.engine.payload import PayloadType, check_size
from refold.log.errors import DefinitionError, PayloadError, PayloadTooLarge


class Colour(enum.Enum):
    RED = "r"
    TWO = 2


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Point:
    x: float
    blob: bytes = b""


class Item(BaseModel):
    sku: str
    price: Decimal = Decimal(1)
    weight: float | None = None
    raw: bytes = b""
    extra: Any = None


class Order(BaseModel):
    id: UUID
    at: datetime
    items: list[Item] = []
    tags: set[str] = set()
    place: Point | None = None


class Gift(Item):
    note: str = ""


class Aliased(BaseModel):
    total: int = Field(alias="theTotal")


class Loose(BaseModel):
    by_key: dict = {}  # type: ignore[type-arg]  # pyright: ignore[reportMissingTypeArgument, reportUnknownVariableType]


class Tree(BaseModel):
    children: list["Tree"] = []
    names: frozenset[str] = frozenset()


class Row(NamedTuple):
    number: int
    name: str


class OneWay(BaseModel):
    """Its serializer writes what its validator does not read."""

    at: datetime

    @field_serializer("at")
    def write(self, value: datetime) -> str:
        return f"on {value}"


class OpenSecret(BaseModel):
    token: SecretStr

    @field_serializer("token")
    def write(self, value: SecretStr) -> str:
        return value.get_secret_value()


def typed(annotation: object) -> PayloadType[Any]:
    return PayloadType.of(annotation, "result of step 'charge'")


def test_any_value_of_a_model_comes_back_equal() -> None:
    """Given a model with nested models, bytes, sets and dataclasses, all of it comes back."""
    order = Order(
        id=UUID(int=7),
        at=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone(timedelta(hours=-3))),
        items=[Item(sku="a", price=Decimal("1.10"), raw=b"\xff\x00"), Item(sku="é")],
        tags={"x", "y"},
        place=Point(1.5, b"\xfe"),
    )
    text, back = typed(Order).round_trip(order)
    assert back == order
    assert typed(Order).encode(back) == text


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (None, None),
        (bool, True),
        (int, 10**400),
        (int, Level.LOW),
        (float, 5),
        (float, 5e-324),
        (str, "\x00 \u2028 \U0001f600"),
        (bytes, bytes(range(256))),
        (datetime, datetime(1, 1, 1, tzinfo=UTC)),
        (datetime, datetime(2026, 1, 1, 1, 1, 1, 1)),  # noqa: DTZ001 - naive on purpose
        (date, date(9999, 12, 31)),
        (time, time(1, 2, 3, 4)),
        (timedelta, timedelta(days=-1, microseconds=3)),
        (Decimal, Decimal("-0.00")),
        (UUID, UUID(int=0)),
        (Path, Path("/a/b")),
        (complex, 1 - 2j),
        (Colour, Colour.TWO),
        (Literal["a", 1], 1),
        (int | str, "5"),
        (datetime | str, datetime(2026, 1, 1, tzinfo=UTC)),
        (Item | None, None),
        (list[Item], [Item(sku="a")]),
        (tuple[int, str], (1, "a")),
        (tuple[int, ...], (1, 2)),
        (set[str], {"b", "a"}),
        (frozenset[int], frozenset({3, 1})),
        (dict[int, str], {1: "a", -2: "b"}),
        (dict[Colour, int], {Colour.RED: 1}),
        (dict[UUID, int], {UUID(int=1): 1}),
        (dict[date, int], {date(2026, 1, 1): 1}),
        (dict[bytes, int], {b"\xff": 1}),
        (dict[str, int], collections.Counter("aab")),
        (collections.deque[int], collections.deque([1, 2])),
        (collections.defaultdict[str, list[int]], collections.defaultdict(list, a=[1])),
        (Mapping[str, int], {"a": 1}),
        (Row, Row(1, "a")),
        (Point, Point(1.0, b"\xff")),
        (list[Point], [Point(1.0, b"\xff")]),
        (Tree, Tree(children=[Tree(names=frozenset({"a", "b"}))])),
        (Loose, Loose(by_key={"a": [1, None]})),
        (Item, Item(sku="a", extra={"a": [1.5, None]})),
        (Aliased, Aliased(theTotal=3)),
        (OpenSecret, OpenSecret(token=SecretStr("s"))),
    ],
)
def test_a_declared_value_comes_back_equal(annotation: object, value: object) -> None:
    """Given a value of its declared type, what comes back equals it."""
    text, back = typed(annotation).round_trip(value)
    assert back == value
    assert typed(annotation).decode(text) == value


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (UNDECLARED, (1, [2, (3,)]), [1, [2, [3]]]),
        (Any, {"a": (1,)}, {"a": [1]}),
        (object, Level.LOW, 1),
        (Sequence[int], (1, 2), [1, 2]),
        (Iterable[int], (1, 2), [1, 2]),
        (
            Iterable[datetime],
            {datetime(2026, 1, 1, tzinfo=UTC)},
            [datetime(2026, 1, 1, tzinfo=UTC)],
        ),
        (list, [1, (2,)], [1, [2]]),
    ],
)
def test_what_json_has_no_word_for_comes_back_as_what_it_has(
    annotation: object, value: object, expected: object
) -> None:
    """Given a tuple with no declared type, the first run sees the list that every replay sees."""
    text, back = typed(annotation).round_trip(value)
    assert back == expected
    assert type(back) is type(expected)
    assert typed(annotation).decode(text) == expected


def test_numbers_that_are_not_finite_come_back_where_a_float_is_declared() -> None:
    """Given NaN in an optional field, it comes back as NaN and not as None, and the JSON stays valid."""
    text, back = typed(Item).round_trip(Item(sku="a", weight=float("nan")))
    assert back.weight != back.weight
    assert '"NaN"' in text
    assert typed(list[float]).round_trip([float("inf"), float("-inf")])[1] == [
        float("inf"),
        float("-inf"),
    ]


def test_a_models_own_configuration_wins() -> None:
    """Given a model that says how its bytes are written, they are written so."""

    class Hex(BaseModel):
        model_config = ConfigDict(ser_json_bytes="hex", val_json_bytes="hex")
        raw: bytes

    text, back = typed(Hex).round_trip(Hex(raw=b"\xff"))
    assert text == '{"raw":"ff"}'
    assert back == Hex(raw=b"\xff")


def open_generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize("annotation", [UNDECLARED, Any, object, dict[str, Any], list, Item])
@pytest.mark.parametrize(
    "make",
    [object, threading.Lock, open_generator, tempfile.TemporaryFile, lambda: print, lambda: type],
    ids=["object", "lock", "generator", "file", "function", "class"],
)
def test_what_has_no_json_form_is_refused(annotation: object, make: Callable[[], Any]) -> None:
    """Given a lock, a file or a generator, at any depth, it is refused and never becomes its repr."""
    with contextlib.ExitStack() as stack:
        value = make()
        if hasattr(value, "close"):
            stack.callback(value.close)
        held = (
            Item(sku="a", extra=value)
            if annotation is Item
            else {"a": [value]}
            if annotation == dict[str, Any]
            else [value]
        )
        with pytest.raises(
            PayloadError, match=r"^The result of step 'charge'.*Nothing was recorded\.$"
        ):
            typed(annotation).encode(held)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (UNDECLARED, datetime(2026, 1, 1, tzinfo=UTC)),
        (UNDECLARED, Item(sku="a")),
        (UNDECLARED, {1: 2}),
        (UNDECLARED, b"x"),
        (UNDECLARED, {1}),
        (UNDECLARED, float("nan")),
        (dict, {"a": date(2026, 1, 1)}),
        (dict, {1: 1}),
        (dict[Any, Any], {1: 1}),
        (int, "5"),
        (int, True),
        (int, 5.0),
        (int, None),
        (bool, 1),
        (str, 5),
        (str, "\ud800"),
        (UNDECLARED, ["\ud800"]),
        (float, "1.5"),
        (None, 3),
        (datetime, "2026-01-01"),
        (datetime, date(2026, 1, 1)),
        (Colour, "r"),
        (list[int], (1, 2)),
        (list[int], ["1"]),
        (tuple[int, int], (1, 2, 3)),
        (dict[tuple[int, int], int], {(1, 2): 3}),
        (Iterable[int], open_generator()),
        (Iterable[str], "text"),
        (Item, Point(1.0)),
        (Item, Item.model_construct(sku=5)),
        (Item, Item(sku="a", extra=datetime(2026, 1, 1, tzinfo=UTC))),
        (Item, Item(sku="a", extra={1: 2})),
        (Loose, Loose(by_key={1: 2})),
        (list[Loose], [Loose(by_key={"a": date(2026, 1, 1)})]),
        (Point, Point("x")),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        (SecretStr, SecretStr("s")),
        (dict[str, SecretStr], {"a": SecretStr("s")}),
        (OneWay, OneWay(at=datetime(2026, 1, 1, tzinfo=UTC))),
        (Decimal, Decimal("NaN")),
        (
            dict[Colour, int],
            {Colour.TWO: 1},
        ),  # as a key, 2 is written "2", which is another value of the enum's
    ],
)
def test_what_would_not_come_back_is_refused(annotation: object, value: object) -> None:
    """Given a value that is not of its type, or would come back as something else, nothing is converted silently."""
    with pytest.raises(
        PayloadError, match=r"^The result of step 'charge'.*Nothing was recorded\.$"
    ):
        typed(annotation).encode(value)


def test_an_instance_of_a_subclass_would_lose_what_it_adds() -> None:
    """Given a subclass where its base is declared, the error names both."""
    with pytest.raises(PayloadError, match=r"`Gift` where its annotation says `Item`"):
        typed(Item).encode(Gift(sku="a", note="hi"))
    assert typed(Item | Gift).round_trip(Gift(sku="a", note="hi"))[1] == Gift(sku="a", note="hi")


def test_a_value_that_contains_itself_is_refused() -> None:
    """Given a list within itself, the refusal is an error of ours."""
    loop: list[object] = []
    loop.append(loop)
    for annotation in (UNDECLARED, list, list[Any]):
        with pytest.raises(PayloadError, match="result of step 'charge'"):
            typed(annotation).encode(loop)


def test_a_coroutine_in_place_of_its_value_is_told_as_such() -> None:
    """Given a value that nobody has awaited, when it is encoded, then the refusal says that an await is missing."""

    async def answer() -> int:
        return 42

    coroutine = answer()
    with pytest.raises(PayloadError, match="write `await` before the call"):
        typed(int).encode(coroutine)
    coroutine.close()


def test_a_refusal_names_the_place_and_not_the_value() -> None:
    """Given a wrong value deep inside, the error names its place and type, and does not tell the value."""
    with pytest.raises(PayloadError) as caught:
        typed(dict[str, list[int]]).encode({"a": [1, "hunter2"]})
    assert "['a'][1]" in str(caught.value)
    assert "got str" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(PayloadError) as caught:
        typed(Point).encode(Point("hunter2"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("annotation", [Iterator[int], threading.Thread, "not a type"])
def test_a_type_with_no_json_form_is_a_definition_error(annotation: object) -> None:
    """Given an annotation that nothing can be made of, the error is about the definition, and comes again."""
    kind = typed(annotation)
    for _ in range(2):
        with pytest.raises(DefinitionError, match="result of step 'charge' is annotated"):
            kind.check()


def test_a_record_that_no_longer_fits_says_so() -> None:
    """Given a type that has changed since, decoding says what to do."""
    with pytest.raises(
        PayloadError, match=r"recorded result of step 'charge' does not fit.*has changed"
    ):
        typed(Item).decode('{"name":"a"}')
    with pytest.raises(PayloadError, match="recorded result"):
        typed(int).decode("{")


def test_a_set_has_one_text_in_every_process() -> None:
    """Given processes whose hashes differ, the JSON of a set is the same, in a model as well."""
    code = (
        "from refold.engine.payload import PayloadType as P\n"
        "from pydantic import BaseModel\n"
        "class M(BaseModel): s: frozenset[str]\n"
        "names = {'a', 'b', 'c', 'd', 'e', 'é', '10', '9'}\n"
        "print(P.of(set[str], 'x').encode(names), P.of(list[M], 'x').encode([M(s=names)]))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(texts) == 1


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_every_json_value_comes_back_with_no_annotation(value: object) -> None:
    """Given any plain JSON value, it comes back equal, and equal text means equal value."""
    kind = typed(UNDECLARED)
    text, back = kind.round_trip(value)
    assert back == value
    assert kind.encode(back) == text


leaves: list[tuple[object, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (str, st.text()),
    (bytes, st.binary()),
    (float, st.floats(allow_nan=False)),
    (
        datetime,
        st.datetimes(
            timezones=st.none() | st.just(UTC) | st.just(timezone(timedelta(hours=5, minutes=30)))
        ),
    ),
    (date, st.dates()),
    (time, st.times()),
    (timedelta, st.timedeltas(min_value=timedelta(days=-(10**6)), max_value=timedelta(days=10**6))),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (UUID, st.uuids()),
    (Size, st.sampled_from(Size)),
]


def containers(
    leaf: tuple[object, st.SearchStrategy[Any]],
) -> list[tuple[object, st.SearchStrategy[Any]]]:
    kind: Any = leaf[0]
    values = leaf[1]
    return [
        leaf,
        (list[kind], st.lists(values)),
        (kind | None, st.none() | values),
        (dict[str, kind], st.dictionaries(st.text(), values)),
        (dict[kind, int], st.dictionaries(values, st.integers())),
        (set[kind], st.sets(values)),
        (tuple[kind, ...], st.lists(values).map(tuple)),
        (list[dict[str, list[kind]]], st.lists(st.dictionaries(st.text(), st.lists(values)))),
    ]


@given(st.data())
def test_every_declared_value_comes_back(data: st.DataObject) -> None:
    """Given any value of a type built of leaves and containers, it comes back equal, and its text is the same again."""
    leaf = data.draw(st.sampled_from(leaves), label="leaf")
    annotation, values = data.draw(st.sampled_from(containers(leaf)), label="container")
    value = data.draw(values, label="value")
    text, back = typed(annotation).round_trip(value)
    assert back == value
    assert type(back) is type(value)
    assert typed(annotation).encode(back) == text


def test_a_payload_over_the_limit_is_refused_with_both_sizes() -> None:
    """Given more bytes than the limit, counted in UTF-8, the error tells both."""
    check_size("é" * 50, 100, "result of step 'x'")
    with pytest.raises(
        PayloadTooLarge, match=r"result of step 'x' has 1,002 bytes of JSON; the limit is 1,001"
    ):
        check_size("é" * 501, 1001, "result of step 'x'")

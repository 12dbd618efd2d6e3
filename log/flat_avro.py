"""Avro's binary form of flat records, compiled for each dataclass that is one kind of record.

A kind of event uses a dozen of the schema's columns, always the same ones. Avro writes the others, all null,
as one zero byte each: constant bytes between the columns that are there. So each class gets a writer and a reader
of its own, straight-line code made once from the schema and the dataclass's fields, the way `dataclasses` makes
`__init__`. fastavro has to look up every column in a dict, and to make the dict. Measured for `StepCompleted`
with 110 bytes of payload on Python 3.11, best of 7, in microseconds:

                            dict and fastavro    compiled
    dataclass -> bytes            14.0              1.8
    bytes -> dataclass            13.2              5.5    (1.4 of it in the dataclass's own __init__)

fastavro stays the judge: the tests hold every writer to its bytes, byte for byte, and whatever a compiled
reader does not expect is read again by fastavro (`log/flat_record.py`), which says what is wrong.

Format: https://avro.apache.org/docs/1.12.0/specification/#binary-encoding
"""

import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import NoneType
from typing import Any, Final, NamedTuple, cast, get_args, get_type_hints

_MIN_LONG, _MAX_LONG = -(2**63), 2**63 - 1
_GROUP: Final = 1 << 14  # two of a varint's 7-bit groups are looked up at once
_SMALL: Final = _GROUP >> 1  # longs from 0 up to this are one look-up
_NULL, _SOME = b"\x00", b"\x02"  # index of the branch in the union ["null", type]

# Two groups that end a varint (one byte where one is enough), and two that do not.
_LAST: Final = tuple(
    bytes((z,)) if z < 128 else bytes((z & 127 | 128, z >> 7)) for z in range(_GROUP)
)
_MORE: Final = tuple(bytes((z & 127 | 128, z >> 7 | 128)) for z in range(_GROUP))
_LONGS: Final = _LAST[::2]  # zigzag doubles what is not negative


class Malformed(ValueError):
    """Bytes are not what the compiled reader expects."""


class Column(NamedTuple):
    """A column of a flat schema: `type` is string, long, map (of string) or fixed (of `size` bytes)."""

    name: str
    type: str
    nullable: bool
    size: int = 0


def columns_of(schema: Mapping[str, object]) -> tuple[Column, ...]:
    """The columns of a flat schema, in order.

    Args:
        schema: Parsed JSON of a record schema whose fields are string, long, map of string, fixed, or the
            union of null and one of them.
    """
    fields = cast(list[dict[str, object]], schema["fields"])
    return tuple(_column(str(field["name"]), field["type"]) for field in fields)


def _column(name: str, type_: object) -> Column:
    match type_:
        case str():
            return Column(name, type_, nullable=False)
        case list():
            null, branch = cast(list[object], type_)  # two, or this is no flat schema
            assert null == "null", f"column {name}: null comes first, so that it can be the default"
            return _column(name, branch)._replace(nullable=True)
        case {"type": "fixed", "size": int(size)}:
            return Column(name, "fixed", nullable=False, size=size)
        case {"type": str(plain)}:
            return Column(name, plain, nullable=False)
        case _:
            raise TypeError(f"column {name}: {type_} is not a flat record's type")


class Layout(NamedTuple):
    """How one class lies in a schema.

    Args:
        cls: The dataclass.
        columns: The schema's columns that are encoded, in order.
        constants: Column -> text that is the same for every value of the class (its kind).
        computed: A column that is no field: the writer takes its UTF-8 bytes, the reader skips it.
    """

    cls: type
    columns: Sequence[Column]
    constants: Mapping[str, str]
    computed: str | None

    def optional(self) -> dict[str, bool]:
        """Field -> whether it may be None, for the fields that are columns here."""
        here = {column.name for column in self.columns}
        hints = get_type_hints(self.cls)
        names = (field.name for field in dataclasses.fields(self.cls))
        return {name: NoneType in get_args(hints[name]) for name in names if name in here}


class _Run(NamedTuple):
    """Constant bytes, then the column that follows them; None at the record's end."""

    constant: bytes
    column: Column | None
    optional: bool


def _runs(layout: Layout) -> Iterable[_Run]:
    """The record as constant bytes and the columns between them."""
    optional, constant = layout.optional(), b""
    for column in layout.columns:
        name = column.name
        if name not in optional and name not in layout.constants and name != layout.computed:
            assert column.nullable, f"{layout.cls.__name__} has no {name}"
            constant += _NULL
            continue
        may_be_none = optional.get(name, False)
        assert column.nullable or not may_be_none, f"{layout.cls.__name__}.{name} may not be None"
        if column.nullable and not may_be_none:
            constant += _SOME
        if name in layout.constants:
            constant += text_bytes(layout.constants[name])
            continue
        yield _Run(constant, column, may_be_none)
        constant = b""
    yield _Run(constant, None, optional=False)


# --- writing ---------------------------------------------------------------------------------------------


def long_bytes(value: int) -> bytes:
    """A long as a zigzag varint.

    Raises:
        OverflowError: It is not a 64-bit integer.
    """
    if not _MIN_LONG <= value <= _MAX_LONG:
        raise OverflowError(f"{value} is not a 64-bit integer")
    rest, parts = value << 1 ^ value >> 63, b""
    while rest >= _GROUP:
        parts += _MORE[rest & _GROUP - 1]
        rest >>= 14
    return parts + _LAST[rest]


def text_bytes(value: str) -> bytes:
    """A string: the length of its UTF-8 as a long, then the UTF-8."""
    data = value.encode()
    return long_bytes(len(data)) + data


def map_bytes(value: Mapping[str, str]) -> bytes:
    """A map of strings: one block of all items, where there are any, and the empty block that ends it."""
    if not value:
        return _LAST[0]
    items = (text_bytes(key) + text_bytes(item) for key, item in value.items())
    return long_bytes(len(value)) + b"".join(items) + _LAST[0]


WRITERS: Final[Mapping[str, Callable[[Any], bytes]]] = {
    "string": text_bytes,
    "long": long_bytes,
    "map": map_bytes,
}


def compile_writer(layout: Layout) -> Callable[..., bytes]:
    """Make the function that writes one class.

    Returns:
        `write(value)`, or `write(value, computed)` where there is a computed column -> the bytes of
        `layout.columns`. It raises UnicodeEncodeError, OverflowError, TypeError or AttributeError
        for a field that does not fit its column.
    """
    names: dict[str, object] = {
        "longs": _LONGS,
        "long_bytes": long_bytes,
        "NULL": _NULL,
        "SOME": _SOME,
    }
    parts: list[str] = []
    for at, (constant, column, optional) in enumerate(_runs(layout)):
        if constant:
            names[f"const{at}"] = constant
            parts.append(f"const{at}")
        if column is None:
            break
        source = f"value.{column.name}"
        if optional:
            names[f"write{at}"] = WRITERS[column.type]
            parts.append(f"NULL if (v := {source}) is None else SOME + write{at}(v)")
        elif column.type == "string":
            data = "computed" if column.name == layout.computed else f"{source}.encode()"
            small = f"longs[n] if (n := len(s{at} := {data})) < {_SMALL} else long_bytes(n)"
            parts += [small, f"s{at}"]
        elif column.type == "long":
            parts.append(f"longs[v] if 0 <= (v := {source}) < {_SMALL} else long_bytes(v)")
        else:
            raise TypeError(f"column {column.name}: nothing writes a required {column.type}")
    arguments = "value" if layout.computed is None else "value, computed"
    lines = [
        f"def compiled({arguments}):",
        "    return b''.join((",
        *(f"        {part}," for part in parts),
        "    ))",
    ]
    return _function(lines, names)


def _function(lines: Sequence[str], names: dict[str, object]) -> Callable[..., Any]:
    exec("\n".join(lines), names)  # noqa: S102  # the source is made above from our own schema and fields only
    function = names["compiled"]
    assert callable(function)
    return function


# --- reading ---------------------------------------------------------------------------------------------


def read_long(data: bytes, at: int) -> tuple[int, int]:
    """A long, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
        if shift > 63:  # ten bytes at most; a megabyte of them would take minutes
            raise Malformed("a long of more than 64 bits")
    if value >> 64:
        raise Malformed("a long of more than 64 bits")
    return value >> 1 ^ -(value & 1), at


def read_size(data: bytes, at: int) -> tuple[int, int]:
    """A length, and where it ends."""
    size, at = read_long(data, at)
    if size < 0:
        raise Malformed("a negative length")
    return size, at


def read_text(data: bytes, at: int) -> tuple[str, int]:
    """A string, and where it ends."""
    size, at = read_size(data, at)
    end = at + size
    if end > len(data):
        raise Malformed("a string beyond the end")
    return str(data[at:end], "utf-8"), end


def read_map(data: bytes, at: int) -> tuple[dict[str, str], int]:
    """A map of strings, and where it ends."""
    value: dict[str, str] = {}
    while True:
        count, at = read_size(data, at)
        if count == 0:
            return value, at
        for _ in range(count):
            key, at = read_text(data, at)
            value[key], at = read_text(data, at)


# How a column is read into `{name}`. A first byte with neither the varint's "more" bit nor its sign bit is the
# whole number, doubled.
_READ_SIZE: Final = """\
n = data[at]
if n & 129: n, at = read_size(data, at)
else: n >>= 1; at += 1"""
_READERS: Final[Mapping[str, str]] = {
    "skip": f"{_READ_SIZE}\nat += n",
    "string": f"{_READ_SIZE}\nend = at + n; {{name}} = str(data[at:end], 'utf-8'); at = end",
    "word": f"{_READ_SIZE}\nend = at + n; {{name}} = intern(str(data[at:end], 'utf-8')); at = end",
    "long": """\
{name} = data[at]
if {name} & 129: {name}, at = read_long(data, at)
else: {name} >>= 1; at += 1""",
    "map": "{name}, at = read_map(data, at)",
    "fixed": "{name} = data[at:at + {size}]; at += {size}",
}


_WORDS: Final = frozenset({"worker", "workflow", "name", "encoding", "code_version", "policy"})
"""Columns with few different texts. Each is kept once in memory: a sleeping run is half as large by that."""


def compile_reader(layout: Layout, start: int) -> Callable[[bytes], Any]:
    """Make the function that reads one class.

    Args:
        layout: Where the class's fields are.
        start: Where the record begins in the bytes that will be given.

    Returns:
        `read(data)` -> an object of the class. It raises Malformed, IndexError or UnicodeDecodeError where the bytes
        are not what `compile_writer` writes: they may still be the record, written otherwise, or be no record at all.
    """
    names: dict[str, object] = {
        "cls": layout.cls,
        "Malformed": Malformed,
        "read_long": read_long,
        "read_size": read_size,
        "read_map": read_map,
        "intern": sys.intern,
    }
    body = [f"at = {start}"]
    for at, (constant, column, optional) in enumerate(_runs(layout)):
        if constant:
            names[f"const{at}"] = constant
            size = len(constant)
            differs = f"data[at:at + {size}] != const{at}"
            if size == 1:  # most are: comparing numbers saves making the slice
                differs = f"data[at] != {constant[0]}"
            body.append(f"if {differs}: raise Malformed('constant {at}')")
            body.append(f"at += {size}")
        if column is not None:
            body += _reading(column, optional, skipped=column.name == layout.computed)
    body.append("if at != len(data): raise Malformed('another length')")
    body.append("return cls(" + ", ".join(f"{name}={name}" for name in layout.optional()) + ")")
    return _function(["def compiled(data):", *("    " + line for line in body)], names)


def _reading(column: Column, optional: bool, *, skipped: bool) -> list[str]:
    kind = "word" if column.name in _WORDS else column.type
    template = _READERS["skip" if skipped else kind]
    lines = template.format(name=column.name, size=column.size).split("\n")
    if not optional:
        return lines
    return [
        "branch = data[at]; at += 1",
        f"if branch == 0: {column.name} = None",
        "elif branch == 2:",
        *("    " + line for line in lines),
        f"else: raise Malformed('{column.name}')",
    ]

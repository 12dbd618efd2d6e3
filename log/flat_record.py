"""The classes that lie in one flat schema: who writes and reads which, and what to say of bytes that none reads.

Reading has two ways to the same answer. The compiled reader of the kind takes what refold itself wrote, which is
all that a log normally holds. Whatever it refuses is read by fastavro with the writer's schema and judged column by
column, so that Unreadable can say what is wrong. A column that is filled but no field of its class is refused, not
passed over: a newer release meant something by it, and a reader that ignored it would fold to another state.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar, cast

import fastavro

from refold.log.errors import PayloadError
from refold.log.flat_avro import (
    WRITERS,
    Layout,
    Malformed,
    columns_of,
    compile_reader,
    compile_writer,
    text_bytes,
)

T = TypeVar("T")

MISFIT: Final = (UnicodeEncodeError, OverflowError, TypeError, AttributeError)
"""What a compiled writer raises for a value that does not fit; `FlatRecord.misfit` says it properly."""

_REFUSED: Final = (
    Malformed,
    LookupError,
    UnicodeDecodeError,
)  # by a compiled reader, or no such reader


class FlatRecord(Generic[T]):
    """One schema and the dataclasses that are its kinds.

    Args:
        schema: Parsed JSON of the published schema.
        classes: The dataclasses, each with its `kind`; or one without, for a schema without that column.
        start: Where the Avro body begins in the bytes to read.
        apart: The first column, of a fixed size, where the writers leave it to the caller. `kind` follows it.
        computed: A column that is no field: the writers take its UTF-8 bytes as their second argument.

    Attributes:
        readers: Kind as it stands in the bytes (None for a schema without kinds) -> compiled `read(data)`.
        writers: Class -> `write(value)` or `write(value, computed)`, which gives the body without `apart`.
    """

    def __init__(
        self,
        schema: Mapping[str, object],
        classes: Sequence[type[T]],
        *,
        start: int,
        apart: str | None = None,
        computed: str | None = None,
    ) -> None:
        columns = columns_of(schema)
        first = 0 if apart is None else 1
        assert apart is None or columns[0].name == apart
        self._kinded = columns[first].name == "kind"
        self._start = start
        self._kind_at = start + sum(column.size for column in columns[:first])
        self._schema = fastavro.parse_schema(_without_logical_types(schema))
        self._computed = computed
        self._layouts: dict[str | None, Layout] = {}
        self.readers: dict[bytes | None, Callable[[bytes], T]] = {}
        self.writers: dict[type[T], Callable[..., bytes]] = {}
        for cls in classes:
            kind: str | None = getattr(cls, "kind", None)
            constants = {} if kind is None else {"kind": kind}
            layout = Layout(cls, columns, constants, computed)
            self._layouts[kind] = layout
            self.readers[None if kind is None else text_bytes(kind)] = compile_reader(layout, start)
            self.writers[cls] = compile_writer(layout._replace(columns=columns[first:]))

    def read(self, data: bytes) -> T:
        """The value whose body begins at `start` and ends with `data`.

        Raises:
            Malformed: There is none; the message says why.
        """
        try:
            return self.readers[self._kind_bytes(data) if self._kinded else None](data)
        except _REFUSED:
            return self.read_slowly(data)

    def _kind_bytes(self, data: bytes) -> bytes:
        at = self._kind_at
        return data[at : at + 1 + (data[at] >> 1)]  # no kind is longer than 63 bytes

    def read_slowly(self, data: bytes) -> T:
        """As `read`, by fastavro and column by column."""
        row = self._row(data)
        kind = row.get("kind")
        layout = self._layouts.get(kind)
        if layout is None:
            raise Malformed(f"kind {kind!r} is not known to this release of refold")
        fields = layout.optional()
        known = {*fields, *layout.constants, self._computed}
        for name, found in row.items():
            if found is not None and name not in known:
                raise Malformed(
                    f"column {name} is filled, which this release does not know of kind {kind}"
                )
            if found is None and not fields.get(name, True):
                raise Malformed(f"column {name} is null, which kind {kind} can't be without")
        return cast(T, layout.cls(**{name: row[name] for name in fields}))

    def _row(self, data: bytes) -> dict[str, Any]:
        stream = io.BytesIO(data[self._start :])
        try:
            row = fastavro.schemaless_reader(  # pyright: ignore[reportUnknownMemberType]
                stream, self._schema, None
            )
        except Exception as error:  # bad bytes raise whatever the line that they led to raises
            raise Malformed(f"not Avro of this schema: {type(error).__name__}: {error}") from error
        if rest := len(stream.read()):
            raise Malformed(f"{rest} bytes follow the record")
        return cast(dict[str, Any], row)

    def misfit(self, value: T, error: Exception) -> PayloadError:
        """What to raise for a value that its writer raised `error` for."""
        kind: str | None = getattr(value, "kind", None)
        what = f"{kind or type(value).__name__} of workflow {getattr(value, 'workflow_id', None)!r}"
        layout = self._layouts[kind]
        fields = layout.optional()
        for column in layout.columns:
            if column.name not in fields or column.type == "fixed":
                continue
            field = getattr(value, column.name)
            if field is None and fields[column.name]:
                continue
            try:
                WRITERS[column.type](field)
            except MISFIT as cause:
                return PayloadError(
                    f"{what}: {column.name} can't be recorded: {_reason(cause, column.type)}"
                )
        return PayloadError(f"{what} can't be recorded: {error}")


def _reason(error: Exception, type_: str) -> str:
    match error:
        case UnicodeEncodeError():
            found = error.object[error.start]
            return (
                f"its character {error.start} is {found!r}, half of a surrogate pair, which has no UTF-8 form; "
                "decode the text as what it is, or replace that character"
            )
        case OverflowError():
            return str(error)
        case _:
            return f"it is not a {type_} ({error})"


def _without_logical_types(schema: object) -> Any:
    """The schema with times as the integers that they are: refold computes with those."""
    if isinstance(schema, Mapping):
        entries = cast(Mapping[str, object], schema).items()
        return {
            name: _without_logical_types(part) for name, part in entries if name != "logicalType"
        }
    if isinstance(schema, list):
        return [_without_logical_types(part) for part in cast(list[object], schema)]
    return schema

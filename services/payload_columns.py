"""Columns of payloads, from the types that workflows and steps declare: `payload_total` for a result's field `total`.

    @workflow
    def checkout(order: Order, express: bool) -> Receipt: ...      @step
                                                                   def charge(order: Order) -> Charge: ...

    payload_order_total, payload_express       the input: each argument, or each field of one that is a model
    payload_receipt_id, payload_cents          results of workflows and steps: each field of a model
    payload_as_integer, payload_as_texts       results that are no models: a column for each kind, whatever returns it

Of a union, each member has its columns. What is deeper, or of several types, is JSON text. A name that two types use in
different ways is text as well.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import DecimalSchema

from refold.engine.annotations import UNDECLARED
from refold.engine.payload import PayloadType
from refold.engine.step_definitions import AsyncStep, SyncStep
from refold.log.errors import UsageError
from refold.log.event_columns import ELEMENTS, Kind
from refold.projections.sink_rows import PayloadColumn
from refold.services.loading import load_workflows

PREFIX: Final = "payload_"
MAX_NAME_BYTES: Final = 63
"""PostgreSQL cuts longer names, and two might become one."""

_KINDS: Final = {
    "integer": Kind.INTEGER,
    "number": Kind.REAL,
    "boolean": Kind.BOOLEAN,
    "string": Kind.TEXT,
}
_FORMATS: Final = {"date-time": Kind.TIME, "decimal": Kind.DECIMAL}
_LISTS: Final = {one: many for many, one in ELEMENTS.items()}
_Schema = Mapping[str, Any]


def payload_columns(targets: Sequence[str]) -> list[PayloadColumn]:
    """The columns of some modules' workflows, and of the steps that the same modules declare.

    Args:
        targets: `module`, `module:workflow` or `file.py`.

    Raises:
        UsageError: A module can't be imported, has no workflow, or two columns would have one name.
    """
    found: dict[str, PayloadColumn] = {}
    for type_, depth in _types_of(targets):
        schema = _schema_of(type_)
        for path, kind in _members(schema, schema, depth):
            _add(found, path, kind)
    return list(found.values())


def _types_of(targets: Sequence[str]) -> Iterator[tuple[PayloadType[Any], int]]:
    """The types of payloads, and how many names deep their columns go."""
    modules: set[str] = set()
    for workflow in load_workflows(targets):
        yield workflow.input_type.members, 2
        yield workflow.result_type, 1
        modules.add(workflow.fn.__module__)
    for module in sorted(modules):
        for value in vars(sys.modules[module]).values():
            if isinstance(value, AsyncStep | SyncStep):
                yield value.result_type, 1


class _Schemas(GenerateJsonSchema):
    """JSON Schema that tells decimals from other texts."""

    def decimal_schema(self, schema: DecimalSchema) -> JsonSchemaValue:
        return {"type": "string", "format": "decimal"}


def _schema_of(type_: PayloadType[Any]) -> _Schema:
    annotation = type_.annotation
    if annotation is UNDECLARED:
        return {}
    try:
        # No checker can say what an annotation that is known at run time stands for.
        adapter = TypeAdapter[Any](cast("Any", annotation))
        return adapter.json_schema(mode="serialization", schema_generator=_Schemas)
    except PydanticUserError:
        return {}  # a type of the user's own making, which pydantic can't describe


def _members(
    schema: _Schema, whole: _Schema, depth: int, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Kind]]:
    """The columns of a type: where a value of it is, and of which kind."""
    kinds: set[Kind | None] = set()
    for choice in _choices(schema, whole):
        if depth and "properties" in choice:
            for name, declared in choice["properties"].items():
                yield from _members(declared, whole, depth - 1, (*path, name))
        else:
            kinds.add(_kind_of(choice, whole))
    if path and kinds:
        yield path, _common(kinds)
    elif not path:
        yield from (((), kind) for kind in sorted(kind for kind in kinds if kind is not None))


def _choices(schema: _Schema, whole: _Schema) -> Iterator[_Schema]:
    """What a value may be, without references, and without null."""
    if "$ref" in schema:
        yield from _choices(whole["$defs"][schema["$ref"].rpartition("/")[2]], whole)
    elif choices := schema.get("anyOf") or schema.get("oneOf"):
        for choice in choices:
            yield from _choices(choice, whole)
    elif schema.get("type") != "null":
        yield schema


def _kind_of(schema: _Schema, whole: _Schema) -> Kind | None:
    """The kind of a plain value or of a list of plain values; None for what is neither."""
    if schema.get("type") == "array":
        kinds = {_kind_of(one, whole) for one in _choices(schema.get("items", {}), whole)}
        common = _common(kinds)
        return _LISTS.get(common) if common is not Kind.TEXT or kinds == {Kind.TEXT} else None
    if "enum" in schema and "type" not in schema:
        return Kind.TEXT
    plain = _KINDS.get(schema.get("type", ""))
    return _FORMATS.get(schema.get("format", ""), plain) if plain is Kind.TEXT else plain


def _common(kinds: set[Kind | None]) -> Kind:
    """The kind that has room for all of these."""
    if len(kinds) == 1:
        return next(iter(kinds)) or Kind.TEXT
    for wide in (Kind.REAL, Kind.DECIMAL):
        if kinds == {Kind.INTEGER, wide}:
            return wide
    return Kind.TEXT


def _add(found: dict[str, PayloadColumn], path: tuple[str, ...], kind: Kind) -> None:
    name = PREFIX + ("_".join(path) or f"as_{kind}")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise UsageError(
            f"the column {name!r} would have a name of more than {MAX_NAME_BYTES} bytes, which PostgreSQL cuts: name "
            "single workflows with --types MODULE:WORKFLOW"
        )
    key = name.lower()  # DuckDB takes names that differ in case alone for one
    other = found.get(key)
    if other is not None and other.path != path:
        raise UsageError(
            f"{'.'.join(other.path)} and {'.'.join(path)} would both be the column {name!r}: name single workflows "
            "with --types MODULE:WORKFLOW"
        )
    found[key] = PayloadColumn(name, path, kind if other is None else _common({kind, other.kind}))

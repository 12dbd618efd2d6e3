"""Columns of payloads, from the types that workflows and steps declare: `payload_total` for a result's field `total`.

    @workflow
    def checkout(order: Order, express: bool) -> Receipt: ...      @step
                                                                   def charge(order: Order) -> Charge: ...

    payload_order_total, payload_express       the input: each argument, or each field of one that is a model
    payload_receipt_id, payload_cents          results of workflows and steps: each field of a model

What is deeper, or of several types, is JSON text. A name that two types use in different ways is text as well.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError

from refold.engine.annotations import UNDECLARED
from refold.engine.payload import PayloadType
from refold.engine.step_definitions import AsyncStep, SyncStep
from refold.log.errors import UsageError
from refold.log.event_columns import Kind
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


def _schema_of(type_: PayloadType[Any]) -> _Schema:
    annotation = type_.annotation
    if annotation is UNDECLARED:
        return {}
    try:
        # No checker can say what an annotation that is known at run time stands for.
        return TypeAdapter[Any](cast("Any", annotation)).json_schema(mode="serialization")
    except PydanticUserError:
        return {}  # a type of the user's own making, which pydantic can't describe


def _members(schema: _Schema, whole: _Schema, depth: int) -> Iterator[tuple[tuple[str, ...], Kind]]:
    for name, declared in _plain(schema, whole).get("properties", {}).items():
        member = _plain(declared, whole)
        if depth > 1 and "properties" in member:
            for path, kind in _members(member, whole, depth - 1):
                yield (name, *path), kind
        else:
            yield (name,), _kind_of(member)


def _plain(schema: _Schema, whole: _Schema) -> _Schema:
    """A schema without references, and without what says only that it may be null."""
    while True:
        choices = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
        if len(choices) == 1:
            (schema,) = choices
        elif "$ref" in schema:
            schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
        else:
            return schema


def _kind_of(schema: _Schema) -> Kind:
    choices = {_kind_of(one) for one in schema.get("anyOf", ()) if one.get("type") != "null"}
    if choices:
        return _common(choices)
    if schema.get("format") == "date-time":
        return Kind.TIME
    return _KINDS.get(schema.get("type", ""), Kind.TEXT)


def _common(kinds: set[Kind]) -> Kind:
    if len(kinds) == 1:
        return next(iter(kinds))
    return Kind.REAL if kinds == {Kind.INTEGER, Kind.REAL} else Kind.TEXT


def _add(found: dict[str, PayloadColumn], path: tuple[str, ...], kind: Kind) -> None:
    name = PREFIX + "_".join(path)
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

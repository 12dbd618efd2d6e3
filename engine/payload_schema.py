"""How a declared type becomes JSON and comes back: pydantic's schema for it, made strict about losing anything.

pydantic's schemas are for APIs, where a value that is turned into text for good is fine. Here it has to come back. So,
in the schema of every type, at every depth:

1. `Any`, `object` and missing parameters (`list`, `dict`) take plain JSON values only. By default a `datetime`
   there would become a string and stay one.
2. Bytes are base64, and NaN and infinities are the strings "NaN", "Infinity", "-Infinity" (as in the JSON mapping of
   Protocol Buffers), where a model's own configuration says nothing else. By default bytes that are no UTF-8 fail, and
   NaN becomes null, which an optional field takes back as None.
3. Sets are written in the order of their elements' JSON. Python's order differs from one process to the next.
4. Secrets (`SecretStr`) are refused. By default they become asterisks, and stay asterisks.
5. `Iterable[T]` takes a collection and gives a list. By default it gives an iterator that is empty when read again.
"""

import json
from collections.abc import Callable, Collection, Mapping
from typing import cast

from pydantic import Secret, SecretBytes, SecretStr, TypeAdapter
from pydantic_core import (
    CoreConfig,
    CoreSchema,
    PydanticCustomError,
    SchemaSerializer,
    SchemaValidator,
    core_schema,
)

_CONFIG = CoreConfig(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings")

_CONFIGURED = ("model", "dataclass", "typed-dict")
"""Kinds of schema with a configuration of their own, for which the outer one is not looked at."""

_INSTANCES = ("model", "dataclass")
"""Kinds of schema whose values are instances, which validation takes as they are, without looking into them."""

_OPAQUE = ("default", "metadata", "expected", "config", "cls", "function")
"""Keys whose values are the user's objects and no schemas."""

_NO_COLLECTION: tuple[type[object], ...] = (str, bytes, Mapping)
"""What can be iterated over and is not meant by a declared `Iterable`."""

_MAX_DEPTH = 200
"""Below pydantic-core's own limit, so that the message can say where the nesting is."""


def build(annotation: object) -> tuple[SchemaValidator, SchemaSerializer]:
    """The validator and the serializer of a type.

    Raises:
        pydantic.errors.PydanticUserError: The type has no JSON form.
    """
    schema = TypeAdapter[object](cast("type[object]", annotation)).core_schema
    # Models come with a validator and a serializer built beforehand, by the rules above or not: build ours anew.
    return (
        SchemaValidator(_rewritten(schema, _for_reading), _CONFIG, _use_prebuilt=False),
        SchemaSerializer(_rewritten(schema, _for_writing), _CONFIG, _use_prebuilt=False),
    )


Node = dict[str, object]
Change = Callable[[Node], Node]


def _rewritten(schema: CoreSchema, change: Change) -> CoreSchema:
    return cast("CoreSchema", _walk(schema, change))


def _walk(node: object, change: Change) -> object:
    if isinstance(node, dict):
        items = cast("Node", node).items()
        if change is _for_writing and cast("Node", node).get("type") in _INSTANCES:
            change = _for_writing_instances
        copied = {key: value if key in _OPAQUE else _walk(value, change) for key, value in items}
        return change(_configured(copied)) if isinstance(copied.get("type"), str) else copied
    if isinstance(node, list):
        return [_walk(item, change) for item in cast("list[object]", node)]
    if isinstance(node, tuple):  # a choice of a union with its label
        return tuple(_walk(item, change) for item in cast("tuple[object, ...]", node))
    return node


def _configured(node: Node) -> Node:
    if node["type"] in _CONFIGURED:
        own = cast("Mapping[str, object]", node.get("config") or {})
        return {**node, "config": {**_CONFIG, **own}}
    return node


def _for_reading(node: Node) -> Node:
    match node["type"]:
        case "any":
            return _replaced(node, _PLAIN)
        case "dict":
            return _with_plain_keys(node)
        case "generator":
            items = cast("CoreSchema", node.get("items_schema", _PLAIN))
            listed = core_schema.list_schema(items)
            return _replaced(
                node,
                core_schema.json_or_python_schema(
                    json_schema=listed,
                    python_schema=core_schema.no_info_before_validator_function(_as_list, listed),
                ),
            )
        case _:
            return node


def _for_writing(node: Node) -> Node:
    match node["type"]:
        case "set" | "frozenset" if "serialization" not in node:
            ordered = core_schema.wrap_serializer_function_ser_schema(_in_order)
            return {**node, "serialization": ordered}
        case "generator":
            return {**node, "type": "list"}
        case "json-or-python" if "serialization" in node and _holds_secret(node):
            refused = core_schema.plain_serializer_function_ser_schema(_refuse_secret)
            return {**node, "serialization": refused}
        case _:
            return node


def _for_writing_instances(node: Node) -> Node:
    """Within an instance, what validation would have refused is found when it is written."""
    match node["type"]:
        case "any" if "serialization" not in node:
            checked = core_schema.wrap_serializer_function_ser_schema(_write_plain)
            return {**node, "serialization": checked}
        case "dict" if "serialization" not in node and _with_plain_keys(node) is not node:
            checked = core_schema.wrap_serializer_function_ser_schema(_write_plain_keys)
            return {**node, "serialization": checked}
        case _:
            return _for_writing(node)


def _replaced(node: Node, by: CoreSchema) -> Node:
    """`by` in the place of `node`, under the name that other places of the schema refer to it with."""
    name = {"ref": node["ref"]} if "ref" in node else {}
    return {**by, **name}


def _with_plain_keys(node: Node) -> Node:
    """Keys of a dict that are declared `Any` are strings: JSON has no others, and nothing says what to make of them."""
    keys = cast("Node", node.get("keys_schema", _ANY))
    is_any = keys == _PLAIN or keys.get("type") == "any"
    return {**node, "keys_schema": core_schema.str_schema()} if is_any else node


def _in_order(value: object, handler: core_schema.SerializerFunctionWrapHandler) -> list[object]:
    items = cast("list[object]", handler(value))
    return sorted(items, key=_order)


def _order(item: object) -> str:
    return json.dumps(item, sort_keys=True)


def _holds_secret(node: Node) -> bool:
    """Whether `node` is the schema of a secret itself; one with a serializer of the user's own has that further out."""
    choices = cast("Node", node["python_schema"]).get("choices")
    first = cast("list[object]", choices)[0] if isinstance(choices, list) and choices else None
    kind = cast("Node", first).get("cls") if isinstance(first, dict) else None
    return isinstance(kind, type) and issubclass(kind, Secret | SecretBytes | SecretStr)


def _refuse_secret(value: object) -> object:
    msg = (
        f"a {_kind(value)} would be recorded as asterisks, and a log is no place for a secret; pass the name that it "
        f"is found by, or give its field a serializer"
    )
    raise ValueError(msg)


def _as_list(value: object) -> object:
    if isinstance(value, _NO_COLLECTION) or not isinstance(value, Collection):
        return value  # what is wrong is the list's own validator's to say
    return list(cast("Collection[object]", value))


def _plain(value: object) -> object:
    _require_plain(value, "", 0)
    return value


def _require_plain(value: object, path: str, depth: int) -> None:
    if value is None or isinstance(
        value, str | int
    ):  # bool is an int; an enum of these writes its value
        return
    if isinstance(value, float):
        if (
            value - value != 0.0
        ):  # not finite: NaN and the infinities are no number away from themselves
            raise _not_plain(path, f"{value} has no JSON form; declare the type (float) to keep it")
        return
    if depth > _MAX_DEPTH:
        raise _not_plain(path[:80], f"is nested more than {_MAX_DEPTH} deep, or contains itself")
    if isinstance(value, list | tuple):
        for index, item in enumerate(cast("Collection[object]", value)):
            _require_plain(item, f"{path}[{index}]", depth + 1)
    elif isinstance(value, dict):
        for key, item in cast("dict[object, object]", value).items():
            _require_plain_key(key, path)
            _require_plain(item, f"{path}[{key!r}]", depth + 1)
    else:
        raise _not_plain(
            path,
            f"is of type {_kind(value)}, which is no plain JSON value, and no type is declared for it",
        )


def _write_plain(value: object, handler: core_schema.SerializerFunctionWrapHandler) -> object:
    _require_plain(value, "", 0)
    return handler(value)


def _write_plain_keys(
    value: Mapping[object, object], handler: core_schema.SerializerFunctionWrapHandler
) -> object:
    for key in value:
        _require_plain_key(key, "")
    return handler(value)


def _require_plain_key(key: object, path: str) -> None:
    if not isinstance(key, str):
        raise _not_plain(path, f"has a key of type {_kind(key)}; JSON's keys are strings")


def _kind(value: object) -> str:
    return type(value).__qualname__


def _not_plain(path: str, problem: str) -> PydanticCustomError:
    # The text goes in as a value: pydantic would take braces in a template for fields.
    return PydanticCustomError("plain_json", "{problem}", {"problem": f"{path} {problem}".strip()})


_ANY: CoreSchema = core_schema.any_schema()
_PLAIN: CoreSchema = core_schema.json_or_python_schema(
    json_schema=core_schema.any_schema(),
    python_schema=core_schema.no_info_plain_validator_function(_plain),
)

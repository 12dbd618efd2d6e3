"""Which fields of a payload are personal: only those are encrypted, and the rest stays readable for analytics.

A rule is the name of a JSON member, or the end of a path of names: `email` is every member of that name,
`customer.name` the `name` in every `customer`. Lists are looked through. The whole value of a member is encrypted,
whatever it is.
"""

import json
from collections.abc import Callable
from typing import Any, Final, cast

from pydantic import TypeAdapter

from refold.log.envelope import FIELD, MARK
from refold.log.errors import UsageError

_PERSONAL: Final = "x-refold-personal"


class Personal:
    """Marks a field as personal: `email: Annotated[str, Personal()]`; `personal_fields` finds those so marked."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: Callable[[Any], Any]) -> Any:
        """Tell it in the type's JSON schema."""
        return {**handler(schema), _PERSONAL: True}


class Redaction:
    """Rules that name fields.

    Args:
        rules: Names of members, or ends of paths, as in `customer.name`.

    Raises:
        UsageError: A rule is empty.
    """

    def __init__(self, *rules: str) -> None:
        self._rules: dict[str, list[tuple[str, ...]]] = {}
        for rule in rules:
            path = tuple(rule.split("."))
            if not all(path):
                raise UsageError(
                    f"{rule!r} is no rule: give a member's name, or names joined by dots"
                )
            self._rules.setdefault(path[-1], []).append(path)

    def covers(self, path: tuple[str, ...]) -> bool:
        """Whether the member at the end of a path of names is personal."""
        rules = self._rules.get(path[-1])
        return rules is not None and any(path[-len(rule) :] == rule for rule in rules)

    def apply(self, text: str, enclose: Callable[[str], str]) -> str | None:
        """A payload with its personal fields encrypted: JSON that begins with a space; as it was where it has none.

        Args:
            text: JSON.
            enclose: Gives the envelope for the JSON of a field.

        Returns:
            None where it can't be told apart from one with encrypted fields: it has to be encrypted as a whole.
        """
        if MARK in text:
            return None
        found = False

        def walked(value: object, path: tuple[str, ...]) -> object:
            nonlocal found
            if isinstance(value, list):
                return [walked(item, path) for item in cast("list[object]", value)]
            if not isinstance(value, dict):
                return value
            members: dict[str, object] = {}
            for name, member in cast("dict[str, object]", value).items():
                if self.covers((*path, name)):
                    members[name] = {FIELD: enclose(to_json(member))}
                    found = True
                else:
                    members[name] = walked(member, (*path, name))
            return members

        redacted = walked(json.loads(text), ())
        return " " + to_json(redacted) if found else text


def personal_fields(*types: type[Any]) -> tuple[str, ...]:
    """The names of the fields that are marked `Personal` in some types, for `PayloadKeys.fields`.

    Args:
        types: Models, dataclasses or other types of payloads, with all that their fields hold.

    Raises:
        UsageError: None of them has such a field.
    """
    names: set[str] = set()
    for kind in types:
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        _collect(adapter.json_schema(mode="serialization"), names)
        _collect(adapter.json_schema(mode="validation"), names)  # aliases may differ
    if not names:
        raise UsageError(
            "none of the types has a field that is marked Personal(): write Annotated[str, Personal()], or name the "
            "fields"
        )
    return tuple(sorted(names))


def to_json(value: object) -> str:
    """JSON as payloads have it: no white space, no escapes but those that have to be."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def filled_in(text: str, disclose: Callable[[str], str]) -> str:
    """A payload with encrypted fields, with what they hold in their place.

    Args:
        text: JSON.
        disclose: Gives the JSON in an envelope.
    """

    def walked(value: object) -> object:
        if isinstance(value, list):
            return [walked(item) for item in cast("list[object]", value)]
        if not isinstance(value, dict):
            return value
        members = cast("dict[str, object]", value)
        envelope = members.get(FIELD)
        if isinstance(envelope, str) and len(members) == 1:
            return json.loads(disclose(envelope))
        return {name: walked(member) for name, member in members.items()}

    return to_json(walked(json.loads(text)))


def _collect(schema: object, names: set[str]) -> None:
    """Add the names of the members that a JSON schema marks."""
    if isinstance(schema, list):
        for item in cast("list[object]", schema):
            _collect(item, names)
    elif isinstance(schema, dict):
        entries = cast("dict[str, Any]", schema)
        members = entries.get("properties")
        if isinstance(members, dict):
            names.update(
                name
                for name, member in cast("dict[str, Any]", members).items()
                if isinstance(member, dict) and _marked(cast("dict[str, Any]", member))
            )
        for entry in entries.values():
            _collect(entry, names)


def _marked(member: dict[str, Any]) -> bool:
    """Whether a member's schema, or one of its alternatives (`str | None`), carries the mark."""
    if member.get(_PERSONAL):
        return True
    return any(
        isinstance(other, dict) and _marked(cast("dict[str, Any]", other))
        for other in member.get("anyOf", ())
    )

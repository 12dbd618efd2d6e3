"""Which number stands for which schema: the four bytes after the first in every value.

A schema registry gives numbers from 1 upwards. Where there is none, refold's own are used: fixed, the same in
every installation, from a base far above what a registry reaches, so that both can be met in one log.

To publish a new version of a schema, add its file and a line to `_PUBLISHED`; lines are never changed or taken out.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple, cast

import fastavro.schema

from refold.log.errors import LogError
from refold.log.protocol import Channel

DEFAULT_BASE: Final = 1_000_000_001  # registries count from 1; int32 ends at 2_147_483_647
MAX_ID: Final = 2**31 - 1

# File under log/schemas, in the order of publication: its place here is its number above the base. A later version
# is named after its shape as well, as in "event-2".
_PUBLISHED: Final = ("event", "command", "reply")

_CHANNELS: Final = {
    "event": Channel.EVENTS,
    "command": Channel.COMMANDS,
    "reply": Channel.REPLIES,
}


class Published(NamedTuple):
    """A schema that this release, or one before it, has published.

    Args:
        id: Its default number.
        name: Its file under log/schemas, without the suffix.
        shape: event, command or reply.
        version: 1, 2, ... among those of its shape.
    """

    id: int
    name: str
    shape: str
    version: int

    @property
    def text(self) -> str:
        """The schema, as the JSON text that ships with refold."""
        return schema_text(self.name)

    def subject(self, namespace: str) -> str:
        """What a registry calls it: the topic's name and "-value" (Confluent's TopicNameStrategy)."""
        return f"{namespace}.{_CHANNELS[self.shape]}-value"


@cache
def published() -> tuple[Published, ...]:
    """Every schema that this release knows, in the order of publication."""
    found: list[Published] = []
    for place, name in enumerate(_PUBLISHED):
        shape = name.partition("-")[0]
        version = 1 + sum(one.shape == shape for one in found)
        found.append(Published(DEFAULT_BASE + place, name, shape, version))
    return tuple(found)


def current() -> tuple[Published, ...]:
    """The schemas that this release writes: the newest of each shape."""
    return tuple({one.shape: one for one in published()}.values())


def published_like(text: str) -> Published | None:
    """The published schema that bytes written by `text` can be read with; None where there is none.

    Two schemas write the same bytes where they have one parsing canonical form: what a registry leaves out, adds or
    orders anew (documentation, defaults, white space) does not count.
    https://avro.apache.org/docs/1.12.0/specification/#parsing-canonical-form-for-schemas
    """
    form = _canonical(text)
    return None if form is None else _by_form().get(form)


@cache
def _by_form() -> Mapping[str | None, Published]:
    return {_canonical(one.text): one for one in published()}


def _canonical(text: str) -> str | None:
    """The parsing canonical form; None for what is not an Avro schema that stands for itself."""
    try:
        return fastavro.schema.to_parsing_canonical_form(cast("dict[str, Any]", json.loads(text)))
    except Exception:  # noqa: BLE001  # what is no schema raises whatever the line that it led to raises
        return None


@dataclass(frozen=True, slots=True)
class SchemaIds:
    """The numbers to write. What is read may also carry the default ones.

    Args:
        event: Number of the schema of events.
        command: Number of the schema of commands.
        reply: Number of the schema of replies.

    Raises:
        LogError: The numbers are not three different ones between 0 and 2**31 - 1.
    """

    event: int = DEFAULT_BASE
    command: int = DEFAULT_BASE + 1
    reply: int = DEFAULT_BASE + 2

    def __post_init__(self) -> None:
        ids = (self.event, self.command, self.reply)
        if len(set(ids)) != len(ids) or min(ids) < 0 or max(ids) > MAX_ID:
            raise LogError(
                f"schema ids {ids} of events, commands and replies can't be used: "
                f"give three different numbers from 0 to {MAX_ID}"
            )

    def readable(self) -> Mapping[int, str]:
        """Number -> name of the published schema, for every number that may be met in the log."""
        default = {one.id: one.shape for one in published()}
        return default | {self.event: "event", self.command: "command", self.reply: "reply"}


@cache
def schema_text(name: str) -> str:
    """The published schema `event`, `command` or `reply`, as the JSON text that ships with refold."""
    return (files("refold.log") / "schemas" / f"{name}.avsc").read_text(encoding="utf-8")


def schema_of(name: str) -> dict[str, object]:
    """The published schema `event`, `command` or `reply`, as parsed JSON; the caller's own copy."""
    parsed: dict[str, object] = json.loads(schema_text(name))
    return parsed

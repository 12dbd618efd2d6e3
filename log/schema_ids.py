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
from typing import Final

from refold.log.errors import LogError

DEFAULT_BASE: Final = 1_000_000_001  # registries count from 1; int32 ends at 2_147_483_647
MAX_ID: Final = 2**31 - 1

# File under log/schemas, in the order of publication: its place here is its number above the base.
_PUBLISHED: Final = ("event", "command", "reply")


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

    @classmethod
    def from_base(cls, base: int) -> "SchemaIds":
        """Numbers from `base` on, for where the default ones are taken by somebody else's schemas."""
        return cls(event=base, command=base + 1, reply=base + 2)

    def readable(self) -> Mapping[int, str]:
        """Number -> name of the published schema, for every number that may be met in the log."""
        default = {DEFAULT_BASE + place: name for place, name in enumerate(_PUBLISHED)}
        return default | {self.event: "event", self.command: "command", self.reply: "reply"}


@cache
def schema_text(name: str) -> str:
    """The published schema `event`, `command` or `reply`, as the JSON text that ships with refold."""
    return (files("refold.log") / "schemas" / f"{name}.avsc").read_text(encoding="utf-8")


def schema_of(name: str) -> dict[str, object]:
    """The published schema `event`, `command` or `reply`, as parsed JSON; the caller's own copy."""
    parsed: dict[str, object] = json.loads(schema_text(name))
    return parsed

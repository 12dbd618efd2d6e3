"""History that is copied into a fork or a reopened run: as text, and back.

A copy comes in parts, each the payload of one `HistoryCopied` event: a JSON array of objects. An object with `kind`
is an outcome, with the fields of its event under their own names; those with `value`, `child`, `seen` or `numbering`
hold what else a run keeps beside its outcomes.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast, get_args

from refold.engine.operations import Answered, Emitted, Input, Numbering, Outcome
from refold.log.errors import LogCorrupt
from refold.log.events import ChildRequested, ValuePublished

PART_BYTES: Final = 200_000
"""Size at which a part is full: well below the largest record of any log."""
IDS_TOGETHER: Final = 200
"""Ids of messages in one object: 50 kB at most."""

_CLASSES: Final = {
    cls.kind: cls for cls in (*get_args(Answered), *get_args(Input), ValuePublished, ChildRequested)
}


@dataclass(slots=True)
class Copied:
    """What a fork or a reopened run begins with.

    Args:
        outcomes: What its code is told, in order.
        numbering: How its operations are numbered; None in parts that do not say.
        next_step: A number that none of them has.
        patches: Changes of code whose new path it takes.
        streams: Next index of each stream.
        values: Published values by key.
        children: Children that have not ended, by operation number.
        seen: Ids of messages that have come.
        tags: Its tags, where its code had set some.
    """

    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    numbering: Numbering | None = None
    next_step: int = 0
    patches: list[str] = field(default_factory=list[str])
    streams: dict[str, int] = field(default_factory=dict[str, int])
    values: dict[str, ValuePublished] = field(default_factory=dict[str, ValuePublished])
    children: dict[int, ChildRequested] = field(default_factory=dict[int, ChildRequested])
    seen: list[str] = field(default_factory=list[str])
    tags: dict[str, str] | None = None


def parts_of(copied: Copied) -> list[str]:
    """The payloads of the parts, in order; at least one."""
    parts: list[str] = []
    objects: list[str] = []
    size = 0
    for text in _texts(copied):
        length = len(text.encode())
        if objects and size + length > PART_BYTES:
            parts.append(_array(objects))
            objects, size = [], 0
        objects.append(text)
        size += length
    parts.append(_array(objects))
    return parts


def _texts(copied: Copied) -> Iterator[str]:
    """All objects of all parts, each small enough to share a part with others."""
    numbering = copied.numbering or Numbering()
    yield _text(
        {
            "numbering": {"base": numbering.base, "jumps": numbering.jumps},
            "next_step": copied.next_step,
            "patches": copied.patches,
            "streams": copied.streams,
            "tags": copied.tags,
        }
    )
    for value in copied.values.values():
        yield _text({"value": _to_json(value)})
    for child in copied.children.values():
        yield _text({"child": _to_json(child)})
    for first in range(0, len(copied.seen), IDS_TOGETHER):
        yield _text({"seen": copied.seen[first : first + IDS_TOGETHER]})
    for outcome in copied.outcomes:
        yield _text(_to_json(outcome))


def _text(entry: Mapping[str, object]) -> str:
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":"))


def read_copied(payload: str) -> Copied:
    """What a part holds.

    Raises:
        LogCorrupt: It is not what `parts_of` writes.
    """
    copied = Copied()
    try:
        for entry in json.loads(payload):
            if "kind" in entry:
                copied.outcomes.append(cast(Outcome, _from_json(entry)))
            else:
                _take_rest(copied, entry)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LogCorrupt(f"a copied history can't be read: {error!r}") from error
    return copied


def _take_rest(copied: Copied, entry: Mapping[str, Any]) -> None:
    if "value" in entry:
        published = cast(ValuePublished, _from_json(entry["value"]))
        copied.values[published.name] = published
    elif "child" in entry:
        requested = cast(ChildRequested, _from_json(entry["child"]))
        copied.children[requested.step] = requested
    elif "seen" in entry:
        copied.seen.extend(entry["seen"])
    else:
        base, jumps = entry["numbering"]["base"], entry["numbering"]["jumps"]
        copied.numbering = Numbering(base, tuple((at, to) for at, to in jumps))
        copied.next_step = entry["next_step"]
        copied.patches = entry["patches"]
        copied.streams = entry["streams"]
        copied.tags = entry["tags"]


def _to_json(value: Outcome | ValuePublished | ChildRequested) -> dict[str, object]:
    if isinstance(value, Emitted):
        return {**value._asdict(), "of": value.kind, "kind": "emitted"}
    names = [f.name for f in dataclasses.fields(value) if f.name != "chain"]
    return {"kind": value.kind, **{name: getattr(value, name) for name in names}}


def _from_json(entry: dict[str, Any]) -> object:
    kind = entry.pop("kind")
    if kind == "emitted":
        return Emitted(entry["step"], entry["of"], entry["name"], entry["position"])
    return _CLASSES[kind](**entry)


def _array(objects: Iterable[str]) -> str:
    return "[" + ",".join(objects) + "]"

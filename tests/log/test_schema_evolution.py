"""Each release's schemas are kept, have their number for ever, and can be read with every later one's."""

import json
from pathlib import Path
from typing import Any

import pytest

from avro_rule import can_read
from refold.log.schema_ids import current, published, published_like

GOLDEN = Path(__file__).parents[1] / "golden"
RELEASED = sorted(GOLDEN.glob("v*_*/*.avsc"))


def text_of(shape: str) -> str:
    return next(one.text for one in current() if one.shape == shape)


@pytest.mark.parametrize("released", RELEASED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_release_s_schema_is_read_by_this_one(released: Path) -> None:
    """Given what a release wrote with, this release knows its number, and its own schema reads it (BACKWARD)."""
    text = released.read_text(encoding="utf-8")
    schema = published_like(text)
    assert schema is not None, f"{released}: no line of _PUBLISHED has this schema any more"
    assert schema.shape == released.stem
    assert can_read(text_of(released.stem), text)


def test_every_release_left_its_three_schemas() -> None:
    """Given the golden logs, each has the schemas that it was written with."""
    for folder in GOLDEN.glob("v*_*"):
        found = {path.stem for path in folder.glob("*.avsc")}
        assert found == {"event", "command", "reply"}, folder


def test_published_schemas_are_backward_transitive() -> None:
    """Given all published versions of a shape, each reads what any before it wrote, not only the last."""
    for place, newer in enumerate(published()):
        for older in published()[:place]:
            if older.shape == newer.shape:
                assert can_read(newer.text, older.text), (newer.name, older.name)


def changed(change: str) -> str:
    """Today's schema of events, with a change that must not be made, or one that may be."""
    schema: dict[str, Any] = json.loads(text_of("event"))
    fields = schema["fields"]
    by_name = {field["name"]: field for field in fields}
    match change:
        case "a new nullable column":
            fields.append({"name": "new", "type": ["null", "string"], "default": None})
        case "a new column that must be filled":
            fields.append({"name": "new", "type": "string"})
        case "a renamed column":
            by_name["worker"]["name"] = "owner"
        case "another type":
            by_name["claim"]["type"] = "string"
        case "another size of the chain":
            by_name["chain"]["type"]["size"] = 64
        case _:
            raise AssertionError(change)
    return json.dumps(schema)


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        ("a new nullable column", True),
        ("a new column that must be filled", False),
        ("a renamed column", False),
        ("another type", False),
        ("another size of the chain", False),
    ],
)
def test_the_rule_finds_what_breaks_it(change: str, allowed: bool) -> None:
    """Given a change to a schema, the rule allows a nullable column and nothing that old data lacks."""
    assert can_read(changed(change), text_of("event")) is allowed


def test_the_same_schema_in_other_words_is_the_same() -> None:
    """Given a schema as a registry may give it back, without documentation and in another order, it is recognized."""
    schema: dict[str, Any] = json.loads(text_of("event"))
    del schema["doc"]
    plain = {
        "fields": [
            {name: field[name] for name in ("type", "name", "default") if name in field}
            for field in schema.pop("fields")
        ],
        **schema,
    }
    found = published_like(json.dumps(plain))
    assert found is not None
    assert found.shape == "event"


@pytest.mark.parametrize(
    "text", ['"string"', "{", "null", "[]", '{"type": "record"}', changed("another type")]
)
def test_what_is_no_schema_of_refold_is_nobodys(text: str) -> None:
    """Given another schema, or none, it is not taken for one of ours."""
    assert published_like(text) is None


def test_subjects_are_named_after_topics() -> None:
    """Given a namespace, the subject of a schema is the topic's name with -value."""
    assert [one.subject("shop") for one in current()] == [
        "shop.events-value",
        "shop.commands-value",
        "shop.replies-value",
    ]

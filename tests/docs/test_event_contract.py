"""The page that others build on says of the event's columns what the schema says."""

import json
import re
from pathlib import Path
from typing import Any

from refold.log.event_columns import EVENT_COLUMNS
from refold.projections.sink_rows import Columns

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "event-contract.md").read_text(encoding="utf-8")
SCHEMA = json.loads((ROOT / "log" / "schemas" / "event.avsc").read_text(encoding="utf-8"))
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (yes|no) \| (.+) \|$", re.MULTILINE)


def documented(column: dict[str, Any]) -> tuple[str, str, str, str]:
    """A column's row in the page, from the schema."""
    nullable = isinstance(column["type"], list)
    if nullable:
        assert column["default"] is None, column["name"]
    name = column["name"]
    return name, str(EVENT_COLUMNS[name]), "yes" if nullable else "no", column["doc"]


def test_the_page_has_every_column_of_the_schema() -> None:
    """Each column is there, in the schema's order, with its type, whether it may be null, and what it means."""
    assert ROW.findall(PAGE) == [documented(column) for column in SCHEMA["fields"]]


def test_the_page_names_what_an_export_adds() -> None:
    """Each column that a sink has besides is named in the page."""
    for name in Columns().kinds.keys() - EVENT_COLUMNS.keys():
        assert f"`{name}`" in PAGE


def test_the_first_version_s_columns_are_all_still_there() -> None:
    """Contract version 1: the columns of the first release are columns now, with the types that they had."""
    golden = ROOT / "tests" / "golden" / "v0_1" / "event.avsc"
    types = {column["name"]: column["type"] for column in SCHEMA["fields"]}
    for column in json.loads(golden.read_text(encoding="utf-8"))["fields"]:
        assert types[column["name"]] == column["type"], column["name"]

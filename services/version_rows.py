"""Open runs by the code that they are on, beside the code that is here."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from refold.engine.definitions import Catalogue
from refold.engine.reader import WorkflowInfo
from refold.engine.state import Status

UNREADABLE = "?"
"""The workflow of a run whose start can't be read."""


class Code(StrEnum):
    """How the code that is here stands to what open runs are on."""

    SAME = "same"
    CHANGED = "changed"
    MISSING = "missing"
    NEWEST = "newest"
    UNUSED = "can go"
    UNKNOWN = "?"


@dataclass(slots=True)
class VersionRow:
    """The open runs of one version of a workflow whose code had one hash at their start.

    Args:
        workflow: Name of the workflow.
        version: Version of its code.
        code_version: The code's own hash; None where it was not recorded.
        code: How the code that is here compares; UNKNOWN where none was given.
        counts: How many runs stand how.
        patches: How many runs take the new path of a change, by its name.
        oldest: When the first of them was started; None where there is none.
        ids: The runs, the oldest first.
    """

    workflow: str
    version: int
    code_version: str | None
    code: Code = Code.UNKNOWN
    counts: Counter[Status] = field(default_factory=Counter[Status])
    patches: Counter[str] = field(default_factory=Counter[str])
    oldest: datetime | None = None
    ids: list[str] = field(default_factory=list[str])

    @property
    def open(self) -> int:
        """How many runs there are."""
        return len(self.ids)

    @property
    def sort_key(self) -> tuple[str, int, str]:
        """By name, then version."""
        return self.workflow, self.version, self.code_version or ""


def rows_of(infos: Iterable[WorkflowInfo], here: Catalogue | None) -> list[VersionRow]:
    """Open runs by workflow, version and code.

    Args:
        infos: Open runs.
        here: The code to compare with; None for none.
    """
    rows: dict[tuple[str, int, str | None], VersionRow] = {}
    for info in sorted(infos, key=lambda info: info.started_at):
        key = info.workflow, info.version, info.code_version
        row = rows.get(key)
        if row is None:
            row = rows[key] = VersionRow(*key, _code(key, here), oldest=info.started_at)
        row.counts[info.status] += 1
        row.patches.update(info.patches)
        row.ids.append(info.workflow_id)
    return sorted(rows.values(), key=lambda row: row.sort_key)


def unused(rows: Sequence[VersionRow], here: Catalogue) -> list[VersionRow]:
    """The versions that are here and that no open run is on: all but the newest of a name can go."""
    used = {(row.workflow, row.version) for row in rows}
    return [
        VersionRow(
            definition.name,
            definition.version,
            definition.code_hash,
            Code.NEWEST
            if definition.version == here.versions(definition.name)[-1]
            else Code.UNUSED,
        )
        for definition in here.definitions()
        if (definition.name, definition.version) not in used
    ]


def _code(key: tuple[str, int, str | None], here: Catalogue | None) -> Code:
    workflow, version, code_version = key
    if here is None or workflow == UNREADABLE:
        return Code.UNKNOWN
    if version not in here.versions(workflow):
        return Code.MISSING
    if code_version is None:
        return Code.UNKNOWN
    same = here.find(workflow, version).code_hash == code_version
    return Code.SAME if same else Code.CHANGED

"""What workflow code can know and say of its own run: `workflow_info`, `set_attributes`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from refold.engine.emissions import emission
from refold.engine.scope import datetime_of, workflow_scope
from refold.log.attributes import (
    MAX_TAGS,
    Tag,
    decode_attributes,
    encode_attributes,
    refuse_reserved,
)
from refold.log.errors import PayloadError

CONTINUE_SUGGESTED_AT: Final = 10_000
"""Outcomes. A history of that length is replayed in a tenth of a second: long before it hurts, as code that asks for
the suggestion may take its time to come to it."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a run knows of itself.

    Args:
        id: Its id.
        workflow: Name of its workflow.
        version: Version of its code.
        started_at: When it was started, or last continued as new; UTC.
        deadline: When it will be cancelled, UTC; None for never.
        parent_id: The workflow that started it as a child; None where a client did.
        attributes: Its tags.
        history_length: How many outcomes it has been told since then: what a replay has to tell it again.
        continue_suggested: Whether that is so long that it should continue as new.
    """

    id: str
    workflow: str
    version: int
    started_at: datetime
    deadline: datetime | None
    parent_id: str | None
    attributes: Mapping[str, Tag]
    history_length: int
    continue_suggested: bool


def workflow_info() -> RunInfo:
    """What the calling workflow knows of itself. The same on replay.

    Raises:
        UsageError: The caller is no workflow code.
    """
    scope = workflow_scope("workflow_info()", "a step has step_context(), a client has handles")
    facts = scope.facts
    return RunInfo(
        id=facts.workflow_id,
        workflow=facts.workflow,
        version=facts.version,
        started_at=datetime_of(facts.started_at),
        deadline=None if facts.deadline is None else datetime_of(facts.deadline),
        parent_id=facts.parent_id,
        attributes=decode_attributes(facts.attributes),
        history_length=scope.told,
        continue_suggested=scope.told >= CONTINUE_SUGGESTED_AT,
    )


def set_attributes(tags: Mapping[str, Tag]) -> None:
    """Set some of the run's tags, by which it can be found; those not named stay as they are.

    Returns at once, in `def` and `async def` workflows.

    Args:
        tags: Names and values: strings, numbers, bools, and datetimes with a time zone.

    Raises:
        PayloadError: A name or value can't be a tag, or there would be too many. Nothing was set.
        UsageError: The caller is no workflow code.
    """
    scope = workflow_scope("set_attributes()", "return the tags to the workflow and set them there")
    refuse_reserved(tags)
    attributes = encode_attributes(tags)
    if not attributes:
        return
    if len({**scope.facts.attributes, **attributes}) > MAX_TAGS:
        raise PayloadError(
            f"workflow {scope.workflow_id!r} would have more than {MAX_TAGS} attributes: keep those that you search"
            " by, and publish the others"
        )
    scope.emit(emission("attributes.set", "attributes", attributes=attributes))

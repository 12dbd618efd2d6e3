"""Which runs: the filter for lists and for orders that are given to many runs at once."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from refold.engine.reader import WorkflowInfo
from refold.engine.state import Status
from refold.log.attributes import RESERVED, Tag, decode_attributes, encode_attributes
from refold.log.errors import PayloadError, UsageError


@dataclass(frozen=True)
class Runs:
    """A filter: the runs for which everything holds that is given.

    Args:
        status: How they stand: one status or several; any where not given. Texts such as "failed" are taken as well.
        workflow: Name of their workflow.
        version: Version of their code.
        attributes: Tags that they have, with these values: a number is found by a number of the same type.
        reason: A text that stands in the reason why they are parked.
        started_after: They were started then or later; with a time zone.
        started_before: They were started before that; with a time zone.
        queue: The queue in which they waited or wait for their turn.

    Raises:
        UsageError: A part of it can't be what is searched for; the message names it.
    """

    status: Status | Collection[Status] | None = None
    workflow: str | None = None
    version: int | None = None
    attributes: Mapping[str, Tag] = field(default_factory=dict[str, Tag])
    reason: str | None = None
    started_after: datetime | None = None
    started_before: datetime | None = None
    queue: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", _statuses(self.status))
        try:
            tags = decode_attributes(encode_attributes(self.attributes))
        except PayloadError as error:
            raise UsageError(f"no run can be found by these attributes: {error}") from error
        object.__setattr__(self, "attributes", tags)
        for name, time in (
            ("started_after", self.started_after),
            ("started_before", self.started_before),
        ):
            if time is not None and time.utcoffset() is None:
                raise UsageError(
                    f"{name} is {time.isoformat()}, which has no time zone: give it one, "
                    "for example tzinfo=datetime.UTC"
                )

    def matches(self, info: WorkflowInfo) -> bool:
        """Whether a run is among them."""
        return (
            ((wanted := _statuses(self.status)) is None or info.status in wanted)
            and (self.workflow is None or info.workflow == self.workflow)
            and (self.version is None or info.version == self.version)
            and self.queue in {None, info.queue}
            and (self.reason is None or self.reason in (info.reason or ""))
            and (self.started_after is None or info.started_at >= self.started_after)
            and (self.started_before is None or info.started_at < self.started_before)
            and all(_is_tagged(info, name, value) for name, value in self.attributes.items())
        )

    def among(self, infos: Iterable[WorkflowInfo]) -> list[WorkflowInfo]:
        """Those of `infos` that match, in their order."""
        return [info for info in infos if self.matches(info)]


def meant(where: Runs, infos: Iterable[WorkflowInfo]) -> list[WorkflowInfo]:
    """Those that an order to many is for: refold's own, as schedules have, only where their workflow is named."""
    named = where.workflow is not None
    return [i for i in where.among(infos) if named or not i.workflow.startswith(RESERVED)]


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What an order to many runs came to for one of them.

    Args:
        id: The run.
        done: Whether the order was carried out; False for all in a dry run.
        error: Why it was not; None where it was, or in a dry run.
        fork_id: The new run, where it was forked.
    """

    id: str
    done: bool
    error: str | None = None
    fork_id: str | None = None


def _statuses(status: Status | Collection[Status] | None) -> frozenset[Status] | None:
    if status is None:
        return None
    given = [status] if isinstance(status, str) else list(status)
    try:
        return frozenset(Status(name) for name in given)
    except ValueError as error:
        raise UsageError(f"{error}: a run is one of {', '.join(Status)}") from error


def _is_tagged(info: WorkflowInfo, name: str, value: Tag) -> bool:
    found = info.attributes.get(name)
    return type(found) is type(value) and found == value

"""The runs that a list asks for: from the workflows read model where it has all that is in the log, else from the fold.

Both answer the same; the read model does so without reading the log, and alone knows the errors with which runs ended.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol, get_args

from refold.engine.reader import WorkflowInfo, read_all
from refold.engine.selection import Runs
from refold.engine.state import Status
from refold.log.attributes import encode_attributes
from refold.log.errors import UsageError
from refold.log.protocol import Log
from refold.projections.target import TargetError
from refold.projections.workflows_counts import RunGroup
from refold.projections.workflows_filter import RunFilter
from refold.projections.workflows_order import NO_DURATION, NO_END, Key, place_after, place_of
from refold.projections.workflows_view import WorkflowsView, open_view
from refold.services.read_model import info_of, is_of, records_behind, views_of
from refold.services.spans import microseconds
from refold.services.terminal import counted, note

ALL_AT_ONCE = 10_000
"""Runs in one question, where all are wanted."""
_BY_ATTRIBUTE = "attribute:"

ENDED = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.TERMINATED})


class Sort(StrEnum):
    """Orders of a list."""

    STARTED = "started"
    UPDATED = "updated"
    ENDED = "ended"
    DURATION = "duration"
    ID = "id"
    WORKFLOW = "workflow"
    STATUS = "status"
    VERSION = "version"


@dataclass(frozen=True, slots=True)
class By:
    """What runs are counted by.

    Args:
        kind: A column of the list, or `attribute`.
        attribute: Its name.
    """

    kind: RunGroup | Literal["attribute"]
    attribute: str = ""

    @staticmethod
    def read(text: str) -> "By":
        """What `--by` says.

        Raises:
            UsageError: It is nothing that runs are counted by.
        """
        for kind in get_args(RunGroup):
            if text == kind:
                return By(kind)
        if text.startswith(_BY_ATTRIBUTE) and text != _BY_ATTRIBUTE:
            return By("attribute", text.removeprefix(_BY_ATTRIBUTE))
        raise UsageError(
            f"runs are not counted by {text!r}: give {', '.join(get_args(RunGroup))}, or attribute:NAME"
        )

    @property
    def title(self) -> str:
        """What the groups are, for people and programs."""
        return self.attribute or self.kind


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for.

    Args:
        where: Which runs.
        parent_id: ... that this workflow started as children.
        error: ... with this text in the error with which they ended.
        sort: In which order.
        reverse: The earliest first, or the alphabet's first.
    """

    where: Runs
    parent_id: str | None = None
    error: str | None = None
    sort: Sort = Sort.STARTED
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Some runs, how many there are in all, and where the next page begins."""

    infos: Sequence[WorkflowInfo]
    in_all: int
    next: str | None


class Listing(Protocol):
    """What answers."""

    def page(self, wanted: Wanted, limit: int, after: str | None) -> Page:
        """Some runs; `limit` 0 is all."""
        ...

    def count(self, wanted: Wanted) -> int:
        """How many they are."""
        ...

    def group(self, wanted: Wanted, by: By, limit: int = 0) -> Mapping[str, int]:
        """How many there are of each; `limit` 0 is all."""
        ...


@asynccontextmanager
async def listing(log: Log, views: str | None, *, from_log: bool) -> AsyncGenerator[Listing, None]:
    """What answers questions about an open log's runs, inside the block.

    Args:
        log: The log.
        views: Where its read model is; beside its file where not given.
        from_log: Fold the log, whatever there is.
    """
    with ExitStack() as stack:
        view = None if from_log else await view_of(stack, log, views)
        yield FoldListing(await read_all(log)) if view is None else ViewListing(view)


async def view_of(stack: ExitStack, log: Log, views: str | None) -> WorkflowsView | None:
    """The read model of an open log, if there is one that has all that is in it; what it is instead is told.

    Args:
        stack: Closes it.
        log: The log.
        views: Where it is; beside the log's file where not given.
    """
    place = views_of(log, views)
    if place is None:
        return None
    try:
        view = stack.enter_context(open_view(place, namespace=log.namespace))
        if not is_of(view, log):
            note("the read model is another log's: reading the log instead")
            return None
        behind = await records_behind(view, log)
    except TargetError as error:
        note(f"reading the log instead of the read model: {error}")
        return None
    if behind:
        note(
            f"the read model is {counted(behind, 'record')} behind (is `refold project` running?): reading the log "
            "instead"
        )
        return None
    return view


class FoldListing:
    """Answers from runs that were folded.

    Args:
        infos: All runs.
    """

    def __init__(self, infos: Sequence[WorkflowInfo]) -> None:
        self._infos = infos

    def page(self, wanted: Wanted, limit: int, after: str | None) -> Page:
        """See `Listing`."""
        key = _key_of(wanted.sort)
        found = sorted(self._among(wanted), key=key, reverse=not wanted.reverse)
        in_all = len(found)
        if after is not None:
            last = place_after(after, wanted.sort.value)
            found = [i for i in found if (key(i) > last if wanted.reverse else key(i) < last)]
        shown = found[:limit] if limit else found
        more = len(shown) < len(found)
        following = place_of(wanted.sort.value, key(shown[-1])) if more else None
        return Page(shown, in_all, following)

    def count(self, wanted: Wanted) -> int:
        """See `Listing`."""
        return len(self._among(wanted))

    def group(self, wanted: Wanted, by: By, limit: int = 0) -> Mapping[str, int]:
        """See `Listing`."""
        if by.kind == "error_type":
            raise _only_the_read_model("--by error_type")
        keys = (_group_of(info, by) for info in self._among(wanted))
        counts = Counter(key for key in keys if key is not None)
        if by.kind == "day":
            ordered = sorted(counts.items(), reverse=True)
        else:
            ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return dict(ordered[: limit or None])

    def _among(self, wanted: Wanted) -> list[WorkflowInfo]:
        if wanted.error is not None:
            raise _only_the_read_model("--error")
        found = wanted.where.among(self._infos)
        if wanted.parent_id is not None:
            found = [info for info in found if info.parent_id == wanted.parent_id]
        return found


class ViewListing:
    """Answers from the read model."""

    def __init__(self, view: WorkflowsView) -> None:
        self._view = view

    def page(self, wanted: Wanted, limit: int, after: str | None) -> Page:
        """See `Listing`."""
        where = _filter(wanted)
        infos: list[WorkflowInfo] = []
        while True:
            page = self._view.runs(
                where,
                order=wanted.sort.value,
                descending=not wanted.reverse,
                limit=limit or ALL_AT_ONCE,
                after=after,
            )
            infos.extend(map(info_of, page.runs))
            if limit or page.next is None:
                break
            after = page.next
        in_all = len(infos) if page.next is None and after is None else self._view.count(where)
        return Page(infos, in_all, page.next)

    def count(self, wanted: Wanted) -> int:
        """See `Listing`."""
        return self._view.count(_filter(wanted))

    def group(self, wanted: Wanted, by: By, limit: int = 0) -> Mapping[str, int]:
        """See `Listing`."""
        where = _filter(wanted)
        if by.kind == "attribute":
            return self._view.group_by_attribute(by.attribute, where, limit=limit or None)
        return self._view.group(by.kind, where, limit=limit or None)


def _filter(wanted: Wanted) -> RunFilter:
    """The same runs, as the read model is asked for: it has one text for a run's error and for why it is parked."""
    where, status, error = wanted.where, wanted.where.status, wanted.error
    statuses = None if status is None else [str(one) for one in Status if one in status]
    if where.reason is not None:
        if error is not None:
            raise UsageError(
                "--reason is for parked runs and --error for those that ended: give one"
            )
        error = where.reason
        parked = statuses is None or Status.PARKED in statuses
        statuses = [Status.PARKED.value] if parked else []
    return RunFilter(
        status=statuses,
        workflow=where.workflow,
        version=where.version,
        queue=where.queue,
        parent_id=wanted.parent_id,
        attributes=where.attributes,
        error=error,
        started_after=where.started_after,
        started_before=where.started_before,
    )


def _only_the_read_model(option: str) -> UsageError:
    return UsageError(
        f"{option} is answered by the read model alone: `refold project` keeps one, `refold project --once` makes it "
        "now, or brings it up to date"
    )


def _ended(info: WorkflowInfo) -> int:
    return microseconds(info.updated_at) if info.status in ENDED else NO_END


def _duration(info: WorkflowInfo) -> int:
    if info.status not in ENDED:
        return NO_DURATION
    return microseconds(info.updated_at) - microseconds(info.started_at)


_VALUES: Mapping[Sort, Callable[[WorkflowInfo], Key]] = {
    Sort.STARTED: lambda info: (microseconds(info.started_at),),
    Sort.UPDATED: lambda info: (microseconds(info.updated_at),),
    Sort.ENDED: lambda info: (_ended(info),),
    Sort.DURATION: lambda info: (_duration(info),),
    Sort.ID: lambda _: (),
    Sort.WORKFLOW: lambda info: (info.workflow, microseconds(info.started_at)),
    Sort.STATUS: lambda info: (info.status.value, microseconds(info.started_at)),
    Sort.VERSION: lambda info: (info.version, microseconds(info.started_at)),
}


def _key_of(sort: Sort) -> Callable[[WorkflowInfo], Key]:
    values = _VALUES[sort]
    return lambda info: (*values(info), info.workflow_id)


def _group_of(info: WorkflowInfo, by: By) -> str | None:
    match by.kind:
        case "status":
            return info.status.value
        case "workflow":
            return info.workflow
        case "version":
            return str(info.version)
        case "day":
            return str(info.started_at.date())
        case "parent":
            return info.parent_id
        case "queue":
            return info.queue
        case _:
            return encode_attributes(info.attributes).get(by.attribute)

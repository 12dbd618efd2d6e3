"""Which events: by workflow id, by kind, and by what is known of their run (its workflow's name, its attributes).

An event names its workflow's id and not much else of its run. So a sieve for a workflow's name or for attributes has to
see every start, and keeps what it knows of those open runs that may pass. Of an ended run nothing is kept: the event
that reopens it says all again.

Records that can't pass are told by their key and their headers, and are not decoded: that is what a tail of few events
among many costs. Headers repeat what the record says; only something that is no worker could make them say otherwise.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any, Final, cast

from refold.log.attributes import Tag, encode_attributes
from refold.log.codec import kind_of
from refold.log.errors import PayloadError, UsageError
from refold.log.events import (
    EVENT_CLASSES,
    AttributesSet,
    CheckpointPart,
    Event,
    HistoryCopied,
    Unreadable,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowReopened,
    WorkflowStarted,
    WorkflowTerminated,
)
from refold.log.protocol import Record

KINDS: Final = tuple(cls.kind for cls in EVENT_CLASSES)

_TELLING: Final = frozenset(
    cls.kind for cls in (WorkflowStarted, WorkflowReopened, AttributesSet, HistoryCopied)
)
_ENDINGS = (WorkflowCompleted, WorkflowFailed, WorkflowCancelled, WorkflowTerminated)


class Sieve:
    """Picks events; all that is given must hold. With nothing given all pass, but for the parts of checkpoints.

    Args:
        workflow_id: Events of this run.
        workflow: Of runs of the workflow with this name.
        kinds: Of these kinds; `step` stands for all that begin with `step.`.
        attributes: Of runs that have these attributes when the event is recorded.

    Raises:
        UsageError: There is no such kind, or no run can have such attributes.
    """

    def __init__(
        self,
        *,
        workflow_id: str | None = None,
        workflow: str | None = None,
        kinds: Collection[str] = (),
        attributes: Mapping[str, Tag] | None = None,
    ) -> None:
        self.workflow_id = workflow_id
        self._workflow = workflow
        self._kinds = kinds_of(kinds)
        try:
            self._tags = encode_attributes(attributes or {})
        except PayloadError as error:
            raise UsageError(f"no run can be found by these attributes: {error}") from error
        self._known: dict[str, dict[str, str]] = {}  # attributes of open runs with the right name
        told = self._kinds | _TELLING if self.by_run and self._kinds else self._kinds
        self._headers = frozenset(("kind", kind.encode()) for kind in told)

    @property
    def by_run(self) -> bool:
        """Whether it must know of an event's run: then it has to be told of all runs from their starts on."""
        return self._workflow is not None or bool(self._tags)

    def telling(self, record: Record) -> bool:
        """Whether a record tells something about its run, as `learn` takes it."""
        return kind_of(record) in _TELLING

    def wanted(self, record: Record) -> bool:
        """Whether a workflow's record is worth decoding, as far as its key and headers say."""
        if self.workflow_id is not None and record.key != self.workflow_id:
            return False
        headers = record.headers
        return not self._headers or not headers or headers[0] in self._headers or _is_odd(record)

    def takes(self, event: Event | Unreadable) -> bool:
        """Whether an event passes. Events come in the order of their partition."""
        if self.by_run and not self._of_run(event):
            return False
        if self.workflow_id is not None and event.workflow_id != self.workflow_id:
            return False
        if isinstance(event, Unreadable):
            return not self._kinds
        return event.kind in self._kinds if self._kinds else not isinstance(event, CheckpointPart)

    def learn(self, event: Event | Unreadable) -> None:
        """Take in what an event from before the beginning says of its run."""
        self._of_run(event)

    def _of_run(self, event: Event | Unreadable) -> bool:
        """Whether an event's run is one of those, as it stands with this event."""
        id_ = event.workflow_id
        if id_ is None:
            return False
        match event:
            case WorkflowStarted() | WorkflowReopened():
                if self._workflow in {None, event.workflow}:
                    self._known[id_] = event.attributes or {}
                else:
                    self._known.pop(id_, None)
            case AttributesSet() if id_ in self._known:
                self._known[id_] = {**self._known[id_], **(event.attributes or {})}
            case HistoryCopied() if id_ in self._known:
                tags = copied_tags(event)
                self._known[id_] = self._known[id_] if tags is None else tags
            case _:
                pass
        tags = self._known.get(id_)
        if tags is None:
            return False
        if isinstance(event, _ENDINGS):
            del self._known[id_]
        return self._tags.items() <= tags.items()


def kinds_of(words: Collection[str]) -> frozenset[str]:
    """The kinds that some words mean: kinds, or families of them such as `step`.

    Raises:
        UsageError: A word means none.
    """
    found: set[str] = set()
    for word in words:
        meant = [kind for kind in KINDS if kind == word or kind.startswith(f"{word}.")]
        if not meant:
            families = ", ".join(sorted({kind.partition(".")[0] for kind in KINDS}))
            raise UsageError(
                f"there is no kind of event {word!r}: give one as in step.failed, or a whole family of {families}"
            )
        found.update(meant)
    return frozenset(found)


def copied_tags(event: HistoryCopied) -> dict[str, str] | None:
    """The attributes that a copied history brings with it; None where it says nothing of them."""
    try:
        entries = cast("list[dict[str, Any]]", json.loads(event.payload))
        return next((e["tags"] for e in entries if e.get("tags") is not None), None)
    except (ValueError, TypeError, AttributeError):  # the fold parks such a run
        return None


def _is_odd(record: Record) -> bool:
    """Whether a record's first header is not the kind that a worker writes: then only decoding tells."""
    return record.headers[0][0] != "kind"

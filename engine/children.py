"""Children: workflows that a workflow starts, on any worker, and may wait for; and cancelling other workflows.

A child's id follows from its parent's and the operation's number, so that a replay means the same child. What becomes
of a child when its parent ends is said at its start: as Temporal's parent close policy.

The keywords are typed once, in `ChildOptions`: Python can't type a call that takes a workflow's own parameters and
keywords of ours beside them (PEP 612), so there is an overload for each number of arguments, as in `Engine.start`.
"""

from collections.abc import Coroutine, Generator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypedDict, TypeVar, Unpack, get_args, overload

from refold.engine.bound import Bound, Takes0, Takes1, Takes2, Takes3, Takes4
from refold.engine.callsite import call_source
from refold.engine.definitions import Workflow, bound_of
from refold.engine.loop import LAST_DUE_US
from refold.engine.names import check_id, check_name, check_pool_of
from refold.engine.operations import CancelRequest, ChildRequest, DurableScope, MakeCall
from refold.engine.payload import PayloadType, check_size
from refold.engine.scope import async_scope, microseconds_of, sync_scope
from refold.log.attributes import Tag, encode_attributes, refuse_reserved
from refold.log.errors import UsageError
from refold.log.events import OnParentEnd
from refold.log.layout import with_pool

R = TypeVar("R")
A1 = TypeVar("A1")
A2 = TypeVar("A2")
A3 = TypeVar("A3")
A4 = TypeVar("A4")

_START_THERE: Final = "use Engine.start there, or return to the workflow and start it from there"
_CANCEL_THERE: Final = "use the cancel method of the workflow's handle"


class ChildOptions(TypedDict, total=False):
    """How a child is started; see `start_child`."""

    id: str | None
    version: int | None
    on_parent_end: OnParentEnd
    deadline: timedelta | datetime | None
    attributes: Mapping[str, Tag] | None
    queue: str | None


class Child(Generic[R]):
    """A child that was started. Made by `start_child`; `await child` gives its result."""

    def __init__(
        self, id: str, step: int, result_type: PayloadType[R], policy: OnParentEnd
    ) -> None:
        self._id = id
        self._step = step
        self._result_type = result_type
        self._policy = policy

    def __repr__(self) -> str:
        return f"<child {self._id!r}>"

    @property
    def id(self) -> str:
        """The child's id."""
        return self._id

    def __await__(self) -> Generator[Any, None, R]:
        return self.result().__await__()

    def result(self) -> Coroutine[Any, Any, R]:
        """In an `async def` workflow: wait for the child's end; its result. May be awaited more than once.

        Raises:
            UsageError: The child is detached, or the caller is not an `async def` workflow.
            WorkflowCancelled: It was cancelled.
            WorkflowTerminated: It was terminated.
            Exception: What it raised, as the same type where that can be rebuilt, else `WorkflowError`.
        """
        scope = async_scope("Child.result()", "result_sync()", _START_THERE)
        self._check_attached()
        return scope.child_end(self._step, self._result_type)

    def result_sync(self) -> R:
        """In a `def` workflow: wait for the child's end and return its result; errors as of `result`."""
        scope = sync_scope("Child.result_sync()", "result()", _START_THERE)
        self._check_attached()
        result: R = scope.child_end_sync(self._step, self._result_type)
        return result

    def cancel(self, reason: str | None = None) -> Coroutine[Any, Any, None]:
        """In an `async def` workflow: ask the child to cancel; as `cancel_workflow`."""
        return cancel_workflow(self._id, reason)

    def cancel_sync(self, reason: str | None = None) -> None:
        """In a `def` workflow: ask the child to cancel; as `cancel_workflow_sync`."""
        cancel_workflow_sync(self._id, reason)

    def _check_attached(self) -> None:
        if self._policy == "detached":
            raise UsageError(
                f"child {self._id!r} is detached: its parent never hears how it ended. Start it with"
                " on_parent_end='abandon' to wait for it and let it outlive its parent"
            )


@dataclass(frozen=True, slots=True)
class _Plan:
    """A child that is to be started; `id` is None for the one that follows from the operation's number."""

    parent_id: str
    id: str | None
    bound: Bound[Any]
    version: int | None
    policy: OnParentEnd
    attributes: dict[str, str] | None
    due_at: int | None
    queue: str | None
    source: str

    def id_of(self, step: int) -> str:
        if self.id is not None:
            return self.id
        return with_pool(f"{self.parent_id}/{step}", self.bound.workflow.pool)

    def request(self, step: int, _source: str) -> ChildRequest:
        child_id = self.id_of(step)
        check_id(child_id)
        return ChildRequest(
            step=step,
            name=self.bound.workflow.name,
            target_id=child_id,
            payload=self.bound.payload,
            version=self.version,
            policy=self.policy,
            attributes=self.attributes,
            due_at=self.due_at,
            queue=self.queue,
            source=self.source,
        )

    def child(self, step: int) -> Child[Any]:
        return Child(self.id_of(step), step, self.bound.result_type, self.policy)


@overload
def start_child(
    workflow: Bound[R], /, **options: Unpack[ChildOptions]
) -> Coroutine[Any, Any, Child[R]]: ...
@overload
def start_child(
    workflow: Takes0[R], /, **options: Unpack[ChildOptions]
) -> Coroutine[Any, Any, Child[R]]: ...
@overload
def start_child(
    workflow: Takes1[A1, R], a1: A1, /, **options: Unpack[ChildOptions]
) -> Coroutine[Any, Any, Child[R]]: ...
@overload
def start_child(
    workflow: Takes2[A1, A2, R], a1: A1, a2: A2, /, **options: Unpack[ChildOptions]
) -> Coroutine[Any, Any, Child[R]]: ...
@overload
def start_child(
    workflow: Takes3[A1, A2, A3, R], a1: A1, a2: A2, a3: A3, /, **options: Unpack[ChildOptions]
) -> Coroutine[Any, Any, Child[R]]: ...
@overload
def start_child(
    workflow: Takes4[A1, A2, A3, A4, R],
    a1: A1,
    a2: A2,
    a3: A3,
    a4: A4,
    /,
    **options: Unpack[ChildOptions],
) -> Coroutine[Any, Any, Child[R]]: ...
def start_child(
    workflow: Any,  # the overloads say what it is
    /,
    *args: object,
    id: str | None = None,
    version: int | None = None,
    on_parent_end: OnParentEnd = "cancel",
    deadline: timedelta | datetime | None = None,
    attributes: Mapping[str, Tag] | None = None,
    queue: str | None = None,
) -> Coroutine[Any, Any, Child[Any]]:
    """In an `async def` workflow: start a child and wait until its start is recorded.

    Args:
        workflow: A workflow, followed by its positional arguments; or `workflow.bind(...)` with its input.
        args: The workflow's arguments.
        id: The child's id; the parent's with `/` and the operation's number where not given.
        version: Version of its code; that of `workflow` where not given.
        on_parent_end: What becomes of it when this workflow ends or is cancelled: "cancel" cancels it, "abandon" lets
            it go on, and so does "detached", which is not to be waited for either.
        deadline: When it is cancelled: a time, or how long from `now()`. Never after this workflow's own deadline.
        attributes: The child's tags.
        queue: The queue in which it waits until it is its turn; its workflow's own where not given. A parent that waits
            for a child in its own queue holds a place of it meanwhile.

    Returns:
        The awaitable `Child`, which is awaitable itself.

    Raises:
        UsageError: An argument can't be used, or the caller is not an `async def` workflow. Nothing was started.
        PayloadError: The input does not fit the workflow's parameters, or a tag can't be recorded. Nothing was started.
        WorkflowConflict: The id belongs to a run that is no child of this operation.
        UnknownWorkflow: The worker that would run it has no such workflow.
    """
    scope = async_scope("start_child()", "start_child_sync(...)", _START_THERE)
    plan = _planned(scope, workflow, args, id, version, on_parent_end, deadline, attributes, queue)
    return _started(scope, plan)


@overload
def start_child_sync(workflow: Bound[R], /, **options: Unpack[ChildOptions]) -> Child[R]: ...
@overload
def start_child_sync(workflow: Takes0[R], /, **options: Unpack[ChildOptions]) -> Child[R]: ...
@overload
def start_child_sync(
    workflow: Takes1[A1, R], a1: A1, /, **options: Unpack[ChildOptions]
) -> Child[R]: ...
@overload
def start_child_sync(
    workflow: Takes2[A1, A2, R], a1: A1, a2: A2, /, **options: Unpack[ChildOptions]
) -> Child[R]: ...
@overload
def start_child_sync(
    workflow: Takes3[A1, A2, A3, R], a1: A1, a2: A2, a3: A3, /, **options: Unpack[ChildOptions]
) -> Child[R]: ...
@overload
def start_child_sync(
    workflow: Takes4[A1, A2, A3, A4, R],
    a1: A1,
    a2: A2,
    a3: A3,
    a4: A4,
    /,
    **options: Unpack[ChildOptions],
) -> Child[R]: ...
def start_child_sync(
    workflow: Any,  # the overloads say what it is
    /,
    *args: object,
    id: str | None = None,
    version: int | None = None,
    on_parent_end: OnParentEnd = "cancel",
    deadline: timedelta | datetime | None = None,
    attributes: Mapping[str, Tag] | None = None,
    queue: str | None = None,
) -> Child[Any]:
    """In a `def` workflow: start a child; arguments and errors as of `start_child`."""
    scope = sync_scope("start_child_sync()", "start_child(...)", _START_THERE)
    plan = _planned(scope, workflow, args, id, version, on_parent_end, deadline, attributes, queue)
    return plan.child(scope.call_sync(plan.request))


@overload
def run_child(workflow: Bound[R], /, **options: Unpack[ChildOptions]) -> Coroutine[Any, Any, R]: ...
@overload
def run_child(
    workflow: Takes0[R], /, **options: Unpack[ChildOptions]
) -> Coroutine[Any, Any, R]: ...
@overload
def run_child(
    workflow: Takes1[A1, R], a1: A1, /, **options: Unpack[ChildOptions]
) -> Coroutine[Any, Any, R]: ...
@overload
def run_child(
    workflow: Takes2[A1, A2, R], a1: A1, a2: A2, /, **options: Unpack[ChildOptions]
) -> Coroutine[Any, Any, R]: ...
@overload
def run_child(
    workflow: Takes3[A1, A2, A3, R], a1: A1, a2: A2, a3: A3, /, **options: Unpack[ChildOptions]
) -> Coroutine[Any, Any, R]: ...
@overload
def run_child(
    workflow: Takes4[A1, A2, A3, A4, R],
    a1: A1,
    a2: A2,
    a3: A3,
    a4: A4,
    /,
    **options: Unpack[ChildOptions],
) -> Coroutine[Any, Any, R]: ...
def run_child(
    workflow: Any,  # the overloads say what it is
    /,
    *args: object,
    id: str | None = None,
    version: int | None = None,
    on_parent_end: OnParentEnd = "cancel",
    deadline: timedelta | datetime | None = None,
    attributes: Mapping[str, Tag] | None = None,
    queue: str | None = None,
) -> Coroutine[Any, Any, Any]:
    """In an `async def` workflow: start a child and wait for its result.

    Arguments and errors as of `start_child` and `Child.result`.
    """
    scope = async_scope("run_child()", "run_child_sync(...)", _START_THERE)
    plan = _planned(scope, workflow, args, id, version, on_parent_end, deadline, attributes, queue)
    _check_waited_for(plan)
    return _finished(scope, plan)


@overload
def run_child_sync(workflow: Bound[R], /, **options: Unpack[ChildOptions]) -> R: ...
@overload
def run_child_sync(workflow: Takes0[R], /, **options: Unpack[ChildOptions]) -> R: ...
@overload
def run_child_sync(workflow: Takes1[A1, R], a1: A1, /, **options: Unpack[ChildOptions]) -> R: ...
@overload
def run_child_sync(
    workflow: Takes2[A1, A2, R], a1: A1, a2: A2, /, **options: Unpack[ChildOptions]
) -> R: ...
@overload
def run_child_sync(
    workflow: Takes3[A1, A2, A3, R], a1: A1, a2: A2, a3: A3, /, **options: Unpack[ChildOptions]
) -> R: ...
@overload
def run_child_sync(
    workflow: Takes4[A1, A2, A3, A4, R],
    a1: A1,
    a2: A2,
    a3: A3,
    a4: A4,
    /,
    **options: Unpack[ChildOptions],
) -> R: ...
def run_child_sync(
    workflow: Any,  # the overloads say what it is
    /,
    *args: object,
    id: str | None = None,
    version: int | None = None,
    on_parent_end: OnParentEnd = "cancel",
    deadline: timedelta | datetime | None = None,
    attributes: Mapping[str, Tag] | None = None,
    queue: str | None = None,
) -> Any:
    """In a `def` workflow: start a child and wait for its result; arguments and errors as of `run_child`."""
    scope = sync_scope("run_child_sync()", "run_child(...)", _START_THERE)
    plan = _planned(scope, workflow, args, id, version, on_parent_end, deadline, attributes, queue)
    _check_waited_for(plan)
    return plan.child(scope.call_sync(plan.request)).result_sync()


def cancel_workflow(workflow_id: str, reason: str | None = None) -> Coroutine[Any, Any, None]:
    """In an `async def` workflow: ask another workflow to cancel, and wait until that is recorded, not until it ends.

    Args:
        workflow_id: The other workflow.
        reason: Why, for its own messages and the audit.

    Raises:
        UsageError: The id can't be used or is this workflow's own, or the caller is not an `async def` workflow.
        WorkflowNotFound: There is no such workflow.
        WorkflowEnded: It has ended.
    """
    scope = async_scope("cancel_workflow()", "cancel_workflow_sync(...)", _CANCEL_THERE)
    return _asked(scope, _cancel(scope, workflow_id, reason))


def cancel_workflow_sync(workflow_id: str, reason: str | None = None) -> None:
    """In a `def` workflow: ask another workflow to cancel; arguments and errors as of `cancel_workflow`."""
    scope = sync_scope("cancel_workflow_sync()", "cancel_workflow(...)", _CANCEL_THERE)
    scope.call_sync(_cancel(scope, workflow_id, reason))


async def _started(scope: DurableScope, plan: _Plan) -> Child[Any]:
    return plan.child(await scope.call(plan.request))


async def _finished(scope: DurableScope, plan: _Plan) -> Any:
    return await plan.child(await scope.call(plan.request))


async def _asked(scope: DurableScope, request: MakeCall) -> None:
    await scope.call(request)


def _cancel(scope: DurableScope, workflow_id: str, reason: str | None) -> MakeCall:
    check_id(workflow_id)
    if workflow_id == scope.workflow_id:
        raise UsageError(
            f"workflow {workflow_id!r} asked itself to cancel: return from the workflow function, or raise, instead"
        )
    source = call_source()  # of the call: when it is awaited, a task may have it
    return lambda step, _source: CancelRequest(step, "cancel", workflow_id, reason, source)


def _planned(  # noqa: PLR0913, PLR0917 - start_child's own
    scope: DurableScope,
    workflow: Workflow[..., Any] | Bound[Any],
    args: tuple[object, ...],
    id: str | None,
    version: int | None,
    on_parent_end: OnParentEnd,
    deadline: timedelta | datetime | None,
    attributes: Mapping[str, Tag] | None,
    queue: str | None,
) -> _Plan:
    """Everything about a child, checked."""
    bound = bound_of(workflow, args)
    what = f"input of workflow '{bound.workflow.name}'"
    check_size(bound.payload, scope.max_payload_bytes, what)
    if id is not None:
        check_id(id)
        if id == scope.workflow_id:
            raise UsageError(
                f"workflow {id!r} can't start a child under its own id: give the child another, or none"
            )
        check_pool_of(id, bound.workflow.name, bound.workflow.pool)
    if on_parent_end not in get_args(OnParentEnd):
        raise UsageError(
            f"on_parent_end={on_parent_end!r} is none of {', '.join(map(repr, get_args(OnParentEnd)))}"
        )
    refuse_reserved(attributes or ())
    if queue is not None:
        check_name(queue, "queue")
    return _Plan(
        parent_id=scope.workflow_id,
        id=id,
        bound=bound,
        version=bound.workflow.version if version is None else version,
        policy=on_parent_end,
        attributes=None if attributes is None else encode_attributes(attributes),
        due_at=_due_at(scope, deadline),
        queue=queue,
        source=call_source(),
    )


def _due_at(scope: DurableScope, deadline: timedelta | datetime | None) -> int | None:
    """When the child is due: no later than its parent."""
    own = scope.facts.deadline
    if deadline is None:
        return own
    if isinstance(deadline, timedelta):
        due_at = scope.now_us + deadline // timedelta(microseconds=1)
    else:
        due_at = microseconds_of(deadline, "give a child the deadline")
    if due_at <= scope.now_us:
        raise UsageError(
            f"a child can't have the deadline {deadline!r}: it has passed; give a time to come, or None"
        )
    if due_at > LAST_DUE_US:
        raise UsageError(
            f"a child can't have the deadline {deadline!r}: that is after the year 9999"
        )
    return due_at if own is None else min(due_at, own)


def _check_waited_for(plan: _Plan) -> None:
    if plan.policy == "detached":
        raise UsageError(
            "run_child waits for the child, and a detached one's parent never hears how it ended: use"
            " start_child, or on_parent_end='abandon'"
        )

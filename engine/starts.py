"""How runs are started, with types: the part of the engine that has an overload for each number of arguments.

The keywords are typed once, in `StartOptions`; `engine/bound.py` says why arguments are typed by their number.
"""

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, TypedDict, TypeVar, Unpack, overload

from refold.engine.access import Access
from refold.engine.bound import Bound, Takes0, Takes1, Takes2, Takes3, Takes4
from refold.engine.definitions import Catalogue, Workflow, bound_of
from refold.engine.handle import Handle
from refold.engine.loop import LAST_DUE_US
from refold.engine.names import check_name, check_pool_of
from refold.engine.operator import check_version
from refold.engine.payload import check_size
from refold.engine.queueing import require_queue
from refold.engine.scope import microseconds_of
from refold.log.attributes import Tag, encode_attributes, refuse_reserved
from refold.log.errors import UsageError
from refold.log.layout import with_pool

R = TypeVar("R")
A1 = TypeVar("A1")
A2 = TypeVar("A2")
A3 = TypeVar("A3")
A4 = TypeVar("A4")


class StartOptions(TypedDict, total=False):
    """How a run is started; see `Engine.start`."""

    id: str | None
    version: int | None
    deadline: timedelta | datetime | None
    attributes: Mapping[str, Tag] | None
    message: tuple[str, object] | None
    subject: str | None
    queue: str | None
    confirm: bool


class Starts:
    """Starts runs. The engine's own; it sets what is named here.

    `_registered` is where a workflow is registered when it is started; None for an engine that runs none.
    """

    _access: Access
    _registered: Catalogue | None

    @overload
    def start(self, workflow: Bound[R], /, **options: Unpack[StartOptions]) -> Handle[R]: ...
    @overload
    def start(self, workflow: Takes0[R], /, **options: Unpack[StartOptions]) -> Handle[R]: ...
    @overload
    def start(
        self, workflow: Takes1[A1, R], a1: A1, /, **options: Unpack[StartOptions]
    ) -> Handle[R]: ...
    @overload
    def start(
        self, workflow: Takes2[A1, A2, R], a1: A1, a2: A2, /, **options: Unpack[StartOptions]
    ) -> Handle[R]: ...
    @overload
    def start(
        self,
        workflow: Takes3[A1, A2, A3, R],
        a1: A1,
        a2: A2,
        a3: A3,
        /,
        **options: Unpack[StartOptions],
    ) -> Handle[R]: ...
    @overload
    def start(
        self,
        workflow: Takes4[A1, A2, A3, A4, R],
        a1: A1,
        a2: A2,
        a3: A3,
        a4: A4,
        /,
        **options: Unpack[StartOptions],
    ) -> Handle[R]: ...
    def start(  # noqa: PLR0913 - each a keyword with a default
        self,
        workflow: Any,  # the overloads say what it is
        /,
        *args: object,
        id: str | None = None,
        version: int | None = None,
        deadline: timedelta | datetime | None = None,
        attributes: Mapping[str, Tag] | None = None,
        message: tuple[str, object] | None = None,
        subject: str | None = None,
        queue: str | None = None,
        confirm: bool = True,
    ) -> Handle[Any]:
        """Start a run; the same start again gets the run that there is.

        Args:
            workflow: A workflow, followed by its positional arguments; or `workflow.bind(...)` with its input.
            args: The workflow's arguments.
            id: The run's id: there is exactly one run of an id, for ever. Generated where not given. Of a workflow of a
                pool it ends with `@` and the pool's name.
            version: Version of its code, which the run keeps; that of `workflow` where not given.
            deadline: When the run is cancelled, with its children: a time with a time zone, or how long from now.
            attributes: Tags to find it by: strings, numbers, bools, and datetimes with a time zone.
            message: Topic and value of a message that is sent to the run in the same act, also where it is there.
            subject: Whose data it is (a customer's number): its payloads, and its children's, are encrypted with that
                subject's keys, and `refold erase` destroys those (docs/privacy.md). Needs `keys`.
            queue: The queue in which it waits until it is its turn; its workflow's own where not given. A queue is made
                by `set_queue`. See docs/queues.md.
            confirm: Wait until a worker has accepted the start. Without it, this returns when the command is
                durable, and a refusal is heard from `result`.

        Returns:
            The run's handle.

        Raises:
            PayloadError: The input, message or a tag has no JSON form or does not fit. Nothing was written.
            UsageError: The id, version, deadline or topic can't be used, or this is called from workflow code or from a
                step.
            WorkflowConflict: The id belongs to a run with another workflow or input.
            WorkflowEnded: The id's run has ended and takes no message.
            UnknownWorkflow: The worker has no such workflow, or not that version.
            UnknownQueue: Nobody has set such a queue. Nothing was started. Without `confirm` the run waits until
                somebody does.
            ResultTimeout: No worker answered within `start_timeout_s`. The command is durable all the same.
        """
        bound = self._bind(workflow, args)
        started = self._start(
            bound, id, version, deadline, attributes, message, subject, queue, confirm
        )
        return self._access.bridge.wait(started, "start_async()")

    @overload
    async def start_async(
        self, workflow: Bound[R], /, **options: Unpack[StartOptions]
    ) -> Handle[R]: ...
    @overload
    async def start_async(
        self, workflow: Takes0[R], /, **options: Unpack[StartOptions]
    ) -> Handle[R]: ...
    @overload
    async def start_async(
        self, workflow: Takes1[A1, R], a1: A1, /, **options: Unpack[StartOptions]
    ) -> Handle[R]: ...
    @overload
    async def start_async(
        self, workflow: Takes2[A1, A2, R], a1: A1, a2: A2, /, **options: Unpack[StartOptions]
    ) -> Handle[R]: ...
    @overload
    async def start_async(
        self,
        workflow: Takes3[A1, A2, A3, R],
        a1: A1,
        a2: A2,
        a3: A3,
        /,
        **options: Unpack[StartOptions],
    ) -> Handle[R]: ...
    @overload
    async def start_async(
        self,
        workflow: Takes4[A1, A2, A3, A4, R],
        a1: A1,
        a2: A2,
        a3: A3,
        a4: A4,
        /,
        **options: Unpack[StartOptions],
    ) -> Handle[R]: ...
    async def start_async(  # noqa: PLR0913 - as `start`
        self,
        workflow: Any,  # the overloads say what it is
        /,
        *args: object,
        id: str | None = None,
        version: int | None = None,
        deadline: timedelta | datetime | None = None,
        attributes: Mapping[str, Tag] | None = None,
        message: tuple[str, object] | None = None,
        subject: str | None = None,
        queue: str | None = None,
        confirm: bool = True,
    ) -> Handle[Any]:
        """`start` for async code."""
        bound = self._bind(workflow, args)
        started = self._start(
            bound, id, version, deadline, attributes, message, subject, queue, confirm
        )
        return await self._access.bridge.run(started)

    def _bind(
        self, workflow: Bound[Any] | Workflow[..., Any], args: tuple[object, ...]
    ) -> Bound[Any]:
        """Check the input before anything is written."""
        bound = bound_of(workflow, args)
        what = f"input of workflow '{bound.workflow.name}'"
        check_size(bound.payload, self._access.max_payload_bytes, what)
        return bound

    async def _start(  # noqa: PLR0913, PLR0917 - as `start` has them
        self,
        bound: Bound[R],
        workflow_id: str | None,
        version: int | None,
        deadline: timedelta | datetime | None,
        attributes: Mapping[str, Tag] | None,
        message: tuple[str, object] | None,
        subject: str | None,
        queue: str | None,
        confirm: bool,
    ) -> Handle[R]:
        workflow = bound.workflow
        check_version(version)
        if subject is not None:
            check_name(subject, "subject")
        refuse_reserved(attributes or ())
        client = self._access.client
        tags = encode_attributes(attributes) if attributes else None
        due_at = None if deadline is None else due_time(deadline, client.clock())
        text = None if message is None else self._message(workflow.name, message)
        if workflow_id is None:
            workflow_id = with_pool(f"{workflow.name}-{uuid.uuid4().hex}", workflow.pool)
        check_pool_of(workflow_id, workflow.name, workflow.pool, client.log.layout)
        queue = workflow.queue if queue is None else queue
        if queue is not None:
            check_name(queue, "queue")
            if confirm:
                await require_queue(client, queue, self._access.timeout_s)
        if self._registered is not None:
            self._registered.add(workflow)
        outcome = await client.start(
            workflow.name,
            bound.payload,
            workflow_id,
            timeout_s=self._access.timeout_s,
            confirm=confirm,
            attributes=tags,
            version=workflow.version if version is None else version,
            due_at=due_at,
            message=text,
            subject=subject,
            queue=queue,
        )
        return Handle(self._access, outcome, bound.result_type)

    def _message(self, workflow: str, message: tuple[str, object]) -> tuple[str, str]:
        topic, value = message
        check_name(topic, "topic")
        what = f"message for workflow '{workflow}' on {topic!r}"
        return topic, self._access.encoded(value, what)


def due_time(deadline: timedelta | datetime, now: int) -> int:
    """When a deadline is, in microseconds since 1970-01-01 UTC.

    Args:
        deadline: A time with a time zone, or how long from now.
        now: Microseconds since 1970-01-01 UTC.

    Raises:
        UsageError: It is not in the future, too far in it, or has no time zone.
    """
    match deadline:
        case timedelta():
            due_at = now + deadline // timedelta(microseconds=1)
        case datetime():
            due_at = microseconds_of(deadline, "end a workflow at")
        # Not every caller has a type checker.
        case _:  # pyright: ignore[reportUnnecessaryComparison]
            raise UsageError(f"{deadline!r} is no deadline: give a timedelta or a datetime")
    if due_at <= now:
        raise UsageError(
            f"the deadline {deadline} is not in the future: nothing was started. Give a later one, or none"
        )
    if due_at > LAST_DUE_US:
        raise UsageError(
            f"the deadline {deadline} is after the year 9999: give an earlier one, or none"
        )
    return due_at

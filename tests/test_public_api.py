"""The public API is what is written here: a change of it is a change of this file."""

import inspect
from collections.abc import Callable
from typing import Any

import refold
from refold import Engine, Handle

NAMES = """
AppendUnknown AskRefused Bound BulkResult CheckpointSettings Child CommandRefused Cursor DefinitionError Engine
EngineClosed Handle InvalidInput LogCorrupt LogError LogMismatch LogTrimmed LogUnavailable Logged Metric MetricContext
MetricFailed PayloadError PayloadTooLarge RecordTooLarge RefoldError Request Requests ResultTimeout Retry RunInfo Runs
SideEffectError Status StepContext StepError StepTimeout Stream Suspended SyncTail Tail TopicsMissing UnknownWorkflow
UsageError WhatIf Workflow WorkflowCancelled WorkflowConflict WorkflowEnded WorkflowError WorkflowInfo
WorkflowNotFound WorkflowParked WorkflowTerminated cancel_workflow cancel_workflow_sync continue_as_new metric now
patched publish random read_metrics receive receive_sync requests run_child run_child_sync run_step run_step_sync send
send_sync set_attributes sleep sleep_sync sleep_until sleep_until_sync start_child start_child_sync step step_context
stream tail tail_sync uuid4 what_if what_if_async workflow workflow_info
Erased KeysUnavailable PayloadErased PayloadKeys Personal personal_fields
Projected Projection ProjectionFailed Transaction
ReadModel RunFilter RunPage RunRow StepRow TargetError TargetMismatch TargetUnavailable
Schedule ScheduleInfo ScheduleRow ScheduleSpec
QueueInfo QueueRow UnknownQueue
""".split()  # noqa: SIM905 - a list of eighty strings is harder to read

STEP_OPTIONS = ["name", "retry", "timeout_s", "total_timeout_s", "on_exhausted"]


def parameters(function: Callable[..., Any]) -> list[str]:
    """Names of a function's parameters."""
    return [name for name in inspect.signature(function).parameters if name != "self"]


def public(kind: type) -> list[str]:
    """Names that a class shows."""
    return sorted(name for name in vars(kind) if not name.startswith("_"))


def test_the_package_exports_exactly_these_names() -> None:
    assert sorted(refold.__all__) == sorted(NAMES)
    assert [name for name in NAMES if not hasattr(refold, name)] == []


BULK = ["cancel_all", "fork_all", "pause_all", "resume_all", "rewind_all", "terminate_all"]
ORDERS = ["cancel", "fork", "pause", "resume", "rewind", "terminate"]
SCHEDULE = ["delete", "info", "pause", "resume", "set", "trigger"]


def with_twins(names: list[str]) -> list[str]:
    """The names, and those of the twins for async code."""
    return [*names, *(f"{name}_async" for name in names)]


def test_the_engine_has_exactly_these_methods() -> None:
    twins = with_twins(
        [
            "erase",
            "history",
            "list",
            "queue",
            "resume",
            "schedule",
            "schedules",
            "set_queue",
            "start",
            "stats",
            "status",
            *BULK,
        ]
    )
    properties = [
        "halted_partitions",
        "get_schedule",
        "handle",
        "owned_partitions",
        "pool_steps",
        "shared_partitions",
        "stopped_projections",
        "worker_name",
    ]
    shown = {name for kind in Engine.__mro__[:-1] for name in public(kind)}
    assert sorted(shown) == sorted([*twins, *properties])


def test_a_handle_has_exactly_these_methods() -> None:
    asks = ["ask", "history", "result", "send", "status", "stream", "value"]
    assert public(Handle) == sorted([*with_twins([*asks, *ORDERS]), "id"])


def test_a_schedule_has_exactly_these_methods() -> None:
    assert public(refold.Schedule) == sorted([*with_twins(SCHEDULE), "id", "name"])


def test_twins_take_the_same_parameters() -> None:
    """Whoever moves to async code changes a name and adds an await."""
    twins: list[tuple[type, list[str]]] = [
        (Handle, [*ORDERS, "ask", "send", "value", "stream"]),
        (Engine, [*BULK, "schedule"]),
        (refold.Schedule, SCHEDULE),
    ]
    for kind, names in twins:
        for name in names:
            assert parameters(getattr(kind, name)) == parameters(getattr(kind, f"{name}_async"))
    assert parameters(Engine.start) == parameters(Engine.start_async)


def test_parameters_keep_their_names() -> None:
    assert parameters(Engine) == [
        "url",
        "workflows",
        "worker",
        "name",
        "threads",
        "guard",
        "max_payload_bytes",
        "blob_threshold_bytes",
        "start_timeout_s",
        "drain_s",
        "max_steps",
        "max_runs",
        "max_memory_bytes",
        "checkpoints",
        "pools",
        "pool_lease_s",
        "keys",
        "projections",
        "requested_by",
        "clock",
    ]
    assert parameters(Engine.start) == [
        "workflow",
        "args",
        "id",
        "version",
        "deadline",
        "attributes",
        "message",
        "subject",
        "queue",
        "confirm",
    ]
    assert parameters(Engine.set_queue) == ["name", "concurrency", "reason"]
    assert parameters(Engine.queue) == ["name"]
    assert parameters(Engine.list) == ["where"]
    assert parameters(Handle[Any].result) == ["timeout_s"]
    assert parameters(Handle[Any].send) == ["topic", "value", "message_id"]
    assert parameters(Handle[Any].ask) == ["topic", "value", "answer_type", "timeout_s"]
    assert parameters(Handle[Any].value) == ["key", "value_type", "timeout_s"]
    assert parameters(Handle[Any].stream) == ["name", "item_type", "start"]
    assert parameters(Handle[Any].cancel) == ["reason"]
    assert parameters(Handle[Any].rewind) == ["step", "reason"]
    assert parameters(Handle[Any].fork) == ["step", "id", "version", "reason"]
    assert parameters(refold.Runs) == [
        "status",
        "workflow",
        "version",
        "attributes",
        "reason",
        "started_after",
        "started_before",
        "queue",
    ]
    assert parameters(Engine.schedule) == ["name", "workflow", "args", "options"]
    assert parameters(refold.ScheduleSpec) == [
        "workflow",
        "payload",
        "cron",
        "every",
        "timezone",
        "overlap",
        "catch_up",
        "start_at",
        "end_at",
        "pool",
        "attributes",
    ]
    assert parameters(refold.step) == ["fn", *STEP_OPTIONS, "pool"]
    assert parameters(refold.run_step) == ["fn", "args", *STEP_OPTIONS]
    assert parameters(refold.workflow) == ["fn", "name", "version", "pool", "queue"]
    assert parameters(refold.send) == ["workflow_id", "topic", "value"]
    assert parameters(refold.receive) == ["topic", "message_type", "timeout"]
    assert parameters(refold.requests) == ["topic", "message_type", "validate"]
    assert parameters(refold.publish) == ["key", "value"]
    assert parameters(refold.start_child) == [
        "workflow",
        "args",
        "id",
        "version",
        "on_parent_end",
        "deadline",
        "attributes",
        "queue",
    ]
    assert parameters(refold.Retry) == ["attempts", "initial_s", "backoff", "max_s", "jitter", "on"]


def test_every_error_has_the_one_root() -> None:
    """Whoever catches RefoldError catches all that refold raises itself."""
    shown: list[object] = [getattr(refold, name) for name in NAMES]
    errors = [kind for kind in shown if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(errors) > 20
    assert [kind.__name__ for kind in errors if not issubclass(kind, refold.RefoldError)] == []

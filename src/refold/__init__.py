"""Durable workflows for Python: plain functions whose every step is recorded in a log, and replayed after a crash.

    from refold import Engine, step, workflow

    @step
    def fetch(url: str) -> str: ...

    @workflow
    def digest(urls: list[str]) -> int:
        return sum(len(fetch(url)) for url in urls)

    with Engine("sqlite:///digest.db") as engine:
        print(engine.start(digest, ["https://example.org"], id="digest-1").result())

What is named here is the public API; everything else may change between releases.
"""

from refold.engine.bound import Bound
from refold.engine.checkpoints import CheckpointSettings
from refold.engine.children import (
    Child,
    cancel_workflow,
    cancel_workflow_sync,
    run_child,
    run_child_sync,
    start_child,
    start_child_sync,
)
from refold.engine.definitions import Workflow, run_step, run_step_sync, step, workflow
from refold.engine.engine import Engine
from refold.engine.erasing import Erased
from refold.engine.handle import Handle
from refold.engine.messages import (
    Request,
    Requests,
    publish,
    receive,
    receive_sync,
    requests,
    send,
    send_sync,
)
from refold.engine.queueing import QueueInfo
from refold.engine.reader import WorkflowInfo
from refold.engine.redaction import Personal, personal_fields
from refold.engine.retry import Retry
from refold.engine.schedule import Schedule
from refold.engine.schedule_run import ScheduleInfo
from refold.engine.schedule_times import ScheduleSpec
from refold.engine.scope import (
    StepContext,
    Suspended,
    now,
    random,
    sleep,
    sleep_sync,
    sleep_until,
    sleep_until_sync,
    step_context,
    uuid4,
)
from refold.engine.selection import BulkResult, Runs
from refold.engine.state import Status
from refold.engine.streams import Stream, stream
from refold.engine.tags import RunInfo, set_attributes, workflow_info
from refold.engine.versions import continue_as_new, patched
from refold.engine.what_if import WhatIf, what_if, what_if_async
from refold.log.errors import (
    AppendUnknown,
    AskRefused,
    CommandRefused,
    DefinitionError,
    EngineClosed,
    InvalidInput,
    KeysUnavailable,
    LogCorrupt,
    LogError,
    LogMismatch,
    LogTrimmed,
    LogUnavailable,
    PayloadErased,
    PayloadError,
    PayloadTooLarge,
    RecordTooLarge,
    RefoldError,
    ResultTimeout,
    SideEffectError,
    StepError,
    StepTimeout,
    TopicsMissing,
    UnknownQueue,
    UnknownWorkflow,
    UsageError,
    WorkflowCancelled,
    WorkflowConflict,
    WorkflowEnded,
    WorkflowError,
    WorkflowNotFound,
    WorkflowParked,
    WorkflowTerminated,
)
from refold.log.keys import PayloadKeys
from refold.projections.cursor import Cursor
from refold.projections.feed import Logged
from refold.projections.metric_reading import read_metrics
from refold.projections.metrics import Metric, MetricContext, MetricFailed, metric
from refold.projections.projected import Projected
from refold.projections.projection import Projection, ProjectionFailed, Transaction
from refold.projections.read_model import ReadModel
from refold.projections.tail import SyncTail, Tail, tail, tail_sync
from refold.projections.target import TargetError, TargetMismatch, TargetUnavailable
from refold.projections.workflows_filter import RunFilter
from refold.projections.workflows_runs import QueueRow, RunPage, RunRow, StepRow
from refold.projections.workflows_schedules import ScheduleRow

__all__ = [
    "AppendUnknown",
    "AskRefused",
    "Bound",
    "BulkResult",
    "CheckpointSettings",
    "Child",
    "CommandRefused",
    "Cursor",
    "DefinitionError",
    "Engine",
    "EngineClosed",
    "Erased",
    "Handle",
    "InvalidInput",
    "KeysUnavailable",
    "LogCorrupt",
    "LogError",
    "LogMismatch",
    "LogTrimmed",
    "LogUnavailable",
    "Logged",
    "Metric",
    "MetricContext",
    "MetricFailed",
    "PayloadErased",
    "PayloadError",
    "PayloadKeys",
    "PayloadTooLarge",
    "Personal",
    "Projected",
    "Projection",
    "ProjectionFailed",
    "QueueInfo",
    "QueueRow",
    "ReadModel",
    "RecordTooLarge",
    "RefoldError",
    "Request",
    "Requests",
    "ResultTimeout",
    "Retry",
    "RunFilter",
    "RunInfo",
    "RunPage",
    "RunRow",
    "Runs",
    "Schedule",
    "ScheduleInfo",
    "ScheduleRow",
    "ScheduleSpec",
    "SideEffectError",
    "Status",
    "StepContext",
    "StepError",
    "StepRow",
    "StepTimeout",
    "Stream",
    "Suspended",
    "SyncTail",
    "Tail",
    "TargetError",
    "TargetMismatch",
    "TargetUnavailable",
    "TopicsMissing",
    "Transaction",
    "UnknownQueue",
    "UnknownWorkflow",
    "UsageError",
    "WhatIf",
    "Workflow",
    "WorkflowCancelled",
    "WorkflowConflict",
    "WorkflowEnded",
    "WorkflowError",
    "WorkflowInfo",
    "WorkflowNotFound",
    "WorkflowParked",
    "WorkflowTerminated",
    "cancel_workflow",
    "cancel_workflow_sync",
    "continue_as_new",
    "metric",
    "now",
    "patched",
    "personal_fields",
    "publish",
    "random",
    "read_metrics",
    "receive",
    "receive_sync",
    "requests",
    "run_child",
    "run_child_sync",
    "run_step",
    "run_step_sync",
    "send",
    "send_sync",
    "set_attributes",
    "sleep",
    "sleep_sync",
    "sleep_until",
    "sleep_until_sync",
    "start_child",
    "start_child_sync",
    "step",
    "step_context",
    "stream",
    "tail",
    "tail_sync",
    "uuid4",
    "what_if",
    "what_if_async",
    "workflow",
    "workflow_info",
]

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
from refold.engine.definitions import Workflow, run_step, run_step_sync, step, workflow
from refold.engine.engine import Engine, Handle
from refold.engine.fold import Status
from refold.engine.reader import WorkflowInfo
from refold.engine.retry import Retry
from refold.engine.scope import (
    StepContext,
    Suspended,
    now,
    random,
    sleep,
    sleep_sync,
    step_context,
    uuid4,
)
from refold.log.errors import (
    AppendUnknown,
    CommandRefused,
    DefinitionError,
    EngineClosed,
    InvalidInput,
    LogCorrupt,
    LogError,
    LogMismatch,
    LogUnavailable,
    PayloadError,
    PayloadTooLarge,
    RecordTooLarge,
    RefoldError,
    ResultTimeout,
    SideEffectError,
    StepError,
    StepTimeout,
    TopicsMissing,
    UnknownWorkflow,
    UsageError,
    WorkflowConflict,
    WorkflowError,
    WorkflowNotFound,
    WorkflowParked,
)

__all__ = [
    "AppendUnknown",
    "Bound",
    "CommandRefused",
    "DefinitionError",
    "Engine",
    "EngineClosed",
    "Handle",
    "InvalidInput",
    "LogCorrupt",
    "LogError",
    "LogMismatch",
    "LogUnavailable",
    "PayloadError",
    "PayloadTooLarge",
    "RecordTooLarge",
    "RefoldError",
    "ResultTimeout",
    "Retry",
    "SideEffectError",
    "Status",
    "StepContext",
    "StepError",
    "StepTimeout",
    "Suspended",
    "TopicsMissing",
    "UnknownWorkflow",
    "UsageError",
    "Workflow",
    "WorkflowConflict",
    "WorkflowError",
    "WorkflowInfo",
    "WorkflowNotFound",
    "WorkflowParked",
    "now",
    "random",
    "run_step",
    "run_step_sync",
    "sleep",
    "sleep_sync",
    "step",
    "step_context",
    "uuid4",
    "workflow",
]

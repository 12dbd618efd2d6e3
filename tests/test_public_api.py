"""The public API is what is written here: a change of it is a change of this file."""

import inspect
from collections.abc import Callable
from typing import Any

import refold
from refold import Engine, Handle

NAMES = """
AppendUnknown Bound CommandRefused DefinitionError Engine EngineClosed Handle InvalidInput LogCorrupt LogError
LogMismatch LogUnavailable PayloadError PayloadTooLarge RecordTooLarge RefoldError ResultTimeout Retry
SideEffectError Status StepContext StepError StepTimeout Suspended TopicsMissing UnknownWorkflow UsageError Workflow
WorkflowConflict WorkflowError WorkflowInfo WorkflowNotFound WorkflowParked now random run_step run_step_sync sleep
sleep_sync step step_context uuid4 workflow
""".split()  # noqa: SIM905 - a list of fifty strings is harder to read

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


def test_the_engine_has_exactly_these_methods() -> None:
    twins = ["history", "list", "resume", "start", "status"]
    assert public(Engine) == sorted(
        [
            *twins,
            *(f"{name}_async" for name in twins),
            "halted_partitions",
            "handle",
            "owned_partitions",
            "worker_name",
        ]
    )
    assert public(Handle) == ["history", "id", "result", "result_async", "status"]


def test_parameters_keep_their_names() -> None:
    assert parameters(Engine) == [
        "url",
        "workflows",
        "worker",
        "name",
        "threads",
        "guard",
        "max_payload_bytes",
        "start_timeout_s",
        "drain_s",
        "clock",
    ]
    assert parameters(Engine.start) == ["workflow", "args", "id", "confirm"]
    assert parameters(Handle[Any].result) == ["timeout_s"]
    assert parameters(refold.step) == ["fn", *STEP_OPTIONS]
    assert parameters(refold.run_step) == ["fn", "args", *STEP_OPTIONS]
    assert parameters(refold.workflow) == ["fn", "name"]
    assert parameters(refold.Retry) == ["attempts", "initial_s", "backoff", "max_s", "jitter", "on"]


def test_every_error_has_the_one_root() -> None:
    """Whoever catches RefoldError catches all that refold raises itself."""
    shown: list[object] = [getattr(refold, name) for name in NAMES]
    errors = [kind for kind in shown if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(errors) > 20
    assert [kind.__name__ for kind in errors if not issubclass(kind, refold.RefoldError)] == []

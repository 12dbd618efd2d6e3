"""The metrics that come with refold, for every log: of runs, of steps, of waiting for a person."""

from refold.log.events import StepCompleted, StepFailed, WorkflowCompleted
from refold.projections.metrics import MetricContext, metric

_RUN = ("workflow", "version")
_STEP = ("workflow", "version", "step")
_ENDS = ("workflow.completed", "workflow.failed", "workflow.cancelled", "workflow.terminated")


@metric(unit="s", by=_RUN, kinds=_ENDS)
def run_duration(event: object, context: MetricContext) -> float:
    """From a run's first start to its end, however it ended."""
    return context.seconds_since(context.started_at)


@metric(by=_RUN, kinds=("workflow.completed", "workflow.failed"), aggregate="rate")
def run_failures(event: object, context: MetricContext) -> bool:
    """Of the runs that completed or failed, the share that failed."""
    return not isinstance(event, WorkflowCompleted)


@metric(unit="s", by=_STEP, kinds="step.completed")
def step_duration(event: StepCompleted, context: MetricContext) -> float:
    """How long a step took that completed: the attempt that did."""
    return context.seconds_since(event.started_at)


@metric(by=_STEP, kinds=("step.completed", "step.failed"), aggregate="rate")
def step_failures(event: object, context: MetricContext) -> bool:
    """Of the steps that came to an end, the share that failed for good."""
    return isinstance(event, StepFailed)


@metric(by=_STEP, kinds="step.attempt_failed", aggregate="count")
def failed_attempts(event: object, context: MetricContext) -> int:
    """Attempts that failed before the last one: what was tried again, or waits for a person."""
    return 1


@metric(unit="s", by=_RUN)
def time_parked(event: object, context: MetricContext) -> float | None:
    """How long runs were parked, counted when they went on or ended."""
    return context.parked_s


READY = (
    run_duration,
    run_failures,
    step_duration,
    step_failures,
    failed_attempts,
    time_parked,
)

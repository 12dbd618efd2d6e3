"""What follows from an attempt that failed: another one later, the step's failure, or a person's decision."""

from collections.abc import Callable
from typing import Final

from refold.engine.effects import AttemptFailed, Launch
from refold.engine.ledger import Header
from refold.log.events import StepAttemptFailed, StepFailed

MICROSECONDS: Final = 1_000_000


def next_attempt(
    launch: Launch, result: AttemptFailed, now: int, random: Callable[[], float]
) -> int | None:
    """When the next attempt begins, microseconds since 1970-01-01 UTC; None where there is none.

    Args:
        launch: The attempt that failed.
        result: How.
        now: Microseconds since 1970-01-01 UTC.
        random: Uniform in [0, 1), for the jitter.
    """
    options = launch.call.options
    retry = options.retry
    if retry is None or not result.retryable or launch.attempt >= retry.attempts:
        return None
    due_at = now + round(retry.delay_s(launch.attempt, random()) * MICROSECONDS)
    if options.total_timeout_s is not None:
        first = launch.first_started_at or result.started_at
        if due_at >= first + round(options.total_timeout_s * MICROSECONDS):
            return None
    return due_at


def failed_attempt(
    launch: Launch, result: AttemptFailed, due_at: int | None, header: Header
) -> StepFailed | StepAttemptFailed:
    """The event: the step's failure, or a failed attempt that another follows or that a person is to look at.

    Args:
        launch: The attempt that failed.
        result: How.
        due_at: When the next one begins; None where there is none.
        header: The event's common fields.
    """
    failure, options = result.failure, launch.call.options
    used_up = due_at is None and (options.retry is None or result.retryable)
    encoding = "json" if failure.payload is not None else None
    if due_at is None and not (used_up and options.on_exhausted == "park"):
        return StepFailed(
            **header,
            step=launch.step,
            name=launch.call.name,
            attempt=launch.attempt,
            started_at=result.started_at,
            error_type=failure.error_type,
            error_message=failure.error_message,
            error_stack=failure.error_stack,
            payload=failure.payload,
            encoding=encoding,
        )
    return StepAttemptFailed(
        **header,
        step=launch.step,
        name=launch.call.name,
        attempt=launch.attempt,
        started_at=result.started_at,
        error_type=failure.error_type,
        error_message=failure.error_message,
        error_stack=failure.error_stack,
        payload=failure.payload,
        encoding=encoding,
        due_at=due_at,
    )

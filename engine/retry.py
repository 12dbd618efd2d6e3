"""When a failed attempt of a step is tried again, and after how long. Pure: randomness is the caller's."""

import math
from dataclasses import dataclass
from typing import cast

from refold.log.errors import DefinitionError, PayloadError, UsageError

_NEVER_RETRIED = (DefinitionError, PayloadError, UsageError)
"""Mistakes in the code: another attempt meets them again, and its effect would be made once more for nothing."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, how far apart and on which errors a step is tried again.

    The delays grow exponentially and are shortened by chance, so that many steps that failed together do not come
    back together (exponential backoff and jitter, as in AWS's Builders' Library, "Timeouts, retries, and backoff
    with jitter").

    Args:
        attempts: Attempts in all, the first one counted; at least 1.
        initial_s: Delay before the second attempt, in seconds.
        backoff: Factor by which each delay is longer than the one before; at least 1.
        max_s: Longest delay, in seconds.
        jitter: Share of each delay that is left to chance, from 0 (none) to 1 (anything between 0 and the delay).
        on: The errors that are tried again; any other one fails the step at once. A timeout of refold's own is a
            `StepTimeout`, which is a `TimeoutError`. Wrong use of refold (`DefinitionError`, `PayloadError`,
            `UsageError`) is never tried again.

    Raises:
        DefinitionError: A value is out of its range.
    """

    attempts: int = 3
    initial_s: float = 0.5
    backoff: float = 2.0
    max_s: float = 60.0
    jitter: float = 0.1
    on: tuple[type[Exception], ...] = (Exception,)

    def __post_init__(self) -> None:
        _require(
            _is_int(self.attempts) and self.attempts >= 1, "attempts", self.attempts, "an int >= 1"
        )
        _require(
            _is_finite(self.initial_s) and self.initial_s >= 0,
            "initial_s",
            self.initial_s,
            "seconds >= 0",
        )
        _require(
            _is_finite(self.backoff) and self.backoff >= 1, "backoff", self.backoff, "a factor >= 1"
        )
        _require(
            _is_finite(self.max_s) and self.max_s >= self.initial_s,
            "max_s",
            self.max_s,
            f"seconds >= initial_s ({self.initial_s})",
        )
        _require(
            _is_finite(self.jitter) and 0 <= self.jitter <= 1,
            "jitter",
            self.jitter,
            "a share from 0 to 1",
        )
        _require(
            _are_exceptions(self.on),
            "on",
            self.on,
            "a tuple of Exception classes, such as on=(ConnectionError,)",
        )

    def delay_s(self, failed_attempts: int, unit: float) -> float:
        """The pause before the next attempt.

        Args:
            failed_attempts: How many attempts have failed so far; at least 1.
            unit: A random number from 0 up to, not including, 1, drawn by the caller.

        Returns:
            Seconds, between `(1 - jitter) * d` and `d`, where `d = min(max_s, initial_s * backoff ** (failed - 1))`.
        """
        try:
            delay = min(self.max_s, self.initial_s * self.backoff ** (failed_attempts - 1))
        except (
            OverflowError
        ):  # a power beyond a float is beyond max_s too, unless there is nothing to multiply
            delay = self.max_s if self.initial_s else 0.0
        return delay * (1.0 - self.jitter * unit)

    def retries(self, error: BaseException) -> bool:
        """Whether another attempt may mend `error`; how many attempts are left is the caller's to count."""
        return isinstance(error, self.on) and not isinstance(error, _NEVER_RETRIED)


def _require(holds: bool, field: str, value: object, wanted: str) -> None:
    if not holds:
        msg = f"Retry({field}={value!r}) can't be: {field} must be {wanted}."
        raise DefinitionError(msg)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_exceptions(kinds: object) -> bool:
    if not isinstance(kinds, tuple):
        return False
    listed = cast("tuple[object, ...]", kinds)
    return bool(listed) and all(
        isinstance(kind, type) and issubclass(kind, Exception) for kind in listed
    )

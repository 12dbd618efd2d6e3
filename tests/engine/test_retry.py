"""Retry: when a failed attempt is tried again, and after how long."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.engine.retry import Retry
from refold.log.errors import DefinitionError, PayloadError, StepTimeout, UsageError

UNTYPED: Any = Retry

units = st.floats(0, 1, exclude_max=True)


def test_delays_grow_by_the_factor_up_to_the_longest() -> None:
    """Given no jitter, the delays are exact."""
    retry = Retry(attempts=9, initial_s=0.5, backoff=2.0, max_s=3.0, jitter=0.0)
    assert [retry.delay_s(failed, 0.7) for failed in (1, 2, 3, 4, 5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


@given(failed=st.integers(1, 10**6), unit=units, jitter=st.floats(0, 1))
def test_chance_only_shortens_a_delay(failed: int, unit: float, jitter: float) -> None:
    """Given any draw, the delay stays within the jitter's share, and within the longest delay."""
    retry = Retry(initial_s=0.5, backoff=3.0, max_s=60.0, jitter=jitter)
    plain = Retry(initial_s=0.5, backoff=3.0, max_s=60.0, jitter=0.0).delay_s(failed, unit)
    delay = retry.delay_s(failed, unit)
    assert plain * (1 - jitter) - 1e-9 <= delay <= plain <= 60.0


def test_a_power_beyond_a_float_is_the_longest_delay() -> None:
    """Given so many attempts that the power overflows, the delay is `max_s`, and 0 stays 0."""
    assert Retry(initial_s=1, backoff=1e300, max_s=9, jitter=0).delay_s(500, 0.0) == 9
    assert Retry(initial_s=0, backoff=1e300, max_s=9, jitter=0).delay_s(500, 0.0) == 0


def test_only_the_named_errors_are_tried_again() -> None:
    """Given `on=(ConnectionError,)`, its subclasses count and others do not."""
    retry = Retry(on=(ConnectionError,))
    assert retry.retries(ConnectionResetError())
    assert not retry.retries(ValueError())
    assert not retry.retries(StepTimeout())
    assert Retry(on=(TimeoutError,)).retries(StepTimeout())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
def test_what_is_no_exception_is_never_tried_again(error: BaseException) -> None:
    """Given an exit, no attempt follows."""
    assert not Retry().retries(error)


@pytest.mark.parametrize("error", [PayloadError("x"), UsageError("x"), DefinitionError("x")])
def test_wrong_use_of_refold_is_never_tried_again(error: Exception) -> None:
    """Given a mistake in the code, another attempt would only make the effect once more."""
    assert not Retry().retries(error)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Retry(attempts=0), "attempts"),
        (lambda: Retry(attempts=True), "attempts"),
        (lambda: UNTYPED(attempts=1.5), "attempts"),
        (lambda: Retry(initial_s=-1), "initial_s"),
        (lambda: Retry(initial_s=math.nan), "initial_s"),
        (lambda: Retry(backoff=0.5), "backoff"),
        (lambda: Retry(max_s=0.1), "max_s"),
        (lambda: Retry(max_s=math.inf), "max_s"),
        (lambda: Retry(jitter=1.5), "jitter"),
        (lambda: Retry(on=()), "on"),
        (lambda: UNTYPED(on=ValueError), "on"),
        (lambda: UNTYPED(on=(KeyboardInterrupt,)), "on"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(make: Callable[[], Retry], field: str) -> None:
    """Given an impossible value, the error names the field and what it takes."""
    with pytest.raises(DefinitionError, match=rf"^Retry\({field}=.*must be"):
        make()

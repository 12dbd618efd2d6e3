"""The soak's rule: what grows is found, and noise is not taken for growth."""

import math
from random import Random

import pytest

from chaos_flatness import LEAST_SAMPLES, Sample, Tolerance, flatness

MEMORY = Tolerance(0.05, 4.0)
LENGTH_S = 1_800
STEP_S = 5


def series(value: "list[float]") -> list[Sample]:
    """Samples at equal distances."""
    return [Sample(float(STEP_S * place), one) for place, one in enumerate(value)]


def noisy(base: float, noise: float, seed: int = 1) -> list[float]:
    """Half an hour of a value that wavers."""
    random = Random(seed)
    return [base + random.gauss(0, noise) for _ in range(LENGTH_S // STEP_S)]


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_flat(seed: int) -> None:
    """Given a value that only wavers, by any seed, it is flat."""
    assert flatness(series(noisy(100, 3, seed)), MEMORY).flat is True


@pytest.mark.parametrize("seed", range(20))
def test_a_slow_leak_is_found_beneath_noise(seed: int) -> None:
    """Given 20 MB more in half an hour, and noise of 3 MB, it grows, and the slope says how fast."""
    values = [
        value + 20 * place * STEP_S / LENGTH_S for place, value in enumerate(noisy(100, 3, seed))
    ]
    found = flatness(series(values), MEMORY)
    assert found.flat is False
    assert found.slope_per_h == pytest.approx(40, rel=0.2)


def test_a_leak_in_steps_is_found() -> None:
    """Given something that takes 8 MB every ten minutes, it grows."""
    values = [100.0 + 8 * (place * STEP_S // 600) for place in range(LENGTH_S // STEP_S)]
    assert flatness(series(values), MEMORY).flat is False


def test_a_leak_of_open_files_is_found() -> None:
    """Given one more open file every two minutes, it grows."""
    values = [30.0 + place * STEP_S // 120 for place in range(LENGTH_S // STEP_S)]
    assert flatness(series(values), Tolerance(0.05, 3.0)).flat is False


def test_a_warm_up_is_no_growth() -> None:
    """Given memory that fills in the first minutes and then stays, it is flat."""
    values = [100 - 60 * math.exp(-place * STEP_S / 90) for place in range(LENGTH_S // STEP_S)]
    assert flatness(series(values), MEMORY).flat is True


def test_a_sawtooth_is_flat() -> None:
    """Given memory that rises and is collected, over and over, it is flat."""
    values = [100.0 + place % 40 for place in range(LENGTH_S // STEP_S)]
    assert flatness(series(values), MEMORY).flat is True


def test_one_peak_is_no_growth() -> None:
    """Given a few samples far above the others at the end, it is flat: medians do not see them."""
    values = noisy(100, 1)
    values[-8:] = [500.0] * 8
    assert flatness(series(values), MEMORY).flat is True


def test_what_shrinks_is_flat() -> None:
    """Given a value that falls, nothing grows."""
    assert flatness(series(noisy(100, 1)[::-1] + noisy(60, 1)), MEMORY).flat is True


def test_too_few_samples_say_nothing() -> None:
    """Given hardly any samples, the rule says neither."""
    assert flatness(series([1.0] * LEAST_SAMPLES), MEMORY).flat is None
    assert flatness([], MEMORY).flat is None

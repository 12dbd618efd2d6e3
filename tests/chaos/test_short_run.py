"""A fault run in short: real brokers, workers and clients as processes, and no violation."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos_case import load_case
from chaos_checker import RULES, violations
from chaos_display import Display
from chaos_report import NUMBERS, PAGE
from chaos_run import DEFAULT_DIRECTORY, Settings, prepare, run
from kafka_broker import BrokerUnavailableError

SEED = 8
"""It plans nine kinds of fault within the time; long runs draw their own."""
SECONDS = 22.0
"""Enough for some twenty faults. Long runs are `make chaos`."""

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(420)]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that stays where the test fails, and is named."""
    path = (Path(__file__).parents[2] / DEFAULT_DIRECTORY / f"test-{os.getpid()}").absolute()
    yield path
    print(f"what there is of the run stands in {path}")
    if (path / "sound").exists():
        shutil.rmtree(path)


def test_nothing_is_lost_repeated_or_made_up_while_three_brokers_and_three_workers_break(
    directory: Path,
) -> None:
    """Given three brokers, three workers and three clients, while all that breaks is broken, every rule holds.

    `REFOLD_CHAOS_SEED` chooses another seed.
    """
    seed = int(os.environ.get("REFOLD_CHAOS_SEED", SEED))
    settings = Settings(seed, SECONDS, clients=2, fault_pause_s=1.2)
    print(f"REFOLD_CHAOS_SEED={seed} breaks the same things again; at length: {settings.again}")
    prepare(settings, directory)
    try:
        verdict = asyncio.run(run(settings, directory, Display()))
    except BrokerUnavailableError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI must test on a real Kafka broker: {error}", pytrace=False)
        pytest.skip(f"no Kafka broker: {error}")
    print(verdict.figures.operations, verdict.figures.faults, verdict.figures.counts)
    assert [str(violation) for violation in verdict.violations] == []
    assert verdict.figures.operations_in_all > 30
    assert len(verdict.figures.faults) > 3
    assert len(verdict.case.audited.claims) > settings.workers
    assert (directory / NUMBERS).exists()
    page = (directory / PAGE).read_text()
    assert f"SEED={seed}" in page
    assert f"<b>{len(RULES)}</b>" in page
    assert violations(load_case(directory)) == []  # what is kept can be judged again
    (directory / "sound").touch()

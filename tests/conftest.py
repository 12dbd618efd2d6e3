"""Fixtures for every test: a real Kafka broker, PostgreSQL and browser, or else skipped in plain sight.

Where CI is set, one that can't be had is a failure: a green run there has tested them all.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

import pytest
from hypothesis import settings

import postgres_server
from browser import BrowserUnavailableError, Chromium, Tab, chromium
from kafka_broker import Broker, BrokerUnavailableError, Cluster, find_or_start
from kafka_secure import SecureBroker
from postgres_server import PostgresUnavailableError

T = TypeVar("T")

settings.register_profile("refold", deadline=None)  # a busy machine is no failure
settings.load_profile("refold")

# Brokers that live for seconds: Java's second compiler would work for a time that never comes.
os.environ.setdefault("KAFKA_OPTS", "-XX:TieredStopAtLevel=1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores SIGINT, and so would all that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)

KAFKA_FIXTURES = frozenset(
    {
        "kafka_bootstrap",
        "kafka_broker",
        "kafka_cluster",
        "lasting_broker",
        "lasting_cluster",
        "secure_broker",
    }
)
NO_KAFKA = "no Kafka broker: "
NO_POSTGRES = "no PostgreSQL: "
NO_BROWSER = "no browser: "


@pytest.fixture(autouse=True)
def _levels_of_logging() -> Iterator[None]:
    """A command that says what it has to say on a page sets the level for its process, which is the tests' here."""
    logger = logging.getLogger("refold")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(scope="session")
def kafka_bootstrap() -> Iterator[str]:
    """The address of a real broker, one for the whole session: name topics so that tests don't meet."""
    with _started(find_or_start) as bootstrap:
        yield bootstrap


@pytest.fixture
def kafka_broker() -> Iterator[Broker]:
    """A broker of the test's own, to be killed, stopped and restarted."""
    with _started(Broker) as broker:
        yield broker


@pytest.fixture
def kafka_cluster() -> Iterator[Cluster]:
    """Three brokers of the test's own: one may be lost."""
    with _started(lambda: Cluster(3)) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def secure_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    """A broker with TLS, logins and access control, one for the whole session: name users so that tests don't meet."""
    directory = tmp_path_factory.mktemp("certificates")
    with _started(lambda: SecureBroker(directory)) as secure:
        yield secure


@pytest.fixture(scope="module")
def _lasting_broker() -> Iterator[Broker]:
    with _started(Broker) as broker:
        yield broker


@pytest.fixture(scope="module")
def _lasting_cluster() -> Iterator[Cluster]:
    with _started(lambda: Cluster(3)) as cluster:
        yield cluster


@pytest.fixture
def lasting_broker(_lasting_broker: Broker) -> Iterator[Broker]:
    """A broker that a module's tests may maltreat one after the other: it is mended after each of them."""
    yield _lasting_broker
    _lasting_broker.revive()


@pytest.fixture
def lasting_cluster(_lasting_cluster: Cluster) -> Iterator[Cluster]:
    """Three such brokers."""
    yield _lasting_cluster
    _lasting_cluster.revive()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a real database, one for the whole session: name schemas so that tests don't meet.

    It forgets what it wrote when the machine crashes, which no test brings about.
    """
    try:
        with postgres_server.find_or_start(["fsync=off"]) as url:
            yield url
    except PostgresUnavailableError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI must test on a real PostgreSQL: {error}", pytrace=False)
        pytest.skip(f"{NO_POSTGRES}{error}")


@contextlib.contextmanager
def _started(start: Callable[[], AbstractContextManager[T]]) -> Generator[T, None, None]:
    try:
        with start() as value:
            yield value
    except BrokerUnavailableError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI must test on a real Kafka broker: {error}", pytrace=False)
        pytest.skip(f"{NO_KAFKA}{error}")


@pytest.fixture(scope="session")
def _browser() -> Iterator[Chromium]:
    try:
        with chromium() as browser:
            yield browser
    except BrowserUnavailableError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI must test pages in a real browser: {error}", pytrace=False)
        pytest.skip(f"{NO_BROWSER}{error}")


@pytest.fixture
def browser_page(_browser: Chromium) -> Iterator[Tab]:
    """A fresh page in a real browser that reaches files and loopback only (`tools/browser.py`).

    The test fails if the page complained on its console or asked for anything else, unless it has looked at that
    itself and cleared `errors` and `refused`.
    """
    with _browser.tab() as tab:
        yield tab
    assert not tab.errors, "the page's console has errors"
    assert not tab.refused, "the page asked for something beyond this machine"


@pytest.hookimpl(tryfirst=True)  # before -m decides what stays
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not KAFKA_FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.kafka)
    # Several processes take one file after the other: those that take long begin, or the last would be waited for.
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say it where nobody can miss it: these tests did not run, and what would let them."""
    skips: list[pytest.TestReport] = terminalreporter.stats.get("skipped", [])
    reasons = [report.longreprtext for report in skips]
    _tell_missing(
        terminalreporter,
        ("KAFKA", NO_KAFKA, "Install Java 17+ and Maven, or set KAFKA_BOOTSTRAP=host:port."),
        reasons,
    )
    _tell_missing(
        terminalreporter,
        ("POSTGRESQL", NO_POSTGRES, "Install PostgreSQL, or set POSTGRES_URL=postgresql://..."),
        reasons,
    )
    _tell_missing(
        terminalreporter, ("A BROWSER", NO_BROWSER, "Install Chromium: pages need it."), reasons
    )


def _tell_missing(
    reporter: pytest.TerminalReporter, about: tuple[str, str, str], reasons: list[str]
) -> None:
    name, mark, advice = about
    without = [reason.split(mark)[1] for reason in reasons if mark in reason]
    if not without:
        return
    reporter.section(f"{name} WAS NOT TESTED", sep="!", red=True, bold=True)
    reason = without[0].rstrip("')")  # the end of a tuple's text: (path, line, reason)
    reporter.line(f"{len(without)} tests skipped: {reason}", red=True)
    reporter.line(advice, red=True)

"""How an archive is named: in any log's URL, by a directory or by its file URL."""

from pathlib import Path

import pytest

from refold.log.archive import Archive, archive_path
from refold.log.archived import ArchivedLog, unarchived
from refold.log.errors import LogMismatch, LogUnavailable, UsageError
from refold.log.memory import MemoryLog
from refold.log.sqlite import SqliteLog
from refold.log.urls import kafka_address, open_log, with_archive


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("sqlite:///orders.db?archive=old", SqliteLog),
        ("sqlite:///orders.db?partitions=4&archive=old", SqliteLog),
        ("memory://?archive=old&partitions=2", MemoryLog),
    ],
)
def test_any_log_may_have_an_archive(url: str, kind: type) -> None:
    """Given archive= among a URL's options, the log is read together with it, and the others count as ever."""
    log = open_log(url)
    assert isinstance(log, ArchivedLog)
    assert isinstance(unarchived(log), kind)


def test_a_namespace_on_kafka_has_its_other_settings_still() -> None:
    """Given archive= among the settings of a Kafka URL, it is none of them."""
    url = "kafka://host:9092/orders?archive=/var/old&client_id=me"
    log = open_log(url)
    assert isinstance(log, ArchivedLog)
    assert log.namespace == "orders"
    assert kafka_address(url, {}).settings.client_id == "me"


def test_two_archives_are_refused() -> None:
    """Given archive= twice, the URL is refused."""
    with pytest.raises(UsageError, match="'archive' is given twice"):
        open_log("sqlite:///orders.db?archive=a&archive=b")


@pytest.mark.parametrize(
    ("url", "place", "named"),
    [
        ("sqlite:///o.db", None, "sqlite:///o.db"),
        ("sqlite:///o.db", "a dir", "sqlite:///o.db?archive=a%20dir"),
        ("sqlite:///o.db?partitions=2", "b", "sqlite:///o.db?partitions=2&archive=b"),
        ("sqlite:///o.db?archive=a&partitions=2", "b", "sqlite:///o.db?partitions=2&archive=b"),
        ("sqlite:///o.db?archive=a", None, "sqlite:///o.db?archive=a"),
    ],
)
def test_an_option_takes_the_place_of_the_urls(url: str, place: str | None, named: str) -> None:
    """Given an archive beside a URL, it takes the place of the URL's own."""
    assert with_archive(url, place) == named


def test_a_directory_is_named_by_its_path_or_url() -> None:
    """Given a path or a file URL, the directory is the same; what is neither is refused."""
    assert archive_path("/var/old") == archive_path("file:///var/old") == Path("/var/old")
    assert archive_path("old things") == Path("old things")
    for wrong in ("", "s3://bucket/old", "file://host/old"):
        with pytest.raises(UsageError):
            archive_path(wrong)


def test_an_archive_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    """Given a directory without an archive, the error names it."""
    with pytest.raises(LogUnavailable, match=r"manifest\.json: there is no archive"):
        Archive(str(tmp_path))


def test_a_newer_archive_is_left_alone(tmp_path: Path) -> None:
    """Given a manifest of a format that this release does not know, it is refused, with what to do."""
    (tmp_path / "manifest.json").write_text('{"format": 2, "files": "otherwise"}')
    with pytest.raises(LogMismatch, match="upgrade refold"):
        Archive(str(tmp_path))


@pytest.mark.parametrize(
    "url",
    ["archive://host/a", "archive:///", "archive:///a?archive=b", "archive:///a?partitions=2"],
)
def test_an_archive_alone_is_a_directory(url: str) -> None:
    """Given an archive's URL that names no directory, or says what only a log can have, it is refused."""
    with pytest.raises(UsageError, match="an archive alone is its directory"):
        open_log(url)


def test_an_archive_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LogUnavailable, match="there is no archive"):
        open_log(f"archive:///{tmp_path}/none")

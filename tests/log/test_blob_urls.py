"""URLs of blob stores, and of logs that name one."""

from pathlib import Path

import pytest

from refold.log.blob_urls import blobs_from, open_blobs
from refold.log.blobs import BlobStore, MemoryBlobs, blobs_of
from refold.log.errors import UsageError
from refold.log.urls import open_log


def place(store: BlobStore | None) -> str:
    """Where a store is."""
    assert store is not None
    return store.url


@pytest.mark.parametrize(
    ("url", "namespace", "where"),
    [
        ("file:///var/blobs", "", "file:///var/blobs"),
        ("file:///var/a%20b/", "orders", "file:///var/a%20b/orders"),
        ("s3://bucket", "", "s3://bucket"),
        ("s3://bucket/some/prefix/", "orders", "s3://bucket/some/prefix/orders"),
        (
            "s3://bucket?endpoint=http://minio:9000&region=eu",
            "x",
            "s3://bucket/x at http://minio:9000",
        ),
    ],
)
def test_a_url_names_a_store(url: str, namespace: str, where: str) -> None:
    """Given a URL and a namespace, the store is the namespace's folder in that place."""
    assert place(open_blobs(url, namespace)) == where


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/var/blobs",
        "file://host/var/blobs",
        "file:relative",
        "file:///a?x=1",
        "s3://",
        "s3://user:secret@bucket",
        "s3://bucket?region=eu&colour=red",
        "gs://bucket",
        "http://[bad",
    ],
)
def test_others_are_refused_with_what_is_accepted(url: str) -> None:
    """Given something else, the error lists what a URL may be."""
    with pytest.raises(UsageError, match="s3://bucket/prefix"):
        open_blobs(url)


def test_the_environment_names_a_store() -> None:
    """Given REFOLD_BLOBS, it is the store; unset or empty, there is none."""
    named = blobs_from("orders", {"REFOLD_BLOBS": "file:///var/blobs"})
    assert place(named) == "file:///var/blobs/orders"
    assert blobs_from("orders", {"REFOLD_BLOBS": ""}) is None
    assert blobs_from("orders", {}) is None


def test_a_file_has_a_directory_beside_it(tmp_path: Path) -> None:
    """Given a SQLite log, large payloads go to the directory beside it, unless its URL names another place."""
    url = f"sqlite:///{tmp_path}/orders.db"
    assert place(blobs_of(open_log(url))) == f"{(tmp_path / 'orders.db.blobs').as_uri()}"
    named = open_log(f"{url}?partitions=2&blobs=s3://bucket/orders")
    assert place(blobs_of(named)) == "s3://bucket/orders"


def test_a_name_in_memory_has_one_store_for_all() -> None:
    """Given two logs over one store of records, they share the blobs; a log for itself has its own."""
    one, other = open_log("memory://blobs"), open_log("memory://blobs")
    assert isinstance(blobs_of(one), MemoryBlobs)
    assert blobs_of(one) is blobs_of(other)
    assert blobs_of(open_log("memory://")) is not blobs_of(open_log("memory://"))


def test_a_kafka_namespace_has_the_store_that_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given Kafka, there is a store where the URL or the environment names one, in the namespace's folder."""
    url = "kafka://localhost:9092/orders"
    monkeypatch.delenv("REFOLD_BLOBS", raising=False)
    assert blobs_of(open_log(url)) is None
    monkeypatch.setenv("REFOLD_BLOBS", "file:///shared")
    assert place(blobs_of(open_log(url))) == "file:///shared/orders"
    assert place(blobs_of(open_log(f"{url}?blobs=s3://bucket"))) == "s3://bucket/orders"


def test_a_store_that_can_not_be_is_refused_with_the_log() -> None:
    """Given a log's URL that names no store, the error is about the store."""
    with pytest.raises(UsageError, match="blob store"):
        open_log("sqlite:///orders.db?blobs=nowhere")

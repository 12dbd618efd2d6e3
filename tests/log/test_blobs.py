"""Blob stores: what each of them promises, and what becomes of a directory in crashes and races."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Generator
from pathlib import Path

import boto3
import pytest

from refold.log.blob_directory import DirectoryBlobs
from refold.log.blob_s3 import S3Blobs
from refold.log.blobs import (
    BlobStore,
    MemoryBlobs,
    Reference,
    fetch,
    reference_in,
    reference_to,
)
from refold.log.errors import BlobCorrupt, BlobMissing, BlobsUnavailable
from s3_server import s3_server

DATA = b'{"name": "a large one"}'
REFERENCE = reference_to(DATA)
HOUR_S = 3600.0


@pytest.fixture(scope="module")
def s3_endpoint() -> Generator[str, None, None]:
    """The URL of an S3 server with the bucket `large`."""
    with pytest.MonkeyPatch.context() as patch, s3_server() as url:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3", endpoint_url=url).create_bucket(Bucket="large")
        yield url


@pytest.fixture(params=["memory", "directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    """An empty store of each kind in turn."""
    if request.param == "memory":
        return MemoryBlobs()
    if request.param == "directory":
        return DirectoryBlobs(tmp_path / "blobs")
    endpoint: str = request.getfixturevalue("s3_endpoint")
    return S3Blobs("large", uuid.uuid4().hex, endpoint=endpoint)


@pytest.fixture
def directory(tmp_path: Path) -> DirectoryBlobs:
    """An empty directory of blobs, which has not been made yet."""
    return DirectoryBlobs(tmp_path / "some" / "blobs")


def make_old(store: DirectoryBlobs, digest: str) -> None:
    """Let a blob have been put two hours ago."""
    at = time.time() - 2 * HOUR_S
    os.utime(store.path(digest), (at, at))


class TestReferences:
    def test_a_reference_comes_back_from_its_text(self) -> None:
        """Given the text of a reference, reading it gives the reference."""
        assert reference_in(REFERENCE.text) == REFERENCE

    @pytest.mark.parametrize(
        "payload",
        [
            '"blob:sha256:' + "0" * 64 + ':5"',
            "blob:sha256:" + "0" * 63 + ":5",
            "blob:sha256:" + "A" * 64 + ":5",
            "blob:sha256:" + "0" * 64 + ":5 ",
            "blob:",
            "null",
            "",
        ],
    )
    def test_nothing_else_is_one(self, payload: str) -> None:
        """Given JSON, also of a text that looks like a reference, or a broken one, it is no reference."""
        assert reference_in(payload) is None


class TestEveryStore:
    def test_what_is_put_comes_back(self, store: BlobStore) -> None:
        """Given a blob that was put, its bytes come back, and it is listed with its size and time."""
        before = time.time() - 2  # S3 tells whole seconds
        store.put(REFERENCE.digest, DATA)
        assert fetch(store, REFERENCE, "result") == DATA
        (listed,) = store.stored()
        assert listed[:2] == (REFERENCE.digest, len(DATA))
        assert before <= listed.put_at <= time.time() + 2

    def test_what_was_never_put_is_missing(self, store: BlobStore) -> None:
        """Given an empty store, a blob is missing, and the error names what it is, its digest and the store."""
        assert store.get(REFERENCE.digest) is None
        assert list(store.stored()) == []
        with pytest.raises(BlobMissing) as told:
            fetch(store, REFERENCE, "result of step 3 of workflow 'order-42'")
        for part in ("step 3 of workflow 'order-42'", REFERENCE.digest, store.url):
            assert part in str(told.value)

    def test_the_same_blob_twice_is_kept_once(self, store: BlobStore) -> None:
        """Given a blob that is put twice, there is one."""
        store.put(REFERENCE.digest, DATA)
        store.put(REFERENCE.digest, DATA)
        assert len(list(store.stored())) == 1

    def test_only_what_was_put_before_a_time_is_deleted(self, store: BlobStore) -> None:
        """Given a blob, deleting what is older than it leaves it, and deleting what is younger takes it, once."""
        store.put(REFERENCE.digest, DATA)
        assert not store.delete(REFERENCE.digest, time.time() - HOUR_S)
        assert store.get(REFERENCE.digest) == DATA
        assert store.delete(REFERENCE.digest, time.time() + HOUR_S)
        assert store.get(REFERENCE.digest) is None
        assert not store.delete(REFERENCE.digest, time.time() + HOUR_S)

    def test_another_blob_under_the_name_is_told(self, store: BlobStore) -> None:
        """Given other bytes under the digest, reading says that they are not what was put."""
        store.put(REFERENCE.digest, DATA[:-1] + b"]")
        with pytest.raises(BlobCorrupt, match="backup"):
            fetch(store, REFERENCE, "result")

    def test_another_size_is_told(self, store: BlobStore) -> None:
        """Given a reference with a size that the blob does not have, reading refuses it."""
        store.put(REFERENCE.digest, DATA)
        with pytest.raises(BlobCorrupt):
            fetch(store, Reference(REFERENCE.digest, 5), "result")

    def test_many_threads_may_put_at_once(self, store: BlobStore) -> None:
        """Given threads that put the same blob and one of their own each, all of them are there, whole."""
        own = [b"%d" % number for number in range(8)]

        def put(data: bytes) -> None:
            for blob in (DATA, data, DATA):
                store.put(reference_to(blob).digest, blob)

        threads = [threading.Thread(target=put, args=(data,)) for data in own]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for blob in (DATA, *own):
            assert fetch(store, reference_to(blob), "result") == blob
        assert len(list(store.stored())) == len(own) + 1


class TestDirectory:
    @pytest.mark.parametrize("at", ["write", "fsync", "rename"])
    def test_a_crash_before_the_rename_leaves_no_blob(
        self, directory: DirectoryBlobs, at: str
    ) -> None:
        """Given a process that is killed while it puts a blob, there is none, and the next put makes it."""
        code = f"""
import os, pathlib, signal, sys
from refold.log.blob_directory import DirectoryBlobs
def die(*args): os.kill(os.getpid(), signal.SIGKILL)
match {at!r}:
    case "write": os.fsync = die
    case "fsync":
        real = os.fsync
        os.fsync = lambda handle: (real(handle), die())
    case "rename": pathlib.Path.rename = die
DirectoryBlobs({str(directory.directory)!r}).put({REFERENCE.digest!r}, {DATA!r})
"""
        died = subprocess.run([sys.executable, "-c", code], check=False)
        assert died.returncode == -signal.SIGKILL
        assert directory.get(REFERENCE.digest) is None
        assert list(directory.stored()) == []
        assert list(directory.directory.glob("*/.tmp-*"))
        directory.put(REFERENCE.digest, DATA)
        assert fetch(directory, REFERENCE, "result") == DATA

    def test_what_a_dead_writer_left_is_cleared_when_it_is_old(
        self, directory: DirectoryBlobs
    ) -> None:
        """Given a half-written file, it stays while its writer may live, and goes later; the blob beside it stays."""
        directory.put(REFERENCE.digest, DATA)
        half = directory.path(REFERENCE.digest).with_name(".tmp-dead")
        half.write_bytes(DATA[:5])
        assert directory.delete_leftovers(time.time() - HOUR_S) == 0
        assert directory.delete_leftovers(time.time() + HOUR_S) == 1
        assert not half.exists()
        assert directory.get(REFERENCE.digest) == DATA

    def test_a_file_is_durable_before_it_has_its_name(
        self, directory: DirectoryBlobs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Given a put, the file is fsynced, then renamed, then each directory on the way to it is fsynced."""
        done: list[str] = []
        fsync, rename = os.fsync, Path.rename

        def noted_fsync(handle: int) -> None:
            done.append(f"fsync {Path(f'/proc/self/fd/{handle}').readlink().name[:5]}")
            fsync(handle)

        def noted_rename(path: Path, target: Path) -> Path:
            done.append("rename")
            return rename(path, target)

        monkeypatch.setattr(os, "fsync", noted_fsync)
        monkeypatch.setattr(Path, "rename", noted_rename)
        directory.put(REFERENCE.digest, DATA)
        part = REFERENCE.digest[:2]
        assert done == ["fsync .tmp-", "rename", f"fsync {part}", "fsync blobs", "fsync some"]
        done.clear()
        directory.put(REFERENCE.digest, DATA)
        assert done == [f"fsync {part}"]

    def test_putting_again_makes_it_young(self, directory: DirectoryBlobs) -> None:
        """Given an old blob that is put again, the collector leaves it."""
        directory.put(REFERENCE.digest, DATA)
        make_old(directory, REFERENCE.digest)
        directory.put(REFERENCE.digest, DATA)
        assert not directory.delete(REFERENCE.digest, time.time() - HOUR_S)

    def test_a_file_cut_off_is_mended_by_the_next_put(self, directory: DirectoryBlobs) -> None:
        """Given a blob that a damaged disk has cut off, putting it again writes it anew."""
        directory.put(REFERENCE.digest, DATA)
        directory.path(REFERENCE.digest).write_bytes(DATA[:4])
        with pytest.raises(BlobCorrupt):
            fetch(directory, REFERENCE, "result")
        directory.put(REFERENCE.digest, DATA)
        assert fetch(directory, REFERENCE, "result") == DATA

    def test_a_put_between_the_collectors_look_and_its_delete_saves_the_blob(
        self, directory: DirectoryBlobs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Given a writer that touches a blob when the collector has found it old, the collector puts it back."""
        directory.put(REFERENCE.digest, DATA)
        make_old(directory, REFERENCE.digest)
        rename = Path.rename
        renamed: list[str] = []

        def put_first(path: Path, target: Path) -> Path:
            if not renamed:
                os.utime(path)
            renamed.append(path.name)
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", put_first)
        assert not directory.delete(REFERENCE.digest, time.time() - HOUR_S)
        assert len(renamed) == 2
        assert directory.get(REFERENCE.digest) == DATA

    def test_a_put_after_the_collector_took_it_writes_it_anew(
        self, directory: DirectoryBlobs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Given a writer that comes when the collector has taken a blob away, the blob is there in the end."""
        directory.put(REFERENCE.digest, DATA)
        make_old(directory, REFERENCE.digest)
        unlink = Path.unlink

        def put_before(path: Path, missing_ok: bool = False) -> None:
            monkeypatch.setattr(Path, "unlink", unlink)
            directory.put(REFERENCE.digest, DATA)
            unlink(path, missing_ok)

        monkeypatch.setattr(Path, "unlink", put_before)
        assert directory.delete(REFERENCE.digest, time.time() - HOUR_S)
        assert directory.get(REFERENCE.digest) == DATA

    @pytest.mark.parametrize("written_anew", [True, False])
    def test_what_a_dead_collector_took_is_put_back(
        self, directory: DirectoryBlobs, written_anew: bool
    ) -> None:
        """Given a collector that died with a blob in its hands, the blob comes back, and a younger one stays young."""
        directory.put(REFERENCE.digest, DATA)
        make_old(directory, REFERENCE.digest)
        path = directory.path(REFERENCE.digest)
        path.rename(path.with_name(f".gone-{REFERENCE.digest}"))
        if written_anew:
            directory.put(REFERENCE.digest, DATA)
        assert directory.delete_leftovers(time.time() - HOUR_S) == 1
        assert directory.get(REFERENCE.digest) == DATA
        assert directory.delete(REFERENCE.digest, time.time() - HOUR_S) is not written_anew

    def test_a_place_that_is_no_directory_is_unavailable(self, tmp_path: Path) -> None:
        """Given a file where the directory should be, writing and reading say so."""
        (tmp_path / "file").write_text("x")
        store = DirectoryBlobs(tmp_path / "file")
        with pytest.raises(BlobsUnavailable, match=store.url):
            store.put(REFERENCE.digest, DATA)
        with pytest.raises(BlobsUnavailable):
            store.get(REFERENCE.digest)


class TestS3:
    def test_a_bucket_that_is_not_there_is_unavailable(self, s3_endpoint: str) -> None:
        """Given a bucket that does not exist, every call says which store can't be used."""
        store = S3Blobs("nowhere", endpoint=s3_endpoint)
        for call in (
            lambda: store.put(REFERENCE.digest, DATA),
            lambda: store.get(REFERENCE.digest),
            lambda: list(store.stored()),
        ):
            with pytest.raises(BlobsUnavailable, match="s3://nowhere"):
                call()

    def test_a_server_that_is_away_is_unavailable(self, s3_endpoint: str) -> None:
        """Given nobody at the address, the error is one to try again after."""
        store = S3Blobs("large", endpoint="http://127.0.0.1:9")
        with pytest.raises(BlobsUnavailable):
            store.get(REFERENCE.digest)

    def test_namespaces_do_not_see_each_other(self, s3_endpoint: str) -> None:
        """Given two prefixes of one bucket, each lists its own blobs."""
        one = S3Blobs("large", "one/", endpoint=s3_endpoint)
        other = S3Blobs("large", "/other", endpoint=s3_endpoint)
        one.put(REFERENCE.digest, DATA)
        assert [blob.digest for blob in one.stored()] == [REFERENCE.digest]
        assert list(other.stored()) == []
        assert other.get(REFERENCE.digest) is None

"""Large payloads: kept in a blob store beside the log, with a reference to them in the records.

Rules:

1. A blob is a payload's JSON in UTF-8, named by its SHA-256: two different texts never share a name, and the same text
   is kept once. A blob is never changed.
2. In a record, `payload` is then the reference `blob:sha256:<64 hex digits>:<bytes>`, and `encoding` says `json+blob`
   where the record has that field. No JSON text begins with a "b", so neither can be taken for the other, also where
   no `encoding` stands beside it.
3. A blob is durable before the record that names it is appended. What is read is verified against its name.
4. The log's hash chain covers the reference and so, through the digest, the payload.
5. Only a blob that no record names, and that nobody has put for a while, may be deleted (`log/blob_garbage.py`).
   Putting one that is there makes it young again.

A reference is made of characters that no JSON writer escapes, so that it stands as it is in whatever text holds it: a
copied history, a checkpoint.
"""

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol, runtime_checkable

from refold.log.errors import BlobCorrupt, BlobMissing
from refold.log.protocol import Log

BLOB: Final = "json+blob"
"""The `encoding` of a payload that is a reference."""

PREFIX: Final = "blob:"
REFERENCE: Final = re.compile(r"blob:sha256:([0-9a-f]{64}):([0-9]{1,15})")
REFERENCE_CHARS: Final = 100
"""No reference is longer."""


class Reference(NamedTuple):
    """What names a blob: its SHA-256 in hex, and how many bytes it has."""

    digest: str
    size: int

    @property
    def text(self) -> str:
        """How it stands in a record."""
        return f"blob:sha256:{self.digest}:{self.size}"


def reference_to(data: bytes) -> Reference:
    """The reference to a blob."""
    return Reference(hashlib.sha256(data).hexdigest(), len(data))


def reference_in(payload: str) -> Reference | None:
    """The reference that a payload is; None where it is JSON."""
    if payload[:5] != PREFIX:
        return None
    found = REFERENCE.fullmatch(payload)
    return None if found is None else Reference(found[1], int(found[2]))


class Stored(NamedTuple):
    """A blob as a store lists it. `put_at` is when it was last put, in seconds since 1970-01-01 UTC."""

    digest: str
    size: int
    put_at: float


class BlobStore(Protocol):
    """Keeps blobs. Every method may block, and may be called on any thread."""

    @property
    def url(self) -> str:
        """Where it is, for messages."""
        ...

    def put(self, digest: str, data: bytes) -> None:
        """Keep a blob; durable when this returns. One that is there already is young again.

        Raises:
            BlobsUnavailable: The store can't be reached or written now.
        """
        ...

    def get(self, digest: str) -> bytes | None:
        """A blob's bytes, as they are there (`fetch` verifies them); None where there is none.

        Raises:
            BlobsUnavailable: The store can't be reached or read now.
        """
        ...

    def stored(self) -> Iterator[Stored]:
        """All blobs, in no order.

        Raises:
            BlobsUnavailable: As `get`.
        """
        ...

    def delete(self, digest: str, before: float) -> bool:
        """Delete a blob unless it was put at `before` or later, seconds since 1970-01-01 UTC; returns whether.

        Raises:
            BlobsUnavailable: As `put`.
        """
        ...

    def delete_leftovers(self, before: float) -> int:
        """Delete what writers that died before `before` have left half done; returns how much of it.

        Raises:
            BlobsUnavailable: As `put`.
        """
        ...


@runtime_checkable
class KeepsBlobs(Protocol):
    """A log that has a store for large payloads."""

    @property
    def blobs(self) -> BlobStore | None:
        """The store; None where none was given."""
        ...


def blobs_of(log: Log) -> BlobStore | None:
    """The store that a log has for large payloads; None for none."""
    return log.blobs if isinstance(log, KeepsBlobs) else None


def fetch(store: BlobStore, reference: Reference, what: str) -> bytes:
    """A blob's bytes, verified.

    Args:
        store: Where it is.
        reference: Which.
        what: What it is, for messages: "result of workflow 'order-42'".

    Raises:
        BlobMissing: It is not there.
        BlobCorrupt: It is not what was put.
        BlobsUnavailable: The store can't be read now.
    """
    data = store.get(reference.digest)
    if data is None:
        raise BlobMissing(
            f"the {what} is blob {reference.digest} of {reference.size:,} bytes, which is not in {store.url}: "
            "give every worker and client the store that it was put into, or restore the blob from a backup"
        )
    found = reference_to(data)
    if found != reference:
        raise BlobCorrupt(
            f"the {what} is blob {reference.digest} of {reference.size:,} bytes, and what {store.url} has under that "
            f"name is {found.size:,} bytes with the SHA-256 {found.digest}: restore the blob from a backup"
        )
    return data


class MemoryBlobs:
    """Blobs in this process's memory, for tests."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._blobs: dict[str, tuple[bytes, float]] = {}

    @property
    def url(self) -> str:
        """Where it is."""
        return "this process's memory"

    def put(self, digest: str, data: bytes) -> None:
        """Keep a blob."""
        with self._mutex:
            self._blobs[digest] = data, time.time()

    def get(self, digest: str) -> bytes | None:
        """A blob's bytes; None where there is none."""
        found = self._blobs.get(digest)
        return None if found is None else found[0]

    def stored(self) -> Iterator[Stored]:
        """All blobs."""
        with self._mutex:
            blobs = list(self._blobs.items())
        return (Stored(digest, len(data), put_at) for digest, (data, put_at) in blobs)

    def delete(self, digest: str, before: float) -> bool:
        """Delete a blob unless it was put at `before` or later."""
        with self._mutex:
            found = self._blobs.get(digest)
            if found is None or found[1] >= before:
                return False
            del self._blobs[digest]
            return True

    def delete_leftovers(self, before: float) -> int:
        """There are none: nothing is ever half done here."""
        return 0

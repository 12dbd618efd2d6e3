"""Large payloads of a namespace on its way to another: each is put into the target's store before what names it."""

import asyncio
import re
from typing import Final

from refold.log.blobs import PREFIX, REFERENCE, BlobStore, MemoryBlobs, Reference, fetch
from refold.log.errors import BlobCorrupt, BlobMissing, LogMismatch

_MARK: Final = PREFIX.encode()
_IN_BYTES: Final = re.compile(REFERENCE.pattern.encode())


class BlobCopy:
    """Copies the blobs that records name, each once.

    Args:
        source: Where they are; None where the source has no store.
        target: Where they are to be; None where the target has no store.
    """

    def __init__(self, source: BlobStore | None, target: BlobStore | None) -> None:
        self.missing: list[str] = []
        self._source = source
        self._target = target
        self._shared = source is not None and target is not None and _is_same(source, target)
        self._copied: set[bytes] = set()

    @property
    def count(self) -> int:
        """How many were copied."""
        return len(self._copied) - len(self.missing)

    async def copy(self, value: bytes) -> None:
        """Copy what a record names. What the source's store has lost is noted in `missing`, and left out.

        Raises:
            LogMismatch: One of the two has no store.
            BlobsUnavailable: A store can't be reached.
        """
        if self._shared or _MARK not in value:
            return
        for found in _IN_BYTES.finditer(value):
            digest = bytes.fromhex(found[1].decode())
            if digest not in self._copied:
                self._copied.add(digest)
                await asyncio.to_thread(self._copy, Reference(digest.hex(), int(found[2])))

    def _copy(self, reference: Reference) -> None:
        if self._source is None or self._target is None:
            which = "source" if self._source is None else "target"
            raise LogMismatch(
                f"records name large payloads, and no store for them was given for the {which}: name it in its URL, as"
                " in ?blobs=s3://bucket/prefix"
            )
        try:
            data = fetch(self._source, reference, "large payload")
        except (BlobMissing, BlobCorrupt):
            self.missing.append(reference.text)
        else:
            self._target.put(reference.digest, data)


def _is_same(one: BlobStore, other: BlobStore) -> bool:
    return one is other or (one.url == other.url and not isinstance(one, MemoryBlobs))

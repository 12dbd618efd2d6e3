"""An archive alone, as a log that can be read: for whoever has a copy of history and no access to the log itself."""

from collections.abc import Sequence

from refold.log.archive import Archive
from refold.log.archived import ArchivedLog
from refold.log.blobs import BlobStore
from refold.log.errors import UsageError
from refold.log.keys import PayloadKeys
from refold.log.memory import MemoryLog, MemoryStore
from refold.log.protocol import Channel, Entry, Listener, Membership


class ArchiveLog(ArchivedLog):
    """A `Log` that ends where its archive did when this was made. It takes nothing in.

    Args:
        place: Directory of the archive, or that directory's file URL.
        blobs: Where large payloads are read; nowhere where not given.
        keys: What encrypted payloads are read with; None for nothing.

    Raises:
        LogError: As `Archive`.
        UsageError: `place` names no directory.
    """

    def __init__(
        self, place: str, *, blobs: BlobStore | None = None, keys: PayloadKeys | None = None
    ) -> None:
        manifest = Archive(place).manifest
        pools = manifest.pools
        store = MemoryStore(manifest.partitions - sum(count for _, count in pools), pools=pools)
        store.identity = manifest.identity
        for partition in range(store.partitions):  # as if all that is archived had been trimmed
            store.trim(Channel.EVENTS, partition, manifest.bounds(partition).end)
        log = MemoryLog(manifest.namespace, store=store, blobs=blobs)
        log.keys = keys
        super().__init__(log, place)

    async def append(
        self,
        channel: Channel,
        partition: int,
        entries: Sequence[Entry],
        *,
        lazily: bool = False,
    ) -> Sequence[int]:
        """Refused."""
        raise self._only_read()

    async def trim(self, channel: Channel, partition: int, before: int) -> None:
        """Refused."""
        raise self._only_read()

    async def join(self, worker: str, listener: Listener, pool: str | None = None) -> Membership:
        """Refused."""
        raise self._only_read()

    def _only_read(self) -> UsageError:
        return UsageError(
            f"this is the archive of {self.namespace!r} alone: it can be read, and nothing can be written or ordered. "
            "Name the log itself, as in sqlite:///FILE or kafka://HOST:PORT/NAMESPACE"
        )

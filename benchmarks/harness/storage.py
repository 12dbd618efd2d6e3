"""A fresh log for each measurement, and what it takes on disk."""

import asyncio
import shutil
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from kafka.admin import KafkaAdminClient

from plan import Backend
from refold.log.kafka import create_topics
from refold.log.kafka_settings import Topics

GROUP_EMPTY_S = 60.0
"""A dead member's session ends after 6 s; longer than this, something else is wrong."""

POLL_S = 0.1


class Storage(Protocol):
    """A log that nobody else uses."""

    @property
    def url(self) -> str:
        """As `Engine` takes it; for the peer, as SQLAlchemy does."""
        ...

    def disk_bytes(self) -> int | None:
        """What it takes on disk; None for memory."""

    def wait_until_free(self) -> None:
        """Wait until a killed process no longer holds any of it."""


class MemoryStorage:
    """Nothing on disk, gone with the process."""

    url = "memory://bench"

    def disk_bytes(self) -> int | None:
        """None."""
        return None

    def wait_until_free(self) -> None:
        """There is nobody to wait for."""


class FileStorage:
    """A SQLite file in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.url = f"sqlite:///{directory / 'bench.db'}"

    def disk_bytes(self) -> int | None:
        """The file and its journals."""
        files = (path for path in self._directory.rglob("*") if path.is_file())
        return sum(path.stat().st_size for path in files)

    def wait_until_free(self) -> None:
        """The kernel has freed a dead process's locks before its parent hears of its death."""


class KafkaStorage:
    """A namespace of its own."""

    def __init__(self, admin: KafkaAdminClient, bootstrap: str, namespace: str) -> None:
        self._admin = admin
        self._topics = Topics(namespace)
        self.url = f"kafka://{bootstrap}/{namespace}"

    def disk_bytes(self) -> int | None:
        """Segments of all topics, on all brokers: each copy counts."""
        sizes: list[int] = [
            partition["partition_size"]
            for broker in self._admin.describe_log_dirs(list(self._topics.all()))
            for directory in broker["log_dirs"]
            for topic in directory["topics"]
            for partition in topic["partitions"]
        ]
        return sum(sizes)

    def wait_until_free(self) -> None:
        """Wait for the group to drop the dead: what is measured is recovery, not how soon a death is noticed."""
        group = self._topics.group()
        give_up = time.monotonic() + GROUP_EMPTY_S
        while self._admin.describe_groups([group])[group]["members"]:
            if time.monotonic() > give_up:
                raise TimeoutError(f"group {group} still has members after {GROUP_EMPTY_S:.0f} s")
            time.sleep(POLL_S)

    def delete(self) -> None:
        """Leave nothing behind on a broker that may be somebody's."""
        self._admin.delete_topics(list(self._topics.all()))


class Storages:
    """Makes storage.

    Args:
        directory: For files; on the disk that is to be measured.
        bootstrap: Address of a Kafka broker; None where there is none.
        partitions: Of each log.
    """

    def __init__(self, directory: Path, bootstrap: str | None, partitions: int) -> None:
        self._directory = directory
        self._bootstrap = bootstrap
        self._partitions = partitions
        self._admin: KafkaAdminClient | None = None

    @contextmanager
    def fresh(
        self, backend: Backend, partitions: int | None = None
    ) -> Generator[Storage, None, None]:
        """A new and empty log, deleted when the block ends; with `partitions` instead of what others get."""
        partitions = partitions or self._partitions
        match backend:
            case "memory":
                yield MemoryStorage()
            case "sqlite" | "dbos":
                yield from self._file(backend, partitions)
            case "kafka":
                yield from self._namespace(partitions)

    def _file(self, backend: Backend, partitions: int) -> Generator[Storage, None, None]:
        directory = self._directory / f"{backend}-{uuid.uuid4().hex[:8]}"
        directory.mkdir()
        storage = FileStorage(directory)
        if backend == "sqlite":
            storage.url += f"?partitions={partitions}"
        try:
            yield storage
        finally:
            shutil.rmtree(directory)

    def _namespace(self, partitions: int) -> Generator[Storage, None, None]:
        if self._bootstrap is None:
            raise RuntimeError("no Kafka broker: leave the backend out")
        servers = self._bootstrap.split(",")
        if self._admin is None:
            self._admin = KafkaAdminClient(bootstrap_servers=servers)
        namespace = f"bench-{uuid.uuid4().hex[:12]}"
        asyncio.run(create_topics(servers, namespace, partitions))
        storage = KafkaStorage(self._admin, self._bootstrap, namespace)
        try:
            yield storage
        finally:
            storage.delete()

    def close(self) -> None:
        """Close the connection to the broker."""
        if self._admin is not None:
            self._admin.close()

"""Key rings as files in a directory: beside a SQLite log, or on a file system that all workers and clients share.

    <directory>/keys.json           the index key, wrapped by the master key
    <directory>/ab/kabcdef...json   the ring of that id: its keys, wrapped; or when, by whom and why it was destroyed
    <directory>/lock                held while something is changed

A ring's id is a keyed digest (HMAC-SHA256, by the index key) of the name and of how many rings it has had before. So a
name leads to its files and a file leads to no name: what is left of an erased subject does not say who that was.

A ring is written to a temporary file, fsynced and renamed. One that is destroyed is replaced by what is left of it, and
then its former bytes are written over: what a file system or a disk keeps of them for itself is still wrapped.
"""

import fcntl
import hashlib
import hmac
import json
import os
import uuid
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from refold.log.envelope import to_bytes, to_text
from refold.log.errors import KeyMissing, KeysUnavailable, UsageError
from refold.log.keys import KEY_BYTES, Erasure, KeyRing, Master
from refold.log.keys import ring_id as named

FORMAT: Final = 1
_INDEX: Final = "keys.json"
_TEMPORARY: Final = ".tmp-"


class DirectoryKeys:
    """A directory of key rings. It is made when the first ring is.

    Args:
        directory: Where.
        master: Wraps the keys.
    """

    def __init__(self, directory: str | os.PathLike[str], master: Master) -> None:
        self._directory = Path(directory)
        self._root = os.fspath(directory)
        self._master = master
        self._index_key: bytes | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return self._directory.absolute().as_uri()

    def ring_for(self, name: str) -> KeyRing:
        """The ring of a name; made, and durable when this returns, where there is none."""
        with self._translated("written"):
            if self._index_key is None:
                self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            for ring_id in self._ids_of(name, make=True):
                found = self.ring(ring_id)
                if isinstance(found, KeyRing):
                    return found
                if found is None:
                    with self._locked():
                        found = self.ring(ring_id)  # somebody may have been quicker
                        if found is None:
                            found = KeyRing(ring_id, (os.urandom(KEY_BYTES),))
                            self._write_ring(found)
                    if isinstance(found, KeyRing):
                        return found
        raise AssertionError("ids never end")

    def rings_of(self, name: str) -> Sequence[KeyRing | Erasure]:
        """All rings that a name has had, the newest last; none is made."""
        found: list[KeyRing | Erasure] = []
        with self._translated("read"):
            for ring_id in self._ids_of(name, make=False):
                ring = self.ring(ring_id)
                if ring is None:
                    break
                found.append(ring)
        return found

    def ring(self, ring_id: str) -> KeyRing | Erasure | None:
        """The ring of that id; None where there is none here."""
        with self._translated("read"):
            try:
                text = self._path(ring_id).read_text(encoding="utf-8")
            except FileNotFoundError:
                return None
        try:
            entry: dict[str, Any] = json.loads(text)
            if "erased" in entry:
                erased = entry["erased"]
                return Erasure(ring_id, erased["at"], erased["by"], erased["why"])
            master, wrapped = entry["master"], [to_bytes(key) for key in entry["keys"]]
        except (ValueError, TypeError, KeyError) as error:
            raise KeyMissing(
                f"the file of key {ring_id} in {self.url} was altered: restore it from a backup"
            ) from error
        keys = (
            self._master.unwrap(master, key, _bound(ring_id, version))
            for version, key in enumerate(wrapped, 1)
        )
        return KeyRing(ring_id, tuple(keys))

    def stamp(self, ring_id: str) -> object:
        """See `TellsChanges`: what the file system says of its file; a change replaces that. A few microseconds."""
        try:
            found = os.stat(f"{self._root}/{ring_id[1:3]}/{ring_id}.json")  # noqa: PTH116 - twice as fast
        except FileNotFoundError:
            return None
        except OSError:
            with self._translated("read"):
                raise
        return found.st_ino, found.st_mtime_ns, found.st_size

    def erase(self, name: str, at: int, by: str | None, why: str) -> Sequence[str]:
        """Destroy the ring of a name, for ever."""
        with self._translated("written"):
            if not (self._directory / _INDEX).exists():
                return []
            with self._locked():
                rings = self.rings_of(name)
                for ring in rings:
                    if isinstance(ring, KeyRing):
                        self._destroy(Erasure(ring.id, at, by, why))
        return [ring.ring if isinstance(ring, Erasure) else ring.id for ring in rings]

    def rotate(self, name: str) -> KeyRing:
        """Give a name's ring a new key for new payloads; what is encrypted with former ones stays readable.

        Raises:
            UsageError: It has no ring.
            KeysUnavailable: The directory can't be written now.
        """
        with self._translated("written"), self._locked():
            rings = self.rings_of(name)
            if not rings or not isinstance(rings[-1], KeyRing):
                raise UsageError(f"there is no key of {name!r} in {self.url}")
            ring = KeyRing(rings[-1].id, (*rings[-1].keys, os.urandom(KEY_BYTES)))
            self._write_ring(ring)
        return ring

    def rewrap(self) -> Iterator[bool]:
        """Wrap all keys with the newest master key, so that former ones can be destroyed; they have to be given here.

        Yields:
            For each ring, whether it was wrapped anew. What is done by then stays done.

        Raises:
            KeysUnavailable: The directory can't be written now.
            KeyMissing: A former master key is not given.
        """
        index = self._index(make=False)
        if index is not None:
            with self._translated("written"), self._locked():
                self._write_index(index)
        for path in sorted(self._directory.glob("[0-9a-f][0-9a-f]/*.json")):
            with self._translated("written"), self._locked():
                entry: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                stale = "erased" not in entry and entry["master"] != self._master.id
                ring = self.ring(path.stem) if stale else None
                if isinstance(ring, KeyRing):
                    self._write_ring(ring)
            yield stale

    # Files ------------------------------------------------------------------------------------------------

    def _path(self, ring_id: str) -> Path:
        return self._directory / ring_id[1:3] / f"{ring_id}.json"

    def _ids_of(self, name: str, *, make: bool) -> Iterator[str]:
        """The ids of a name's rings, one after the other, without end; none where there is no index key."""
        index = self._index(make=make)
        count = 0
        while index is not None:
            text = f"{count}\0{name}".encode()
            yield named(hmac.digest(index, text, hashlib.sha256).hex())
            count += 1

    def _index(self, *, make: bool) -> bytes | None:
        if self._index_key is None:
            path = self._directory / _INDEX
            if not path.exists():
                if not make:
                    return None
                with self._locked():
                    if not path.exists():
                        self._write_index(os.urandom(KEY_BYTES))
            self._index_key = self._read_index(path)
        return self._index_key

    def _read_index(self, path: Path) -> bytes:
        try:
            entry: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            version, master, wrapped = entry["format"], entry["master"], to_bytes(entry["index"])
        except (ValueError, TypeError, KeyError) as error:
            raise KeyMissing(f"{path} was altered: restore it from a backup") from error
        if version != FORMAT:
            raise UsageError(f"{path} has format {version}: a newer refold has written it")
        return self._master.unwrap(master, wrapped, _INDEX.encode())

    def _write_index(self, index: bytes) -> None:
        wrapped = to_text(self._master.wrap(index, _INDEX.encode()))
        entry: dict[str, object] = {
            "format": FORMAT,
            "master": self._master.id,
            "index": wrapped,
        }
        self._replace(self._directory / _INDEX, entry)

    def _write_ring(self, ring: KeyRing) -> None:
        wrapped = [
            to_text(self._master.wrap(key, _bound(ring.id, version)))
            for version, key in enumerate(ring.keys, 1)
        ]
        self._replace(self._path(ring.id), {"master": self._master.id, "keys": wrapped})

    def _destroy(self, erasure: Erasure) -> None:
        path = self._path(erasure.ring)
        with path.open("r+b") as former:
            told = {"at": erasure.at, "by": erasure.by, "why": erasure.why}
            self._replace(path, {"erased": told})
            former.write(bytes(os.fstat(former.fileno()).st_size))
            former.flush()
            os.fsync(former.fileno())

    def _replace(self, path: Path, entry: dict[str, object]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
        try:
            with open(temporary, "xb", opener=_private) as file:
                file.write(json.dumps(entry).encode())
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        for directory in (path.parent, self._directory, self._directory.parent):
            _sync(directory)

    @contextmanager
    def _locked(self) -> Generator[None]:
        descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _translated(self, what: str) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise KeysUnavailable(
                f"the key store {self.url} can't be {what} now ({error}): it needs a directory that this process may "
                "read and write, with room on its disk"
            ) from error


def _bound(ring_id: str, version: int) -> bytes:
    return f"{ring_id}.{version}".encode()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

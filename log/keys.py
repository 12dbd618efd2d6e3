"""Keys of payloads: who has them, what names them, and what is left of them when they are destroyed.

Rules:

1. Each subject (a person, a customer, a contract: whatever is erased together) has a ring of data keys, made when it is
   first needed. The first key of a ring is kept as long as the ring; new payloads take the newest.
2. Keys are kept in a store beside the log and never in it. The log names a ring by an id that does not tell whose it
   is.
3. To erase a subject is to destroy its ring. What is left says when, by whom and why; the ids are never used again. A
   subject that comes back gets a new ring.
4. A ring is durable before its id is written anywhere. One that nothing names, after a crash, harms nobody.

Whoever has a key management service implements `Master` (two methods: it wraps the keys of a `DirectoryKeys`), or
`KeyProvider` where it keeps the keys itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, runtime_checkable

from refold.log.protocol import Log

KEY_TAG: Final = "refold.key"
"""The attribute that names the ring with which a run's payloads are encrypted. It is no secret."""
KEY_BYTES: Final = 32
RING_CHARS: Final = 24
MAX_AGE_S: Final = 60.0
"""So long a key is used from memory before its provider is asked again, where nobody says otherwise."""


def ring_id(digest: str) -> str:
    """The id of a ring, from a hex digest: a letter first, so that it never reads as a number."""
    return f"k{digest[: RING_CHARS - 1]}"


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The data keys of a subject.

    Args:
        id: From `ring_id`.
        keys: 32 bytes each, the oldest first: version 1.
    """

    id: str
    keys: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"<KeyRing {self.id} with {len(self.keys)} keys>"  # never the keys


@dataclass(frozen=True, slots=True)
class Erasure:
    """What is left of a ring that was destroyed.

    Args:
        ring: Its id.
        at: When, microseconds since 1970-01-01 UTC.
        by: Who asked for it.
        why: Why.
    """

    ring: str
    at: int
    by: str | None
    why: str


class KeyProvider(Protocol):
    """Keeps keys. Every method may block, and may be called on any thread.

    Names are what is erased together: `subject:<subject>`, or `workflow:<id>` (`subject_name`, `workflow_name`).
    """

    @property
    def url(self) -> str:
        """Where it is, for messages."""
        ...

    def ring_for(self, name: str) -> KeyRing:
        """The ring of a name; made, and durable when this returns, where there is none.

        Raises:
            KeysUnavailable: The store can't be reached now.
        """
        ...

    def rings_of(self, name: str) -> Sequence[KeyRing | Erasure]:
        """All rings that a name has had, the newest last; none is made. Raises as `ring_for`."""
        ...

    def ring(self, ring_id: str) -> KeyRing | Erasure | None:
        """The ring of that id; None where there is none here. Raises as `ring_for`."""
        ...

    def erase(self, name: str, at: int, by: str | None, why: str) -> Sequence[str]:
        """Destroy the ring of a name, for ever; a second time changes nothing.

        Args:
            name: Whose.
            at: When, microseconds since 1970-01-01 UTC.
            by: Who asks for it.
            why: Why.

        Returns:
            The ids of all rings of that name that are destroyed now.

        Raises:
            KeysUnavailable: The store can't be written now. Nothing was destroyed.
            UsageError: It can't destroy keys.
        """
        ...


Scope = Literal["subject", "workflow"]
"""Which runs are encrypted: those that are started with a subject, or all, the others with keys of their own."""


@dataclass(frozen=True, slots=True)
class PayloadKeys:
    """A key provider, and what is encrypted with its keys: the same for all workers and clients of a log.

    Args:
        provider: Where the keys are.
        scope: Which runs are encrypted.
        fields: Which fields of their payloads (`engine/redaction.py`); all of them where none is named.
        max_age_s: Longest time for which a key is used from memory, in seconds. So long another process may go on
            reading what was erased, where the provider is not one that `TellsChanges`.
    """

    provider: KeyProvider
    scope: Scope = "subject"
    fields: tuple[str, ...] = ()
    max_age_s: float = MAX_AGE_S


@runtime_checkable
class TellsChanges(Protocol):
    """A key provider that tells cheaply whether a ring is what it was: then a destroyed key is not used once more."""

    def stamp(self, ring_id: str) -> object:
        """What is another once the ring of that id was changed or destroyed; asked before each use of a ring.

        Raises:
            KeysUnavailable: The store can't be reached now.
        """
        ...


class Master(Protocol):
    """Wraps data keys with a key that never leaves it: a key management service, or `LocalMaster`."""

    @property
    def id(self) -> str:
        """Name of the key that `wrap` uses now; it is written beside what it has wrapped."""
        ...

    def wrap(self, key: bytes, bound_to: bytes) -> bytes:
        """A data key, encrypted and bound to a text that `unwrap` has to be given as well.

        Raises:
            KeysUnavailable: The service can't be reached now.
        """
        ...

    def unwrap(self, master_id: str, wrapped: bytes, bound_to: bytes) -> bytes:
        """The data key in what `wrap` gave, also by a master key that was replaced since.

        Raises:
            KeysUnavailable: The service can't be reached now.
            KeyMissing: It has no such master key, or it is another one.
        """
        ...


@runtime_checkable
class KeepsKeys(Protocol):
    """A log that comes with keys for its payloads."""

    @property
    def keys(self) -> PayloadKeys | None:
        """The keys; None where none were given."""
        ...


def keys_of(log: Log) -> PayloadKeys | None:
    """The keys that a log comes with; None for none."""
    return log.keys if isinstance(log, KeepsKeys) else None


def subject_name(subject: str) -> str:
    """The name of a subject's keys."""
    return f"subject:{subject}"


def workflow_name(workflow_id: str) -> str:
    """The name of a workflow's own keys."""
    return f"workflow:{workflow_id}"

"""Payload keys from an environment variable: for all subjects the same, so none of them can be erased alone."""

import hashlib
from collections.abc import Sequence

from refold.log.errors import UsageError
from refold.log.key_master import keys_in
from refold.log.keys import KEY_BYTES, Erasure, KeyRing
from refold.log.keys import ring_id as named


class EnvironmentKeys:
    """One ring for everybody.

    Args:
        text: Keys in base64, 32 bytes each, separated by commas: the newest first. A new one is put before the
            others, and none is ever taken away: what it has encrypted could not be read.
        source: The variable's name.

    Raises:
        UsageError: There is no key, or it is not 32 bytes in base64.
    """

    def __init__(self, text: str, source: str) -> None:
        keys = keys_in(text, source)
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise UsageError(
                f"{source} has no keys of {KEY_BYTES} bytes in base64: `refold keys new` makes one"
            )
        self.url = f"env:{source}"
        oldest_first = tuple(reversed(keys))
        digest = hashlib.sha256(b"refold/1 ring " + oldest_first[0]).hexdigest()
        self._ring = KeyRing(named(digest), oldest_first)

    def ring_for(self, name: str) -> KeyRing:
        """The one ring."""
        return self._ring

    def rings_of(self, name: str) -> Sequence[KeyRing | Erasure]:
        """The one ring."""
        return [self._ring]

    def ring(self, ring_id: str) -> KeyRing | Erasure | None:
        """The one ring, by its id."""
        return self._ring if ring_id == self._ring.id else None

    def erase(self, name: str, at: int, by: str | None, why: str) -> Sequence[str]:
        """Refused: the one key is everybody's."""
        raise UsageError(
            f"nobody can be erased alone: {self.url} is one key for all. Keep a key for each subject, by "
            "keys=file:///DIRECTORY (docs/privacy.md)"
        )

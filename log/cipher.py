"""AES-256-GCM over payloads, by the library `cryptography` (extra `crypto`)."""

import hashlib
import hmac
import os
from typing import TYPE_CHECKING, Final

from refold.log.envelope import Envelope, to_bytes, to_text
from refold.log.errors import EnvelopeCorrupt, UsageError
from refold.log.keys import KeyRing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_BYTES: Final = 12
"""As NIST SP 800-38D has it; random, which is safe for 2^32 payloads a key."""
_DIGEST_BYTES: Final = 16


def aes_gcm(key: bytes) -> "AESGCM":
    """The cipher of a key of 32 bytes.

    Raises:
        UsageError: The extra `crypto` is not installed.
    """
    try:
        # Imported when asked for: `cryptography` is an extra.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(
            "encrypted payloads need the extra `crypto`: pip install 'refold[crypto]'"
        ) from error
    return AESGCM(key)


class RingCipher:
    """Opens and makes the envelopes of one ring.

    Args:
        ring: The keys. Two keys are derived from each: a text's key is used for nothing else.
    """

    __slots__ = ("_ciphers", "_digest_key", "id")

    def __init__(self, ring: KeyRing) -> None:
        self.id = ring.id
        self._ciphers = [aes_gcm(_derived(key, b"payload")) for key in ring.keys]
        self._digest_key = _derived(ring.keys[0], b"digest")  # the same whatever is rotated

    @property
    def versions(self) -> int:
        """How many keys there are."""
        return len(self._ciphers)

    def enclose(self, text: str, context: str, *, compared: bool) -> Envelope:
        """The envelope of a text.

        Args:
            text: The text.
            context: From `context_of`.
            compared: Whether it has a digest, by which it can be compared.
        """
        data = text.encode()
        empty = self.empty(context, self._digest(data) if compared else "-")
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._ciphers[-1].encrypt(nonce, data, empty.header.encode())
        return empty._replace(body=to_text(nonce + sealed))

    def empty(self, context: str, digest: str = "-") -> Envelope:
        """An envelope with nothing in it."""
        return Envelope(self.id, len(self._ciphers), context, digest, "")

    def disclose(self, envelope: Envelope, what: str) -> str:
        """The text of an envelope of this ring, whose body is at hand.

        Args:
            envelope: The envelope.
            what: What it is, for messages.

        Raises:
            EnvelopeCorrupt: It was altered, or made with other keys.
        """
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - as above

        problem = f"it was altered, or key {envelope.ring}.{envelope.version} is another one here"
        if not 1 <= envelope.version <= len(self._ciphers):
            problem = f"the keys that are given here have no version {envelope.version}"
        else:
            cipher = self._ciphers[envelope.version - 1]
            try:
                data = to_bytes(envelope.body)
                head = envelope.header.encode()
                return cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], head).decode()
            except (InvalidTag, ValueError):
                pass
        raise EnvelopeCorrupt(
            f"the {what} is encrypted and can't be opened: {problem}. Compare the log with its archive "
            "(`refold archive verify`), and the keys with those that its workers are given"
        )

    def _digest(self, data: bytes) -> str:
        return hmac.digest(self._digest_key, data, "sha256")[:_DIGEST_BYTES].hex()


def _derived(key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(key, b"refold/1 " + purpose, hashlib.sha256)

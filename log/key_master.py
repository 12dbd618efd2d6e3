"""Master keys: what wraps the data keys of a `DirectoryKeys`, so that its files alone are worth nothing."""

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from refold.log.cipher import NONCE_BYTES, aes_gcm
from refold.log.errors import KeyMissing, KeysUnavailable, UsageError
from refold.log.keys import KEY_BYTES

VARIABLE: Final = "REFOLD_MASTER_KEY"


class LocalMaster:
    """Master keys in this process's memory; the first wraps, all unwrap.

    Args:
        keys: 32 bytes each, the newest first.
        source: Where they are from, for messages.

    Raises:
        UsageError: There is none, or one is not 32 bytes long.
    """

    def __init__(self, keys: Sequence[bytes], source: str = "this process") -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise UsageError(
                f"the master key from {source} is not {KEY_BYTES} bytes in base64: "
                "`refold keys new` makes one"
            )
        self._source = source
        self._ciphers = {_id_of(key): aes_gcm(key) for key in keys}
        self._id = _id_of(keys[0])

    @property
    def id(self) -> str:
        """Name of the key that wraps: it does not tell the key."""
        return self._id

    def wrap(self, key: bytes, bound_to: bytes) -> bytes:
        """A data key, encrypted and bound to a text."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._ciphers[self._id].encrypt(nonce, key, bound_to)

    def unwrap(self, master_id: str, wrapped: bytes, bound_to: bytes) -> bytes:
        """The data key in what `wrap` gave."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - an extra

        cipher = self._ciphers.get(master_id)
        if cipher is None:
            raise KeyMissing(
                f"a key is wrapped with master key {master_id}, and {self._source} has {', '.join(self._ciphers)}: "
                "give the former master keys as well, after the new one"
            )
        try:
            return cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], bound_to)
        except (InvalidTag, ValueError) as error:
            raise KeyMissing(
                f"a key that is wrapped with master key {master_id} was altered: restore the key store from a backup"
            ) from error


def master_from(text: str, environment: Mapping[str, str] | None = None) -> LocalMaster:
    """The master key that `env:NAME` or `file:PATH` names.

    Args:
        text: `env:REFOLD_MASTER_KEY`, or `file:/run/secrets/master`: 32 bytes in base64, former ones after it,
            separated by commas or lines.
        environment: Where variables are looked up; the process's own where not given.

    Raises:
        UsageError: There is no key there.
        KeysUnavailable: The file can't be read.
    """
    kind, _, name = text.partition(":")
    if kind == "env":
        found = (os.environ if environment is None else environment).get(name, "")
        if not found:
            raise UsageError(f"the variable {name} has no master key: `refold keys new` makes one")
    elif kind == "file":
        try:
            found = Path(name).read_text(encoding="ascii")
        except (OSError, ValueError) as error:
            raise KeysUnavailable(f"the master key can't be read from {name}: {error}") from error
    else:
        raise UsageError(
            f"{text!r} names no master key: give env:NAME, file:PATH or import:MODULE:NAME"
        )
    return LocalMaster(keys_in(found, text), text)


def keys_in(text: str, source: str) -> list[bytes]:
    """Keys in base64, separated by commas or white space.

    Raises:
        UsageError: One is no base64. The message does not quote it.
    """
    try:
        return [base64.b64decode(word, validate=True) for word in text.replace(",", " ").split()]
    except (binascii.Error, ValueError):
        raise UsageError(
            f"what {source} has is no key in base64: `refold keys new` makes one"
        ) from None


def new_key() -> str:
    """A random key, in base64."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def _id_of(key: bytes) -> str:
    return hashlib.sha256(b"refold/1 master " + key).hexdigest()[:12]

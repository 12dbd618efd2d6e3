"""Encrypted payloads: what stands in a record in place of a text that not every reader may see.

An envelope is one line of characters that no JSON writer escapes, so that it stands as it is wherever a text is copied
to (a checkpoint, a copied history, a message for a person):

    enc:1:<ring>.<version>:<context>:<digest>:<body>

1. `ring` names a subject's keys in the key store, never the subject; `version` is which of them.
2. `context` is a digest of what the text is (`input`, `message`, ...) and of the workflow that it is for. With all that
   stands before the body, it is authenticated: an envelope that was altered can't be opened, and one that was sent
   to another workflow shows.
3. `digest` is a keyed digest of the text, where texts have to be compared (a second start's input with the first's),
   else `-`. Its key is the subject's as well, so that nobody can try texts against it once that is destroyed.
4. `body` is base64url of a nonce (12 bytes) and of what AES-256-GCM makes of the text; or, of a large one, the
   reference to the blob that holds it (`log/blobs.py`). An empty body says that the key was destroyed before the text
   was recorded.

Where rules name fields (`engine/redaction.py`), the payload stays JSON and each of those holds `{"$enc": <envelope>}`.
Such a text begins with a space, as no other payload does: so the first character tells JSON that needs a second look.
"""

import base64
import hashlib
import re
from typing import Final, NamedTuple

from refold.log.blobs import REFERENCE

ENCRYPTED: Final = "json+enc"
"""The `encoding` of a payload that is an envelope."""
PREFIX: Final = "enc:"
FIELD: Final = "$enc"
"""The one member of an object that stands in place of an encrypted field."""
MARK: Final = f'"{FIELD}"'
ELSEWHERE: Final = "be "
"""First characters of payloads that are not the JSON itself: a reference, an envelope, JSON with encrypted fields."""
HEADER: Final = r"enc:1:k[0-9a-f]{23}\.[0-9]{1,6}:[A-Za-z0-9_-]{22}:(?:[0-9a-f]{32}|-):"
"""All before the body."""
ENVELOPE: Final = re.compile(rf"{HEADER}(?:{REFERENCE.pattern}|[A-Za-z0-9_-]*)")
_BODY: Final = re.compile(rf"[A-Za-z0-9_-]*|{REFERENCE.pattern}")
_HEAD: Final = re.compile(HEADER)


class Envelope(NamedTuple):
    """An envelope's parts.

    Args:
        ring: The keys that it was made with.
        version: Which of them, from 1.
        context: From `context_of`.
        digest: Keyed digest of the text, hex; "-" for none.
        body: Base64url, a blob's reference, or empty.
    """

    ring: str
    version: int
    context: str
    digest: str
    body: str

    @property
    def header(self) -> str:
        """All before the body: what is authenticated with it."""
        return f"enc:1:{self.ring}.{self.version}:{self.context}:{self.digest}:"

    @property
    def text(self) -> str:
        """How it stands in a record."""
        return self.header + self.body


def envelope_in(text: str) -> Envelope | None:
    """The envelope that a text is; None where it is none."""
    if text[:4] != PREFIX:
        return None
    head = _HEAD.match(text)
    if head is None or _BODY.fullmatch(text, head.end()) is None:
        return None
    return _envelope(text)


def envelopes_in(text: str) -> list[Envelope]:
    """All envelopes that stand in a text."""
    return [_envelope(found[0]) for found in ENVELOPE.finditer(text)]


def _envelope(text: str) -> Envelope:
    _, _, key, context, digest, body = text.split(":", 5)
    ring, _, version = key.partition(".")
    return Envelope(ring, int(version), context, digest, body)


def context_of(role: str, workflow_id: str) -> str:
    """What a text is, and of which workflow, in 22 characters.

    Args:
        role: `input`, `result`, `step`, `message`, `ask`, `answer`, `value`, `stream` or `error`.
        workflow_id: The workflow that it is for.
    """
    made = hashlib.blake2b(f"{role}\0{workflow_id}".encode(), digest_size=16).digest()
    return to_text(made)


def comparable(text: str) -> str:
    """A text that is equal for equal payloads: each envelope's digest stands in its place."""
    return ENVELOPE.sub(_compared, text)


def _compared(found: re.Match[str]) -> str:
    envelope = _envelope(found[0])
    return f"enc:{envelope.ring}:{envelope.digest}"


def is_protected(text: str) -> bool:
    """Whether a payload is an envelope or JSON with encrypted fields."""
    first = text[:1]
    return (first == "e" and text[:4] == PREFIX) or (first == " " and MARK in text)


def to_text(data: bytes) -> str:
    """Bytes in base64url, without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def to_bytes(text: str) -> bytes:
    """What `to_text` was given.

    Raises:
        ValueError: It is not what `to_text` gives for anything.
    """
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    tail = len(data) % 3
    # What is no base64url is left out by Python, and the last character may have bits that mean nothing.
    if len(data) != len(text) * 3 // 4 or (tail and to_text(data[-tail:]) != text[-tail - 1 :]):
        raise ValueError("not as it was written")
    return data

"""Events and messages as a person is shown them: decrypted where the keys are given, else with a word in their place.

<encrypted>            no key for it is given here, or it was altered
<erased 2026-11-28>    its key was destroyed then
"""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from refold.engine.blobs import Blobs
from refold.engine.redaction import filled_in, to_json
from refold.log.envelope import ENVELOPE, PREFIX, envelope_in, is_protected
from refold.log.errors import PayloadErased, PayloadsUnavailable, PayloadUnreadable

T = TypeVar("T")

ENCRYPTED = "<encrypted>"


def shown(event: T, blobs: Blobs) -> T:
    """An event as it is shown; anything else as it is.

    Args:
        event: The event.
        blobs: What its payload is read with.
    """
    changes: dict[str, Any] = {}
    payload: str | None = getattr(event, "payload", None)
    if payload is not None and is_protected(payload):
        changes["payload"] = _payload(payload, blobs)
    for name in ("error_message", "error_stack"):
        text: str | None = getattr(event, name, None)
        if text is not None and PREFIX in text:
            changes[name] = shown_note(text, blobs)
    return cast(T, replace(cast(Any, event), **changes)) if changes else event


def shown_note(text: str, blobs: Blobs) -> str:
    """A message for a person as it is shown."""
    return ENVELOPE.sub(lambda found: _said(found[0], blobs)[0], text) if PREFIX in text else text


def _payload(payload: str, blobs: Blobs) -> str:
    def field(envelope: str) -> str:
        text, is_read = _said(envelope, blobs)
        return text if is_read else to_json(text)

    return filled_in(payload, field) if payload[:1] == " " else field(payload)


def _said(text: str, blobs: Blobs) -> tuple[str, bool]:
    """What is in an envelope, or the word in its place; and which of the two."""
    try:
        return blobs.read(text, "payload"), True
    except PayloadErased:
        return _erased(text, blobs), False
    except (PayloadUnreadable, PayloadsUnavailable):
        return ENCRYPTED, False


def _erased(text: str, blobs: Blobs) -> str:
    envelope = envelope_in(text)
    erasure = None
    if envelope is not None and blobs.privacy is not None:
        erasure = blobs.privacy.erasure(envelope.ring)
    if erasure is None:
        return "<erased>"
    return f"<erased {datetime.fromtimestamp(erasure.at / 1_000_000, UTC):%Y-%m-%d}>"

"""Envelopes: what is enclosed comes back, whatever it is, and nothing else ever does."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.log.cipher import RingCipher
from refold.log.envelope import (
    ELSEWHERE,
    Envelope,
    comparable,
    context_of,
    envelope_in,
    envelopes_in,
    is_protected,
)
from refold.log.errors import EnvelopeCorrupt
from refold.log.keys import KeyRing, ring_id

RING = KeyRing(ring_id("0123456789abcdef" * 2), (bytes(32), bytes(range(32))))
CIPHER = RingCipher(RING)
CONTEXT = context_of("input", "order-42")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXTS, st.booleans())
def test_what_is_enclosed_comes_back(text: str, compared: bool) -> None:
    """Given any text, its envelope is one line of plain characters, is found in a text, and holds it."""
    made = CIPHER.enclose(text, CONTEXT, compared=compared)
    assert envelope_in(made.text) == made
    assert envelopes_in(f'["{made.text}", {made.text}. {made.text})') == [made] * 3
    assert is_protected(made.text)
    assert made.text[0] in ELSEWHERE
    assert made.text.isascii()
    assert made.text.isprintable()
    assert not set(made.text) & set('"\\')
    assert CIPHER.disclose(made, "x") == text


@given(TEXTS, st.integers(0), st.integers(1, 255))
def test_no_altered_envelope_is_opened(text: str, at: int, by: int) -> None:
    """Given any envelope with any of its characters changed, it is no envelope any more, or is refused."""
    made = CIPHER.enclose(text, CONTEXT, compared=True).text
    at %= len(made)
    changed = made[:at] + chr((ord(made[at]) + by) % 256) + made[at + 1 :]
    found = envelope_in(changed)
    if found is None or found.text != changed:
        return
    with pytest.raises(EnvelopeCorrupt):
        CIPHER.disclose(found, "x")


@given(TEXTS, TEXTS)
def test_texts_are_compared_by_their_digests(one: str, other: str) -> None:
    """Given two texts, their envelopes compare equal just when the texts are, whatever key of the ring encrypts."""
    first = RingCipher(KeyRing(RING.id, RING.keys[:1])).enclose(one, CONTEXT, compared=True)
    second = CIPHER.enclose(other, CONTEXT, compared=True)
    assert first.text != second.text
    assert (comparable(first.text) == comparable(second.text)) == (one == other)


def test_the_same_text_never_gives_the_same_envelope_twice() -> None:
    made = {CIPHER.enclose("x", CONTEXT, compared=True).body for _ in range(100)}
    assert len(made) == 100


@pytest.mark.parametrize(
    "change",
    [
        {"context": context_of("input", "order-43")},
        {"context": context_of("message", "order-42")},
        {"digest": "0" * 32},
        {"version": 1},
        {"version": 3},
        {"body": ""},
        {"body": "AAAA"},
    ],
)
def test_nothing_of_an_envelope_can_be_exchanged(change: dict[str, object]) -> None:
    """Given an envelope with another context, digest, version or body, it is refused."""
    made = CIPHER.enclose("text", CONTEXT, compared=True)
    with pytest.raises(EnvelopeCorrupt, match=r"altered|no version"):
        CIPHER.disclose(made._replace(**change), "result of workflow 'order-42'")  # type: ignore[arg-type]  # any field


def test_another_key_of_the_same_name_opens_nothing() -> None:
    made = CIPHER.enclose("text", CONTEXT, compared=False)
    other = RingCipher(KeyRing(RING.id, (os.urandom(32), os.urandom(32))))
    with pytest.raises(EnvelopeCorrupt, match="another one here"):
        other.disclose(made, "x")


def test_an_empty_envelope_names_its_key_and_holds_nothing() -> None:
    empty = CIPHER.empty(CONTEXT)
    assert envelope_in(empty.text) == Envelope(RING.id, 2, CONTEXT, "-", "")


@pytest.mark.parametrize("text", ["{}", '"enc:1:"', "null", "enc:", "enc:1:k:1:", ' {"a":1}', ""])
def test_other_texts_are_no_envelopes(text: str) -> None:
    assert envelope_in(text) is None

"""Payloads are encrypted before they leave the process that made them, and decrypted where code or a client takes them.

Between the two, everybody passes envelopes on (`log/envelope.py`) and need not read them: owner, fold, checkpoints,
commands, replies, blobs, archive, projections, exports. Rules:

1. A run's keys are named by its attribute `refold.key`, from its start to its end; its children inherit it. Where there
   is none, its payloads stay as they are.
2. What a client sends to a run whose keys it does not know is encrypted with keys of that workflow's own, which are
   destroyed with its subject's.
3. A ring is read once and kept: until the provider tells that it is another (`TellsChanges`), until the log tells that
   it was destroyed, at most for `max_age_s`. Where the key store is away, what is kept goes on being used; where it is
   needed and not kept, whoever needs it waits (`KeysUnavailable`), and nothing is parked for it.
4. What would be recorded with keys that are destroyed is recorded empty, never in the clear.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple, TypeVar

from refold.engine.redaction import Redaction, filled_in
from refold.log.blobs import PREFIX as BLOB_PREFIX
from refold.log.cipher import RingCipher
from refold.log.commands import AskWorkflow, Command, SendMessage, StartWorkflow
from refold.log.envelope import ENVELOPE, Envelope, context_of, envelope_in, is_protected
from refold.log.errors import (
    EnvelopeCorrupt,
    KeyMissing,
    KeysUnavailable,
    PayloadErased,
)
from refold.log.keys import (
    KEY_TAG,
    Erasure,
    KeyRing,
    PayloadKeys,
    TellsChanges,
    subject_name,
    workflow_name,
)

T = TypeVar("T")

Role = Literal[
    "input", "result", "step", "message", "ask", "answer", "value", "stream", "error", "note"
]

KEEP_NAMES_S: Final = 5.0
"""So long a client may go on starting runs with keys that another process has destroyed, where the provider does not
tell; those runs are parked."""
MAX_KEPT: Final = 20_000
"""Rings in memory, some 2 kB each."""


class _Kept(NamedTuple):
    """A ring in memory: what it is, since when, and what the provider told of it then."""

    held: RingCipher | Erasure
    at: float
    stamp: object


class Privacy:
    """One process's way to encrypt payloads and to read them. Every method may be called on any thread.

    Args:
        keys: The keys, and what is encrypted with them.
        clock: Seconds, by a clock that only goes forward; for tests.

    Raises:
        UsageError: A field's name can't be one.
    """

    def __init__(
        self,
        keys: PayloadKeys,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.keys = keys.provider
        self.scope = keys.scope
        self._redaction = Redaction(*keys.fields) if keys.fields else None
        self._tells = keys.provider if isinstance(keys.provider, TellsChanges) else None
        self._max_age_s = keys.max_age_s
        self._clock = clock
        self._mutex = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._names: OrderedDict[str, tuple[str, float]] = OrderedDict()  # name -> ring
        self._runs: OrderedDict[str, str | None] = OrderedDict()  # started here: id -> ring

    # Whose keys -------------------------------------------------------------------------------------------

    def started_with(self, workflow_id: str, subject: str | None) -> str | None:
        """The ring for a run that is about to be started here; None where it is not encrypted.

        Raises:
            KeysUnavailable: The key store can't be reached now.
        """
        ring: str | None = None
        if subject is not None:
            ring = self._ring_named(subject_name(subject))
        elif self.scope == "workflow":
            ring = self._ring_named(workflow_name(workflow_id))
        with self._mutex:
            _remember(self._runs, workflow_id, ring)
        return ring

    def tag_missing(self, workflow_id: str) -> str | None:
        """The ring for a run whose client gave none: where all runs are encrypted, one of its own. Raises likewise."""
        return self._ring_named(workflow_name(workflow_id)) if self.scope == "workflow" else None

    def _ring_to(self, workflow_id: str) -> str | None:
        """The ring for what a client sends to a run (rule 2)."""
        with self._mutex:
            if workflow_id in self._runs:
                return self._runs[workflow_id]
        return self._ring_named(workflow_name(workflow_id))

    def _ring_named(self, name: str) -> str:
        now = self._clock()
        with self._mutex:
            known = self._names.get(name)
        recent = known is not None and now - known[1] < min(self._max_age_s, KEEP_NAMES_S)
        if known is not None and recent and isinstance(self._held(known[0]), RingCipher):
            return known[0]
        try:
            ring = self.keys.ring_for(name).id
        except KeysUnavailable:
            if known is not None:
                return known[0]
            raise
        with self._mutex:
            _remember(self._names, name, (ring, now))
        return ring

    def forget(self, rings: Iterable[str]) -> None:
        """Forget rings that were destroyed: what they encrypted is not read here any more."""
        gone = set(rings)
        with self._mutex:
            for ring in gone:
                self._kept.pop(ring, None)
            for name in [name for name, (ring, _) in self._names.items() if ring in gone]:
                del self._names[name]
            for run in [run for run, known in self._runs.items() if known in gone]:
                del self._runs[run]

    # Encrypting -------------------------------------------------------------------------------------------

    def protect(self, text: str, ring: str, role: Role, workflow_id: str) -> str:
        """A payload as it is recorded; as it is where it is protected already.

        Args:
            text: The payload.
            ring: Of the run that it is of.
            role: What it is.
            workflow_id: The workflow that it is for.

        Raises:
            KeyMissing: The key store has no such ring.
            KeysUnavailable: The key store can't be reached now.
        """
        is_note = role in ("error", "note")  # not JSON: it may begin with anything
        if envelope_in(text) is not None if is_note else _passes(text):
            return text
        context = context_of(role, workflow_id)
        held = self._held(ring)
        if held is None:
            raise KeyMissing(_not_here(f"{role} of workflow {workflow_id!r}", ring, self.keys.url))
        if isinstance(held, Erasure):
            return Envelope(ring, 1, context, "-", "").text
        compared = role == "input"
        if self._redaction is not None and not is_note:
            fields = self._redaction.apply(
                text, lambda field: held.enclose(field, context, compared=compared).text
            )
            if fields is not None:
                return fields
        return held.enclose(text, context, compared=compared).text

    def protect_command(self, command: Command) -> Command:
        """A client's command as it is sent. Raises as `protect`."""
        workflow_id = command.workflow_id
        match command:
            case StartWorkflow():
                ring = (command.attributes or {}).get(KEY_TAG)
                if ring is None:
                    return command
                message = command.message
                if message is not None:
                    message = self.protect(message, ring, "message", workflow_id)
                payload = self.protect(command.payload, ring, "input", workflow_id)
                return replace(command, payload=payload, message=message)
            case SendMessage() | AskWorkflow():
                ring = self._ring_to(workflow_id)
                if ring is None:
                    return command
                role: Role = "ask" if isinstance(command, AskWorkflow) else "message"
                return replace(
                    command, payload=self.protect(command.payload, ring, role, workflow_id)
                )
            case _:
                return command

    # Reading ----------------------------------------------------------------------------------------------

    def reveal(self, text: str, what: str) -> str:
        """The JSON of a payload whose body is at hand.

        Args:
            text: An envelope, or JSON with encrypted fields.
            what: What it is, for messages: "result of workflow 'order-42'".

        Raises:
            PayloadErased: Its key was destroyed.
            KeyMissing: The key store has no such key.
            EnvelopeCorrupt: It was altered.
            KeysUnavailable: The key store can't be reached now.
        """
        if text[:1] == " ":
            return filled_in(text, lambda field: self._open(field, what))
        return self._open(text, what)

    def reveal_within(self, text: str, what: str) -> str:
        """A message for a person, with what the envelopes in it hold in their place. Raises as `reveal`."""
        return ENVELOPE.sub(lambda found: self._open(found[0], what), text)

    def _open(self, text: str, what: str) -> str:
        envelope = envelope_in(text)
        if envelope is None:
            raise EnvelopeCorrupt(
                f"the {what} is encrypted and can't be opened: it was altered, or cut off. Compare the log with its "
                "archive (`refold archive verify`)"
            )
        held = self._held(envelope.ring)
        if held is None:
            raise KeyMissing(_not_here(what, envelope.ring, self.keys.url))
        if isinstance(held, Erasure):
            raise PayloadErased(told_of(held, what))
        if not envelope.body:
            raise PayloadErased(f"the {what} is gone: its key was destroyed before it was recorded")
        return held.disclose(envelope, what)

    def erasure(self, ring: str) -> Erasure | None:
        """What is left of a ring that was destroyed; None where it was not. Raises `KeysUnavailable`."""
        held = self._held(ring)
        return held if isinstance(held, Erasure) else None

    def _held(self, ring_id: str) -> RingCipher | Erasure | None:
        now = self._clock()
        with self._mutex:
            kept = self._kept.get(ring_id)
        try:
            # Asked for before the ring is read: whoever destroys it in between changes the one that is kept.
            stamp = None if self._tells is None else self._tells.stamp(ring_id)
            if kept and kept.stamp == stamp and now - kept.at < self._max_age_s:
                return kept.held
            found = self.keys.ring(ring_id)
        except KeysUnavailable:
            if kept is not None:
                return kept.held  # rule 3
            raise
        if found is None:
            return None
        held = RingCipher(found) if isinstance(found, KeyRing) else found
        with self._mutex:
            _remember(self._kept, ring_id, _Kept(held, now, stamp))
        return held


def _passes(payload: str) -> bool:
    """Whether a payload is left as it is: it is protected, or in a blob store."""
    return is_protected(payload) or payload[:5] == BLOB_PREFIX


def told_of(erasure: Erasure, what: str) -> str:
    """That something was erased, and when, by whom and why."""
    at = datetime.fromtimestamp(erasure.at / 1_000_000, UTC).isoformat(timespec="seconds")
    by = f" by {erasure.by}" if erasure.by else ""
    return f"the {what} was erased on {at}{by} ({erasure.why}): its key was destroyed, and nobody can read it any more"


def _not_here(what: str, ring: str, url: str) -> str:
    return (
        f"the {what} is encrypted with key {ring}, which {url} does not have: give every worker and client the keys "
        "that it was encrypted with, or restore the key store from a backup"
    )


def _remember(memory: OrderedDict[str, T], key: str, value: T) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > MAX_KEPT:
        memory.popitem(last=False)

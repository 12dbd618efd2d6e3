"""Large payloads on their way into the blob store and out of it; what they are is said in `log/blobs.py`.

Whoever makes a large payload has it lifted: the record gets a reference, and a `Blob` with the bytes is to be written
before the record is appended. Until it is written, the blob is found here by its reference, so that code may read what
it has just made. What is read is verified, and kept for a while: a replay reads the same again.
"""

import asyncio
import logging
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from typing import Any, Final, TypeVar, cast
from weakref import WeakValueDictionary

from refold.engine.payload import MAX_PAYLOAD_BYTES
from refold.engine.privacy import Privacy
from refold.engine.private_events import ROLES
from refold.log.blobs import (
    BLOB,
    PREFIX,
    BlobStore,
    Reference,
    blobs_of,
    fetch,
    reference_in,
    reference_to,
)
from refold.log.commands import AskWorkflow, Command, Reply, SendMessage, StartWorkflow
from refold.log.envelope import ELSEWHERE, ENCRYPTED, envelope_in, is_protected
from refold.log.envelope import PREFIX as ENCLOSED
from refold.log.errors import BlobMissing, BlobsUnavailable, KeyMissing, UsageError
from refold.log.events import JSON, EventBase, WorkflowParked
from refold.log.key_urls import open_keys
from refold.log.keys import KeyProvider, PayloadKeys, keys_of
from refold.log.protocol import Log

DEFAULT_THRESHOLD_BYTES: Final = 256_000
"""Above this a payload goes to the store: the fold of an open workflow, and Kafka's brokers, rather have it small."""
MAX_BLOB_BYTES: Final = 64_000_000
"""Largest payload by default where there is a store: its JSON is made and read on the worker's loop, about half a
second for so much."""
CACHE_BYTES: Final = 64_000_000
"""Payloads read or written lately that are kept in memory."""
ENVELOPE_BYTES: Final = 200
"""Of an envelope beside its text, at most."""
RECORD_HEADROOM_BYTES: Final = 8_000
"""Of a record beside its payload: names, ids, the worker."""
MIN_PAYLOAD_BYTES: Final = 1_000
"""Below it a reference saves nothing, whatever the log says of its limit."""
MAX_BACKOFF_S: Final = 10.0
"""Longest wait between two tries to write to a store that can't be reached."""

E = TypeVar("E", bound=EventBase)

_CARRIERS: Final[Set[type[EventBase]]] = ROLES.keys() - {WorkflowParked}
"""Events whose payload is a value of the user's. What the fold reads itself stays in the event."""

logger = logging.getLogger("refold.blobs")


class Blob:
    """A large payload that is to be written before the record that names it."""

    __slots__ = ("__weakref__", "data", "head", "reference")

    def __init__(self, reference: Reference, data: bytes, head: str = "") -> None:
        self.reference = reference
        self.data = data
        self.head = head  # of an envelope: it stays in the record, and its body alone is the blob

    @property
    def text(self) -> str:
        """What stands in the record."""
        return self.head + self.reference.text


Lift = Callable[[str], Blob | None]
"""Gives the blob that a payload is to be kept as; None where it stays in its record."""


def never(payload: str) -> Blob | None:
    """No payload is kept as a blob."""
    return None


def lifted(event: E, lift: Lift) -> tuple[E, Blob | None]:
    """An event as it is recorded: with a reference in place of a large payload, and an `encoding` that says so.

    Args:
        event: The event.
        lift: Which payloads are large.

    Returns:
        The event, and the blob that is to be written before it is appended.
    """
    if event.__class__ not in _CARRIERS:
        return event, None
    carrier: Any = event  # one of a dozen classes that have both fields
    payload: str | None = carrier.payload
    if payload is None:
        return event, None
    blob = lift(payload) if payload[:5] != PREFIX else None
    text = payload if blob is None else blob.text
    encoding = encoding_of(text)
    if blob is None and (carrier.encoding or JSON) == encoding:
        return event, None
    return cast(E, replace(carrier, payload=text, encoding=encoding)), blob


def encoding_of(payload: str) -> str:
    """What the field `encoding` says of a payload."""
    if payload[:1] not in ELSEWHERE or payload[:1] == " ":
        return JSON
    if payload[:5] == PREFIX:
        return BLOB
    return ENCRYPTED if payload[:4] == ENCLOSED else JSON


class Blobs:
    """The way of one process's payloads into a blob store and out of it. Every method may be called on any thread.

    Args:
        store: The store; None for none: all payloads stay in the records.
        threshold_bytes: Payloads above this, in bytes of UTF-8, go to the store.
        max_payload_bytes: Largest payload of all; 64 MB where not given, 900,000 bytes without a store, and a third
            less where it is encrypted.
        cache_bytes: Payloads read or written lately that are kept in memory, as the store has them.
        privacy: With what payloads are encrypted; None for none.
        record_bytes: Largest record that the log takes, which may change while it is open: what does not fit goes to
            the store as well.

    Raises:
        UsageError: A limit can't be.
    """

    def __init__(
        self,
        store: BlobStore | None = None,
        *,
        threshold_bytes: int = DEFAULT_THRESHOLD_BYTES,
        max_payload_bytes: int | None = None,
        cache_bytes: int = CACHE_BYTES,
        privacy: Privacy | None = None,
        record_bytes: Callable[[], int] | None = None,
    ) -> None:
        if not 0 < threshold_bytes <= MAX_PAYLOAD_BYTES:
            raise UsageError(
                f"a blob threshold of {threshold_bytes!r} bytes can't be: give one from 1 to {MAX_PAYLOAD_BYTES:,}, "
                "which is what a record can hold"
            )
        self.store = store
        self.privacy = privacy
        largest = self.fitting(MAX_PAYLOAD_BYTES) if store is None else MAX_BLOB_BYTES
        self.max_payload_bytes = largest if max_payload_bytes is None else max_payload_bytes
        self._threshold_bytes = threshold_bytes
        self._record_bytes = record_bytes
        self._cache_bytes = cache_bytes
        self._mutex = threading.Lock()
        self._unwritten: WeakValueDictionary[str, Blob] = WeakValueDictionary()
        self._cache: OrderedDict[str, str] = OrderedDict()
        self._cached_bytes = 0

    @classmethod
    def of(
        cls,
        log: Log,
        keys: str | KeyProvider | PayloadKeys | None = None,
        *,
        threshold_bytes: int = DEFAULT_THRESHOLD_BYTES,
        max_payload_bytes: int | None = None,
    ) -> "Blobs":
        """What a log's payloads are read and written with.

        Args:
            log: The log, with the store and the keys that it comes with.
            keys: In place of its keys.
            threshold_bytes: As of the class.
            max_payload_bytes: As of the class.
        """
        given = keys_of(log)
        if isinstance(keys, PayloadKeys):
            given = keys
        elif keys is not None:
            given = open_keys(keys) if isinstance(keys, str) else PayloadKeys(keys)
        return cls(
            blobs_of(log),
            threshold_bytes=threshold_bytes,
            max_payload_bytes=max_payload_bytes,
            privacy=None if given is None else Privacy(given),
            record_bytes=lambda: log.max_record_bytes,
        )

    def fitting(self, record_bytes: int) -> int:
        """The largest payload that takes no more than so many bytes of a record."""
        if self.privacy is None:
            return record_bytes
        return max(1, record_bytes * 3 // 4 - ENVELOPE_BYTES)  # base64

    def _limit(self, payloads: int) -> int:
        """Bytes of a payload above which it goes to the store."""
        if self._record_bytes is None:
            return self._threshold_bytes
        room = (self._record_bytes() - RECORD_HEADROOM_BYTES) // payloads
        return min(self._threshold_bytes, max(MIN_PAYLOAD_BYTES, room))

    def lift(self, payload: str, payloads: int = 1) -> Blob | None:
        """The blob that a payload is to be kept as; None where it stays in its record.

        Args:
            payload: The payload.
            payloads: How many there are in its record.
        """
        if self.store is None:
            return None
        limit = self._limit(payloads)
        if len(payload) * 4 <= limit:  # at most four bytes a character
            return None
        if payload.isascii() and len(payload) <= limit:
            return None
        envelope = envelope_in(payload)
        head = "" if envelope is None else envelope.header
        data = payload[len(head) :].encode()
        if len(data) <= limit or reference_in(payload) is not None:
            return None
        reference = reference_to(data)
        with self._mutex:
            blob = self._unwritten.get(reference.text)
            if blob is None:  # else one for both: it is found for as long as either needs it
                blob = self._unwritten[reference.text] = Blob(reference, data, head)
        return blob

    # Out of the store -------------------------------------------------------------------------------------

    def read(self, payload: str, what: str) -> str:
        """The JSON of a payload: its own text, what the store has under the reference that it is, or what is encrypted.

        Args:
            payload: As it stands in a record.
            what: What it is, for messages: "result of workflow 'order-42'".

        Raises:
            BlobMissing: The blob is not in the store, or there is no store.
            BlobCorrupt: The store has something else under its name.
            BlobsUnavailable: The store can't be read now.
            PayloadErased, KeyMissing, EnvelopeCorrupt, KeysUnavailable: As `Privacy.reveal`.
        """
        if payload[:1] not in ELSEWHERE:
            return payload
        text = self._fetched(payload, what)
        envelope = envelope_in(text)
        if envelope is not None and envelope.body[:5] == PREFIX:
            text = envelope.header + self._fetched(envelope.body, what)
        if not is_protected(text):
            return text
        return self._keys(what).reveal(text, what)

    def read_note(self, text: str, what: str) -> str:
        """A message for a person, with what is encrypted in it. Raises as `read`."""
        if ENCLOSED not in text:
            return text
        return self._keys(what).reveal_within(text, what)

    def _keys(self, what: str) -> Privacy:
        if self.privacy is None:
            raise KeyMissing(
                f"the {what} is encrypted, and no keys are given here: give those that it was encrypted with, by "
                "keys= in the log's URL or the variable REFOLD_KEYS"
            )
        return self.privacy

    def _fetched(self, payload: str, what: str) -> str:
        """A payload as it was before it was put into the store."""
        reference = reference_in(payload)
        if reference is None:
            return payload
        found = self._at_hand(payload)
        if found is not None:
            return found
        if self.store is None:
            raise BlobMissing(
                f"the {what} is blob {reference.digest} of {reference.size:,} bytes, and no blob store is given here: "
                "give the one that it was put into, by blobs= in the log's URL or the variable REFOLD_BLOBS"
            )
        text = fetch(self.store, reference, what).decode()
        self._keep(payload, text)
        return text

    async def read_async(self, payload: str, what: str) -> str:
        """`read`, with the store read in a thread."""
        if payload[:1] not in ELSEWHERE:
            return payload
        return await asyncio.to_thread(self.read, payload, what)

    async def read_reply(self, reply: Reply) -> Reply:
        """A reply with the JSON of its payload, and what is encrypted of its error. Raises as `read`."""
        payload, message, stack = reply.payload, reply.error_message, reply.error_stack
        what = f"payload of the reply '{reply.status}' of workflow {reply.workflow_id!r}"
        if message is not None and ENCLOSED in message:
            message = await asyncio.to_thread(self.read_note, message, what)
        if stack is not None and ENCLOSED in stack:
            stack = await asyncio.to_thread(self.read_note, stack, what)
        if payload is not None and payload[:1] in ELSEWHERE:
            payload = await self.read_async(payload, what)
        if payload is reply.payload and message is reply.error_message:
            return reply
        return replace(reply, payload=payload, error_message=message, error_stack=stack)

    def _at_hand(self, payload: str) -> str | None:
        with self._mutex:
            text = self._cache.get(payload)
            if text is not None:
                self._cache.move_to_end(payload)
                return text
            blob = self._unwritten.get(payload)
        return None if blob is None else blob.data.decode()

    def _keep(self, payload: str, text: str) -> None:
        with self._mutex:
            if payload in self._cache or len(text) > self._cache_bytes:
                return
            self._cache[payload] = text
            self._cached_bytes += len(text)
            while self._cached_bytes > self._cache_bytes:
                _, oldest = self._cache.popitem(last=False)
                self._cached_bytes -= len(oldest)

    # Into the store ---------------------------------------------------------------------------------------

    async def write(self, blobs: Sequence[Blob]) -> None:
        """Write blobs, and try again for as long as the store can't be reached: what names them has to wait.

        Args:
            blobs: From `lift`. They are durable when this returns.
        """
        if blobs:
            await asyncio.gather(*map(self._write_until_done, blobs))

    async def _write_until_done(self, blob: Blob) -> None:
        backoff_s = 0.1
        while True:
            try:
                await self.put(blob)
            except BlobsUnavailable as error:
                logger.warning("%s; trying again, and nothing that names it is recorded", error)
                await asyncio.sleep(backoff_s * (0.5 + random.random()))
                backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)
            else:
                return

    async def put(self, blob: Blob) -> None:
        """Write a blob; it is durable when this returns.

        Raises:
            BlobsUnavailable: The store can't be written now.
        """
        assert self.store is not None, "without a store nothing is lifted"
        await asyncio.to_thread(self.store.put, blob.reference.digest, blob.data)
        self._keep(blob.reference.text, blob.data.decode())

    async def put_payloads(self, command: Command) -> Command:
        """A command as it is sent, encrypted where that is wanted, with its large payloads durable in the store.

        Raises:
            BlobsUnavailable, KeysUnavailable: A store can't be written now. Nothing was sent.
        """
        if self.privacy is not None:
            command = await asyncio.to_thread(self.privacy.protect_command, command)
        match command:
            case StartWorkflow():
                payloads = 1 if command.message is None else 2
                payload = await self.put_payload(command.payload, payloads)
                message = command.message
                if message is not None:
                    message = await self.put_payload(message, payloads)
                encoding = encoding_of(payload)
                if message is command.message and encoding == command.encoding:
                    return command
                return replace(command, payload=payload, encoding=encoding, message=message)
            case SendMessage() | AskWorkflow():
                payload = await self.put_payload(command.payload)
                encoding = encoding_of(payload)
                if encoding == command.encoding:
                    return command
                return replace(command, payload=payload, encoding=encoding)
            case _:
                return command

    async def put_payload(self, payload: str, payloads: int = 1) -> str:
        """A payload as it is sent: a reference in place of a large one, which is durable in the store then.

        Args:
            payload: The payload.
            payloads: How many there are in its record.

        Raises:
            BlobsUnavailable: The store can't be written now.
        """
        blob = self.lift(payload, payloads)
        if blob is None:
            return payload
        await self.put(blob)
        return blob.text


IN_RECORDS: Final = Blobs()
"""Without a store: nothing of it ever changes."""

"""Seals: signed statements of how a namespace's partitions stood, kept where whoever can write to the log can not.

A chain shows that history hangs together; it does not show whose history it is. Whoever may write to the log's files
can make another one that hangs together as well, or cut off the end. A seal says: at this time, partition 3 had 1,204
events up to offset 1,210, and its chain and its tree of hashes had these values. It is signed with Ed25519 by a key
that workers don't have. Every later log has to contain just that.

A file of seals has a line of JSON for each, and a seal names the digest of the line before it. So none can be left out
but the last ones, and those whoever has a later copy of the file will miss.

    {"seal": TEXT, "signature": HEX, "marks": [BASE64, ...]}

TEXT is JSON itself; what is signed is `SIGNED_PREFIX` and the UTF-8 of TEXT, so that nobody has to agree on how JSON is
written. Marks (`audit_tree.py`) are of each partition, one after each so many events since the seal before. They show
where a history that was written anew begins. TEXT has their digest, so that a seal can be handed on without them; seals
of early releases have none.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from heapq import merge
from typing import TYPE_CHECKING, Any, Final, cast

from refold.log.errors import LogCorrupt, LogMismatch, UsageError
from refold.projections.audit_tree import MARK_BYTES, mark_of, trees
from refold.projections.audit_walk import Standing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

FORMAT: Final = 1
SIGNED_PREFIX: Final = b"refold seal 1\n"
"""So that a signature over something else can never pass for a seal's."""

NO_CRYPTO: Final = "seals need the package cryptography: pip install 'refold[crypto]'"


@dataclass(frozen=True, slots=True)
class Seal:
    """One seal.

    Args:
        namespace: Name of the log.
        identity: What tells it from others of its name.
        sealed_at: When, by the signer's clock: microseconds since 1970-01-01 UTC.
        previous: Digest of the seal before it in its file; empty for the first.
        key_id: The key that signed it.
        partitions: How each partition stood, in order.
        line: The line that says so.
        every: Events between two marks; 0 for no marks.
        marks: Those of each partition, one behind the other.
    """

    namespace: str
    identity: str
    sealed_at: int
    previous: str
    key_id: str
    partitions: tuple[Standing, ...]
    line: str
    every: int = 0
    marks: tuple[bytes, ...] = ()

    @property
    def digest(self) -> str:
        """What the next seal names it by: BLAKE2b-256 of its line, in hex."""
        return blake2b(self.line.encode(), digest_size=32).hexdigest()

    @property
    def statement(self) -> str:
        """The line without its marks: all that is signed."""
        told = json.loads(self.line)
        told.pop("marks", None)
        return json.dumps(told)

    def grew(self, partition: int, before: int) -> Iterator[tuple[int, bytes]]:
        """How a partition's tree stood on its way to what was sealed.

        Args:
            partition: Which one.
            before: How many events the seal before it had.

        Yields:
            So many events, and the tree's mark then, in order: the marks, and what the peaks tell besides.
        """
        sealed = self.partitions[partition]
        peaks = (
            (first + (1 << height), mark_of(sealed.peaks[:number]))
            for number, (first, height) in enumerate(trees(sealed.events), start=1)
        )
        marked: Iterator[tuple[int, bytes]] = iter(())
        if self.marks:
            marks = self.marks[partition]
            counts = range(next_mark(before, self.every), sealed.events + 1, self.every)
            marked = (
                (count, marks[at : at + MARK_BYTES])
                for count, at in zip(counts, range(0, len(marks), MARK_BYTES), strict=False)
            )
        return (one for one in merge(peaks, marked) if one[0] > before)


def next_mark(events: int, every: int) -> int:
    """After how many events the first mark is that comes after so many."""
    return events // every * every + every


class PublicKey:
    """The half of a key that verifies.

    Args:
        key: As `cryptography` has it.
    """

    def __init__(self, key: "Ed25519PublicKey") -> None:
        self._key = key
        self.raw = key.public_bytes_raw()
        self.id = blake2b(self.raw, digest_size=16).hexdigest()

    def pem(self) -> str:
        """As a PEM file has it."""
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - an extra
            Encoding,
            PublicFormat,
        )

        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def verifies(self, signature: bytes, text: str) -> bool:
        """Whether its other half made the signature of a seal with this text."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - an extra

        try:
            self._key.verify(signature, SIGNED_PREFIX + text.encode())
        except InvalidSignature:
            return False
        return True


class SealKey:
    """A key that signs seals.

    Args:
        key: As `cryptography` has it.
    """

    def __init__(self, key: "Ed25519PrivateKey") -> None:
        self._key = key
        self.public = PublicKey(key.public_key())

    @classmethod
    def generate(cls) -> "SealKey":
        """A new key.

        Raises:
            UsageError: `cryptography` is not installed.
        """
        try:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - an extra
                Ed25519PrivateKey,
            )
        except ImportError as error:
            raise UsageError(NO_CRYPTO) from error
        return cls(Ed25519PrivateKey.generate())

    def pem(self) -> str:
        """As a PEM file has it, not encrypted."""
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - an extra
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def seal(
        self,
        namespace: str,
        identity: str,
        sealed_at: int,
        partitions: Sequence[Standing],
        previous: Seal | None,
        *,
        every: int = 0,
        marks: Sequence[bytes] = (),
    ) -> Seal:
        """Sign how partitions stand, and how their trees grew (`Seal`)."""
        before = "" if previous is None else previous.digest
        told: dict[str, object] = {
            "format": FORMAT,
            "namespace": namespace,
            "identity": identity,
            "sealed_at": sealed_at,
            "previous": before,
            "key": self.public.id,
            "partitions": [_standing_json(one) for one in partitions],
        }
        beside: dict[str, object] = {}
        if every:
            texts = [b64encode(one).decode() for one in marks]
            told["marks"] = {"every": every, "digest": _digest(texts)}
            beside["marks"] = texts
        text = json.dumps(told, separators=(",", ":"))
        signature = self._key.sign(SIGNED_PREFIX + text.encode()).hex()
        return Seal(
            namespace,
            identity,
            sealed_at,
            before,
            self.public.id,
            tuple(partitions),
            json.dumps({"seal": text, "signature": signature, **beside}),
            every,
            tuple(marks),
        )


def read_key(pem: bytes, where: str) -> SealKey:
    """The private key in a PEM file, of `refold audit keygen` or of `openssl genpkey -algorithm ed25519`.

    Raises:
        UsageError: There is none, or `cryptography` is not installed.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - an extra
            Ed25519PrivateKey,
        )
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - an extra
            load_pem_private_key,
        )
    except ImportError as error:
        raise UsageError(NO_CRYPTO) from error
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{where} is not a private key in PEM without a password: {error}"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{where} is not an Ed25519 key: make one with `refold audit keygen`")
    return SealKey(key)


def read_public_key(pem: bytes, where: str) -> PublicKey:
    """The public key in a PEM file.

    Raises:
        UsageError: There is none, or `cryptography` is not installed.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - an extra
            Ed25519PublicKey,
        )
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - an extra
            load_pem_public_key,
        )
    except ImportError as error:
        raise UsageError(NO_CRYPTO) from error
    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{where} is not a public key in PEM: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{where} is not an Ed25519 key")
    return PublicKey(key)


def read_seal(line: str, keys: Iterable[PublicKey], where: str) -> Seal:
    """One line of a file of seals, its signature verified.

    Raises:
        LogMismatch: A newer release wrote it, or another key signed it.
        LogCorrupt: It is no seal, or its signature does not fit.
    """
    try:
        outer = cast("dict[str, Any]", json.loads(line))
        text, signature = str(outer["seal"]), bytes.fromhex(outer["signature"])
        told = cast("dict[str, Any]", json.loads(text))
        if told["format"] != FORMAT:
            raise LogMismatch(
                f"{where} has a format that this release does not know: upgrade refold"
            )
        texts = [str(one) for one in outer.get("marks", ())]
        every = int(told["marks"]["every"]) if texts else 0
        fits = not texts or (every > 0 and told["marks"]["digest"] == _digest(texts))
        seal = Seal(
            namespace=str(told["namespace"]),
            identity=str(told["identity"]),
            sealed_at=int(told["sealed_at"]),
            previous=str(told["previous"]),
            key_id=str(told["key"]),
            partitions=tuple(map(_standing_of, told["partitions"])),
            line=line,
            every=every,
            marks=tuple(map(b64decode, texts)),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LogCorrupt(f"{where} is not a seal ({error!r})") from error
    named = {key.id: key for key in keys}
    if seal.key_id not in named:
        ours = ", ".join(named) or "none"
        raise LogMismatch(
            f"{where} is signed by the key {seal.key_id}, and the given ones are {ours}: it is somebody else's seal, "
            "or a public key is missing"
        )
    if not fits or not named[seal.key_id].verifies(signature, text):
        raise LogCorrupt(f"{where} was changed: its signature is not one of the key {seal.key_id}")
    return seal


def read_seals(text: str, keys: Sequence[PublicKey], where: str) -> list[Seal]:
    """All seals of a file, verified, in order.

    Raises:
        LogMismatch: One is by another key, of another namespace than the others, or a newer release's.
        LogCorrupt: One was changed, left out or moved.
    """
    seals, wrong = sound_seals(text, keys, where)
    if wrong is not None:
        raise wrong
    return seals


def sound_seals(
    text: str, keys: Sequence[PublicKey], where: str
) -> tuple[list[Seal], LogMismatch | LogCorrupt | None]:
    """The seals of a file up to the first that is not right, and what is wrong with it."""
    seals: list[Seal] = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            seals.append(_following(line, keys, f"seal {number} of {where}", seals))
        except (LogMismatch, LogCorrupt) as error:
            return seals, error
    return seals, None


def _following(line: str, keys: Sequence[PublicKey], place: str, seals: Sequence[Seal]) -> Seal:
    """The seal of a line that comes after others. Raises as `read_seals`."""
    seal = read_seal(line, keys, place)
    last = seals[-1] if seals else None
    if seal.previous != ("" if last is None else last.digest):
        raise LogCorrupt(
            f"{place} does not follow the seal before it: one was removed, moved or inserted"
        )
    if last is not None and (last.identity, len(last.partitions)) != (
        seal.identity,
        len(seal.partitions),
    ):
        raise LogMismatch(f"{place} is of another namespace than those before it")
    return seal


def _digest(marks: Sequence[str]) -> str:
    return blake2b("\n".join(marks).encode(), digest_size=32).hexdigest()


def _standing_json(standing: Standing) -> Mapping[str, object]:
    told = standing._asdict()
    told["chain"] = None if standing.chain is None else standing.chain.hex()
    told["peaks"] = [peak.hex() for peak in standing.peaks]
    return told


def _standing_of(told: Mapping[str, Any]) -> Standing:
    chain = told["chain"]
    return Standing(
        end=int(told["end"]),
        claim=int(told["claim"]),
        chain=None if chain is None else bytes.fromhex(chain),
        events=int(told["events"]),
        stale=int(told["stale"]),
        foreign=int(told["foreign"]),
        peaks=tuple(bytes.fromhex(peak) for peak in told["peaks"]),
    )

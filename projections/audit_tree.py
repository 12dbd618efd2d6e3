"""A tree of hashes over the events of a partition that count, and short proofs that one of them is among those.

The events are the leaves, in log order. Two neighbours make a node, two nodes make one of the next level, so that n
leaves stand under one perfect tree for each 1 in n's binary form: 13 leaves under trees of 8, 4 and 1. Their roots,
from the largest to the smallest, are the `peaks`. They are all that is needed to add leaves, and all that a seal has to
sign; a proof leads from a leaf to its peak, over one hash for each level. (A Merkle mountain range, as Peter Todd
described it; leaf and node are told apart by their first byte, as in RFC 6962.)

    leaf   BLAKE2b-256(0x00 || offset || the log's time || the record's value after its schema's number)
    node   BLAKE2b-256(0x01 || left || right)

Offset and time are 64-bit big-endian integers, the time in microseconds since 1970-01-01 UTC.

A mark says how the tree stood after some number of leaves, in 16 bytes: BLAKE2b-128(0x02 || peaks). By marks taken
along the way, whoever has another tree finds between which of them the two part.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from struct import Struct
from typing import Final

from refold.log.event_head import BODY
from refold.log.protocol import Record

HASH_BYTES: Final = 32
MARK_BYTES: Final = 16
"""Enough that nobody finds another tree with the same mark, and half as long as a hash: a seal may have very many."""
_LEAF: Final = Struct(">xqq")  # x: the zero byte


def leaf(record: Record) -> bytes:
    """The hash of a record."""
    place = _LEAF.pack(record.offset, record.timestamp)
    return blake2b(place + record.value[BODY:], digest_size=HASH_BYTES).digest()


def node(left: bytes, right: bytes) -> bytes:
    """The hash of what stands over two others."""
    return blake2b(b"\x01" + left + right, digest_size=HASH_BYTES).digest()


def mark_of(peaks: Sequence[bytes]) -> bytes:
    """The mark of a tree."""
    return blake2b(b"\x02" + b"".join(peaks), digest_size=MARK_BYTES).digest()


def trees(count: int) -> list[tuple[int, int]]:
    """The perfect trees over so many leaves, the largest first: the first leaf of each, and its height."""
    found: list[tuple[int, int]] = []
    first = 0
    for height in reversed(range(count.bit_length())):
        if count >> height & 1:
            found.append((first, height))
            first += 1 << height
    return found


class Tree:
    """The tree as leaves are added, in memory that grows with the logarithm of their number.

    Args:
        count: How many leaves it begins with.
        peaks: Their peaks.
        wanted: Indices of leaves whose proof will be asked for.
    """

    def __init__(
        self, count: int = 0, peaks: Sequence[bytes] = (), wanted: Iterable[int] = ()
    ) -> None:
        self.count = count
        self._peaks = list(peaks)
        self._wanted = sorted(wanted)
        self._noted: dict[tuple[int, int], bytes] = {}  # (first leaf, height) -> hash

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """The roots of the perfect trees, from the largest to the smallest."""
        return tuple(self._peaks)

    def want(self, index: int) -> None:
        """Ask for a proof of the leaf that is added next."""
        self._wanted.append(index)

    def forget(self, index: int) -> None:
        """It was not added after all."""
        self._wanted.remove(index)

    def add(self, hash_: bytes) -> None:
        """Add the hash of the next leaf."""
        peaks, count = self._peaks, self.count
        height = 0
        while count >> height & 1:
            left = peaks.pop()
            if self._wanted:
                right = count >> height << height
                self._note(right - (1 << height), right, height, left, hash_)
            hash_ = node(left, hash_)
            height += 1
        peaks.append(hash_)
        self.count = count + 1

    def _note(self, left_at: int, right_at: int, height: int, left: bytes, right: bytes) -> None:
        """Keep of two siblings the one that stands beside the way from a wanted leaf to its peak."""
        in_left = _any_in(self._wanted, left_at, height)
        in_right = _any_in(self._wanted, right_at, height)
        if in_left and not in_right:
            self._noted[right_at, height] = right
        if in_right and not in_left:
            self._noted[left_at, height] = left

    def proof(self) -> list[bytes]:
        """What `proven` needs besides the wanted leaves."""
        return [
            hash_
            for first, height in trees(self.count)
            if _any_in(self._wanted, first, height)
            for hash_ in self._beside(first, height)
        ]

    def _beside(self, first: int, height: int) -> Iterator[bytes]:
        if not height:
            return
        for half in (first, first + (1 << height - 1)):
            if _any_in(self._wanted, half, height - 1):
                yield from self._beside(half, height - 1)
            else:
                yield self._noted[half, height - 1]


def proven(
    count: int, peaks: Sequence[bytes], leaves: Mapping[int, bytes], proof: Sequence[bytes]
) -> bool:
    """Whether leaves stand where they are said to in the tree that has these peaks.

    Args:
        count: How many leaves the tree has.
        peaks: Its peaks.
        leaves: Index -> hash.
        proof: What `Tree.proof` returned for just these.
    """
    wanted = sorted(leaves)
    roots = trees(count)
    if len(roots) != len(peaks) or (wanted and not 0 <= wanted[0] <= wanted[-1] < count):
        return False
    rest = iter(proof)

    def root(first: int, height: int) -> bytes:
        if not _any_in(wanted, first, height):
            return next(rest)
        if not height:
            return leaves[first]
        return node(root(first, height - 1), root(first + (1 << height - 1), height - 1))

    try:
        for (first, height), peak in zip(roots, peaks, strict=True):
            if _any_in(wanted, first, height) and root(first, height) != peak:
                return False
    except StopIteration:
        return False
    return next(rest, None) is None


def _any_in(indices: Sequence[int], first: int, height: int) -> bool:
    """Whether any of them, which are sorted, is among the leaves of a perfect tree."""
    at = bisect_left(indices, first)
    return at < len(indices) and indices[at] < first + (1 << height)

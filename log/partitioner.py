"""Which partition a key belongs to: Kafka's default rule, on every backend.

Own code, because SQLite and memory must agree with the topics that any Kafka client writes to, and because
the answer must never change with somebody else's release: the history of a key stays where it is.
"""

from refold.log.errors import LogError, PayloadError

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """MurmurHash2 (Austin Appleby), 32 bits, with the seed of Kafka's `Utils.murmur2`.

    Args:
        data: Any bytes.

    Returns:
        The hash, unsigned: 0 to 2**32 - 1.
    """
    size = len(data)
    whole = size & ~3
    h = _SEED ^ size
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * _M & _MASK
        k = (k ^ k >> 24) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if size != whole:
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def partition_of(key: str, partitions: int) -> int:
    """The partition that Kafka's default partitioner gives to the UTF-8 bytes of `key`.

    Args:
        key: A workflow id, or a client id.
        partitions: Number of partitions, 1 or more.

    Returns:
        0 to `partitions` - 1.

    Raises:
        LogError: The number is not positive.
        PayloadError: The key has no UTF-8 form.
    """
    if partitions < 1:
        raise LogError(f"a log has 1 partition or more, not {partitions}")
    try:
        data = key.encode()
    except UnicodeEncodeError as error:
        raise PayloadError(
            f"the id {key!r} has no UTF-8 form ({error.reason}): use an id without surrogates"
        ) from error
    # The sign bit goes, as the Java client's `toPositive` does; abs() would give other partitions.
    return (murmur2(data) & 0x7FFFFFFF) % partitions

"""A key's partition is the one that every Kafka client gives it."""

from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner import default as kafka_python

from refold.log.errors import LogError, PayloadError
from refold.log.partitioner import murmur2, partition_of

# From the Java client's own tests of Utils.murmur2: the hash as a signed 32-bit integer.
JAVA_VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


def kafka_python_murmur2(data: bytes) -> int:
    """The hash as another client computes it, unsigned."""
    murmur2_of = cast(Callable[[bytes], int], getattr(kafka_python, "murmur2"))  # noqa: B009  # it has no types
    return murmur2_of(data) % 2**32


@pytest.mark.parametrize(("data", "signed"), JAVA_VECTORS.items())
def test_the_hash_is_the_java_clients(data: bytes, signed: int) -> None:
    """Given bytes that the Java client's tests hash, our hash has the same 32 bits."""
    assert murmur2(data) == signed % 2**32


@given(st.binary(max_size=64))
def test_the_hash_is_kafka_pythons_for_any_bytes(data: bytes) -> None:
    """Given any bytes, also of lengths that are no multiple of four, our hash is kafka-python's."""
    assert murmur2(data) == kafka_python_murmur2(data)


@given(st.text(max_size=32), st.integers(1, 1000))
def test_a_key_goes_where_kafkas_default_partitioner_sends_it(key: str, partitions: int) -> None:
    """Given any key, its partition is the hash of its UTF-8 without the sign bit, modulo the count."""
    expected = (kafka_python_murmur2(key.encode()) & 0x7FFFFFFF) % partitions
    assert partition_of(key, partitions) == expected
    assert 0 <= expected < partitions


def test_a_negative_hash_loses_its_sign_bit_not_its_sign() -> None:
    """Given a key whose hash is negative in Java, the sign bit is masked: abs() would give partition 2."""
    assert JAVA_VECTORS[b"foobar"] < 0
    assert partition_of("foobar", 10) == (-790332482 & 0x7FFFFFFF) % 10 == 6
    assert abs(-790332482) % 10 == 2


@pytest.mark.parametrize("partitions", [0, -1])
def test_a_count_of_no_partitions_is_refused(partitions: int) -> None:
    """Given no partitions, there is no answer, and the error says so."""
    with pytest.raises(LogError, match=str(partitions)):
        partition_of("order-42", partitions)


def test_a_key_with_half_a_surrogate_pair_is_refused() -> None:
    """Given a key without a UTF-8 form, the error names it."""
    with pytest.raises(PayloadError, match="no UTF-8 form"):
        partition_of("order-\ud800", 4)

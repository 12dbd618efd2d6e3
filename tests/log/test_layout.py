"""Which partition an id belongs to, in namespaces with pools and without."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.log.errors import LogMismatch, UsageError
from refold.log.layout import Layout, read_pools
from refold.log.memory import MemoryLog
from refold.log.partitioner import partition_of
from refold.log.urls import open_log

POOLED = Layout(3, (("gpu", 2), ("ocr", 1)))
IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(IDS, st.integers(1, 50))
def test_without_pools_the_place_is_kafkas(workflow_id: str, partitions: int) -> None:
    """Given a namespace without pools, every id belongs where Kafka's default partitioner puts it."""
    assert Layout(partitions).place(workflow_id) == partition_of(workflow_id, partitions)


@given(IDS, st.sampled_from(["gpu", "ocr"]))
def test_what_ends_with_a_pool_is_on_its_partitions(name: str, pool: str) -> None:
    """Given an id that ends with a pool's name, it belongs to a partition of that pool."""
    assert POOLED.place(f"{name}@{pool}") in POOLED.of(pool)


@pytest.mark.parametrize("workflow_id", ["gpu", "film@cpu", "film@gpu/3", "film@gpu2", "a@b"])
def test_all_else_is_on_the_common_partitions(workflow_id: str) -> None:
    """Given an id that ends with no pool's name, it belongs to a common partition, if its parent's does or not."""
    assert POOLED.pool_of(workflow_id) is None
    assert POOLED.place(workflow_id) in range(3)


def test_the_partitions_of_pools_follow_one_another() -> None:
    """Given pools, each has its own partitions, and all together are as many as were given."""
    assert [POOLED.of(pool) for pool in (None, "gpu", "ocr")] == [
        range(3),
        range(3, 5),
        range(5, 6),
    ]
    assert POOLED.partitions == 6
    assert not POOLED.of("cpu")


@pytest.mark.parametrize("text", ["gpu", "gpu:", "gpu:0", "gpu:x", ":2", "g.u:2", "g@u:1", "g/u:1"])
def test_what_can_be_no_pool_is_refused(text: str) -> None:
    """Given a pool without a number, or with a name that ids or groups can't have, it is refused."""
    with pytest.raises(UsageError):
        read_pools([text])


def test_a_pool_that_is_named_twice_is_refused() -> None:
    """Given the same pool twice, which of the numbers is meant is not guessed."""
    with pytest.raises(UsageError, match="twice"):
        read_pools(["gpu:1", "gpu:2"])


def test_urls_name_pools() -> None:
    """Given a URL with pools, the namespace is made with them; another URL of it must name the same."""
    log = open_log("memory://pooled?partitions=3&pools=gpu:2,ocr:1")
    assert isinstance(log, MemoryLog)
    assert log.layout == POOLED
    again = open_log("memory://pooled")
    assert isinstance(again, MemoryLog)
    assert again.layout == POOLED
    with pytest.raises(LogMismatch, match="has 3 partitions, and 2 of pool gpu, and 1 of pool ocr"):
        open_log("memory://pooled?pools=gpu:3")

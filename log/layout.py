"""Which partitions a namespace has, and which of them a workflow belongs to.

Mostly there is one lot of partitions, and any worker may be given any of them. A namespace can be made with pools
(docs/pools.md): each has partitions of its own, after the common ones, which only workers of that pool are given. What
is a pool's is told by its id, `film-7@gpu`: so everybody who has an id knows its partition, from nothing but what the
namespace was made with. The pool stands at the end, because ids of children begin with those of their parents.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from refold.log.errors import UsageError
from refold.log.partitioner import partition_of

_POOL: Final = re.compile(r"[A-Za-z0-9_-]{1,50}")
"""A pool's name is part of ids, of the name of a consumer group, of file names and of URLs."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The partitions of a namespace, fixed when it is made.

    Args:
        common: How many there are for what is no pool's.
        pools: Each pool with the number of its own partitions, in the order in which they follow.

    Attributes:
        partitions: How many there are in all.
    """

    common: int
    pools: tuple[tuple[str, int], ...] = ()
    partitions: int = field(init=False, compare=False)  # asked for at every append

    def __post_init__(self) -> None:
        in_all = self.common + sum(count for _, count in self.pools)
        object.__setattr__(self, "partitions", in_all)

    def of(self, pool: str | None) -> range:
        """The partitions of a pool, or the common ones. Empty where the namespace has no such pool."""
        if pool is None:
            return range(self.common)
        start = self.common
        for name, count in self.pools:
            if name == pool:
                return range(start, start + count)
            start += count
        return range(0)

    def pool_of(self, workflow_id: str) -> str | None:
        """The pool that an id is of; None where it is none of this namespace's."""
        if not self.pools:
            return None
        _, at, named = workflow_id.rpartition("@")
        return named if at and self.of(named) else None

    def place(self, workflow_id: str) -> int:
        """The partition that a workflow belongs to: Kafka's default rule, among the partitions of its pool.

        Raises:
            PayloadError: The id has no UTF-8 form.
        """
        if not self.pools:  # mostly
            return partition_of(workflow_id, self.common)
        partitions = self.of(self.pool_of(workflow_id))
        return partitions.start + partition_of(workflow_id, len(partitions))


def with_pool(workflow_id: str, pool: str | None) -> str:
    """An id that is made up, as one of a pool."""
    return workflow_id if pool is None else f"{workflow_id}@{pool}"


def check_pool(name: str) -> str:
    """`name` if a pool of a namespace can have it.

    Raises:
        UsageError: With the rule that it breaks.
    """
    if not _POOL.fullmatch(name):
        raise UsageError(
            f"{name!r} can't name a pool of workflows: use 1 to 50 letters, digits, '-' or '_'"
        )
    return name


def read_pools(texts: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """Pools as they are given in a URL or on a command line: `gpu:2`.

    Raises:
        UsageError: One is not of that form, or is named twice.
    """
    pools: dict[str, int] = {}
    for text in texts:
        name, colon, count = text.partition(":")
        check_pool(name)
        if not (colon and count.isascii() and count.isdecimal() and int(count) >= 1):
            raise UsageError(
                f"{text!r} does not say how many partitions pool {name!r} has: write {name}:2 for two"
            )
        if name in pools:
            raise UsageError(f"pool {name!r} is given twice")
        pools[name] = int(count)
    return tuple(pools.items())


def in_words(layout: Layout) -> str:
    """A layout in a person's words, as "8 partitions, and 2 of pool gpu"."""
    word = "partition" if layout.common == 1 else "partitions"
    pools = "".join(f", and {count} of pool {name}" for name, count in layout.pools)
    return f"{layout.common} {word}{pools}"

"""How a partition says that its namespace moves: by the name under which it was claimed last.

A claim is what fences workers off, and every reader folds it. So the claims of `refold migrate` carry names that no
worker has, and whoever meets one as the current claim does not claim over it. Nothing else is needed: the mark comes
into force in the very record that ends the former owner's ownership, on every backend.
"""

from typing import Final

from refold.log.errors import LogMismatch

_OURS: Final = "refold migrate"
CLOSED: Final = f"{_OURS}: to "
"""Claims of the source begin so, followed by the target's name."""
FILLING: Final = f"{_OURS}: from "
"""Claims of a target that is not complete yet, followed by the source's name."""
RELEASED: Final = f"{_OURS}d: from "
"""The claim by which a complete target is released to workers, followed by the source's name."""
ABANDONED: Final = f"{_OURS} abandoned: to "
"""The claim that opens a source again whose migration was given up."""


def why_moved(owner: str) -> str | None:
    """What a partition is to workers by the name under which it was claimed last: None where it is theirs to claim."""
    if owner.startswith(CLOSED):
        return (
            f"was closed by `refold migrate`: the namespace moves, or has moved, to {owner.removeprefix(CLOSED)}. Work"
            " on that one. If the migration was given up, `refold migrate SOURCE TARGET --abandon` opens this one again"
        )
    if owner.startswith(FILLING):
        return (
            f"is being filled from {owner.removeprefix(FILLING)} and is not complete: let `refold migrate` finish, or"
            " run it again; it goes on where it stopped"
        )
    return None


def require_not_moved(owner: str, worker: str, namespace: str, partition: int) -> None:
    """Refuse to claim a partition that is closed by a migration, or only being filled by one.

    Args:
        owner: Who holds the current claim.
        worker: Who wants to claim: a migration may.
        namespace: The log's name, for the message.
        partition: Number of the partition.

    Raises:
        LogMismatch: The partition is not for workers.
    """
    reason = why_moved(owner)
    if reason is not None and not worker.startswith(_OURS):
        raise LogMismatch(f"partition {partition} of {namespace!r} {reason}")

"""What ids, topics, keys and streams may be called. They stand in events, in keys of the log and in URLs."""

from typing import Final

from refold.log.errors import UsageError
from refold.log.layout import Layout, with_pool

MAX_CHARS: Final = 255
"""Of an id or a name. Enough for a path or a digest with a prefix; as long as file names may be."""


def check_id(workflow_id: str) -> None:
    """Refuse ids that can't be keys.

    Raises:
        UsageError: The id is empty, too long, holds characters that can't be printed, or is no string.
    """
    # Not every caller has a type checker.
    if not isinstance(workflow_id, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(f"a workflow id is a string, not {workflow_id!r}")
    if not workflow_id:
        raise UsageError("a workflow id must not be empty: give a name that means this one run")
    if len(workflow_id) > MAX_CHARS:
        raise UsageError(
            f"a workflow id has at most {MAX_CHARS} characters, this one has {len(workflow_id)}: "
            f"{workflow_id[:40]!r}... Use a shorter key, or a digest of the long one"
        )
    if not workflow_id.isprintable():
        raise UsageError(
            f"workflow id {workflow_id!r} holds characters that can't be printed: use letters, digits, "
            "punctuation and spaces"
        )


def check_pool_of(
    workflow_id: str, workflow: str, pool: str | None, layout: Layout | None = None
) -> None:
    """Refuse an id by which a run would go to workers that do not have its code.

    Args:
        workflow_id: The id.
        workflow: Name of its workflow.
        pool: The workflow's pool.
        layout: The partitions of the namespace; None in workflow code, which must not depend on them.

    Raises:
        UsageError: The id is not one of the workflow's pool.
    """
    if pool is not None and not workflow_id.endswith(with_pool("", pool)):
        raise UsageError(
            f"workflow {workflow!r} is of pool {pool!r}, whose ids end with it: use {with_pool(workflow_id, pool)!r} in"
            f" place of {workflow_id!r}"
        )
    other = None if layout is None else layout.pool_of(workflow_id)
    if pool is None and other is not None:
        raise UsageError(
            f"the id {workflow_id!r} is one of pool {other!r}, and workflow {workflow!r} is not: use another, or"
            f" @workflow(pool={other!r})"
        )


def check_name(name: str, what: str) -> None:
    """Refuse names that can't be recorded.

    Args:
        name: The name.
        what: What it names, for the message: "topic", "key", "stream", "change".

    Raises:
        UsageError: The name is empty, too long, holds characters that can't be printed, or is no string.
    """
    # Not every caller has a type checker.
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(f"a {what} is named by a string, not by {name!r}")
    if not name:
        raise UsageError(f"the name of a {what} must not be empty")
    if len(name) > MAX_CHARS:
        raise UsageError(
            f"the name of a {what} has at most {MAX_CHARS} characters, this one has {len(name)}: {name[:40]!r}..."
        )
    if not name.isprintable():
        raise UsageError(
            f"the name {name!r} of a {what} holds characters that can't be printed: use letters, digits, "
            "punctuation and spaces"
        )

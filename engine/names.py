"""What ids, topics, keys and streams may be called. They stand in events, in keys of the log and in URLs."""

from typing import Final

from refold.log.errors import UsageError

MAX_CHARS: Final = 255
"""Of an id or a name. Enough for a path or a digest with a prefix; as long as file names may be."""


def check_id(workflow_id: str) -> None:
    """Refuse ids that can't be keys.

    Raises:
        UsageError: The id is empty, too long, or holds characters that can't be printed.
    """
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

"""What is said of records that were trimmed, and which may not be: the same words on every log."""

from typing import Final

from refold.log.errors import LogTrimmed, UsageError
from refold.log.protocol import Bounds, Channel

ARCHIVE_ADVICE: Final = (
    "If it was archived, name the archive with --archive DIR, with REFOLD_ARCHIVE, or with "
    "?archive=DIR in the URL"
)


def trimmed(
    namespace: str, channel: Channel, partition: int, position: int, start: int
) -> LogTrimmed:
    """The error of a read from offset `position` of a partition that begins at `start` by now."""
    return LogTrimmed(
        f"{channel} of partition {partition} of {namespace!r} can't be read from offset {position}: what stood before "
        f"offset {start} was trimmed. {ARCHIVE_ADVICE}"
    )


def check_trim(
    namespace: str, channel: Channel, partition: int, before: int, bounds: Bounds
) -> None:
    """Refuse to trim what is not there, and the last record.

    Raises:
        UsageError: No record stands at `before` or after it.
    """
    if before >= bounds.end and before > bounds.start:
        raise UsageError(
            f"{channel} of partition {partition} of {namespace!r} can't be trimmed before offset {before}: they end "
            f"before offset {bounds.end}, and the last record stays. Nothing was deleted"
        )

"""What a long-running process says: one line an event, with named values, as text or as JSON."""

import json
import logging
import sys
from collections.abc import Mapping

from refold.services.spans import MICROSECONDS, iso

Value = str | int | float
_FIELDS = "refold_fields"


def say(
    logger: logging.Logger,
    message: str,
    values: Mapping[str, Value] | None = None,
    level: int = logging.INFO,
) -> None:
    """Log `message` with named values.

    Args:
        logger: Under whose name.
        message: What happened.
        values: What it happened with, by name.
        level: How grave it is, as in `logging`.
    """
    logger.log(level, message, extra={_FIELDS: dict(values or {})})


def set_up_logging(*, as_json: bool) -> None:
    """Send what is logged to standard error, unless the user's own modules have set logging up already.

    Args:
        as_json: A JSON object a line, for log collectors.
    """
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if as_json else TextLines())
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("refold").setLevel(logging.INFO)
    # Reports every reconnect as an error with a page of detail; what matters of it comes back as our own errors.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)


class TextLines(logging.Formatter):
    """`2026-11-22T18:09:15.123Z INFO refold.service: partitions owns=0,1`: values with spaces are quoted."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback where there is one."""
        values = "".join(f" {name}={_word(value)}" for name, value in _fields(record).items())
        line = f"{_at(record)} {record.levelname} {record.name}: {record.getMessage()}{values}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonLines(logging.Formatter):
    """One JSON object a line: `at`, `level`, `logger`, `message`, the named values, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, object] = {
            "at": _at(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _fields(record: logging.LogRecord) -> dict[str, Value]:
    fields: dict[str, Value] = getattr(record, _FIELDS, {})
    return fields


def _at(record: logging.LogRecord) -> str:
    return f"{iso(int(record.created * MICROSECONDS))[:-4]}Z"


def _word(value: Value) -> str:
    text = str(value)
    plain = bool(text) and text.isprintable() and not any(c in text for c in ' "=')
    return text if plain else json.dumps(text, ensure_ascii=False)

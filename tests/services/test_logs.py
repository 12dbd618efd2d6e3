"""Log lines of a long-running process."""

import json
import logging

from refold.services.logs import JsonLines, TextLines, say


class Kept(logging.Handler):
    """Keeps what was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def record_of(message: str, values: dict[str, str | int]) -> logging.LogRecord:
    """What `say` logs."""
    logger = logging.getLogger("refold.test")
    kept = Kept()
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    say(logger, message, values)
    logger.removeHandler(kept)
    (record,) = kept.records
    record.created = 1_700_000_000.25
    return record


def test_a_text_line_has_its_values_by_name_and_is_one_line() -> None:
    """Given values with spaces, quotes and line breaks, they are quoted as JSON strings."""
    record = record_of("partitions", {"owned": "0,1", "reason": 'a "b"\nc', "n": 3, "none": ""})
    assert TextLines().format(record) == (
        '2023-11-14T22:13:20.250Z INFO refold.test: partitions owned=0,1 reason="a \\"b\\"\\nc" n=3 none=""'
    )


def test_a_json_line_is_an_object() -> None:
    """Given the same, every value is a member."""
    assert json.loads(JsonLines().format(record_of("partitions", {"owned": "0,1", "n": 3}))) == {
        "at": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "logger": "refold.test",
        "message": "partitions",
        "owned": "0,1",
        "n": 3,
    }

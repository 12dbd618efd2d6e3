"""What a refused start is told of the run that has its id."""

import pytest

from refold.engine.conflict import QUOTED, other_input
from refold.log.commands import StartWorkflow


def told(first: str | None, given: str, *, private: bool = False) -> str:
    start = StartWorkflow(
        command_id="c", workflow_id="w", reply_to="r", requested_at=0, workflow="f", payload="{}"
    )
    return str(other_input(start, given, first, private=private))


def test_both_inputs_are_named() -> None:
    """Given two short inputs, both are quoted."""
    assert '({"order":1}, not {"order":2})' in told('{"order":1}', '{"order":2}')


def test_long_inputs_are_quoted_where_they_differ() -> None:
    """Given long inputs that differ late, or in length alone, the pieces show how, and the message stays short."""
    same = "[" + "1," * 500
    for first, given in ((same + "7]", same + "8,9]"), (same + "7]", same + "7,8]")):
        text = told(first, given)
        was, is_ = text.partition("(")[2].partition("):")[0].split(", not ")
        assert was != is_
        assert len(text) < 4 * QUOTED


@pytest.mark.parametrize("elsewhere", ['blob:{"x"', "enc:1:k", ' {"a":{"$enc":"x"}}'])
def test_what_is_kept_elsewhere_is_not_quoted(elsewhere: str) -> None:
    """Given an input that is encrypted or in the blob store, or one that is not at hand, neither is quoted."""
    for text in (
        told(elsewhere, '{"order":2}'),
        told('{"order":2}', elsewhere),
        told(None, '{"order":2}'),
        told('{"order":1}', '{"order":2}', private=True),
    ):
        assert "order" not in text
        assert "with another input: use another id" in text

"""What the page on projections shows is what the example runs."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_program_of_the_page_is_a_part_of_the_example() -> None:
    """Given the page's Python, each piece stands in the example, which is run as all examples are."""
    pieces = re.findall(
        r"^```python\n(.*?)^```",
        (ROOT / "docs/projections.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    example = (ROOT / "examples/projection.py").read_text()
    assert len(pieces) == 2
    assert [piece for piece in pieces if piece not in example] == []

"""Steps side by side: count the words of many files, four at a time.

    python examples/parallel.py [DIRECTORY]

`asyncio.gather` and `asyncio.Semaphore` are Python's own. They are safe here because outcomes reach the workflow in
the order in which the log has them, on the first run and on every replay.
"""

import asyncio
import sys
from collections import Counter
from pathlib import Path

from refold import Engine, step, workflow

AT_ONCE = 4


@step
def find_sources(directory: str) -> list[str]:
    """The Python files of a directory, in order."""
    return sorted(str(path) for path in Path(directory).glob("*.py"))


@step
def count_words(path: str) -> dict[str, int]:
    """How often each word stands in a file."""
    words = Path(path).read_text(encoding="utf-8").split()
    return dict(Counter(word for word in words if word.isidentifier()))


@workflow
async def most_common_words(directory: str, how_many: int) -> list[tuple[str, int]]:
    """The words that are most frequent in a directory's Python files."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def counted(path: str) -> dict[str, int]:
        async with gate:
            return await count_words.aio(path)

    paths = await find_sources.aio(directory)
    counts = await asyncio.gather(*(counted(path) for path in paths))
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return total.most_common(how_many)


if __name__ == "__main__":
    here = str(Path(__file__).parent)
    with Engine("memory://") as engine:
        run = engine.start(most_common_words, sys.argv[1] if len(sys.argv) > 1 else here, 5)
        for word, times in run.result():
            print(f"{times:5}  {word}")

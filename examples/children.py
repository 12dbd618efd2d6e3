"""Children: workflows that a workflow starts, on whatever worker, and waits for.

    python examples/children.py

Each child has a history and an id of its own. An error comes back as the type that it had. When the parent ends or is
cancelled, its children are cancelled too, unless they were started with `on_parent_end="abandon"` or `"detached"`.
"""

import asyncio

from refold import Engine, run_child, start_child, step, workflow


@step
def count(word: str) -> int:
    """How long a word is; some are too short to be counted."""
    if len(word) < 2:
        raise ValueError(f"{word!r} is no word")
    return len(word)


@workflow
async def measure(word: str) -> int:
    """One child for each word."""
    return await count.aio(word)


@workflow
async def keep_count(total: int) -> int:
    """Goes on without its parent."""
    return total


@workflow
async def measure_all(text: str) -> str:
    """Start a child for each word, wait for all, and leave one behind."""
    words = text.split()
    lengths = await asyncio.gather(
        *(run_child(measure, word) for word in words), return_exceptions=True
    )
    known = [length for length in lengths if isinstance(length, int)]
    left = await start_child(keep_count, sum(known), id="the-count", on_parent_end="detached")
    unknown = [str(error) for error in lengths if isinstance(error, ValueError)]
    return f"{len(known)} words; {', '.join(unknown)}; see {left.id}"


if __name__ == "__main__":
    with Engine("memory://") as engine:
        print(engine.start(measure_all, "who makes a robust thing").result())
        print(engine.handle("the-count", keep_count).result(), "letters")

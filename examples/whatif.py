"""What would a run have done, had a step come to something else? Its code is replayed; no step runs.

    python examples/whatif.py

The same on the command line: refold whatif order-7 --app orders --set stock=0 --stub 'apologise="sorry"'
"""

import tempfile
from pathlib import Path

from refold import Engine, step, what_if, workflow


@step
async def stock(item: str) -> int:
    """Count what is left."""
    return 3


@step
async def charge(item: str) -> str:
    """Take the money."""
    print(f"(charging for {item})")
    return f"paid for {item}"


@step
async def apologise(item: str) -> str:
    """Write a letter."""
    print("(writing a letter)")
    return f"no {item} today"


@workflow
async def order(item: str) -> str:
    """Charge for what is there."""
    return await (charge(item) if await stock(item) else apologise(item))


def main() -> None:
    """Run it."""
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{Path(directory) / 'orders.db'}"
        with Engine(url, workflows=[order]) as engine:
            engine.start(order, "pens", id="order-7").result(timeout_s=30)
        found = what_if(url, "order-7", {"stock": 0}, stubs={"apologise": "sorry"})
        print("it did:", found.recorded.result)
        print("it would have done:", found.supposed.result)
        for operation in found.supposed.operations:
            print(" ", operation.call, operation.came.value, operation.value)


if __name__ == "__main__":
    main()

"""Changing code while runs are open: two versions side by side, and a patch.

    python examples/versions.py

A run stays on the version that it was started with; `refold versions` tells when no open run needs an old one any
more. For a small change, `patched` asks whether this run takes the new path: runs that went the old way before stay on
it, all others take the new one.
"""

from refold import Engine, patched, step, workflow


@step
def cook(dish: str) -> str:
    """What both versions do."""
    return f"cooked {dish}"


@step
def garnish(dish: str) -> str:
    """What a change has added."""
    return f"{dish} with parsley"


@workflow(name="dinner", version=1)
async def dinner_v1() -> list[str]:
    """As it was."""
    return [await cook.aio("soup")]


@workflow(name="dinner", version=2)
async def dinner_v2() -> list[str]:
    """As it is now: another course, and a small change to the first."""
    soup = await cook.aio("soup")
    if patched("garnish the soup"):
        soup = await garnish.aio(soup)
    return [soup, await cook.aio("fish")]


if __name__ == "__main__":
    with Engine("memory://", workflows=[dinner_v1, dinner_v2]) as engine:
        print("version 1:", ", ".join(engine.start(dinner_v1, id="old").result()))
        print("version 2:", ", ".join(engine.start(dinner_v2, id="new").result()))
        for run in engine.list():
            print(run.workflow_id, "ran version", run.version)

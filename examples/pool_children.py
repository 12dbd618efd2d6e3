"""A child workflow that only some machines have the code for: its runs lie where that code is.

    python examples/pool_children.py

The namespace is made with one partition that is the pool's own. A run of `film` gets an id that ends with `@darkroom`,
so it belongs to that partition, which workers of the pool alone are given. Its parent waits for it like for any child.
Here both workers are in one file, as two engines that know one workflow each; in life they are two processes:

    refold worker app --url 'sqlite:///studio.db?partitions=1&pools=darkroom:1'
    refold worker --pool darkroom app.films --url ...
"""

import tempfile
from pathlib import Path

from refold import Engine, run_child, step, workflow


@step
async def develop(name: str) -> int:
    """Develop a film; returns how many pictures there are."""
    return len(name)


@workflow(pool="darkroom")
async def film(name: str) -> str:
    """Run by workers of the pool, with all that a workflow can do."""
    return f"{await develop(name)} pictures of {name}"


@workflow
async def album(names: list[str]) -> list[str]:
    """Run by any other worker."""
    return [await run_child(film, name) for name in names]


def main() -> None:
    """Run it."""
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{Path(directory) / 'studio.db'}?partitions=1&pools=darkroom:1"
        with (
            Engine(url, workflows=[album]) as studio,
            Engine(url, workflows=[film], worker=False, pools=["darkroom"]),
        ):
            for line in studio.start(album, ["holiday", "snow"], id="summer").result(timeout_s=30):
                print(line)
            for run in sorted(studio.list(), key=lambda run: run.workflow_id):
                print(run.workflow_id, run.status)


if __name__ == "__main__":
    main()

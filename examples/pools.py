"""A step that only some machines can do: it goes to a worker of its pool, wherever the workflow runs.

    python examples/pools.py

The worker of the pool owns no partition and runs no workflow. It asks for steps, carries them out, and reports; the
worker that runs the workflow records what it hears. Here both are in one file, as two engines; in life they are two
processes, on two kinds of machine:

    refold worker pools.py --url ...                  # runs the workflows and the steps without a pool
    refold worker --pool darkroom pools.py --url ...  # as many as there are darkrooms
"""

import tempfile
import threading
from pathlib import Path

from refold import Engine, Retry, step, step_context, workflow


@step(pool="darkroom", retry=Retry(attempts=3))
def develop(film: str, minutes: float = 7.5) -> list[str]:
    """Develop a film; returns its pictures. Arguments and result travel as JSON, by their annotations."""
    where = threading.current_thread().name.partition("_")[0]
    print(f"{where}: develops {film} for {minutes:g} minutes, attempt {step_context().attempt}")
    return [f"{film}/{number}" for number in (1, 2)]


@step
def frame(picture: str) -> str:
    """Put a picture into a frame; anybody can."""
    where = threading.current_thread().name.partition("_")[0]
    print(f"{where}: frames {picture}")
    return f"[{picture}]"


@workflow
def exhibit(film: str) -> str:
    """From the film to the wall."""
    return " ".join(frame(picture) for picture in develop(film))


def main() -> None:
    """Run it."""
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{Path(directory) / 'studio.db'}"
        with Engine(url, workflows=[exhibit]) as studio:
            run = studio.start(exhibit, "holiday", id="summer")  # waits: nobody has a darkroom yet
            with Engine(url, worker=False, pools=["darkroom"]):
                print(run.result(timeout_s=30))


if __name__ == "__main__":
    main()

"""The smallest durable workflow: two steps, recorded in a SQLite file.

    python examples/hello.py        # run it twice: the second time nothing runs, and the result is the same

The id says which run is meant. There is exactly one run of an id, so the second time finds it finished.
"""

import getpass
import platform

from refold import Engine, step, workflow


@step
def who() -> str:
    """Ask the system: something that a replay must not do again, for the answer may differ."""
    print("(asking who you are)")
    return getpass.getuser()


@step
def where() -> str:
    """Ask for the machine's kind."""
    print("(asking what this runs on)")
    return platform.system()


@workflow
def hello(greeting: str) -> str:
    """Greet whoever is there."""
    return f"{greeting}, {who()} on {where()}!"


if __name__ == "__main__":
    with Engine("sqlite:///hello.db") as engine:
        print(engine.start(hello, "Hello", id="hello-1").result())

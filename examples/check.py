"""Before new code is deployed: which of the runs that are open would it break?

    python examples/check.py

`refold check` replays every open run against the code that it is given, with no effect, and its exit code is for CI: 1
where runs would break. Here somebody has renamed a step while a run was waiting.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from refold import Engine, publish, receive, step, workflow


@step
async def charge(item: str) -> str:
    """Take the money."""
    return f"paid for {item}"


@workflow
async def order(item: str) -> str:
    """Charge, then wait for the delivery."""
    receipt = await charge(item)
    publish("receipt", receipt)
    return f"{receipt}, {await receive('delivered', str)}"


RENAMED = ("charge(", "collect(")


def check(url: str, module: str, directory: Path) -> int:
    """Run `refold check`, as CI would; returns its exit code."""
    command = [sys.executable, "-m", "refold", "check", module, "--processes", "1", "--url", url]
    return subprocess.run(command, cwd=directory, check=False).returncode


def main() -> None:
    """Run it."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        url = f"sqlite:///{directory / 'orders.db'}"
        with Engine(url, workflows=[order]) as engine:
            engine.start(order, "books", id="order-7").value("receipt", str)
        code = Path(__file__).read_text(encoding="utf-8")
        (directory / "same.py").write_text(code, encoding="utf-8")
        (directory / "changed.py").write_text(code.replace(*RENAMED), encoding="utf-8")
        print("same code: exit code", check(url, "same", directory), flush=True)
        print("changed code: exit code", check(url, "changed", directory), flush=True)


if __name__ == "__main__":
    main()

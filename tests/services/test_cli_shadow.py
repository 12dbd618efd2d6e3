"""`refold shadow` as an operator runs it."""

import json
import signal
from pathlib import Path

import pytest

from cli_process import CommandLine
from refold import Engine, step, workflow

CODE = """
from refold import step, workflow

@step
async def weigh(what: str) -> int:
    return len(what)

@workflow
async def letter(what: str) -> int:
    return await weigh(what)
"""


@pytest.fixture
def post(refold: CommandLine, shop: Path) -> CommandLine:
    """The log of three letters, and the code that wrote it."""
    (shop / "post.py").write_text(CODE)

    @step
    async def weigh(what: str) -> int:
        return len(what)

    @workflow
    async def letter(what: str) -> int:
        return await weigh(what)

    with Engine(f"sqlite:///{shop}/shop.db", workflows=[letter]) as engine:
        for n in range(3):
            assert engine.start(letter, "box", id=f"letter-{n}").result(60) == 3
    return refold


def test_the_exit_code_says_whether_anything_differs(post: CommandLine) -> None:
    """Given the code that ran, nothing differs; given changed code, what differs is told, in groups or lines."""
    log = (post.directory / "shop.db").read_bytes()
    assert "this code does the same" in post("shadow", "post", "--once").stdout
    file = post.directory / "post.py"
    file.write_text(CODE.replace("return await weigh(what)", "return 1 + await weigh(what)"))

    told = post("shadow", "post", "--once", code=1).stdout
    lines = post("shadow", "post", "--once", "--json", code=1).stdout.splitlines()

    assert "it completed with 3, and with this code it completes with 4" in told
    assert "3 runs like letter-" in told
    assert "3 runs differ" in told
    *differences, summary = map(json.loads, lines)
    assert {line["workflow_id"] for line in differences} == {f"letter-{n}" for n in range(3)}
    assert summary["differing"] == 3
    assert (post.directory / "shop.db").read_bytes() == log
    assert "no module" in post("shadow", "pots", "--once", code=2).stderr
    assert "no length of time" in post("shadow", "post", "--for", "soon", code=2).stderr


def test_it_follows_until_it_is_stopped(post: CommandLine) -> None:
    """Given --for or Ctrl-C, it stops and sums up; code that does not come back ends it with a word about where."""
    assert "0 events followed" in post("shadow", "post", "--for", "0s").stdout
    with post.begin("shadow", "post", "--json") as following:
        following.until("following")
        assert following.stopped(signal.SIGINT) == 0
        assert json.loads(following.result()) == {"events": 0, "differing": 0}
    file = post.directory / "post.py"
    file.write_text(CODE.replace("return await", "[None for _ in iter(int, 1)]; return await"))
    told = post("shadow", "post", "--once", "--limit-s", "0.3", code=1).stdout
    assert "would hold up a worker" in told
    assert "at post.py:10" in told

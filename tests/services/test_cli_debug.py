"""`refold debug`: a recorded run in pdb, driven by what is typed at its prompt."""

import asyncio
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from cli_process import PATIENCE_S, CommandLine
from engine_trial import until
from refold import Engine, Workflow
from refold.engine.debugging import Debugger, debug
from refold.engine.definitions import Catalogue
from refold.engine.histories import read_run
from refold.engine.places import read_place
from refold.engine.rehearsal import History
from refold.log.urls import open_log
from refold.services.opening import opened

CODE = """
import asyncio
from pathlib import Path
from refold import receive, receive_sync, sleep_sync, step, workflow

@step
async def price(item: str) -> int:
    Path("effects.txt").open("a").write(item)
    return len(item) * 10

@step
def bill(amount: int) -> str:
    Path("effects.txt").open("a").write(str(amount))
    return f"bill over {amount}"

@workflow
async def order(items: list[str]) -> str:
    prices = []
    for item in items:
        prices.append(await price(item))
    total = sum(prices)
    paper = await bill.aio(total)
    both = await asyncio.gather(price("x"), price("yy"))
    word = await receive("word", str)
    return paper + word

@workflow
def order_sync(items: list[str]) -> str:
    prices = []
    for item in items:
        prices.append(price.sync(item))
    total = sum(prices)
    paper = bill(total)
    word = receive_sync("word", str)
    return paper + word

@workflow
async def refused(item: str) -> str:
    cost = await price(item)
    limit = 5
    if cost > limit:
        raise ValueError(f"{item} is too dear")
    return item
"""


@pytest.fixture
def orders(refold: CommandLine, shop: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """An `async def` and a `def` run that wait for a word, and one that has failed."""
    monkeypatch.chdir(shop)
    (shop / "orders.py").write_text(CODE)
    code: dict[str, Any] = {"__name__": "orders"}
    exec(CODE.replace('Path("effects.txt").open("a").write(', "str("), code)
    items = ["pen", "book"]
    with Engine("sqlite:///shop.db", workflows=of_orders(code)) as engine:
        engine.start(code["order"], items, id="a")
        engine.start(code["order_sync"], items, id="b")
        with pytest.raises(ValueError, match="too dear"):
            engine.start(code["refused"], "pen", id="r").result(PATIENCE_S)
        until(lambda: engine.status("a").events == 6 and engine.status("b").events == 4)
    return refold


def of_orders(code: dict[str, Any]) -> list[Workflow[..., Any]]:
    return [code[name] for name in ("order", "order_sync", "refused")]


def typed(orders: CommandLine, id_: str, at: str | None = None, *, lines: str) -> list[str]:
    """What the debugger says to what is typed, prompt by prompt."""
    file = orders.directory / "orders.py"
    code: dict[str, Any] = {"__name__": "orders"}
    exec(compile(file.read_text(), file, "exec"), code)
    log = (orders.directory / "shop.db").read_bytes()
    script = StringIO("".join(f"{line}\n" for line in lines.split("; ")))
    said = StringIO()

    async def read() -> History:
        async with opened(open_log("sqlite:///shop.db")) as log:
            return await read_run(log, id_)

    history = asyncio.run(read())
    place = None if at is None else read_place(at)
    debugger = Debugger(history, place, stdin=script, stdout=said)
    debug(Catalogue.of(of_orders(code)), history, debugger)

    assert not (orders.directory / "effects.txt").exists(), "no step may run"
    assert (orders.directory / "shop.db").read_bytes() == log, "nothing may be written"
    return [part.strip() for part in said.getvalue().split("(refold)")]


@pytest.mark.parametrize("id_", ["a", "b"], ids=["async def", "def"])
def test_operations_are_stepped_through_with_the_variables_of_then(
    orders: CommandLine, id_: str
) -> None:
    """Given a run, `op` goes from call to call in the user's own frame, and to where the history ends."""
    said = typed(orders, id_, lines="p prices; op; p (item, prices); op bill; p total; op 99; c")

    assert said[0].startswith("operation 0: step 'price': completed with 30")
    assert "-> prices.append(" in said[0]
    assert said[1] == "[]"
    assert said[2].startswith("operation 1: step 'price': completed with 40")
    assert said[3] == "('book', [30])"
    assert said[4].startswith("operation 2: step 'bill': completed with \"bill over 70\"")
    assert said[5] == "70"
    assert said[6].startswith("the history ends here, with no operation #99, and the code waits")
    assert '("word", str)' in said[6]


def test_it_stands_still_first_where_that_is_asked_for(orders: CommandLine) -> None:
    """Given --at, it begins there; gathered steps, which no code waits for directly, show where the workflow waits."""
    said = typed(orders, "a", "price#3", lines="p paper; op; op; p both; ops; q")
    assert said[0].startswith("operation 3: step 'price': completed with 10")
    assert "-> both = await asyncio.gather(" in said[0]
    assert said[1] == "'bill over 70'"
    assert said[2].startswith("operation 4: ")
    assert said[3].startswith("the history ends here, and the code waits")
    assert '-> word = await receive("word", str)' in said[3]
    assert said[4] == "[10, 20]"
    assert "✓    2  bill  completed with" in said[5]


@pytest.mark.parametrize("id_", ["a", "b"], ids=["async def", "def"])
def test_plain_pdb_steps_over_what_is_awaited(orders: CommandLine, id_: str) -> None:
    """Given `next` and breakpoints, pdb goes on in the user's code, past refold's, to where the code waits."""
    said = typed(orders, id_, "bill", lines="n; p paper; w; n; n; n; p paper")
    assert said[1].endswith(('gather(price("x"), price("yy"))', 'receive_sync("word", str)'))
    assert said[2] == "'bill over 70'"
    assert "refold/engine" not in said[3]
    assert "the history ends here, and the code waits" in "".join(said[4:7])


def test_an_error_is_looked_at_where_it_was_raised(orders: CommandLine) -> None:
    """Given a run that failed, the debugger stands where its code raises, with the variables that led to it."""
    said = typed(orders, "r", lines="c; p (cost, limit)")
    assert "the workflow raises ValueError: pen is too dear" in said[1]
    assert said[2] == "(30, 5)"


def test_the_prompt_has_no_effects(orders: CommandLine) -> None:
    """Given what would reach outside, or a durable call, typed at any prompt, it is refused, and the replay goes on."""
    attempts = "open('x', 'w'); price('pen'); price.fn('pen').send(None); p sum(prices)"
    said = typed(orders, "b", "bill", lines=f"{attempts}; op; {attempts}; c")
    for at in (1, 6):
        assert "SideEffectError" in said[at]
        assert "nothing durable can be called" in said[at + 1]
        assert "SideEffectError" in said[at + 2]
        assert said[at + 3] == "70"
    failed = typed(orders, "r", lines=f"c; {attempts}; c")
    assert "nothing durable can be called" in failed[3]
    assert not (orders.directory / "x").exists()


def test_code_that_differs_is_stopped_at(orders: CommandLine) -> None:
    """Given code that asks for something else than the history has, it stands still there, whatever was asked for."""
    path = orders.directory / "orders.py"
    path.write_text(path.read_text().replace("async def price", "async def cost"))
    path.write_text(path.read_text().replace("price", "cost"))
    said = typed(orders, "a", "bill", lines="p item; c")
    assert said[0].startswith(
        "operation 0: step 'cost': DIVERGES, the history has step 'price' here"
    )
    assert said[1] == "'pen'"


def test_the_command_says_how_it_ended_and_what_is_wrong(orders: CommandLine) -> None:
    """Given a run, it is stepped through from the command line; an id, operation or code that is not there is told."""
    done = orders("debug", "b", "--app", "orders", "--at", "bill", stdin="p total\nop\nc\n")
    assert "(refold) 70" in done.stdout
    assert done.stderr == "the history ends here: b waits\n"
    assert not (orders.directory / "effects.txt").exists()
    assert "no workflow has the id 'zz'" in orders("debug", "zz", "--app", "orders", code=5).stderr
    there = orders("debug", "r", "--app", "orders", "--at", "bill", code=2, stdin="c\n").stderr
    assert "workflow 'r' has no operation bill: it has price#0" in there
    assert "'order' is not registered" in orders("debug", "a", "--app", "shop", code=5).stderr

"""`refold check` as CI runs it: exit codes, what is told, and code that would never come back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli_process import PATIENCE_S, CommandLine
from engine_trial import until
from refold import Engine

CODE = """
from pathlib import Path
from refold import receive, step, workflow

@step
async def weigh(what: str) -> int:
    with Path("weighed.txt").open("a") as scales:
        scales.write(what)
    return len(what)

@workflow
async def parcel(what: str) -> str:
    weight = await weigh(what)
    return f"{weight} {await receive('address', str)}"

@workflow
async def letter(what: str) -> int:
    return await weigh(what)
"""


@pytest.fixture
def deploy(shop: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Three open parcels and four letters that have ended; what it gives changes the code."""
    monkeypatch.chdir(shop)
    (shop / "post.py").write_text(CODE)
    code: dict[str, Any] = {"__name__": "post"}
    exec(CODE, code)
    with Engine("sqlite:///shop.db", workflows=[code["parcel"], code["letter"]]) as engine:
        for n in range(4):
            engine.start(code["letter"], f"l{n}", id=f"letter-{n}").result(PATIENCE_S)
        for n in range(3):
            engine.start(code["parcel"], f"p{n}", id=f"parcel-{n}")
        until(lambda: all(engine.status(f"parcel-{n}").events == 2 for n in range(3)))

    def change(old: str, new: str) -> None:
        assert old in CODE
        (shop / "post.py").write_text(CODE.replace(old, new))

    return change


def checked(refold: CommandLine, *words: str, code: int) -> dict[str, Any]:
    """The report of `refold check --json`."""
    report: dict[str, Any] = json.loads(refold("check", "post", "--json", *words, code=code).stdout)
    return report


def test_code_that_fits_may_be_deployed(
    refold: CommandLine, shop: Path, deploy: Callable[[str, str], None]
) -> None:
    """Given code that goes on with every run, the exit code is 0, nothing was written and no step has run."""
    deploy("weight =", "kilos = weight =")
    weighed = (shop / "weighed.txt").read_text()
    log = (shop / "shop.db").read_bytes()

    told = refold("check", "post", "--closed", "3", "--seed", "5").stdout

    assert "3 open runs checked, and 3 that ended (seed 5)" in told
    assert "this code breaks none of them" in told
    assert (shop / "weighed.txt").read_text() == weighed
    assert (shop / "shop.db").read_bytes() == log
    assert checked(refold, "--workflow", "letter", "--status", "running", code=0)["checked"] == 0


def test_code_that_breaks_runs_may_not(
    refold: CommandLine, deploy: Callable[[str, str], None]
) -> None:
    """Given a step that was renamed, its runs are one group, told with difference and line; the exit code is 1."""
    deploy("@step\n", "@step(name='measure')\n")

    told = refold("check", "post", "--processes", "2", code=1).stdout

    assert "3 runs would be parked" in told
    assert "history  step 'weigh'  operation 0, event 1" in told
    assert "code     step 'measure'" in told
    assert "at post.py:13   weight = await weigh(what)" in told
    assert "parcel-0, parcel-1, parcel-2" in told
    report = checked(refold, "--closed", "10", "--seed", "1", code=1)
    assert (report["checked"], report["closed"], report["broken"]) == (7, 4, 7)
    [parcels, letters] = sorted(report["groups"], key=lambda group: group["workflow"] == "letter")
    assert parcels["divergence"]["expected"] == "step 'weigh'"
    assert parcels["ids"] == ["parcel-0", "parcel-1", "parcel-2"]
    assert letters["ids"] == [f"letter-{n}" for n in range(4)]


def test_missing_code_fails_unless_it_is_somebody_elses(
    refold: CommandLine, deploy: Callable[[str, str], None]
) -> None:
    """Given a workflow that was renamed, its runs would wait; --partial passes over those that are not here at all."""
    deploy("async def parcel", "async def package")
    assert "3 runs would wait for code that is not here" in refold("check", "post", code=1).stdout
    assert "this code breaks none" in refold("check", "post", "--partial").stdout
    deploy("@workflow\nasync def parcel", "@workflow(version=2)\nasync def parcel")
    assert "3 runs would wait for code" in refold("check", "post", "--partial", code=1).stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("[None for _ in iter(int, 1)]", "did not come to rest within 0.5 s"),
        ("__import__('re').match('(a|a?)+$', 'a' * 60 + 'b')", "did not come to rest"),
        ("__import__('os')._exit(9)", "with exit code 9"),
    ],
    ids=["a loop", "a call that holds the interpreter", "an exit"],
)
def test_code_that_never_comes_back_is_reported(
    refold: CommandLine, deploy: Callable[[str, str], None], code: str, told: str
) -> None:
    """Given one run whose code hangs or ends the process, it is reported and all others are checked."""
    deploy("    weight = ", f"    if what == 'p1': {code}\n    weight = ")

    report = checked(refold, "--limit-s", "0.5", "--processes", "1", code=1)

    assert report["checked"] == 3
    [group] = report["groups"]
    assert group["ids"] == ["parcel-1"]
    assert told in group["message"]


def test_what_can_not_be_checked_is_said(
    refold: CommandLine, shop: Path, deploy: Callable[[str, str], None]
) -> None:
    """Given an app that can't be imported, a log that is not there, or a status no open run has, the exit code is 2."""
    deploy("from refold import", "from refold import nothing,")
    assert "post" in refold("check", "post", code=2).stderr
    deploy("weight =", "weight =")
    nowhere = CommandLine(shop, "sqlite:///nowhere.db")
    assert "there is no log file" in nowhere("check", "post", code=2).stderr
    assert "is not open" in refold("check", "post", "--status", "failed", code=2).stderr

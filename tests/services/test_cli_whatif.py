"""`refold whatif`: two courses side by side, and mistakes in what was typed."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli_process import PATIENCE_S
from refold import Engine, step, workflow
from refold.services.cli import app
from refold.services.exits import ExitCode


@step
async def weigh(parcel: str) -> int:
    return len(parcel)


@step
async def refund(parcel: str, reason: str) -> str:
    raise AssertionError(f"{parcel} was refunded: {reason}")


class TooHeavy(Exception):
    """An error of the user's own."""


@workflow
async def post(parcel: str) -> str:
    for _ in range(9):
        await weigh("scales")
    try:
        weight = await weigh(parcel)
    except TooHeavy as error:
        return str(error)
    return "sent" if weight < 5 else await refund(parcel, reason="weight")


def lost(parcel: str, reason: str) -> str:
    return f"{parcel} is lost for its {reason}"


APP = ("--app", f"{__name__}:post")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with the log of one run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REFOLD_URL", raising=False)
    with Engine("sqlite:///refold.db", workflows=[post]) as engine:
        assert engine.start(post, "box", id="run").result(PATIENCE_S) == "sent"


def refold(*words: str, code: ExitCode = ExitCode.OK) -> Result:
    """Run a command in this process; nothing may be written by it."""
    before = Path("refold.db").read_bytes()
    done = CliRunner(env={"COLUMNS": "120", "NO_COLOR": "1"}).invoke(app, list(words))
    assert done.exit_code == code, done.output
    assert Path("refold.db").read_bytes() == before
    return done


def test_both_courses_are_shown() -> None:
    """Given another weight, the table shows what was recorded, what differs, and what would be carried out."""
    told = refold("whatif", "run", *APP, "--set", "weigh#9=12").stdout
    lines = [" ".join(line.split()) for line in told.splitlines()]
    assert "… 5 operations, the same on both" in lines
    assert "9 weigh('box') 3 12 (set)" in lines
    assert "10 refund('box', reason='weight') not asked for would be carried out" in lines
    assert 'the run completes with "sent" waits' in lines
    assert lines[-1] == "nothing was carried out, and nothing was written"
    assert "operations, the same" not in refold("whatif", "run", *APP, "--all").stdout


def test_errors_and_stubs_are_given_by_name() -> None:
    """Given an error of the app's own or a function as stub, the course ends as it would with them."""
    found = refold("whatif", "run", *APP, "--fail", "9=TooHeavy:too much", "--json").stdout
    assert json.loads(found)["supposed"]["result"] == '"too much"'
    for stub in (f"refund={__name__}:lost", 'refund="box is lost for its weight"'):
        words = ("--set", "9=12", "--stub", stub, "--json")
        found = refold("whatif", "run", *APP, *words).stdout
        assert json.loads(found)["supposed"]["result"] == '"box is lost for its weight"'
    found = refold("whatif", "run", *APP, "--set", "9=12", "--stub", f"{__name__}:lost").stdout
    assert "would be carried out" in found, "it stands for a step of its own name"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--set", "9"), "write it as in --set charge=5"),
        (("--set", "9=x"), "--set 9 is no JSON"),
        (("--set", "9=1", "--fail", "9=ValueError:x"), "operation 9 was given twice"),
        (("--set", "9=null"), "null can't be what step 'weigh' returned: Input should be a valid integer"),
        (("--set", "weigh=1"), "has 10 operations weigh, name one of them: it has weigh#0"),
        (("--set", "bill=1"), "has no step or child bill: it has weigh#0"),
        (("--set", "#=1"), "no step or child #"),
        (("--fail", "9=gone"), "write the error as TYPE:MESSAGE"),
        (("--fail", "9=Gone:now"), "'Gone' is no type of error"),
        (("--fail", "9=UnicodeDecodeError:now"), "can't be made of one text"),
        (("--stub", "refund"), "write it as in --stub"),
        (("--stub", f"refund={__name__}:APP"), "it is no function"),
        (("--stub", f"refund={__name__}:found"), "has no 'found'"),
        (("--app", "nowhere"), "there is no module 'nowhere'"),
    ],
)  # fmt: skip
def test_mistakes_are_said(words: tuple[str, ...], says: str) -> None:
    """Given a mistake in what was typed, one error names it, with exit code 2."""
    assert says in " ".join(
        refold("whatif", "run", *APP, *words, code=ExitCode.USAGE).stderr.split()
    )


def test_a_run_that_is_not_there_is_refused() -> None:
    """Given an unknown id, it is said."""
    assert "no workflow has the id 'x'" in refold("whatif", "x", *APP, code=ExitCode.REFUSED).stderr

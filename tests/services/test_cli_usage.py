"""The command line used wrongly: one clear error, the right exit code, and nothing made. And its help."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from refold.services.cli import app
from refold.services.exits import ExitCode

CODE = """
from refold import step, workflow

@step
def charge(order: int) -> str: ...

@workflow
def checkout(order: int, how: str = "standard") -> str: ...

@workflow
def refund(order: int) -> str: ...

everything = [checkout, refund]
rates = {"standard": 5}

def plain(order: int) -> str: ...
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory with a module; what is imported there is forgotten again."""
    (tmp_path / "till.py").write_text(CODE)
    (tmp_path / "barren.py").write_text("def plain(order: int) -> str: ...\n")
    (tmp_path / "broken.py").write_text("rates = {}\nprice = rates['standard']\n")
    (tmp_path / "needy.py").write_text("import no_such_package\n")
    (tmp_path / "script.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("REFOLD_URL", raising=False)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def refold(*words: str) -> Result:
    """Run a command in this process."""
    return CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"}).invoke(app, list(words))


def flat(text: str) -> str:
    """Text without line breaks and boxes, to look for sentences."""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", text)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run", "tilt:checkout"), "there is no module 'tilt' (for 'tilt:checkout')"),
        (("run", "tilt:checkout"), "Did you mean till?"),
        (("run", "nowhere"), "Python files here: barren, broken, needy, script, till."),
        (("run", "till:chekout"), "Did you mean till:checkout? Workflows in 'till': checkout, refund."),
        (("run", "till"), "till has 2 workflows, name one of them:\n  till:checkout\n  till:refund"),
        (("run", "till:charge", "1"), "till:charge is a step, not a workflow"),
        (("run", "till:plain", "1"), "till:plain is a plain function without @workflow"),
        (("run", "barren"), "Module 'barren' has no workflows, but has plain"),
        (("run", "broken"), "KeyError at"),
        (("run", "needy"), "it needs 'no_such_package': install that"),
        (("worker", "script"), "module 'script' ends the process when it is imported (sys.exit)"),
        (("run", "missing.py:checkout"), "there is no file missing.py"),
        (("run", ":checkout"), "names no module"),
        (("run", "till:checkout"), "missing a required argument: 'order'"),
        (("run", "till:checkout", "x"), "Nothing was written"),
        (("run", "till:checkout", "1", "2", "3"), "takes ORDER HOW, and 3 were given"),
        (("run", "till:checkout", "--input", "{"), "--input is no JSON"),
        (("run", "till:checkout", "--input", "[" * 100_000), "--input is no JSON"),
        (("send", "x", "topic", "[" * 100_000), "VALUE is no JSON"),
        (("run", "till:checkout", "--input", "@none.json"), "the file can't be read"),
        (("run", "till:checkout", "--input", '{"ordr": 1}'), "it has no argument 'ordr'"),
        (("run", "till:checkout", "1", "--input", "{}"), "not both"),
        (("run", "till:checkout", "1", "--id", ""), "must not be empty"),
        (("run", "till:checkout", "1", "--url", "postgres://x"), "does not name a log"),
        (("start", "checkout", "1"), "is only a name"),
        (("start", "checkout", "--input", "[1]"), "must be a JSON object"),
        (("start", "till:checkout", "x"), "Nothing was written"),
        (("start", "till:checkout", "1", "--url", "memory://x"), "this process's own memory"),
        (("worker", "barren"), "there is nothing to run"),
        (("worker", "till:rates"), "till:rates is of type dict, not a workflow and no list of workflows"),
        (("worker", "till", "--url", "memory://"), "this process's own memory"),
        (("topics", "create"), "sqlite:///refold.db has no topics"),
        (("start", "till:checkout", "1", "--deadline", "soon"), "--deadline: 'soon' is no time"),
        (("start", "till:checkout", "1", "--deadline", "0s"), "not in the future"),
        (("start", "till:checkout", "1", "--attribute", "gold"), "write it as name=value"),
        (("start", "till:checkout", "1", "--message", "pay"), "write it as TOPIC=JSON"),
        (("start", "till:checkout", "1", "--version", "2"), "has no version 2 in this code, which has: 1"),
        (("list", "--since", "2026-01-01T00:00"), "--since: '2026-01-01T00:00' has no time zone"),
        (("list", "--attribute", "a=1", "--attribute", "a=2"), "was given twice"),
        (("send", "x", "topic", "{"), "VALUE is no JSON"),
        (("ask", "x", "topic", "hello"), "text is '\"hello\"', with both quotes"),
        (("stream", "x", "items", "--json", "--raw"), "not both"),
        (("value", "", "key"), "must not be empty"),
        (("cancel",), "which runs? Name their ids"),
        (("pause", "x", "--workflow", "checkout"), "not both"),
        (("terminate", "--all", "--workflow", "checkout"), "--all means every run"),
        (("resume", "--status", "completed"), "can't be done to runs that are completed"),
        (("fork", "--all", "--id", "x"), "name the one run that is to be copied"),
        (("versions", "tilt"), "Did you mean till?"),
        (("topics", "create", "--url", "kafka://nowhere/x"), "is not host:port"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_error_and_makes_nothing(
    here: Path, words: tuple[str, ...], says: str
) -> None:
    """Given a mistake in what was typed, it is named on standard error, with exit code 2, and no file is made."""
    result = refold(*words)
    assert result.exit_code == ExitCode.USAGE, result.output
    assert says in result.stderr
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert not [path for path in here.iterdir() if path.suffix not in {".py", ""}]


@pytest.mark.parametrize(
    "words",
    [
        ("list",),
        ("show", "x"),
        ("history", "x"),
        ("resume", "x"),
        ("cancel", "x", "y"),
        ("pause", "--all", "--yes"),
        ("rewind", "x", "--step", "0"),
        ("fork", "x"),
        ("terminate", "x", "--dry-run"),
        ("send", "x", "topic", "1"),
        ("ask", "x", "topic", "1"),
        ("value", "x", "key"),
        ("stream", "x", "name"),
        ("versions",),
    ],
)
def test_readers_do_not_make_a_log(here: Path, words: tuple[str, ...]) -> None:
    """Given no log file, those who only read say so with exit code 4 and make none."""
    result = refold(*words, "--url", "sqlite:///none.db")
    assert result.exit_code == ExitCode.LOG
    assert "there is no log file none.db" in result.stderr
    assert not (here / "none.db").exists()


def test_debug_shows_the_traceback_too() -> None:
    """Given --debug, the error's own traceback stands above the red line."""
    result = refold("run", "broken", "--debug")
    assert "KeyError: 'standard'" in result.stderr
    assert "error: module 'broken' can't be imported" in result.stderr


def test_an_empty_log_has_no_runs() -> None:
    """Given a log in which nothing was started, list says so and show knows no id."""
    assert refold("start", "till:checkout", "1", "--no-wait", "--id", "a").exit_code == ExitCode.OK
    assert refold("list").stdout.strip() == "there are no runs yet"
    assert refold("list", "--status", "parked").stdout.strip() == "no run is like that"
    result = refold("show", "a")
    assert result.exit_code == ExitCode.REFUSED
    assert "no workflow has the id 'a'" in result.stderr


COMMANDS = (
    *(
        "run",
        "start",
        "worker",
        "list",
        "show",
        "history",
        "versions",
        "check",
        "debug",
        "whatif",
        "shadow",
        "send",
        "ask",
        "value",
    ),
    *("stream", "cancel", "pause", "resume", "terminate", "rewind", "fork"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples(command: str) -> None:
    """Given --help, a command shows its options, the log's default, and examples that begin with it."""
    result = refold(command, "--help")
    assert result.exit_code == ExitCode.OK
    help_text = flat(result.stdout)
    assert f"refold {command} " in help_text.partition("Examples:")[2]
    assert "default: sqlite:///refold.db" in help_text


def test_help_has_the_commands_and_the_exit_codes() -> None:
    """Given --help, each command and each exit code is there."""
    help_text = flat(refold("--help").stdout)
    for command in (*COMMANDS, "topics", "schemas"):
        assert f" {command} " in help_text
    assert "3 the workflow is parked" in help_text


def test_version_is_said_both_ways() -> None:
    """Given `version` or --version, the release and Python's are named."""
    assert refold("version").stdout == refold("--version").stdout
    assert refold("version").stdout.startswith("refold ")

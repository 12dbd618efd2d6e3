"""Where the command line writes, and what becomes of it where that can't take it."""

import json
import os
import sys
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
import typer
from rich.console import Console

from refold.services.exits import ExitCode, reported
from refold.services.terminal import plain_table, print_json, to_reader

WRITERS: tuple[Callable[[], object], ...] = (
    lambda: to_reader().print("a table"),
    lambda: print_json({"runs": 1}),
    lambda: sys.stdout.write("text that nobody flushes"),
)


def written(write: Callable[[], object]) -> int:
    """The exit code of a command that writes to standard output as it is."""
    with pytest.raises(typer.Exit) as ended, reported(debug=False):
        write()
    return ended.value.exit_code


@pytest.mark.parametrize("write", WRITERS)
def test_a_reader_that_has_gone_has_its_exit_code(
    write: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a pipe that nobody reads, when a command writes in any of its ways, then it ends as by SIGPIPE."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert written(write) == ExitCode.BROKEN_PIPE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("write", WRITERS)
def test_a_disk_that_is_full_is_said(
    write: Callable[[], object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given an output on a full disk, when a command writes, then it says so, and ends with the code for it."""
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert written(write) == ExitCode.LOG
    assert "No space left" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_in_every_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given an output that lacks signs, when JSON is printed, then it can be read, and steers no terminal."""
    value = {"é": "\x9b31m \x1b[0m \u202e 😀", "n": 1}
    output = TextIOWrapper(BytesIO(), encoding=encoding, errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", output)
    print_json(value, pretty=True)
    output.seek(0)
    text = output.read()
    assert json.loads(text) == value
    assert text.replace("\n", "").isprintable()


def test_names_are_no_markup() -> None:
    """Given a column that is called as markup is, when the table is drawn, then it is called so."""
    console = Console(width=40)
    with console.capture() as drawn:
        console.print(plain_table("[/x]", "[red]y"))
    assert drawn.get().split() == ["[/x]", "[red]y"]

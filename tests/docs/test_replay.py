"""What docs/replay.md shows is run, and comes out as it says."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "replay.md"
BLOCK = re.compile(
    r"^```(\w+)(?: file=(\S+))?(?: change=([^\n]+))?(?: exit=(\d))?\n(.*?)^```",
    re.MULTILINE | re.DOTALL,
)


def run(command: list[str], folder: Path, code: int = 0) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder), "NO_COLOR": "1", "COLUMNS": "100"}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == code, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_program_and_command_of_the_page_runs(tmp_path: Path) -> None:
    """Programs are written, changed and run in order; commands end with the exit code that is said, and what they print
    holds the lines that are shown."""
    said = ""
    for language, name, change, code, text in BLOCK.findall(PAGE.read_text()):
        if change:
            program = (tmp_path / name).read_text()
            words = change.split("|")
            for old, new in zip(words[::2], words[1::2], strict=True):
                assert old in program
                program = program.replace(old, new)
            (tmp_path / name).write_text(program)
        elif language == "python":
            (tmp_path / name).write_text(text)
            said = run([sys.executable, name], tmp_path)
        elif language == "console":
            said = ""
            for line in text.splitlines():
                words = shlex.split(line.removeprefix("$ "))
                said += run([sys.executable, "-m", *words], tmp_path, int(code or 0))
        elif "refold debug" not in text:  # what the commands before it have printed
            for line in text.splitlines():
                for part in re.split(r"\.\.\.|\s{2,}|, \d\.\d s|in \d\.\d s", line):
                    assert part.strip() in said, part
    assert said.count("this code does the same") == 2


def test_the_page_s_python_prints_both_results(tmp_path: Path) -> None:
    """The program that asks `what_if` prints what was, and what would have been."""
    programs = {
        name: text
        for _, name, change, _, text in BLOCK.findall(PAGE.read_text())
        if not change and name
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
    run([sys.executable, "orders.py"], tmp_path)
    told = run([sys.executable, "doubt.py"], tmp_path).splitlines()
    assert told[0] == '"paid for 2 pens, by bicycle" or "no pens"'
    assert told[1:] == ["stock('pens') supposed 0", "apologise('pens') stubbed \"no pens\""]

"""What the README shows is run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)
NEEDS_MORE = ("pip install", "make ", "kafka://", "refold worker")  # run by tests of their own


def run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_program_and_command_of_the_readme_runs(tmp_path: Path) -> None:
    """Programs are written to the files that they name and run in order, and so are the commands."""
    outputs: dict[str, str] = {}
    for language, name, text in BLOCK.findall(README.read_text()):
        if language == "python":
            (tmp_path / name).write_text(text)
            outputs[name] = run([sys.executable, name], tmp_path)
        for line in text.splitlines() if language == "console" else ():
            command = line.removeprefix("$ ")
            if not any(part in command for part in NEEDS_MORE):
                words = shlex.split(command)
                assert words[0] == "refold"
                outputs[command] = run([sys.executable, "-m", *words], tmp_path)
    assert "total=Decimal('9.00')" in outputs["orders.py"]
    assert "another input" in outputs["client.py"]
    assert "0 workflow.started" in outputs["client.py"]
    assert sum("refold" in command for command in outputs) == 12


def test_a_second_run_of_the_first_program_charges_nothing(tmp_path: Path) -> None:
    """Given a run that has ended, when the program runs again, then the result is the recorded one."""
    program = next(
        text for _, name, text in BLOCK.findall(README.read_text()) if name == "orders.py"
    )
    (tmp_path / "orders.py").write_text(program)
    first = run([sys.executable, "orders.py"], tmp_path)
    (tmp_path / "report.txt").unlink()

    second = run([sys.executable, "orders.py"], tmp_path)

    assert second == first
    assert not (tmp_path / "report.txt").exists()

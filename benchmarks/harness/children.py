"""Child processes: each measurement has a fresh one, so that none finds caches warmed by another."""

import subprocess
import sys
import tempfile
from pathlib import Path

from job import Job, Measured
from plan import Backend

HERE = Path(__file__).resolve().parent

TIME_LIMIT_S = 300.0
"""Several times what most measurements take on two shared cores."""

STDERR_LINES = 15


class ChildFailedError(Exception):
    """A child process did not answer; the message holds the end of what it said."""


def run(backend: Backend, job: Job, time_limit_s: float = TIME_LIMIT_S) -> Measured:
    """Measure a job in a process of its own.

    Raises:
        ChildFailedError: It failed, or took too long.
    """
    return _answers(_command(backend, job), job, time_limit_s)


def run_code(code: str) -> Measured:
    """Run a line of Python in a fresh interpreter; it answers as other children do.

    Raises:
        ChildFailedError: It failed, or took too long.
    """
    return _answers([sys.executable, "-c", code], None, TIME_LIMIT_S)


def run_until_killed(backend: Backend, job: Job) -> None:
    """Start a job and kill it (SIGKILL) as soon as it answers.

    Raises:
        ChildFailedError: It ended before.
    """
    with tempfile.TemporaryFile("w+") as stderr:
        child = subprocess.Popen(
            _command(backend, job), stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=HERE
        )
        with child:
            try:
                line = child.stdout.readline() if child.stdout is not None else ""
            finally:
                child.kill()
        if not line:
            stderr.seek(0)
            raise _failed(job, "ended before it was killed", stderr.read())


def _command(backend: Backend, job: Job) -> list[str]:
    script = "peer.py" if backend == "dbos" else "child.py"
    return [sys.executable, str(HERE / script), job.to_json()]


def _answers(command: list[str], job: Job | None, time_limit_s: float) -> Measured:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=time_limit_s, cwd=HERE, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(job, f"took more than {time_limit_s:.0f} s", _text(error.stderr)) from error
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        raise _failed(job, f"ended with exit code {done.returncode}", done.stderr)
    measured = Measured()
    for line in lines:
        measured.add(Measured.from_json(line))
    return measured


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def _failed(job: Job | None, what: str, stderr: str) -> ChildFailedError:
    end = "\n".join(stderr.splitlines()[-STDERR_LINES:])
    return ChildFailedError(f"{job.to_json() if job is not None else 'a child'} {what}:\n{end}")

"""The guard refuses what workflow code does to the world, and lets through what only happens within it."""

import gc
import importlib
import inspect
import json
import linecache
import logging
import logging.handlers
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
import warnings
import weakref
import webbrowser
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pydantic import create_model

from refold.engine.definitions import AsyncWorkflow, SyncWorkflow, step, workflow
from refold.engine.guard import Guard, arm, disarm
from refold.log.errors import SideEffectError
from run_driver import Driver

Act = Callable[[Path], object]


@step
async def ask(name: str) -> str:
    raise AssertionError("a run never carries out a step by itself")


def run_act(act: Act, folder: Path, kind: str, guard: str = "raise") -> Driver:
    """A workflow of either kind that does nothing but the act."""

    async def as_async() -> None:
        act(folder)

    def as_sync() -> None:
        act(folder)

    if kind == "async def":
        return Driver.begin(AsyncWorkflow(as_async, "act", 1, None), guard=guard)
    return Driver.begin(SyncWorkflow(as_sync, "act", 1, None), guard=guard)


kinds = pytest.mark.parametrize("kind", ["async def", "def"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("content")
    (tmp_path / "folder").mkdir()
    return tmp_path


REFUSED: list[tuple[str, Act]] = [
    ("open(", lambda folder: (folder / "file").read_text()),
    ("open(", lambda folder: (folder / "new").write_text("x")),
    ("open(", lambda folder: os.open(folder / "file", os.O_RDONLY)),
    ("os.remove(", lambda folder: (folder / "file").unlink()),
    ("os.rename(", lambda folder: (folder / "file").rename(folder / "other")),
    ("os.mkdir(", lambda folder: (folder / "new").mkdir()),
    ("os.rmdir(", lambda folder: (folder / "folder").rmdir()),
    ("os.listdir(", os.listdir),
    ("os.scandir(", os.scandir),
    ("os.chmod", lambda folder: (folder / "file").chmod(0o600)),
    ("os.truncate", lambda folder: os.truncate(folder / "file", 0)),
    ("os.link", lambda folder: os.link(folder / "file", folder / "other")),
    ("os.symlink", lambda folder: (folder / "other").symlink_to("file")),
    ("os.utime", lambda folder: os.utime(folder / "file")),
    ("shutil.copyfile", lambda folder: shutil.copyfile(folder / "file", folder / "other")),
    ("shutil.rmtree", shutil.rmtree),
    ("tempfile.mkstemp", lambda folder: tempfile.mkstemp(dir=folder)),
    ("sqlite3.connect", lambda folder: sqlite3.connect(folder / "new.db")),
    ("socket.__new__", lambda folder: socket.socket()),
    ("socket.getaddrinfo", lambda folder: socket.getaddrinfo("localhost", 80)),
    ("socket.gethostname", lambda folder: socket.gethostname()),
    ("http.client.connect", lambda folder: HTTPConnection("127.0.0.1:1").connect()),
    ("urllib.Request", lambda folder: urllib.request.urlopen("http://127.0.0.1:1/")),
    ("subprocess.Popen", lambda folder: subprocess.run(["true"], check=True)),
    ("os.system", lambda folder: os.system("true")),  # pyright: ignore[reportDeprecated]
    ("os.fork", lambda folder: os.fork()),
    ("os.posix_spawn", lambda folder: os.posix_spawn("/bin/true", ["true"], {})),
    ("os.putenv", lambda folder: os.environ.update(REFOLD_TEST="1")),
    ("os.kill", lambda folder: os.kill(os.getpid(), 0)),
    (
        "webbrowser.open",
        lambda folder: webbrowser.BackgroundBrowser("true").open("http://127.0.0.1:1/"),
    ),
    *(
        [("time.sleep(0.01)", lambda folder: time.sleep(0.01))]
        if sys.version_info >= (3, 13)
        else []
    ),
    *(
        [("_thread.start_", lambda folder: threading.Thread(target=print).start())]
        if sys.version_info >= (3, 12)
        else []
    ),
]


@kinds
@pytest.mark.parametrize(("named", "act"), REFUSED, ids=[named for named, _ in REFUSED])
def test_a_side_effect_is_refused(named: str, act: Act, kind: str, folder: Path) -> None:
    """Given an act on the world, it does not happen; the workflow fails with its name, the line, and what to do."""
    before = sorted(folder.rglob("*"))
    if named == "tempfile.mkstemp":
        tempfile.gettempdir()  # found out once a process, by trying
    error = run_act(act, folder, kind).error()

    assert error.error_type == "refold.log.errors:SideEffectError"
    assert f"workflow 'wf-1' tried {named}" in error.error_message
    assert f"({__file__}:" in error.error_message
    assert "step" in error.error_message or "asyncio" in error.error_message
    assert sorted(folder.rglob("*")) == before
    assert "REFOLD_TEST" not in os.environ or named == "os.putenv"


def test_the_error_names_the_own_line_and_not_a_librarys(folder: Path) -> None:
    """Given a library that opens a file deep inside, the line named is the workflow's that called it."""
    lines: list[int] = []

    def act(folder: Path) -> None:
        lines.append(inspect.currentframe().f_lineno + 1)  # type: ignore[union-attr]
        zipfile.ZipFile(folder / "file")

    error = run_act(act, folder, "async def").error()

    assert f"{__file__}:{lines[0]}" in error.error_message


@kinds
def test_workflow_code_may_catch_the_refusal(kind: str, folder: Path) -> None:
    """Given code that catches the error, it goes on."""

    def act(folder: Path) -> None:
        with pytest.raises(SideEffectError):
            (folder / "file").read_text()

    assert run_act(act, folder, kind).result() == "null"


# What is let through --------------------------------------------------------------------------------------


def log_to_file(folder: Path) -> None:
    handler = logging.handlers.RotatingFileHandler(
        folder / "log", maxBytes=10, backupCount=1, delay=True
    )
    logger = logging.getLogger("test.guard")
    logger.addHandler(handler)
    try:
        for line in range(3):
            logger.error("line %d", line)
    finally:
        logger.removeHandler(handler)
        handler.close()


def warn(folder: Path) -> None:
    linecache.clearcache()
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        warnings.warn("careful", stacklevel=1)


def format_traceback(folder: Path) -> None:
    linecache.clearcache()
    try:
        int("no number")
    except ValueError:
        assert 'int("no number")' in traceback.format_exc()


def read_source(folder: Path) -> None:
    linecache.clearcache()
    assert "linecache" in inspect.getsource(read_source)


def make_model(folder: Path) -> None:
    linecache.clearcache()
    model = create_model("Made", __config__={"use_attribute_docstrings": True}, value=(int, 1))
    assert model.model_validate_json('{"value": 2}').model_dump() == {"value": 2}


def show(folder: Path) -> None:
    print("shown")
    sys.stderr.write("shown\n")


def time_zone(folder: Path) -> None:
    ZoneInfo.clear_cache()
    assert datetime(2026, 1, 1, tzinfo=UTC).astimezone(ZoneInfo("UTC")).hour == 0
    ZoneInfo.no_cache("Europe/Prague")


class RemovesItsFile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __del__(self) -> None:
        self.path.unlink()


class InACycle:
    def __init__(self, removes: object) -> None:
        self.removes = removes
        self.itself = self


LET_THROUGH: list[Act] = [
    log_to_file,
    warn,
    format_traceback,
    read_source,
    make_model,
    show,
    time_zone,
]


@kinds
@pytest.mark.parametrize("act", LET_THROUGH, ids=lambda act: act.__name__)
def test_what_is_no_doing_of_the_workflow_is_let_through(
    act: Act, kind: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Given logging, warnings, tracebacks, source, models, printing and time zones, nothing is refused."""
    driver = run_act(act, folder, kind)

    assert driver.result() == "null"
    if act is log_to_file:
        assert (folder / "log").exists()
        assert (folder / "log.1").exists()


@kinds
@pytest.mark.parametrize("zipped", [False, True], ids=["from a folder", "from a zip file"])
def test_an_import_is_let_through(
    kind: str, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a module not imported before, which reads a file of its own, importing it in a workflow works."""
    name = f"imported_{kind.replace(' ', '_')}_{zipped}"
    source = f"open({str(tmp_path / 'data')!r}).close()\nVALUE = 42\n"
    (tmp_path / "data").write_text("x")
    if zipped:
        with zipfile.ZipFile(tmp_path / "modules.zip", "w") as archive:
            archive.writestr(f"{name}.py", source)
        monkeypatch.setattr(sys, "path", [str(tmp_path / "modules.zip"), *sys.path])
    else:
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", False)

    def act(folder: Path) -> None:
        assert importlib.import_module(name).VALUE == 42

    driver = run_act(act, tmp_path, kind)

    assert driver.result() == "null"
    assert zipped or list((tmp_path / "__pycache__").iterdir())


@kinds
def test_what_drives_the_run_excuses_nothing(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a worker that is itself started by an import, its workflows are guarded all the same."""
    name = f"starts_a_workflow_from_{kind.replace(' ', '_')}"
    (folder / f"{name}.py").write_text(
        f"""
from refold.engine.definitions import workflow
from run_driver import Driver

@workflow
{kind} reading() -> str:
    with open({str(folder / "file")!r}) as file:
        return file.read()

ERROR = Driver.begin(reading).error()
"""
    )
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])

    assert importlib.import_module(name).ERROR.error_type.endswith(":SideEffectError")


@kinds
def test_a_finalizer_of_others_is_let_through(kind: str, folder: Path) -> None:
    """Given garbage whose finalizers delete files, it may be collected while workflow code runs."""
    InACycle(RemovesItsFile(folder / "file"))
    other = InACycle(None)
    weakref.finalize(other, os.rmdir, folder / "folder")
    del other

    assert run_act(lambda folder: gc.collect(), folder, kind).result() == "null"
    assert list(folder.iterdir()) == []


def test_a_debugger_is_let_through(folder: Path) -> None:
    """Given breakpoint() in workflow code, pdb reads its files and the source."""
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
from refold.engine.definitions import workflow
from run_driver import Driver

@workflow
async def debugged() -> int:
    answer = 6
    breakpoint()
    return answer * 7

print("result", Driver.begin(debugged).result())
"""
    path = folder / "script.py"
    path.write_text(script)
    (folder / ".pdbrc").write_text("p 'read the rc file'\n")
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=folder,
        env={"HOME": str(folder)},
        input="list\np answer\ncontinue\n",
        capture_output=True,
        text=True,
        check=False,
    )

    assert "result 42" in done.stdout, done.stderr
    assert "read the rc file" in done.stdout
    assert "answer = 6" in done.stdout


# Modes and threads ----------------------------------------------------------------------------------------


@kinds
def test_warn_reports_a_line_once_and_lets_it_through(
    kind: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Given mode `warn`, the act happens, and its line is logged the first time only."""
    namespace: dict[str, Act] = {}
    line_of_its_own = f"{folder}/{kind.replace(' ', '_')}.py"
    exec(  # a line that no other test has used
        compile(
            "def act(folder):\n    for _ in range(3): (folder / 'file').read_text()\n",
            line_of_its_own,
            "exec",
        ),
        namespace,
    )

    assert run_act(namespace["act"], folder, kind, "warn").result() == "null"
    assert run_act(namespace["act"], folder, kind, "warn").result() == "null"

    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert f"{line_of_its_own}:2" in record.getMessage()


@kinds
def test_off_lets_everything_through(
    kind: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Given mode `off`, the act happens and nothing is said."""
    assert (
        run_act(lambda folder: (folder / "file").unlink(), folder, kind, "off").result() == "null"
    )
    assert not (folder / "file").exists()
    assert caplog.records == []


@kinds
def test_only_the_thread_of_workflow_code_is_guarded(kind: str, folder: Path) -> None:
    """Given a workflow that runs, other threads do as they like meanwhile."""
    asked, answered = threading.Event(), threading.Event()
    read: list[str] = []

    def other() -> None:
        asked.wait()
        read.append((folder / "file").read_text())
        answered.set()

    thread = threading.Thread(target=other, daemon=True)
    thread.start()

    def act(folder: Path) -> None:
        asked.set()
        answered.wait()

    assert run_act(act, folder, kind).result() == "null"
    assert read == ["content"]


def test_the_worker_is_not_guarded_between_the_turns(folder: Path) -> None:
    """Given a run that waits, the thread that drives it reads files; and the run's next turn is guarded again."""

    @workflow
    async def waiting() -> None:
        await ask("a")
        (folder / "file").unlink()

    driver = Driver.begin(waiting)
    assert (folder / "file").read_text() == "content"
    driver.complete(0, "a")

    assert driver.error().error_type.endswith(":SideEffectError")
    assert (folder / "file").exists()


def test_the_ends_of_a_dropped_workflow_are_guarded(folder: Path) -> None:
    """Given `finally` blocks that would delete a file, closing the run deletes nothing."""

    @workflow
    async def tidy() -> None:
        try:
            await ask("a")
        finally:
            (folder / "file").unlink()

    Driver.begin(tidy).run.close()

    assert (folder / "file").exists()


@pytest.fixture
def armed() -> Iterator[None]:
    yield
    disarm()


@pytest.mark.usefixtures("armed")
def test_a_guard_holds_from_arm_to_disarm(folder: Path) -> None:
    """Given a guard by itself, it refuses between `arm` and `disarm`."""
    arm(Guard("wf-9", "raise"))
    with pytest.raises(SideEffectError, match="'wf-9'"):
        (folder / "file").read_text()
    disarm()

    assert json.dumps((folder / "file").read_text()) == '"content"'

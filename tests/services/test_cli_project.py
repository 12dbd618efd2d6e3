"""`refold project`, and `refold list` from what it keeps."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from typer.testing import CliRunner, Result

from projection_samples import Stumbling, Tale, fill
from refold import Engine, Projected, workflow
from refold.log.errors import LogUnavailable
from refold.log.memory import MemoryLog
from refold.log.sqlite import SqliteLog
from refold.projections.runner import Standing
from refold.projections.workflows import Workflows
from refold.services import project_service
from refold.services.cli import app
from refold.services.exits import ExitCode
from refold.services.listing import Sort
from refold.services.metrics import StatsCollector
from refold.services.project_service import ProjectService, Report

PROJECTIONS = """
from projection_samples import Stumbling, Tale
class Mine(Tale):
    name = "mine"
class Needy(Tale):
    def __init__(self) -> None:
        raise ValueError("no city")
class Order:
    def __init__(self, sku: str) -> None: ...
stumbling = Stumbling("run-3/1/step.completed")
nothing = 7
"""


@workflow
async def fails(text: str) -> None:
    """Fails."""
    raise ValueError(text)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with a log and some projections."""
    monkeypatch.chdir(tmp_path)
    for variable in ("REFOLD_URL", "REFOLD_VIEWS"):
        monkeypatch.delenv(variable, raising=False)
    Path("views.py").write_text(PROJECTIONS)
    monkeypatch.delitem(sys.modules, "views", raising=False)
    append(5)


def append(runs: int, first: int = 0) -> None:
    async def write() -> None:
        log = SqliteLog("refold.db", 2)
        await log.open()
        await fill(log, runs, first=first)
        await log.close()

    asyncio.run(write())


def refold(*words: str, code: ExitCode = ExitCode.OK) -> Result:
    """Run a command in this process."""
    done = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(app, list(words))
    assert done.exit_code == code, done.output
    return done


def test_a_list_from_the_read_model_is_that_from_the_log() -> None:
    """Given a read model that has caught up, lists, pages, counts and groups are those of the fold."""
    assert refold("project", "--once").stdout == "workflows: 27 events taken in, caught up\n"
    for words in (
        ("list", "--json", "--limit", "0"),
        ("list", "--json", "--sort", "id", "--reverse", "--limit", "2", "--after", "id,run-1"),
        *(("list", "--sort", sort, "--limit", "2") for sort in Sort),
        *(("list", "--sort", sort, "--reverse", "--json") for sort in Sort),
        ("list", "--status", "completed", "--count"),
        ("list", "--by", "workflow"),
        ("list", "--by", "workflow", "--limit", "1"),
        ("list", "--by", "day", "--json"),
        ("list", "--by", "parent"),
        ("list", "--by", "attribute:region"),
        ("list", "--parent", "nobody"),
    ):
        view, fold = refold(*words), refold(*words, "--from-log")
        assert view.stdout == fold.stdout
        assert view.stderr == ""
    assert "5 in all" in refold("list", "--limit", "2").stdout
    assert "attribute:NAME" in refold("list", "--by", "colour", code=ExitCode.USAGE).stderr


def test_a_read_model_that_is_behind_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given events that it has not, the list says so and comes from the log."""
    monkeypatch.setattr("refold.services.read_model.PATIENCE_S", 0.0)
    refold("project", "--once")
    append(1, first=5)
    listed = refold("list", "--count")
    assert listed.stdout == "6\n"
    assert "7 records behind" in listed.stderr


def test_what_only_the_read_model_knows_says_how_it_is_made() -> None:
    """Given no read model, a search in errors is refused; with one, it finds the run."""
    with Engine("sqlite:///refold.db", workflows=[fails]) as engine:
        engine.start(fails, "card 12 declined", id="declined")
        while str(engine.status("declined").status) != "failed":
            pass
    assert (
        "`refold project` keeps one" in refold("list", "--error", "12", code=ExitCode.USAGE).stderr
    )
    refold("project", "--once")
    (line,) = refold("list", "--error", "12 decl", "--json").stdout.splitlines()
    assert json.loads(line)["workflow_id"] == "declined"
    assert "ValueError" in refold("list", "--by", "error_type").stdout


def test_own_projections_are_kept_and_one_that_raises_stops_alone() -> None:
    """Given two projections of which one raises, the other is whole, and the error says where."""
    done = refold("project", "views:Mine", "views:stumbling", "--once", code=ExitCode.FAILED)
    assert "run-3/1/step.completed" in done.stderr
    assert refold("project", "views:Mine", "--once").stdout.startswith("mine: 0 events")


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("views:nothing", "no projection: it has no name"),
        ("views:Needy", "can be made without arguments (ValueError: no city)"),
        ("views:Order", "no projection: it has no name"),
        ("views", "names no projection"),
        ("views:missing", "has no 'missing'"),
    ],
)
def test_what_is_no_projection_is_refused(named: str, said: str) -> None:
    """Given a name of something else, the error says what is missing."""
    assert said in refold("project", named, "--once", code=ExitCode.USAGE).stderr


def test_a_log_elsewhere_needs_a_place(tmp_path: Path) -> None:
    """Given a place that can't be one, it is refused."""
    assert "no place" in refold("project", "--once", "--to", "ftp://x", code=ExitCode.USAGE).stderr


def test_a_password_on_the_command_line_is_refused() -> None:
    """Given a database's URL with a password, where it belongs is said."""
    place = "postgresql://refold:secret@db/shop"
    refused = refold("project", "--once", "--to", place, code=ExitCode.USAGE)
    assert "PGPASSFILE" in refused.stderr
    assert "secret" not in refused.stderr


@pytest.mark.slow
def test_a_process_follows_until_sigterm_and_then_leaves_in_order() -> None:
    """Given a running process, new events come in; told to stop, it ends with 0."""
    process = subprocess.Popen(
        [sys.executable, "-m", "refold", "project", "--log-json"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    with process.stderr as said:
        while json.loads(said.readline())["message"] != "caught up":
            pass
        append(3, first=5)
        assert refold("list", "--count").stdout == "8\n"  # waits for what is on its way
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert json.loads(said.readlines()[-1])["message"] == "stopped"


def test_a_log_that_is_away_for_a_moment_does_not_end_the_watch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Given a log that can't be read once, when it can be again, then it is said how far a projection is behind."""
    monkeypatch.setattr(project_service, "SAY_EVERY_S", 0.0)
    caplog.set_level("INFO", "refold.service")
    told = asyncio.Event()

    async def scenario() -> None:
        service = ProjectService(MemoryLog(), [], "member")
        report = Report(standing={0: Standing(3, 10)})
        answers = iter((LogUnavailable("gone"), report))

        async def reports() -> Mapping[str, Report]:
            match next(answers, None):
                case LogUnavailable() as error:
                    raise error
                case Report() as found:
                    return {"mine": found}
                case None:
                    told.set()
                    return {}

        monkeypatch.setattr(service, "reports", reports)
        watch = asyncio.create_task(service.watch())
        done = asyncio.create_task(told.wait())
        await asyncio.wait({watch, done}, return_when=asyncio.FIRST_COMPLETED)
        watch.cancel()
        done.cancel()

    asyncio.run(scenario())
    assert [record.getMessage() for record in caplog.records] == ["behind"]


def test_the_doctor_tells_of_a_projection_that_nobody_keeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given a projection that has all, all is well; given one that is far behind, or damaged, it is told what to do."""

    def told() -> list[tuple[str, str]]:
        findings = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)["findings"]
        return [(f["level"], f["told"]) for f in findings if f["check"] == "projections"]

    assert told() == []
    refold("project", "--once")
    assert told() == [("ok", "workflows is 0 records behind")]
    monkeypatch.setattr("refold.services.doctor.BEHIND_MAX", 6)
    append(1, first=5)
    ((level, said),) = told()
    assert (level, said.partition(":")[0]) == ("warn", "workflows is 7 records behind")
    Path("refold.db.views/workflows.db").write_text("no database")
    assert [level for level, _ in told()] == ["fail"]


def test_an_engine_keeps_projections_and_says_which_has_stopped() -> None:
    """Given an engine with two projections, one of which raises, the other follows and the engine works on."""
    stumbling = Stumbling("run-3/1/step.completed")
    projections = [Projected(Workflows()), Projected(stumbling)]
    with Engine("sqlite:///refold.db", workflows=[fails], projections=projections) as engine:
        engine.start(fails, "x", id="one")
        while not engine.stopped_projections or refold("list", "--count").stdout != "6\n":
            pass
        assert set(engine.stopped_projections) == {"tale"}
        assert engine.stats().projections == {"workflows": True, "tale": False}
        metrics = generate_latest(StatsCollector(engine.stats)).decode()
        assert 'refold_projection_running{projection="tale"} 0.0' in metrics
        assert 'refold_projection_running{projection="workflows"} 1.0' in metrics
    assert Projected(Tale()).catch_up("sqlite:///refold.db") > 0

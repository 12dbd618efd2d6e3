"""`refold api`: what `refold list` says, over HTTP; and `ReadModel`, which it reads."""

import asyncio
import json
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from typer.testing import CliRunner

from cli_process import CommandLine
from projection_samples import fill
from refold import Projected, ReadModel, RunFilter
from refold.log.sqlite import SqliteLog
from refold.projections.workflows import Workflows
from refold.services.cli import app
from refold.services.exits import ExitCode

RUNS = 5


class Served(NamedTuple):
    log: str
    url: str
    metrics: str


def build(log: str, first: int = 0) -> None:
    """Append runs, and take them into the read model."""

    async def write() -> None:
        itself = SqliteLog(log.removeprefix("sqlite:///"), 2)
        await itself.open()
        await fill(itself, RUNS, first=first)
        await itself.close()

    asyncio.run(write())
    Projected(Workflows()).catch_up(log)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`refold api` as a process, on the read model of a log."""
    directory = tmp_path_factory.mktemp("api")
    log = f"sqlite:///{directory / 'shop.db'}"
    build(log)
    refold = CommandLine(directory, log)
    with refold.begin("api", "--port", "0", "--metrics-port", "0") as serving:
        numbers = re.search(r"url=(http://\S+/metrics)", serving.until("metrics url="))
        found = re.search(r"url=(http://127\.0\.0\.1:\d+)", serving.until("api url="))
        assert found is not None
        assert numbers is not None
        yield Served(log, found[1], numbers[1])
        assert serving.stopped(signal.SIGTERM) == 0, serving.said


def asked(served: Served, path: str, method: str = "GET") -> tuple[int, Any]:
    """Status and JSON of an answer."""
    request = urllib.request.Request(served.url + path, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:  # left open, it is warned of from Python 3.14 on
            return error.code, json.load(error)


def test_runs_come_page_by_page_as_the_list_has_them(served: Served) -> None:
    """Given five runs, pages of two in an order hold all of them, as `refold list --json` does."""
    listed = CliRunner().invoke(
        app, ["list", "--json", "--sort", "duration", "--reverse", "--url", served.log]
    )
    wanted = [json.loads(line)["workflow_id"] for line in listed.stdout.splitlines()]
    found: list[str] = []
    after = ""
    while True:
        status, page = asked(served, f"/runs?sort=duration&reverse=true&limit=2{after}")
        assert status == 200
        found += [run["workflow_id"] for run in page["runs"]]
        if page["next"] is None:
            break
        after = f"&after={quote(page['next'])}"
    assert found == wanted
    assert len(found) == RUNS


def test_filters_counts_and_groups_say_the_same(served: Served) -> None:
    """Given a filter, the runs, their number and their groups agree."""
    _, page = asked(served, "/runs?status=completed&status=failed")
    statuses = [run["status"] for run in page["runs"]]
    assert asked(served, "/count?status=completed&status=failed") == (200, {"runs": len(statuses)})
    _, groups = asked(served, "/groups/status")
    assert sum(group["runs"] for group in groups["groups"]) == RUNS
    assert asked(served, "/count?queue=mail") == (200, {"runs": 0})
    assert asked(served, "/groups/queue") == (200, {"groups": []})
    assert asked(served, "/groups/attribute/region") == (200, {"groups": []})
    assert asked(served, "/count?since=2999-01-01T00:00:00Z") == (200, {"runs": 0})


def test_one_run_comes_with_its_steps(served: Served) -> None:
    """Given an id, its run and steps are told; given another, 404 names it."""
    _, page = asked(served, "/runs?limit=1")
    run = page["runs"][0]
    status, whole = asked(served, f"/runs/{quote(run['workflow_id'])}")
    assert (status, whole["run"]) == (200, run)
    assert whole["steps"][0].keys() >= {"step", "name", "status", "attempts"}
    status, answer = asked(served, "/runs/no/body")
    assert (status, answer["detail"]) == (404, "there is no run 'no/body'")


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/runs?stauts=failed", 422, "stauts"),
        ("/runs?status=broken", 422, "completed"),
        ("/runs?limit=0", 422, "limit"),
        ("/runs?limit=100000", 422, "limit"),
        ("/runs?sort=colour", 422, "duration"),
        ("/runs?after=started,1", 400, "next"),
        ("/runs?since=2026-11-01T00:00:00", 400, "time zone"),
        ("/runs?attribute=region", 400, "name=value"),
        ("/groups/colour", 422, "error_type"),
        ("/nothing", 404, "Not Found"),
    ],
)
def test_a_question_that_is_wrong_is_told_what_is(
    served: Served, path: str, status: int, said: str
) -> None:
    """Given a parameter that can't be, the answer is a 4xx that names it."""
    code, answer = asked(served, path)
    assert code == status
    assert said in json.dumps(answer["detail"])


def test_nothing_can_be_changed(served: Served) -> None:
    """Given another method than GET, it is refused."""
    assert asked(served, "/runs", "POST")[0] == 405
    assert asked(served, "/runs/run-1", "DELETE")[0] == 405


def test_it_tells_of_itself(served: Served) -> None:
    """Given a running service, it says that it lives and is ready, describes itself, and counts its answers."""
    assert asked(served, "/healthz") == (200, {"status": "ok"})
    assert asked(served, "/readyz") == (200, {"status": "ok"})
    _, described = asked(served, "/openapi.json")
    assert set(described["paths"]) >= {"/runs", "/runs/{id}", "/count", "/groups/{by}"}
    with urllib.request.urlopen(served.metrics) as answer:
        assert 'refold_api_answers_total{status="200"}' in answer.read().decode()


def test_without_a_read_model_it_says_how_one_is_made(tmp_path: Path) -> None:
    """Given a log with no read model, the service does not start, and names the command that makes one."""
    done = CliRunner().invoke(app, ["api", "--url", f"sqlite:///{tmp_path / 'shop.db'}"])
    assert done.exit_code == ExitCode.LOG
    assert "refold project" in done.stderr


def test_programs_ask_the_same_from_any_thread_and_awaited(tmp_path: Path) -> None:
    """Given a read model, plain and awaited questions have the same answers, many at once."""
    log = f"sqlite:///{tmp_path / 'shop.db'}"
    build(log)

    async def awaited() -> None:
        async with ReadModel(log) as runs:
            pages = await asyncio.gather(*(runs.list_async(order="ended") for _ in range(20)))
            assert all(page == pages[0] for page in pages)
            first = pages[0].runs[0]
            assert await runs.get_async(first.workflow_id) == first
            assert await runs.count_async(RunFilter(workflow=first.workflow)) > 0
            assert await runs.group_async("status") == runs.group("status")
            assert await runs.group_by_attribute_async("none") == {}
            assert list(await runs.steps_async(first.workflow_id)) == list(
                runs.steps(first.workflow_id)
            )

    asyncio.run(awaited())
    with ReadModel(log) as runs:
        assert len(runs.list().runs) == RUNS


def test_a_reader_that_stays_open_sees_tables_that_were_rebuilt(tmp_path: Path) -> None:
    """Given new tables in place of those that a reader has open, its next question is answered from the new ones."""
    log = f"sqlite:///{tmp_path / 'shop.db'}"
    build(log)
    with ReadModel(log) as runs:
        assert runs.count() == RUNS
        rebuilt = CliRunner().invoke(app, ["project", "--once", "--rebuild", "--url", log])
        assert rebuilt.exit_code == ExitCode.OK, rebuilt.output
        build(log, first=RUNS)
        assert runs.count() == 2 * RUNS


def test_the_page_for_people_needs_no_other_host(served: Served) -> None:
    """Given /docs, it tells each path and parameter, and neither holds a script nor names another host."""
    with urllib.request.urlopen(served.url + "/docs") as answer:
        page = answer.read().decode()
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "<script" not in page
    assert "//" not in page
    _, described = asked(served, "/openapi.json")
    for path, operations in described["paths"].items():
        assert f"{path}<" in page
        for parameter in operations["get"].get("parameters", []):
            assert f"<td>{parameter['name']}</td>" in page
    assert "<td>error_type</td><td>string or null</td>" in page
    assert asked(served, "/redoc")[0] == 404

"""The demo holds what it shows; and its two judges find what is wrong where something is."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.files import write_durably
from atlas.geography import Nearest, Place, distance_km, nearest_neighbours
from atlas.journal import Execution, read_journal
from atlas.zones import zone_year
from audit import Audit
from refold.log.events import (
    Event,
    StepAttemptFailed,
    StepCompleted,
    WorkflowCompleted,
    WorkflowStarted,
)
from verify import Verification
from watch import Life

DEMO = Path(__file__).parents[2] / "examples" / "demo" / "run.py"
LIMIT_S = 240
SEED = "20"


def run_demo(output: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The demo as a process of its own."""
    return subprocess.run(
        [sys.executable, str(DEMO), "--output", str(output)],
        env={**os.environ, "SEED": SEED, **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def assert_shown(done: subprocess.CompletedProcess[str], output: Path) -> None:
    """It was killed twice and came to its end, and so says the journal, which is not its own account."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SIGKILL\n") + done.stdout.count("SIGKILL \n") == 2, done.stdout
    assert "✗ it does not hold" not in done.stdout
    executions = read_journal(output / "executions.log")
    assert len({execution.pid for execution in executions}) == 3
    attempts = Counter((execution.step, execution.attempt) for execution in executions)
    assert max(attempts.values()) <= 3, "an attempt is repeated by a kill only, and there are two"
    assert (output / "atlas" / "REPORT.md").exists()


# The demo itself ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The demo's output and what it said, run once on SQLite."""
    output = tmp_path_factory.mktemp("demo") / "output"
    return output, run_demo(output, KAFKA="")


@pytest.mark.slow
def test_the_demo_survives_two_kills_on_sqlite(
    shown: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """Given a SQLite file, when the job is killed twice, then it ends, and all proofs hold."""
    output, done = shown
    assert_shown(done, output)


@pytest.mark.slow
def test_the_demo_survives_two_kills_on_kafka(kafka_bootstrap: str, tmp_path: Path) -> None:
    """Given a real broker, when the job is killed twice, then it ends, and all proofs hold."""
    output = tmp_path / "output"
    assert_shown(run_demo(output, KAFKA="1", KAFKA_BOOTSTRAP=kafka_bootstrap), output)


def test_the_demo_spares_a_directory_that_is_not_its_own(tmp_path: Path) -> None:
    """Given a directory with somebody's file, when the demo is to write there, then it refuses and removes nothing."""
    (tmp_path / "thesis.txt").write_text("all my work")
    done = run_demo(tmp_path, KAFKA="")
    assert done.returncode == 2
    assert "name another with --output" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "all my work"


# The judge of the data ------------------------------------------------------------------------------------


@pytest.fixture
def atlas(shown: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> Path:
    """A copy of the demo's atlas, to be tampered with."""
    copy = tmp_path / "atlas"
    shutil.copytree(shown[0] / "atlas", copy)
    return copy


@pytest.mark.slow
def test_a_changed_byte_is_found(atlas: Path) -> None:
    """Given an atlas, when a byte of a file changes, then the check of the files says which."""
    path = atlas / "countries" / "FR" / "airports.geojson.gz"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    problems = Verification(atlas, year()).files().problems
    assert len(problems) == 1
    assert "countries/FR/airports.geojson.gz" in problems[0]


@pytest.mark.slow
def test_a_missing_country_is_found(atlas: Path) -> None:
    """Given an atlas, when a country's table is another's, then its rows are missing."""
    shutil.copy(atlas / "countries/MT/airports.csv.gz", atlas / "countries/LU/airports.csv.gz")
    assert not Verification(atlas, year()).rows().holds


@pytest.mark.slow
def test_a_wrong_figure_in_the_catalogue_is_found(atlas: Path) -> None:
    """Given an atlas, when a mean elevation in the catalogue is off by a foot, then its check says where."""
    with closing(sqlite3.connect(atlas / "catalogue.db")) as connection:
        connection.execute(
            "UPDATE countries SET elevation_mean_ft = elevation_mean_ft + 1 WHERE country = 'CH'"
        )
        connection.commit()
    verification = Verification(atlas, year())
    assert verification.neighbours().holds
    (problem,) = verification.catalogue().problems
    assert problem.startswith("('CH'")


@pytest.mark.slow
def test_a_wrong_change_of_clocks_is_found(atlas: Path) -> None:
    """Given an atlas, when a zone's summer time begins a second late, then the check of the zones names it."""
    table = atlas / "time-zones.csv"
    begin = zone_year("Europe/Paris", year()).transitions[1].at.isoformat()
    old = f"Europe/Paris,{begin}"
    assert old in table.read_text()
    table.write_text(table.read_text().replace(old, old.replace(":00+", ":01+")))
    assert Verification(atlas, year()).zones().problems == ("Europe/Paris",)


def year() -> int:
    """The year that the demo takes."""
    return datetime.now(UTC).year


# The judge of the executions ------------------------------------------------------------------------------

LIVES = (
    Life(1, pid=11, ending="killed", replayed=Counter()),
    Life(2, pid=22, ending="finished", replayed=Counter(look=1)),
)
WORKERS = {1: "life-1", 2: "life-2"}


def completed(step: int, life: int, recorded_at: int, position: int, attempt: int = 1) -> Event:
    """The record of a completed step."""
    return StepCompleted(
        workflow_id="w",
        position=position,
        recorded_at=recorded_at,
        claim=0,
        command=0,
        posted=0,
        worker=WORKERS[life],
        step=step,
        name="look",
        payload="null",
        attempt=attempt,
        started_at=recorded_at - 5,
    )


def attempt_failed(step: int, life: int, recorded_at: int, position: int) -> Event:
    """The record of a first attempt that failed."""
    return StepAttemptFailed(
        workflow_id="w",
        position=position,
        recorded_at=recorded_at,
        claim=0,
        command=0,
        posted=0,
        worker=WORKERS[life],
        step=step,
        name="look",
        attempt=1,
        started_at=recorded_at - 5,
        error_type="builtins:OSError",
        error_message="busy",
    )


def ran(step: int, pid: int, began_at: int, attempt: int = 1) -> Execution:
    """A line of the journal."""
    return Execution("w", step, attempt, "look", pid, began_at)


def history() -> list[Event]:
    """Step 0 in life 1; step 1 cut by the kill and done in life 2; step 2 at its second attempt."""
    started = WorkflowStarted(
        workflow_id="w",
        position=0,
        recorded_at=1,
        claim=0,
        command=0,
        posted=0,
        worker="life-1",
        workflow="w",
        payload="[]",
    )
    ended = WorkflowCompleted(
        workflow_id="w",
        position=5,
        recorded_at=90,
        claim=0,
        command=0,
        posted=0,
        worker="life-2",
        payload="null",
    )
    return [
        started,
        completed(0, 1, recorded_at=20, position=1),
        attempt_failed(2, 1, recorded_at=25, position=2),
        completed(1, 2, recorded_at=60, position=3),
        completed(2, 2, recorded_at=70, position=4, attempt=2),
        ended,
    ]


JOURNAL = (
    ran(0, 11, 10),
    ran(1, 11, 12),
    ran(2, 11, 13),
    ran(1, 22, 50),
    ran(2, 22, 55, attempt=2),
)


def problems(
    executions: Sequence[Execution], events: Sequence[Event], lives: Sequence[Life] = LIVES
) -> list[str]:
    """What the audit has against it."""
    checks = Audit(executions, events, lives).checks(steps_expected=3)
    return [problem for check in checks for problem in check.problems]


def test_a_true_account_is_accepted() -> None:
    """Given a step cut by the kill and one retried, when journal and log agree, then nothing speaks against them."""
    assert problems(JOURNAL, history()) == []
    (account,) = Audit(JOURNAL, history(), LIVES).accounts(["look"])
    assert (account.steps, account.retried, account.cut, account.repeated) == (3, 1, 1, 0)
    assert account.ran == {1: 3, 2: 2}
    assert account.replayed[2] == 1


def test_a_step_that_begins_again_after_its_record_is_found() -> None:
    """Given a completed step, when a later life runs it again, then the audit names it."""
    again = (*JOURNAL, ran(0, 22, 52))
    assert "step 0 'look' began again in process 22" in problems(again, history())
    assert Audit(again, history(), LIVES).accounts(["look"])[0].repeated == 1


def test_a_step_that_begins_again_in_the_same_life_is_found() -> None:
    """Given a completed step, when the same process begins it again, then the audit names it."""
    assert "step 0 'look' began again in process 11" in problems(
        (*JOURNAL, ran(0, 11, 21)), history()
    )


def test_an_attempt_after_the_one_that_succeeded_is_found() -> None:
    """Given a completed step, when another attempt of it begins, even with a clock that went back, then it is found."""
    late = (*JOURNAL, ran(0, 11, 9, attempt=2))
    assert "step 0 'look' began again in process 11" in problems(late, history())


def test_a_record_without_an_execution_is_found() -> None:
    """Given a log that says more than the journal, then the audit says which record nobody saw begin."""
    assert "step 0, attempt 1: 0 executions in life 1" in problems(JOURNAL[1:], history())


def test_an_execution_that_is_lost_without_a_kill_is_found() -> None:
    """Given an execution that left no record in a process that was not killed, then the audit says so."""
    calm = (replace(LIVES[0], ending="finished"), LIVES[1])
    assert "step 1 was lost in process 11, which was not killed" in problems(
        JOURNAL, history(), calm
    )


def test_a_step_that_never_ran_again_is_found() -> None:
    """Given an execution cut by the kill, when no later life runs it, then the audit says so."""
    without = [run for run in JOURNAL if (run.step, run.pid) != (1, 22)]
    found = problems(without, history())
    assert "step 1, attempt 1 did not run again" in found


def test_a_step_that_is_recorded_twice_or_missing_is_found() -> None:
    """Given a log with a record too many or too few, then the audit counts it."""
    events = history()
    twice = [*events[:-1], replace(events[3], position=5), replace(events[-1], position=6)]
    assert "step 1 was recorded 2 times" in problems(JOURNAL, twice)
    missing = [event for event in events if event is not events[3]]
    found = problems(JOURNAL, missing)
    assert "2 steps are recorded, not 3" in found
    assert "the positions have a gap" in found


# Parts of the job -----------------------------------------------------------------------------------------

LATITUDES = st.floats(-90, 90)
LONGITUDES = st.floats(-180, 180)


@given(st.lists(st.builds(Place, LATITUDES, LONGITUDES), max_size=12))
def test_the_sweep_finds_what_all_pairs_find(places: list[Place]) -> None:
    """For any places, the nearest neighbour by the sweep is as near as the nearest of all."""
    for index, found in enumerate(nearest_neighbours(places)):
        distances = [
            distance_km(places[index], other) for at, other in enumerate(places) if at != index
        ]
        if found is None:
            assert not distances
        else:
            assert isinstance(found, Nearest)
            assert found.place != index
            assert found.km == min(distances)


def test_a_zone_with_two_changes_a_month_apart_has_both() -> None:
    """Morocco leaves its usual offset for Ramadan: both changes are in the year's table."""
    morocco = zone_year("Africa/Casablanca", 2024)
    assert [change.offset_s for change in morocco.transitions] == [3600, 0, 3600]
    assert morocco.offsets_min == (0, 60)


def test_a_killed_writers_draft_is_taken_over(tmp_path: Path) -> None:
    """Given the draft of a writer that was killed, when the file is written again, then only the file is left."""
    (tmp_path / ".page.txt.draft").write_bytes(b"half a p")
    written = write_durably(tmp_path, "page.txt", b"a page")
    assert [path.name for path in tmp_path.iterdir()] == ["page.txt"]
    assert (written.bytes, (tmp_path / "page.txt").read_bytes()) == (6, b"a page")

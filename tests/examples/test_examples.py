"""The examples run as a reader would run them, and say what they promise."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
LIMIT_S = 240

SAYS = {
    "again.py": (
        "failed: the printer has no paper",
        "to be resumed: ['sale-7']",
        "resumed: ticket for card 7 charged 1 time",
        "forked: ticket for card 7 charged 1 time",
        "rewound: ticket for card 7 charged 1 time",
    ),
    "audit.py": (
        "charged 500, sent by post",
        "pause   order-1  anna@office  the customer called",
        "the seal is in it",
        "order-1: verified",
        "partition 0, offset 1 (order-1/0/workflow.started)",
        "history is NOT what was written",
    ),
    "attributes.py": (
        "parcel-1 {'customer': 'Ada', 'heavy': True, 'place': 'Oslo'}",
        "parcel-2 {'customer': 'Ada', 'heavy': True}",
    ),
    "cancelling.py": (
        "seat 12A reserved",
        "paused",
        "cancelled: the guest has changed his mind",
        "seat 12A released",
        "terminated: closing time",
    ),
    "check.py": (
        "this code breaks none of them\nsame code: exit code 0",
        "history  step 'charge'  operation 0, event 1",
        "changed code: exit code 1",
    ),
    "client.py": ("parcel-1: packed, carried by ", "parcel-6: packed, carried by ", "6 parcels"),
    "children.py": ("4 words; 'a' is no word; see the-count", "19 letters"),
    "deadline.py": (
        "reminder: tea is ready",
        "the errand tidies up",
        "workflow 'home/0' was cancelled: its deadline has passed",
        "workflow 'home' was cancelled: its deadline has passed",
    ),
    "endless.py": ("total 55", "begun afresh 3 times"),
    "messages.py": ("soup no. 1", "pie no. 2", "nobody washes up", "cooked 2"),
    "parked.py": (
        "brewing assam",
        "parked: workflow 'assam' is parked: the code no longer matches the history: step 0 was step 'brew'",
        "to go on: ['assam', 'sencha']",
        "served: warm pot of assam for Ada",
    ),
    "projection.py": (
        "True {'Ada': 340, 'Bob': 500}",
        "{'Ada': 340, 'Bob': 500, 'Cleo': 900}",
    ),
    "requests.py": (
        "balance 0",
        "after a coin 4",
        "refused: put in more than nothing",
        "after another 10",
        "in the end 10 10",
    ),
    "schedules.py": (
        "due next at 03:00",
        "report for eu",
        "nightly: paused, starts report",
        "often: goes on, starts report",
        "left: ['nightly']",
    ),
    "streams.py": (
        "Say: a stitch in time saves nine (done)",
        "Say: a stitch in time saves nine",
        "saves nine (done)",
    ),
    "versions.py": (
        "version 1: cooked soup\n",
        "version 2: cooked soup with parsley, cooked fish",
        "new ran version 2",
        "old ran version 1",
    ),
    "privacy.py": (
        "sent to bob@example.com",
        "in the clear: False",
        "recorded as enc:1:k",
        "erased: 1 run",
        "gone: the payload of the reply 'completed' of workflow 'welcome-7' ...",
        "still known: completed",
    ),
    "hello.py": ("(asking who you are)", "(asking what this runs on)", "Hello, "),
    "pools.py": (
        "refold-pool: develops holiday for 7.5 minutes, attempt 1",
        "refold-step: frames holiday/2",
        "[holiday/1] [holiday/2]",
    ),
    "pool_children.py": ("7 pictures of holiday", "summer/1@darkroom completed"),
    "queues.py": (
        "told a, told b, told c, told d, told e, told f, told g, told h",
        "at once; the queue takes 2",
    ),
    "metrics.py": (
        "loaf-7: the tin is too small",
        "cost: 19 loaves",
        "flour for north: ",
        "flour for south: ",
        "of the loaves failed: 5%",
    ),
    "parallel.py": ("import",),
    "retries.py": (
        "booked 4 seats: R-1",
        "attempt 1 failed: HTTP Error 503: busy",
        "attempt 2 failed: HTTP Error 503: busy",
    ),
    "sync_workflow.py": (
        f"{(EXAMPLES / 'sync_workflow.py').stat().st_size} bytes, .py, ",
        "rested",
    ),
    "tail.py": (
        'done: "lamp 1 is on"',
        "failed: no bulb",
        'done: "lamp 4 is on"',
        "quay has ended",
    ),
    "whatif.py": (
        'it did: "paid for pens"',
        'it would have done: "sorry"',
        "stock('pens') supposed 0",
    ),
    "timeout.py": (
        "the step took too long",
        "the workflow stopped waiting",
        "the answer from the book",
    ),
}


def run(name: str, directory: Path) -> str:
    """What an example prints, run as a process of its own in an empty directory."""
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", str(EXAMPLES / name)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def test_every_example_is_run_here() -> None:
    """An example that nobody runs would rot."""
    assert {path.name for path in EXAMPLES.glob("*.py")} == SAYS.keys()


@pytest.mark.parametrize("name", SAYS)
def test_an_example_says_what_it_promises(name: str, tmp_path: Path) -> None:
    """Given an empty directory, when an example runs, then it prints what its text says, in that order."""
    said = run(name, tmp_path)
    at = 0
    for words in SAYS[name]:
        assert words in said[at:], said
        at = said.index(words, at)


def test_the_second_hello_runs_nothing(tmp_path: Path) -> None:
    """Given a finished run in the file, when it is started again under its id, then only its result comes back."""
    first = run("hello.py", tmp_path).splitlines()
    second = run("hello.py", tmp_path).splitlines()
    assert second == first[-1:]

"""`refold erase` and `refold keys`, and what commands show of what is encrypted or erased."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_process import CommandLine, Running
from refold.log.key_master import new_key

PLAIN = "bob-4711"


@pytest.fixture
def keyless(shop: Path) -> CommandLine:
    """The command without keys."""
    return CommandLine(shop, "sqlite:///shop.db")


@pytest.fixture
def keyed(shop: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """The command with the keys of a directory, named in the log's URL."""
    monkeypatch.setenv("MASTER", new_key())
    keys = f"file://{shop}/keys%3Fmaster%3Denv:MASTER"
    return CommandLine(shop, f"sqlite:///shop.db?keys={keys}")


@pytest.fixture
def worker(keyed: CommandLine) -> Iterator[Running]:
    """A worker for the office, with the keys."""
    with keyed.begin("worker", "office") as worker:
        worker.until("owned=0")
        yield worker


@pytest.mark.usefixtures("worker")
def test_who_has_the_keys_reads_and_who_has_not_sees_that_it_is_encrypted(
    keyed: CommandLine, keyless: CommandLine, shop: Path
) -> None:
    """Given a run of a subject, every command reads it with the keys; without them it is shown as encrypted."""
    keyed("start", "office:desk", PLAIN, "--id", "d", "--subject", "customer-7")
    assert json.loads(keyed("value", "d", "name").stdout) == PLAIN
    keyed("send", "d", "close", f'"{PLAIN}"')
    keyed("terminate", "d")
    for words in (
        ("history", "d"),
        ("show", "d"),
        ("tail", "d", "--no-follow", "--since", "start"),
    ):
        assert PLAIN in keyed(*words).stdout
        shown = keyless(*words).stdout
        assert "<encrypted>" in shown
        assert PLAIN not in shown.replace(f"desk={PLAIN}", "")  # an attribute, which stays readable
    assert "enc:1:" in keyless("history", "d", "--json").stdout
    assert "no keys are given" in keyless("value", "d", "name", code=2).stderr
    assert "no keys are given" in keyless("start", "office:desk", "--subject", "x", code=2).stderr
    texts = (PLAIN.encode() + b'"', b'"' + PLAIN.encode(), b"customer-7")
    kept = [
        path.read_bytes() for path in shop.rglob("*") if path.is_file() and path.suffix != ".txt"
    ]
    assert not [text for text in texts for data in kept if text in data]


@pytest.mark.usefixtures("worker")
def test_an_erased_subject_is_shown_as_erased_everywhere(keyed: CommandLine) -> None:
    """Given open runs, nothing is erased unless they may be parked; then all is gone, and it is said since when."""
    keyed("start", "office:desk", PLAIN, "--id", "d", "--subject", "customer-7")
    keyed("value", "d", "name")
    assert "say why" in keyed("erase", "customer-7", code=2).stderr
    assert "has no keys" in keyed("erase", "customer-8", "--why", "x", "--yes", code=5).stderr
    assert "1 run encrypted with 1 key" in keyed("erase", "customer-7", "--dry-run").stderr
    assert "1 runs are open" in keyed("erase", "customer-7", "--why", "x", "--yes", code=5).stderr
    order = ("erase", "customer-7", "--why", "ticket 7", "--force")
    assert "say --yes" in keyed(*order, code=2).stderr
    assert "1 of them parked" in keyed(*order, "--yes").stdout
    assert re.search(r"<erased 20\d\d-\d\d-\d\d>", keyed("history", "d").stdout)
    assert "<erased 20" in keyed("show", "d").stdout
    assert "ticket 7" in keyed("list").stdout
    assert "was erased on" in keyed("value", "d", "name", code=2).stderr
    assert (
        "ticket 7" in keyed("tail", "--no-follow", "--since", "start", "--kind", "subject").stdout
    )


def test_keys_are_rotated_and_wrapped_anew(
    keyed: CommandLine, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a subject with keys, it gets another, and a new master key takes the place of the former one."""
    old = new_key()
    monkeypatch.setenv("REFOLD_KEYS", f"file://{shop}/keys")
    monkeypatch.setenv("REFOLD_MASTER_KEY", old)
    refold = CommandLine(shop, "sqlite:///shop.db")
    refold("start", "office:letters", PLAIN, "--id", "l", "--subject", "bob", "--no-wait")
    assert ".2 from now on" in refold("keys", "rotate", "bob").stdout
    assert "no key of" in refold("keys", "rotate", "alice", code=2).stderr
    monkeypatch.setenv("REFOLD_MASTER_KEY", f"{refold('keys', 'new').stdout.strip()},{old}")
    assert "1 of 1 wrapped anew" in refold("keys", "rewrap").stdout
    assert "0 of 1 wrapped anew" in refold("keys", "rewrap").stdout
